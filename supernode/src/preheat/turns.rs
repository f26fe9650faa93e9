//! How many attempts of all jobs are at one node at once: the others wait for their turn. A storm of jobs neither overruns a
//! peer, which refuses too many errands, nor the origin, which the seed would ask for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use common::node::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Attempts at one node at once: half of what a peer does, for there may be another supernode.
const AT_ONCE: usize = 4;

/// The nodes with somebody at work. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<NodeId, Arc<Semaphore>>>>);

// === impl Turns ===

impl Turns {
    /// Waits for a turn at a node; it lasts until dropped.
    pub(super) async fn take(&self, node: NodeId) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever waits or works holds on to its node's.
            nodes.retain(|_, places| Arc::strong_count(places) > 1);
            nodes.entry(node).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
        };
        // It is never closed.
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn so_many_work_at_a_node_at_once_and_nothing_stays_of_it() {
        let (turns, one, other) = (Turns::default(), NodeId([1; 16]), NodeId([2; 16]));
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.take(one).await);
        }
        assert!(turns.take(one).now_or_never().is_none(), "one too many");
        let elsewhere = turns.take(other).await;
        taken.pop();
        assert!(turns.take(one).now_or_never().is_some());
        drop((taken, elsewhere));
        drop(turns.take(one).await);
        assert_eq!(turns.0.lock().unwrap().len(), 1, "the last one asked for");
    }
}
