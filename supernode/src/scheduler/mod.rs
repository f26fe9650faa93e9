//! Who takes pieces from whom: one pure state machine over all swarms. The daemon's sessions put in what peers and
//! the seed report and send what comes out; the HTTP API reads the [view](Scheduler::view).
//!
//! Parents are handed out per peer, never per piece, so the work grows with peers and not with bytes. Every member
//! that wants a task has one **trunk**, on a short way to the seed or to a member that has all, and beside it a few
//! **mesh** parents. A link carries pieces both ways, so child and parent are only words for who dials and whose
//! slot it costs.
//!
//! # Invariants
//! - Deterministic: the same seed and the same events with the same times give the same commands.
//! - Once the length is known, every member that wants the task has a way to a source along the edges that it was
//!   told of, after every event.
//! - Nobody is told of a node that is not connected, nor of itself; nobody that is not connected is told anything.
//! - A task is a swarm, or a [lone](lone) copy, or not there.

mod changes;
mod events;
mod lone;
mod membership;
mod parents;
mod pool;
mod sitter;
mod swarm;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use std::collections::BTreeMap;
use std::time::Instant;

use common::node::{Contact, NodeId};
use common::task::TaskId;
use common::wire::swarm::Fault;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::tracker::{Place, Tracker};
use lone::Lone;
use swarm::{Copy, Swarm};

pub use crate::tracker::{Member, Standing};
pub use events::{Command, Event, Settings};
pub use view::{Counts, MemberView, PeerView, SeedView, StageView, TaskSummary, TaskView, View};

/// The scheduler, and with it the tracker of nodes and swarms.
#[derive(Debug)]
pub struct Scheduler {
    seed: Contact,
    settings: Settings,
    rng: SmallRng,
    tracker: Tracker,
    swarms: BTreeMap<TaskId, Swarm>,
    /// Tasks that are in no swarm: one node has all, and nobody wants it.
    lone: BTreeMap<TaskId, Lone>,
}

/// What a decision about one swarm may look at beside the swarm.
struct Context<'a> {
    tracker: &'a Tracker,
    settings: &'a Settings,
    rng: &'a mut SmallRng,
    now: Instant,
    /// Downloaders that had no news since are poor parents.
    stalled_before: Option<Instant>,
}

// === impl Scheduler ===

impl Scheduler {
    /// An empty cluster around the supernode's own node; `rng_seed` decides all that is left to chance.
    pub fn new(seed: Contact, settings: Settings, rng_seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(rng_seed);
        Self {
            seed,
            settings,
            rng,
            tracker: Tracker::default(),
            swarms: BTreeMap::new(),
            lone: BTreeMap::new(),
        }
    }

    /// Takes an event in; gives what must be told to whom. What makes no sense (an unknown node, no such
    /// member) changes nothing.
    pub fn apply(&mut self, event: Event, now: Instant) -> Vec<Command> {
        match event {
            Event::PeerUp(member) => self.peer_up(member, now),
            Event::PeerDown(node) => self.peer_down(node, now),
            Event::Join { task, node, held } => self.join(task, node, held, now),
            Event::Hold { task, node, pieces } => self.hold(task, node, pieces, now),
            Event::Progress { task, node, held } => {
                self.within(task, now, |swarm, context| swarm.progress(node, held, context))
            }
            Event::Leave { task, node } => {
                let commands = self.leave(task, node, now);
                self.delist_strangers(task, &[node]);
                commands
            }
            Event::MoreParents { task, node } => self.within(task, now, |swarm, context| {
                if let Some(seat) = swarm.seat_of(node) {
                    swarm.give_more(seat, context);
                }
            }),
            Event::Blame { task, by, about, fault } => self.blame(task, by, about, fault, now),
            Event::SeedMeta { task, pieces } => self.seed_meta(task, pieces, now),
            Event::SeedProgress { task, held } => {
                self.within(task, now, |swarm, _| swarm.seed_progress(held, false))
            }
            Event::SeedProven(task) => self.within(task, now, |swarm, _| swarm.seed_progress(0, true)),
            Event::SeedFailed(task) => self.seed_failed(task),
            Event::SeedDropped(task) => self.within(task, now, |swarm, _| swarm.seed_dropped()),
            Event::Tick => self.tick(now),
        }
    }

    fn peer_up(&mut self, member: Member, now: Instant) -> Vec<Command> {
        let node = member.contact.id;
        if node == self.seed.id {
            return Vec::new();
        }
        let commands = self.peer_down(node, now);
        self.tracker.insert(member, now);
        commands
    }

    fn peer_down(&mut self, node: NodeId, now: Instant) -> Vec<Command> {
        let Some(known) = self.tracker.take(node) else { return Vec::new() };
        let mut commands = Vec::new();
        for task in known.tasks() {
            commands.append(&mut self.leave(task, node, now));
        }
        commands
    }

    fn hold(&mut self, task: TaskId, node: NodeId, pieces: u32, now: Instant) -> Vec<Command> {
        if !self.enlist(task, node, false) || self.hold_alone(task, node, pieces) {
            return Vec::new();
        }
        self.make(task, now);
        let commands = self.within(task, now, |swarm, context| swarm.hold(node, pieces, context));
        self.delist_strangers(task, &[node]);
        commands
    }

    fn leave(&mut self, task: TaskId, node: NodeId, now: Instant) -> Vec<Command> {
        if self.lone.get(&task).is_some_and(|lone| lone.node == node) {
            self.lone.remove(&task);
            return Vec::new();
        }
        self.within(task, now, |swarm, context| swarm.leave(node, context))
    }

    fn join(&mut self, task: TaskId, node: NodeId, held: u32, now: Instant) -> Vec<Command> {
        if !self.enlist(task, node, true) {
            return Vec::new();
        }
        self.make(task, now);
        let seated = self.swarms[&task].seat_of(node).is_some();
        let mut commands = self.within(task, now, |swarm, context| swarm.join(node, held, context));
        if let Some(swarm) = self.swarms.get(&task).filter(|_| seated) {
            // It asks again, so it may have lost what it was told: the whole answer once more.
            let parents = swarm.seat_of(node).into_iter().flat_map(|seat| swarm.at(seat).parents());
            let all: Vec<Contact> = parents.map(|parent| swarm.at(parent).contact()).collect();
            let own = commands.iter_mut().find(|Command::Parents { to, .. }| *to == node);
            if let Some(Command::Parents { add, .. }) = own {
                *add = all;
            } else if !all.is_empty() {
                commands.push(Command::Parents { to: node, task, add: all, remove: Vec::new() });
            }
        }
        commands
    }

    fn blame(&mut self, task: TaskId, by: NodeId, about: NodeId, fault: Fault, now: Instant) -> Vec<Command> {
        let member = self.is_member(task, by);
        // The seed is what everybody hangs on: who cannot use it finds others beside it anyway.
        if !member || by == about || about == self.seed.id || self.tracker.get(about).is_none() {
            return Vec::new();
        }
        self.tracker.ledger.accuse(by, about, fault, now);
        let mut commands = self.within(task, now, |swarm, context| swarm.part(by, about, context));
        commands.extend(self.judge(about, now));
        commands
    }

    /// Lets all swarms of a node know how it stands now.
    fn judge(&mut self, node: NodeId, now: Instant) -> Vec<Command> {
        let standing = self.tracker.ledger.standing(node, now);
        let Some(known) = self.tracker.get_mut(node).filter(|known| known.standing != standing) else {
            return Vec::new();
        };
        known.standing = standing;
        let tasks = known.tasks();
        // A lone copy has nobody to hear of it, and whoever wakes it asks how its holder stands.
        let told: Vec<_> = tasks.into_iter().filter(|task| self.swarms.contains_key(task)).collect();
        let tell = |task: TaskId| {
            self.within(task, now, |swarm, context| swarm.set_standing(node, standing, context))
        };
        told.into_iter().flat_map(tell).collect()
    }

    fn seed_meta(&mut self, task: TaskId, pieces: u32, now: Instant) -> Vec<Command> {
        self.make(task, now);
        let mut refuted = Vec::new();
        let commands = self.within(task, now, |swarm, context| refuted = swarm.seed_meta(pieces, context));
        self.delist_strangers(task, &refuted);
        commands
    }

    fn seed_failed(&mut self, task: TaskId) -> Vec<Command> {
        if let Some(lone) = self.lone.remove(&task) {
            self.delist_strangers(task, &[lone.node]);
        }
        if let Some(swarm) = self.swarms.remove(&task) {
            for seat in swarm.taken() {
                if let Some(known) = self.tracker.get_mut(swarm.at(seat).node) {
                    known.delist(task);
                }
            }
        }
        Vec::new()
    }

    fn tick(&mut self, now: Instant) -> Vec<Command> {
        let mut commands = Vec::new();
        for node in self.tracker.ledger.decay(now) {
            commands.extend(self.judge(node, now));
        }
        for task in self.swarms.keys().copied().collect::<Vec<_>>() {
            commands.extend(self.within(task, now, |swarm, context| {
                swarm.feed_hungry(context);
                swarm.lift_some(context);
            }));
        }
        commands
    }

    /// Notes that a node is in a task's swarm; false for a stranger, and for who is in too many.
    fn enlist(&mut self, task: TaskId, node: NodeId, wanted: bool) -> bool {
        self.tracker.get_mut(node).is_some_and(|known| known.enlist(task, wanted))
    }

    /// Takes the task off the nodes' lists where they have no seat in its swarm.
    fn delist_strangers(&mut self, task: TaskId, nodes: &[NodeId]) {
        for &node in nodes {
            let seated = self.is_member(task, node);
            if let Some(known) = self.tracker.get_mut(node).filter(|_| !seated) {
                known.delist(task);
            }
        }
    }

    fn is_member(&self, task: TaskId, node: NodeId) -> bool {
        let lone = self.lone.get(&task).is_some_and(|lone| lone.node == node);
        lone || self.swarms.get(&task).is_some_and(|swarm| swarm.seat_of(node).is_some())
    }

    /// Makes sure that the task is a swarm.
    fn make(&mut self, task: TaskId, now: Instant) {
        self.wake(task, now);
        let (seed, settings) = (&self.seed, &self.settings);
        let make = || Swarm::new(seed, Place::of(&settings.seed_labels), settings.seed_slots, now);
        self.swarms.entry(task).or_insert_with(make);
    }

    /// Does something to a swarm, if there is one, and gives the edges' changes; forgets a swarm that nobody
    /// wants or holds, and keeps no more than that of one which is a lone copy.
    fn within(
        &mut self,
        task: TaskId,
        now: Instant,
        act: impl FnOnce(&mut Swarm, &mut Context<'_>),
    ) -> Vec<Command> {
        self.wake(task, now);
        let Some(swarm) = self.swarms.get_mut(&task) else { return Vec::new() };
        let (tracker, settings) = (&self.tracker, &self.settings);
        let stalled_before = now.checked_sub(settings.silence);
        let mut context = Context { tracker, settings, rng: &mut self.rng, now, stalled_before };
        act(swarm, &mut context);
        swarm.relieve_seed(&mut context);
        let commands = swarm.commands(task);
        if let Some(lone) = Lone::left_of(swarm) {
            self.swarms.remove(&task);
            self.lone.insert(task, lone);
        } else if swarm.population() == 0 && swarm.copy != Copy::Growing {
            // What the seed holds is told again with the next join.
            self.swarms.remove(&task);
        }
        commands
    }
}
