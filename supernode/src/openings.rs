//! How many tasks the seed opens for one peer at once, and how much of what a peer said is kept while its joins wait for that:
//! until the origin has said how long each is, a task costs a download and a connection of its own. The
//! [sessions](crate::sessions) hand them to their [feeders](crate::feeder).
//!
//! # Invariants
//! - A peer's turns are its node's: neither another session nor leaving a task gives it more.
//! - Who has many tasks at an origin that does not answer keeps only its own joins waiting.
//! - A task takes one turn, however often it is joined.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::node::NodeId;
use common::task::TaskId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An origin answers in a fraction of a second, so that a thousand layers pass in some seconds; of tasks at one that never
/// answers this is what a peer can make the seed keep.
const AT_ONCE: usize = 64;
/// Bytes of one peer's joins that wait: a thousand with URLs and tokens as registries have them.
const WORDS: usize = 4 * 1024 * 1024;
/// Nodes and tasks that are remembered before it is looked which of them are gone.
const FEW: usize = 64;

/// The turns of all peers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Openings(Arc<Mutex<Shelf<NodeId, Share>>>);

/// The turns of one peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Share>);

/// A part of what a peer has: a task's turn, which others of its joins may share, or room for what a join says. While
/// there is one, the peer's share is remembered.
#[derive(Debug)]
pub struct Part {
    _permit: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

/// What one peer has.
#[derive(Debug)]
pub struct Share {
    places: Arc<Semaphore>,
    words: Arc<Semaphore>,
    open: Mutex<Shelf<TaskId, Part>>,
}

/// What others hold; it is forgotten once they do not.
#[derive(Debug)]
struct Shelf<K, V> {
    kept: HashMap<K, Weak<V>>,
    /// Number from which on it is looked who is gone: twice as many as were there the last time.
    full: usize,
}

// === impl Openings ===

impl Openings {
    /// The turns of a peer, in all its sessions alike.
    pub fn of(&self, node: NodeId) -> Turns {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Turns(nodes.get(node).unwrap_or_else(|| nodes.put(node, Share::default())))
    }
}

// === impl Turns ===

impl Turns {
    /// Waits until this task may be opened; the turn ends when the last who holds it drops it.
    pub async fn next(&self, task: TaskId) -> Arc<Part> {
        if let Some(turn) = self.open().get(task) {
            return turn;
        }
        let place = self.0.places.clone().acquire_owned().await.expect("invariant: it is never closed");
        let mut open = self.open();
        // Somebody else of this peer may have waited for the same.
        open.get(task).unwrap_or_else(|| open.put(task, self.part(place)))
    }

    /// Room for what a join says, as long as it is kept; `None` when this peer has too much waiting.
    pub fn keep(&self, bytes: usize) -> Option<Part> {
        let room = self.0.words.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?);
        room.ok().map(|room| self.part(room))
    }

    fn part(&self, permit: OwnedSemaphorePermit) -> Part {
        Part { _permit: permit, _share: self.0.clone() }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Shelf<TaskId, Part>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Share ===

impl Default for Share {
    fn default() -> Self {
        let (places, words) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(WORDS)));
        Self { places, words, open: Mutex::default() }
    }
}

// === impl Shelf ===

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self { kept: HashMap::new(), full: FEW }
    }
}

impl<K: std::hash::Hash + Eq, V> Shelf<K, V> {
    fn get(&self, key: K) -> Option<Arc<V>> {
        self.kept.get(&key).and_then(Weak::upgrade)
    }

    fn put(&mut self, key: K, value: V) -> Arc<V> {
        if self.kept.len() >= self.full {
            self.kept.retain(|_, value| value.strong_count() > 0);
            self.full = 2 * self.kept.len().max(FEW);
        }
        let value = Arc::new(value);
        self.kept.insert(key, Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::digest::Digest;
    use futures_util::FutureExt;

    fn node(number: u16) -> NodeId {
        NodeId::of_public_key(&number.to_le_bytes())
    }

    fn task(number: u32) -> TaskId {
        TaskId::of_digest(Digest::of(&number.to_le_bytes()))
    }

    /// Takes turns for other tasks until there are none.
    fn all(turns: &Turns, from: u32) -> Vec<Arc<Part>> {
        (from..).map_while(|number| turns.next(task(number)).now_or_never()).collect()
    }

    #[test]
    fn a_peer_has_so_many_turns_whatever_becomes_of_its_sessions() {
        let openings = Openings::default();
        let mut taken = all(&openings.of(node(1)), 0);
        assert_eq!(taken.len(), AT_ONCE);
        assert_eq!(all(&openings.of(node(1)), 1000).len(), 0, "another session has the same turns");
        assert_eq!(all(&openings.of(node(2)), 0).len(), AT_ONCE, "another peer has its own");
        taken.pop();
        assert_eq!(all(&openings.of(node(1)), 1000).len(), 1);
    }

    #[test]
    fn joining_a_task_again_takes_no_other_turn() {
        let turns = Openings::default().of(node(1));
        let taken = all(&turns, 0);
        let again: Vec<_> =
            (0..AT_ONCE as u32).map(|number| turns.next(task(number)).now_or_never()).collect();
        assert!(again.iter().all(Option::is_some));
        drop(taken);
        assert!(turns.next(task(9999)).now_or_never().is_none(), "who joined again holds it");
        drop(again);
        assert!(turns.next(task(9999)).now_or_never().is_some());
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes() {
        let turns = Openings::default().of(node(1));
        let kept: Vec<_> = std::iter::from_fn(|| turns.keep(64 * 1024)).collect();
        assert_eq!(kept.len(), WORDS / (64 * 1024));
        drop(kept);
        assert!(turns.keep(WORDS).is_some() && turns.keep(WORDS + 1).is_none());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let openings = Openings::default();
        let kept = openings.of(node(0));
        let turn = kept.next(task(0)).now_or_never().unwrap();
        (1..10_000).for_each(|number| drop(openings.of(node(number))));
        (1..10_000).for_each(|number| drop(kept.next(task(number)).now_or_never().unwrap()));
        let nodes = openings.0.lock().unwrap();
        assert!(nodes.kept.len() <= 2 * FEW && nodes.kept.contains_key(&node(0)));
        assert!(kept.open().kept.len() <= 2 * FEW && kept.open().get(task(0)).is_some());
        drop(turn);
    }
}
