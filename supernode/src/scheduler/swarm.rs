//! One task's swarm as a graph: who sits in it, which edges there are, and how deep everybody hangs. The
//! mechanics only; [`tree`](super::tree) and [`parents`](super::parents) decide which edges to make.
//!
//! # Invariants
//! - Trunk edges form a forest whose roots are the seed and the complete members; no member's children outnumber
//!   its slots (the seed alone is given more, when nobody else has room).
//! - A sitter is shelved in the pools exactly where [`Swarm::refresh`] says; a detached subtree is in no trunk
//!   pool, so whatever is drawn from one reaches a root. Who looks for a trunk with its subtree still in the pools takes
//!   nothing that is below itself, and so closes no cycle.
//! - Between two sitters there is at most one edge, as a link carries pieces both ways.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use common::node::{Contact, NodeId};
use common::task::TaskId;

use super::changes::Changes;
use super::events::Command;
use super::pool::{Key, Kind, Pools};
use super::sitter::{DETACHED, SEED, Seat, Sitter, Stage};
use crate::tracker::{Place, Standing};

/// What the supernode's own node has of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Nothing (yet, or any more).
    None,
    /// It is being fetched from the origin.
    Growing,
    /// All of it, proven.
    Whole,
}

/// What a swarm knows of a zone.
#[derive(Debug, Default)]
pub(super) struct Zone {
    pub(super) population: usize,
    pub(super) complete: usize,
    /// Those with parents outside the zone.
    pub(super) crossers: BTreeSet<Seat>,
}

/// The swarm of one task.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) pieces: Option<u32>,
    pub(super) copy: Copy,
    pub(super) sitters: Vec<Sitter>,
    free: Vec<Seat>,
    /// Looked up, never walked: its order decides nothing.
    seats: HashMap<NodeId, Seat>,
    pub(super) pools: Pools,
    /// The same.
    pub(super) zones: HashMap<u64, Zone>,
    /// Complete members that can serve.
    pub(super) sources: usize,
    pub(super) hungry: VecDeque<Seat>,
    pub(super) changes: Changes,
}

// === impl Swarm ===

impl Swarm {
    pub(super) fn new(seed: &Contact, place: Place, slots: usize, now: Instant) -> Self {
        // Most tasks that peers report are held by one of them, and there are many.
        let mut sitters = Vec::with_capacity(2);
        sitters.push(Sitter::new(seed, place, slots, Stage::Seed, now));
        Self {
            pieces: None,
            copy: Copy::None,
            sitters,
            free: Vec::new(),
            seats: HashMap::new(),
            pools: Pools::default(),
            zones: HashMap::new(),
            sources: 0,
            hungry: VecDeque::new(),
            changes: Changes::default(),
        }
    }

    pub(super) fn at(&self, seat: Seat) -> &Sitter {
        &self.sitters[seat.0 as usize]
    }

    pub(super) fn at_mut(&mut self, seat: Seat) -> &mut Sitter {
        &mut self.sitters[seat.0 as usize]
    }

    pub(super) fn seat_of(&self, node: NodeId) -> Option<Seat> {
        self.seats.get(&node).copied()
    }

    /// Number of members, the seed aside.
    pub(super) fn population(&self) -> usize {
        self.seats.len()
    }

    /// The seats that somebody but the seed sits on.
    pub(super) fn taken(&self) -> impl Iterator<Item = Seat> {
        let count = self.sitters.len() as u32;
        (1..count).map(Seat).filter(|&seat| self.at(seat).stage != Stage::Vacant)
    }

    /// Seats a newcomer, without any edge.
    pub(super) fn seat(&mut self, contact: &Contact, place: Place, slots: usize, now: Instant) -> Seat {
        let mut sitter = Sitter::new(contact, place, slots, Stage::Waiting, now);
        sitter.groups = self.pools.enter(place);
        let seat = if let Some(seat) = self.free.pop() {
            sitter.queued = self.at(seat).queued;
            *self.at_mut(seat) = sitter;
            seat
        } else {
            self.sitters.push(sitter);
            Seat(self.sitters.len() as u32 - 1)
        };
        self.seats.insert(contact.id, seat);
        self.zones.entry(place.zone).or_default().population += 1;
        seat
    }

    /// Frees the seat of somebody whose edges are gone.
    pub(super) fn vacate(&mut self, seat: Seat) {
        self.set_stage(seat, Stage::Vacant);
        let sitter = self.at_mut(seat);
        sitter.depth = DETACHED;
        let (node, zone, groups) = (sitter.node, sitter.place.zone, sitter.groups);
        self.refresh(seat);
        self.pools.leave(groups);
        self.seats.remove(&node);
        self.free.push(seat);
        let empty = self.zones.get_mut(&zone).is_some_and(|zone| {
            zone.population -= 1;
            zone.population == 0
        });
        if empty {
            self.zones.remove(&zone);
        }
    }

    /// Notes how far a sitter is; its edges and depth are the caller's.
    pub(super) fn set_stage(&mut self, seat: Seat, stage: Stage) {
        let old = std::mem::replace(&mut self.at_mut(seat).stage, stage);
        let change = |is: Stage| usize::from(is == Stage::Complete);
        let place = self.at(seat).place;
        if let Some(zone) = self.zones.get_mut(&place.zone) {
            zone.complete = zone.complete + change(stage) - change(old);
        }
    }

    /// Adds a parent beside the trunk.
    pub(super) fn link_mesh(&mut self, child: Seat, parent: Seat) {
        self.at_mut(child).mesh.push(parent);
        self.at_mut(parent).mesh_children.push(child);
        self.linked(child, parent);
    }

    /// Takes a parent beside the trunk away; false when it was none. `told`: the child hears of it.
    pub(super) fn unlink_mesh(&mut self, child: Seat, parent: Seat, told: bool) -> bool {
        let mesh = &mut self.at_mut(child).mesh;
        let Some(index) = mesh.iter().position(|&seat| seat == parent) else { return false };
        mesh.remove(index);
        self.at_mut(parent).mesh_children.retain(|&seat| seat != child);
        self.unlinked(child, parent, told);
        true
    }

    /// Hangs a detached sitter, and so its subtree, on a trunk that has a slot, or a mesh child to drive out.
    pub(super) fn attach(&mut self, child: Seat, parent: Seat) {
        // The link may be there already, in either direction; it changes its meaning only.
        self.unlink_mesh(child, parent, true);
        self.unlink_mesh(parent, child, true);
        while self.at(parent).children() >= self.at(parent).slots {
            let Some(driven) = self.least_needy(parent) else { break };
            self.unlink_mesh(driven, parent, true);
        }
        self.at_mut(child).trunk = Some(parent);
        self.at_mut(parent).trunk_children.push(child);
        self.linked(child, parent);
        self.sink(child, self.at(parent).depth.saturating_add(1));
    }

    /// Takes the trunk away; the subtree is detached until it is attached again.
    pub(super) fn detach(&mut self, child: Seat, told: bool) -> Option<Seat> {
        let parent = self.unhook(child, told)?;
        self.sink(child, DETACHED);
        Some(parent)
    }

    /// Takes the trunk away and leaves the depths below as they are, for who is attached again at once.
    pub(super) fn unhook(&mut self, child: Seat, told: bool) -> Option<Seat> {
        let parent = self.at_mut(child).trunk.take()?;
        self.at_mut(parent).trunk_children.retain(|&seat| seat != child);
        self.unlinked(child, parent, told);
        Some(parent)
    }

    /// Whether the way from `seat` up leads through `above`.
    pub(super) fn is_below(&self, seat: Seat, above: Seat) -> bool {
        std::iter::successors(Some(seat), |&seat| self.at(seat).trunk).any(|seat| seat == above)
    }

    /// Sets the depth of a sitter and all below it. A random member's subtree is as large as the tree is deep
    /// on average, so this is cheap over many departures.
    pub(super) fn sink(&mut self, seat: Seat, depth: u32) {
        let mut stack = Vec::new();
        let mut next = Some((seat, depth));
        while let Some((seat, depth)) = next {
            let old = std::mem::replace(&mut self.at_mut(seat).depth, depth);
            self.refresh(seat);
            // Whoever is where it was has everybody below it where they were.
            if old != depth {
                let below = depth.saturating_add(1);
                stack.extend(self.at(seat).trunk_children.iter().map(|&child| (child, below)));
            }
            next = stack.pop();
        }
    }

    /// Puts a sitter into the pools that it belongs in now, and counts it as a source.
    pub(super) fn refresh(&mut self, seat: Seat) {
        if seat == SEED {
            return;
        }
        let sitter = self.at(seat);
        let (old_rank, new_rank) = (sitter.trunk_rank, sitter.rank());
        let (old_mesh, new_mesh) = (sitter.in_mesh, sitter.takes_mesh());
        let able = sitter.slots > 0 && sitter.standing != Standing::Outcast;
        let source = able && sitter.stage == Stage::Complete;
        self.sources = self.sources + usize::from(source) - usize::from(sitter.source);
        if old_rank != new_rank {
            for kind in [Kind::TrunkZone, Kind::TrunkAll] {
                self.reshelve(seat, kind, old_rank, new_rank);
            }
        }
        if old_mesh != new_mesh {
            for kind in [Kind::Host, Kind::Rack, Kind::Zone, Kind::All] {
                self.reshelve(seat, kind, old_mesh.then_some(0), new_mesh.then_some(0));
            }
        }
        let sitter = self.at_mut(seat);
        (sitter.trunk_rank, sitter.in_mesh, sitter.source) = (new_rank, new_mesh, source);
    }

    fn reshelve(&mut self, seat: Seat, kind: Kind, old: Option<u32>, new: Option<u32>) {
        let Some(group) = self.at(seat).groups.of(kind) else { return };
        if let Some(rank) = old {
            let spot = self.at(seat).spots[kind as usize];
            if let Some(moved) = self.pools.take(Key { kind, group, rank }, spot) {
                self.at_mut(moved).spots[kind as usize] = spot;
            }
        }
        if let Some(rank) = new {
            let spot = self.pools.put(Key { kind, group, rank }, seat);
            self.at_mut(seat).spots[kind as usize] = spot;
        }
    }

    /// The mesh child that can best do without this parent: the one with the most links.
    fn least_needy(&self, parent: Seat) -> Option<Seat> {
        let links = |seat: &Seat| self.at(*seat).mesh.len() + self.at(*seat).children();
        self.at(parent).mesh_children.iter().copied().max_by_key(links)
    }

    /// What happened to the edges since it was last asked, for the children to hear: those that want the task.
    pub(super) fn commands(&mut self, task: TaskId) -> Vec<Command> {
        let mut commands = Vec::new();
        for news in self.changes.boil_down() {
            let of = |seat: Seat| &self.sitters[seat.0 as usize];
            let child = of(news[0].child);
            if child.stage != Stage::Wanting {
                continue;
            }
            let parents = |added: bool| {
                news.iter().filter(move |change| change.added == added).map(move |change| of(change.parent))
            };
            let add = parents(true).map(Sitter::contact).collect();
            let remove = parents(false).map(|parent| parent.node).collect();
            commands.push(Command::Parents { to: child.node, task, add, remove });
        }
        self.changes.clear();
        commands
    }

    fn linked(&mut self, child: Seat, parent: Seat) {
        if self.at(child).place.zone != self.at(parent).place.zone {
            self.cross(child, 1);
        }
        self.changes.note(child, parent, true);
        self.refresh(parent);
    }

    fn unlinked(&mut self, child: Seat, parent: Seat, told: bool) {
        if self.at(child).place.zone != self.at(parent).place.zone {
            self.cross(child, -1);
        }
        if told {
            self.changes.note(child, parent, false);
        }
        self.refresh(parent);
        // Both lost a link; whether they miss it is seen when the queue is worked off.
        self.queue(child);
        self.queue(parent);
    }

    fn cross(&mut self, child: Seat, change: i16) {
        let sitter = self.at_mut(child);
        sitter.outside = sitter.outside.saturating_add_signed(change);
        let (outside, place) = (sitter.outside, sitter.place);
        if let Some(zone) = self.zones.get_mut(&place.zone) {
            if outside > 0 {
                zone.crossers.insert(child);
            } else {
                zone.crossers.remove(&child);
            }
        }
    }

    /// Remembers to look whether a sitter needs more parents.
    pub(super) fn queue(&mut self, seat: Seat) {
        let sitter = self.at_mut(seat);
        if sitter.stage == Stage::Wanting && !sitter.queued {
            sitter.queued = true;
            self.hungry.push_back(seat);
        }
    }
}
