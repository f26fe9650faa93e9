//! Who is turned out just now. A node's [`super::Identity`] carries one: the transport asks it at every hello, and each
//! open connection waits on it. A supernode fills it from the cluster's folder, a peer from what supernodes say.
//!
//! # Invariants
//! - A connection to a node that is on the roll is not made, and one that is open ends as soon as the node is put on it:
//!   whoever waits looks once more after it began to wait.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::node::NodeId;

/// The live list. Cheap to ask and to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Roll(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Until when, in seconds since 1970.
    turned_out: ArcSwap<HashMap<NodeId, u64>>,
    changes: watch::Sender<()>,
}

// === impl Roll ===

impl Roll {
    /// These nodes are turned out, each until its time (seconds since 1970), and no others. Says whether that is news.
    pub fn replace(&self, turned_out: HashMap<NodeId, u64>) -> bool {
        if **self.0.turned_out.load() == turned_out {
            return false;
        }
        self.0.turned_out.store(Arc::new(turned_out));
        self.0.changes.send_replace(());
        true
    }

    /// Whether the node may be spoken to at `now`.
    ///
    /// # Errors
    /// When it is turned out: in words for both sides' logs.
    pub fn admits(&self, node: NodeId, now: SystemTime) -> Result<(), String> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        match self.0.turned_out.load().get(&node) {
            Some(until) if seconds < *until => Err(format!(
                "node {node} was revoked: `longshore node allow {node}` beside a supernode lets it in again"
            )),
            _ => Ok(()),
        }
    }

    /// Waits until the node is turned out, and says so in words.
    pub async fn turned_out(&self, node: NodeId) -> String {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Err(words) = self.admits(node, SystemTime::now()) {
                return words;
            }
            if changes.changed().await.is_err() {
                // The sender is ours, so this is never reached; nobody is turned out by it.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl fmt::Debug for Roll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roll({} turned out)", self.0.turned_out.load().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_put_on_the_roll_is_noticed_by_those_who_wait_and_refused_until_the_time_is_over() {
        let (roll, now) = (Roll::default(), SystemTime::now());
        let (bad, good) = (NodeId([1; 16]), NodeId([2; 16]));
        let waiting = tokio::spawn({
            let roll = roll.clone();
            async move { roll.turned_out(bad).await }
        });
        tokio::task::yield_now().await;
        let until = now.duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
        assert!(roll.replace(HashMap::from([(bad, until)])));
        assert!(!roll.replace(HashMap::from([(bad, until)])), "no news");
        assert!(waiting.await.unwrap().contains(&bad.to_string()));
        assert!(roll.admits(bad, now).is_err() && roll.admits(good, now).is_ok());
        assert!(roll.admits(bad, now + Duration::from_secs(61)).is_ok());
        assert!(roll.replace(HashMap::new()) && roll.admits(bad, now).is_ok());
    }
}
