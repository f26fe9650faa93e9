//! The thin driver of the scheduler: it gives events and the time to [`Scheduler::apply`] and carries the commands
//! to the peers' sessions. The lock is held for a few events only, never across an await.
//!
//! Beside it stands the [`Tally`] of what the nodes got, which is told of the same events: what the dashboard shows is read
//! here ([`views`]).
//!
//! # Invariants
//! - A command for a peer is put into its session's queue in the order in which the scheduler gave it.
//! - A peer whose queue is full does not read: its session is ended, and it comes back with a clean state.

mod views;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::node::{Contact, NodeId};
use common::piece::Geometry;
use common::task::TaskId;
use common::telemetry::Metrics;
use common::wire::swarm::ToPeer;
use tokio_util::sync::CancellationToken;

use crate::dashboard::tally::Tally;
use crate::outbox::Outbox;
use crate::scheduler::{Command, Event, Member, PeerView, Scheduler, Settings, TaskSummary};

pub use views::{Census, MemberRow, NodeRow, SwarmRow};

/// Events that are taken in before others have their turn.
const AT_ONCE: usize = 256;

/// The scheduler and the way to every peer.
pub struct Hub {
    state: Mutex<State>,
    metrics: Metrics,
}

struct State {
    scheduler: Scheduler,
    tally: Tally,
    sessions: HashMap<NodeId, Line>,
    generation: u64,
}

struct Line {
    outbox: Outbox,
    stop: CancellationToken,
    generation: u64,
    since: Instant,
}

/// A session's place in the hub; the peer is taken for gone when it is dropped.
pub struct Place<'a> {
    hub: &'a Hub,
    node: NodeId,
    generation: u64,
}

// === impl Hub ===

impl Hub {
    /// A hub without peers.
    pub fn new(seed: Contact, settings: Settings, metrics: Metrics) -> Self {
        let scheduler = Scheduler::new(seed, settings, rand::random());
        let state = State { scheduler, tally: Tally::default(), sessions: HashMap::new(), generation: 0 };
        Self { state: Mutex::new(state), metrics }
    }

    /// A peer's session is up. An older session of the same peer is ended.
    pub fn enter(&self, member: Member, outbox: Outbox, stop: CancellationToken) -> Place<'_> {
        let node = member.contact.id;
        let mut state = self.lock();
        state.generation += 1;
        let (generation, since) = (state.generation, Instant::now());
        if let Some(old) = state.sessions.insert(node, Line { outbox, stop, generation, since }) {
            old.stop.cancel();
        }
        state.tally.enter(node, since);
        state.apply(Event::PeerUp(member));
        Place { hub: self, node, generation }
    }

    /// Tells the scheduler what happened, and the peers what follows.
    pub fn apply(&self, event: Event) {
        self.lock().apply(event);
    }

    /// The same for several events, in their order.
    pub fn apply_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut state = self.lock();
            events.by_ref().take(AT_ONCE).for_each(|event| state.apply(event));
        }
    }

    /// A task's length is known. Said after the event that makes its swarm, for what has none is forgotten.
    pub fn know(&self, task: TaskId, geometry: Geometry) {
        self.lock().tally.know(task, geometry);
    }

    /// A peer says how long tasks are: that is believed while the seed says nothing else, and of those in whose swarm it was let.
    pub fn learn(&self, held: impl Iterator<Item = (TaskId, Geometry)>) {
        let state = &mut *self.lock();
        for (task, geometry) in held {
            if state.tally.cut(task).is_none() && state.scheduler.summary(task).is_some() {
                state.tally.know(task, geometry);
            }
        }
    }

    /// A peer was given so many bytes outside of any swarm.
    pub fn gave(&self, node: NodeId, bytes: u64) {
        self.lock().tally.give(node, bytes, Instant::now());
    }

    /// Refreshes the gauges.
    pub fn sample(&self) {
        let state = self.lock();
        let (mut tasks, mut members) = (0, 0);
        for task in state.scheduler.tasks() {
            tasks += 1;
            members += task.members as i64;
        }
        let distrusted = state.scheduler.distrusted(Instant::now());
        self.metrics.peers_distrusted.set(distrusted as i64);
        self.metrics.swarm_tasks.set(tasks);
        self.metrics.swarm_members.set(members);
    }

    /// Number of sessions, the peers and the swarms in numbers; of each at most so many.
    pub fn summary(&self, most: usize) -> (usize, Vec<PeerView>, Vec<TaskSummary>) {
        let state = self.lock();
        let peers = state.scheduler.peers(Instant::now()).take(most).collect();
        (state.sessions.len(), peers, state.scheduler.tasks().take(most).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the scheduler would be a bug; its state is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn apply(&mut self, event: Event) {
        let now = Instant::now();
        if matches!(event, Event::Tick) {
            self.tally.tick(|task| self.scheduler.summary(task).is_some());
        }
        // Who was no member brought what it holds, or was given it elsewhere.
        let before = match event {
            Event::Progress { task, node, .. } | Event::Hold { task, node, .. } => {
                self.scheduler.held(task, node).map(|held| (task, node, held))
            }
            _ => None,
        };
        for command in self.scheduler.apply(event, now) {
            let Command::Parents { to, task, add, remove } = command;
            if let Some(line) = self.sessions.get(&to)
                && line.outbox.push(ToPeer::Parents { task, add, remove }).is_err()
            {
                line.stop.cancel();
            }
        }
        if let Some((task, node, held)) = before
            && let Some(holds) = self.scheduler.held(task, node)
        {
            self.tally.gain(task, node, held..holds, now);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // One lock for both: a newer session that enters in between would be taken down with this one.
        let mut state = self.hub.lock();
        if state.sessions.get(&self.node).is_some_and(|line| line.generation == self.generation) {
            state.sessions.remove(&self.node);
            state.tally.leave(self.node);
            state.apply(Event::PeerDown(self.node));
        }
    }
}
