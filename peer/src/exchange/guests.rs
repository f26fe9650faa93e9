//! What one neighbour may have of this node at once, however many connections and streams it opens: of the memory for
//! pieces on their way out ([`Visit::slot`]), of the upload limit, of connections ([`Guests::enter`]), of attention to what it
//! wants ([`Visit::ear`]) and of questions to origins ([`Visit::question`]). Asked by [`super::serve`].
//!
//! # Invariants
//! - The pieces on their way out never exceed `ROOM`.
//! - A neighbour holds at most as much room as is left free: one takes half of it, three take a quarter each, and
//!   somebody who has none yet finds some.
//! - No more pieces are on their way out than the operator allows.
//! - Of one neighbour's requests, one at a time waits for room and for the limit: those that it has queued do not stand
//!   before another's.
//! - Of one neighbour, a few streams are listened to at once, and a few questions asked; its others wait in QUIC's window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::task::TaskId;
use common::transport::Connection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::limit::{Allowance, Limits};
use crate::paces::Paces;

/// Bytes in memory on their way out.
const ROOM: u64 = 32 * 1024 * 1024;
/// Connections of one neighbour: one is usual, two when both dial at the same moment, and as many again that a restart
/// left behind.
const MAX_CONNECTIONS: usize = 4;
/// Streams of one neighbour that are listened to or looked something up for at once: each may fill a buffer and take a
/// thread. An honest neighbour's openings come whole, so that it never waits here.
const EARS: usize = 32;
/// Questions of one neighbour that origins are asked at once: a node's runtimes resolve some tags side by side.
const QUESTIONS_AT_ONCE: usize = 64;
/// Questions that may come in one go, as a node starts all its containers, and a second from then on.
const QUESTIONS: u32 = 512;
const QUESTION_RATE: u32 = 50;

/// Tasks whose share of the limit is remembered; with more at once each only gets a fresh bucket sooner.
const MAX_ALLOWANCES: usize = 4096;

/// Everybody who is served.
pub struct Guests {
    limits: Limits,
    /// What each task may take of the upload limit, while tasks have one of their own.
    allowances: Mutex<HashMap<TaskId, Allowance>>,
    state: Mutex<State>,
    questions: Mutex<Paces>,
    freed: Notify,
}

struct State {
    room: Room,
    present: HashMap<NodeId, Guest>,
    visits: u64,
}

#[derive(Default)]
struct Guest {
    /// Oldest first, numbered.
    connections: VecDeque<(u64, Connection)>,
    shared: Arc<Shared>,
}

/// What all connections of a neighbour have together.
struct Shared {
    /// Whose request waits for room.
    turn: tokio::sync::Mutex<()>,
    ears: Semaphore,
    questions: Semaphore,
}

/// Who holds how much.
struct Room {
    free: u64,
    held: HashMap<NodeId, u64>,
    pieces: u64,
}

/// A connection's place; given up when dropped.
pub struct Visit {
    guests: Arc<Guests>,
    node: NodeId,
    number: u64,
    shared: Arc<Shared>,
}

/// Room for a piece; given back when dropped.
pub struct Slot {
    guests: Arc<Guests>,
    node: NodeId,
    bytes: u64,
}

// === impl Guests ===

impl Guests {
    /// Nobody is here yet; all together get as much as `limit` lets pass.
    pub fn new(limits: Limits) -> Arc<Self> {
        let state = State { room: Room::new(ROOM), present: HashMap::new(), visits: 0 };
        let allowances = Mutex::default();
        let questions = Mutex::new(Paces::new(QUESTIONS, QUESTION_RATE));
        Arc::new(Self { limits, allowances, state: Mutex::new(state), questions, freed: Notify::new() })
    }

    /// Notes a connection. When its neighbour has too many, the oldest is closed: an honest one uses the newest.
    pub fn enter(self: &Arc<Self>, connection: &Connection) -> Visit {
        let node = connection.node();
        let (number, shared, surplus) = {
            let mut state = self.lock();
            state.visits += 1;
            let number = state.visits;
            let guest = state.present.entry(node).or_default();
            guest.connections.push_back((number, connection.clone()));
            let surplus = guest.connections.len() > MAX_CONNECTIONS;
            (number, guest.shared.clone(), if surplus { guest.connections.pop_front() } else { None })
        };
        if let Some((_, oldest)) = surplus {
            tracing::debug!(%node, "a connection too many: its oldest is closed");
            oldest.close("too many connections of one node");
        }
        Visit { guests: self.clone(), node, number, shared }
    }

    /// What a task may take of the upload limit.
    fn allowance(&self, task: TaskId) -> Allowance {
        let lane = &self.limits.upload;
        if !lane.limits_tasks() {
            return lane.allowance();
        }
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        if allowances.len() >= MAX_ALLOWANCES {
            allowances.clear();
        }
        allowances.entry(task).or_insert_with(|| lane.allowance()).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in between can panic halfway; what is there is the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        let (ears, questions) = (Semaphore::new(EARS), Semaphore::new(QUESTIONS_AT_ONCE));
        Self { turn: tokio::sync::Mutex::default(), ears, questions }
    }
}

// === impl Visit ===

impl Visit {
    /// Waits until one more of the neighbour's streams may be listened to.
    pub async fn ear(&self) -> SemaphorePermit<'_> {
        self.shared.ears.acquire().await.expect("invariant: it is never closed")
    }

    /// Waits until one more of the neighbour's questions may be asked.
    ///
    /// # Errors
    /// How long to wait before it comes again, when it asks too much.
    pub async fn question(&self) -> Result<SemaphorePermit<'_>, Duration> {
        let permit = self.shared.questions.acquire().await.expect("invariant: it is never closed");
        let mut questions = self.guests.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.ask(self.node, 1, Instant::now()).map(|()| permit)
    }

    /// Waits for room, and until the upload limits let so many bytes of a task pass. May be dropped at any await.
    pub async fn slot(&self, task: TaskId, bytes: u64) -> Slot {
        let _turn = self.shared.turn.lock().await;
        let slot = loop {
            let freed = self.guests.freed.notified();
            tokio::pin!(freed);
            // Heard from now on, so that nothing given back between the look and the wait is missed.
            freed.as_mut().enable();
            if self.guests.lock().room.take(self.node, bytes, self.guests.limits.uploads()) {
                break Slot { guests: self.guests.clone(), node: self.node, bytes };
            }
            freed.await;
        };
        self.guests.allowance(task).pass(bytes).await;
        slot
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.guests.lock();
        if let Some(guest) = state.present.get_mut(&self.node) {
            guest.connections.retain(|(number, _)| *number != self.number);
            // One that was closed for being too many may end last: then nothing is left of the neighbour.
            if guest.connections.is_empty() {
                state.present.remove(&self.node);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.guests.lock().room.give_back(self.node, self.bytes);
        self.guests.freed.notify_waiters();
    }
}

// === impl Room ===

impl Room {
    fn new(free: u64) -> Self {
        Self { free, held: HashMap::new(), pieces: 0 }
    }

    /// Takes room for a piece, if there is some for this node and fewer than `most` pieces are on their way.
    fn take(&mut self, node: NodeId, bytes: u64, most: u64) -> bool {
        let held = self.held.get(&node).copied().unwrap_or(0);
        if held + bytes > self.free || self.pieces >= most {
            return false;
        }
        self.pieces += 1;
        self.free -= bytes;
        self.held.insert(node, held + bytes);
        true
    }

    fn give_back(&mut self, node: NodeId, bytes: u64) {
        self.pieces -= 1;
        self.free += bytes;
        if let Some(held) = self.held.get_mut(&node) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECE: u64 = 4 * 1024 * 1024;

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    /// Takes pieces until no more are given; how many it got.
    fn gorge(room: &mut Room, node: NodeId, bytes: u64) -> u64 {
        (0..).take_while(|_| room.take(node, bytes, u64::MAX)).count() as u64
    }

    #[test]
    fn who_takes_all_that_it_can_leaves_room_for_others() {
        let mut room = Room::new(ROOM);
        assert_eq!(gorge(&mut room, node(1), PIECE), ROOM / PIECE / 2);
        assert!(room.take(node(2), PIECE, u64::MAX), "somebody who has none yet");
        for greedy in 3..6 {
            gorge(&mut room, node(greedy), PIECE / 16);
        }
        assert!(room.take(node(9), PIECE / 16, u64::MAX), "even beside five greedy ones");
    }

    #[test]
    fn what_is_given_back_is_free_for_all() {
        let mut room = Room::new(ROOM);
        let taken = gorge(&mut room, node(1), PIECE);
        (0..taken).for_each(|_| room.give_back(node(1), PIECE));
        assert!(room.held.is_empty());
        assert_eq!(gorge(&mut room, node(2), PIECE), taken);
    }

    proptest! {
        #[test]
        fn room_is_neither_lost_nor_made(deeds in prop::collection::vec((0u8..6, 1u64..PIECE, any::<bool>()), 0..300)) {
            let mut room = Room::new(ROOM);
            let mut slots: Vec<(NodeId, u64)> = Vec::new();
            for (number, bytes, back) in deeds {
                if back && let Some((node, bytes)) = slots.pop() {
                    room.give_back(node, bytes);
                } else if room.take(node(number), bytes, 8) {
                    slots.push((node(number), bytes));
                    prop_assert!(room.held[&node(number)] <= room.free + bytes, "more than was free");
                }
                prop_assert_eq!(room.free + room.held.values().sum::<u64>(), ROOM);
                prop_assert_eq!(room.pieces, slots.len() as u64);
                prop_assert!(room.pieces <= 8);
            }
        }
    }
}
