//! The connections of the peers that have a session here, for what a supernode asks of them beside it: errands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::node::{Labels, NodeId};
use common::transport::Connection;

/// Who can be reached. Cheap to clone.
#[derive(Clone, Default)]
pub struct Roster(Arc<Mutex<HashMap<NodeId, (Connection, Labels)>>>);

/// A peer's place in it, until dropped.
pub struct Reach {
    roster: Roster,
    connection: Connection,
}

// === impl Roster ===

impl Roster {
    /// A session began, of a peer that stands there.
    #[must_use = "the peer is forgotten when this is dropped"]
    pub fn enter(&self, connection: Connection, labels: Labels) -> Reach {
        self.lock().insert(connection.node(), (connection.clone(), labels));
        Reach { roster: self.clone(), connection }
    }

    /// A peer's connection.
    pub fn of(&self, node: NodeId) -> Option<Connection> {
        self.lock().get(&node).map(|(connection, _)| connection.clone())
    }

    /// All peers, and where they stand.
    pub fn peers(&self) -> Vec<(NodeId, Labels)> {
        self.lock().iter().map(|(&node, (_, labels))| (node, labels.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, (Connection, Labels)>> {
        // A panic in between would leave a map that is still the best there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reach ===

impl Drop for Reach {
    fn drop(&mut self) {
        let mut peers = self.roster.lock();
        // It may have a newer session, over another connection.
        let node = self.connection.node();
        if peers.get(&node).is_some_and(|(present, _)| present.is(&self.connection)) {
            peers.remove(&node);
        }
    }
}
