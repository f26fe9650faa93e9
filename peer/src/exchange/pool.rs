//! One connection a neighbour, whoever dialled it. A download asks for a connection to a contact; the daemon
//! registers what comes in; both are used in both directions.
//!
//! Dialling one neighbour many times at once is one dial: the others wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::node::{Contact, NodeId};
use common::transport::{Connection, Transport, TransportError};
use dashmap::DashMap;
use tokio::sync::Mutex;

/// A neighbour that did not answer is not dialled again before this has passed.
const REDIAL: Duration = Duration::from_secs(1);

/// The connections of a node.
pub struct Pool {
    transport: Transport,
    slots: DashMap<NodeId, Arc<Mutex<Slot>>>,
    /// Told of every connection that is dialled, so that its incoming streams are served, too.
    dialled: tokio::sync::mpsc::Sender<Connection>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    failed: Option<(Instant, Arc<TransportError>)>,
}

// === impl Pool ===

impl Pool {
    /// A pool over a transport; what it dials is also sent to `dialled`.
    pub fn new(transport: Transport, dialled: tokio::sync::mpsc::Sender<Connection>) -> Self {
        Self { transport, slots: DashMap::new(), dialled }
    }

    /// Who we are.
    pub fn node(&self) -> NodeId {
        self.transport.node()
    }

    /// A connection to the node, dialled if there is none.
    ///
    /// # Errors
    /// When it cannot be reached or turns us away.
    pub async fn get(&self, contact: &Contact) -> Result<Connection, Arc<TransportError>> {
        let slot = self.slot(contact.id);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|connection| connection.is_open()) {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = &slot.failed
            && at.elapsed() < REDIAL
        {
            return Err(error.clone());
        }
        match self.transport.dial(contact).await {
            Ok(connection) => {
                let _ = self.dialled.send(connection.clone()).await;
                *slot = Slot { connection: Some(connection.clone()), failed: None };
                Ok(connection)
            }
            Err(error) => {
                let error = Arc::new(error);
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Makes a connection that came in, or that the session dialled, usable for pieces, too.
    pub async fn register(&self, connection: Connection) {
        let slot = self.slot(connection.node());
        let mut slot = slot.lock().await;
        if !slot.connection.as_ref().is_some_and(Connection::is_open) {
            *slot = Slot { connection: Some(connection), failed: None };
        }
    }

    /// Number of open connections; forgets those that are gone.
    pub fn sweep(&self) -> usize {
        self.slots.retain(|_, slot| match slot.try_lock() {
            Ok(slot) => {
                slot.connection.as_ref().is_some_and(Connection::is_open)
                    || slot.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < REDIAL)
            }
            Err(_) => true,
        });
        self.slots.len()
    }

    fn slot(&self, node: NodeId) -> Arc<Mutex<Slot>> {
        self.slots.entry(node).or_default().clone()
    }
}
