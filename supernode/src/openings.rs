//! How many tasks the seed opens for one peer at once: until the origin has said how long each is, a task costs a download and
//! a connection of its own. The [sessions](crate::sessions) hand the turns to their [feeders](crate::feeder).
//!
//! # Invariants
//! - A peer's turns are its node's: neither another session nor leaving a task gives it more.
//! - Who has many tasks at an origin that does not answer keeps only its own joins waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::node::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An origin answers in a fraction of a second, so that a thousand layers pass in some seconds; of tasks at one that never
/// answers this is what a peer can make the seed keep.
const AT_ONCE: usize = 64;
/// Nodes that are remembered before it is looked which of them are gone.
const FEW: usize = 64;

/// The turns of all peers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Openings(Arc<Mutex<Table>>);

/// The turns of one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// Who has turns; those without a session or a task that is being opened are forgotten.
#[derive(Default)]
struct Table {
    nodes: HashMap<NodeId, Weak<Semaphore>>,
    /// Number of nodes from which on it is looked who is gone: twice as many as were there the last time.
    full: usize,
}

// === impl Openings ===

impl Openings {
    /// The turns of a peer, in all its sessions alike.
    pub fn of(&self, node: NodeId) -> Turns {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = table.nodes.get(&node).and_then(Weak::upgrade) {
            return Turns(turns);
        }
        if table.nodes.len() >= table.full {
            table.nodes.retain(|_, turns| turns.strong_count() > 0);
            table.full = 2 * table.nodes.len().max(FEW);
        }
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        table.nodes.insert(node, Arc::downgrade(&turns));
        Turns(turns)
    }
}

// === impl Turns ===

impl Turns {
    /// Waits until one more task may be opened; the turn ends when it is dropped.
    pub async fn next(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("invariant: it is never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn node(number: u16) -> NodeId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_le_bytes());
        NodeId(id)
    }

    /// Takes turns until there are none.
    fn all(turns: &Turns) -> Vec<OwnedSemaphorePermit> {
        std::iter::from_fn(|| turns.next().now_or_never()).collect()
    }

    #[test]
    fn a_peer_has_so_many_turns_whatever_becomes_of_its_sessions() {
        let openings = Openings::default();
        let mut taken = all(&openings.of(node(1)));
        assert_eq!(taken.len(), AT_ONCE);
        assert_eq!(all(&openings.of(node(1))).len(), 0, "another session has the same turns");
        assert_eq!(all(&openings.of(node(2))).len(), AT_ONCE, "another peer has its own");
        taken.pop();
        assert_eq!(all(&openings.of(node(1))).len(), 1);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let openings = Openings::default();
        let kept = openings.of(node(0));
        let turn = kept.next().now_or_never().unwrap();
        drop(kept);
        (1..10_000).for_each(|number| drop(openings.of(node(number))));
        let table = openings.0.lock().unwrap();
        assert!(table.nodes.len() <= 2 * FEW && table.nodes.contains_key(&node(0)));
        drop(turn);
    }
}
