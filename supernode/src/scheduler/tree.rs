//! Trunks: which one parent ties a member to a source, so that every piece has a short way to everybody whatever
//! the rest of the mesh does.
//!
//! The order of preference: a complete member of the own zone (it spares the seed), the seed, and then whoever
//! hangs shallowest and has room, in the own zone before anywhere. A zone with enough ways out stays within itself
//! while it can. When nobody has room the seed takes more than its slots: a slow trunk beats none.

use common::node::NodeId;
use rand::Rng;

use super::Context;
use super::pool::{self, Kind};
use super::sitter::{DETACHED, QUARANTINE_RANK, SEED, Seat, Stage};
use super::swarm::{Copy, Swarm};
use crate::tracker::{Nearness, Standing};

/// Candidates looked at per depth, and depths looked at.
const DRAWN: usize = 8;
const DEPTHS: usize = 3;
/// What a hop costs in the choice; the other costs are measured by it.
const HOP: u64 = 100;
/// Driving a mesh child out for a trunk: worth it when it saves two hops.
const DRIVES_OUT: u64 = 150;
/// A link that is there already is warm, and costs no slot.
const WARM: u64 = 60;
/// How many sitters a tick considers for a shallower place.
const LIFTED: usize = 8;

/// A possible trunk.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    seat: Seat,
    cost: u64,
    /// It is a complete member, and has a slot to spare.
    free_source: bool,
}

// === impl Swarm ===

impl Swarm {
    /// Gives a member without one a trunk.
    pub(super) fn adopt(&mut self, orphan: Seat, context: &mut Context<'_>) {
        let trunk = self.trunk_for(orphan, context);
        self.attach(orphan, trunk.unwrap_or(SEED));
    }

    /// Gives a member another trunk in one step: most of its subtree stays as deep as it was, and is not touched.
    pub(super) fn rehang(&mut self, child: Seat, context: &mut Context<'_>) {
        self.unhook(child, true);
        self.adopt(child, context);
    }

    /// Whether a member may take parents outside its zone without need: its zone has few ways out yet.
    pub(super) fn may_cross(&self, seat: Seat, context: &Context<'_>) -> bool {
        let sitter = self.at(seat);
        let zone = self.zones.get(&sitter.place.zone);
        let ways = zone.map_or(0, |zone| zone.crossers.len() + zone.complete);
        context.tracker.single_zone() || sitter.outside > 0 || ways < context.settings.gateways_per_zone
    }

    /// How many trunks the seed can be: none when it has nothing to give and others have.
    fn seed_capacity(&self) -> usize {
        if self.copy == Copy::None && self.sources > 0 { 0 } else { self.at(SEED).slots }
    }

    /// The best trunk that has room, if any has.
    fn trunk_for(&self, orphan: Seat, context: &mut Context<'_>) -> Option<Seat> {
        let zone = self.at(orphan).place.zone;
        let seed_near = context.tracker.single_zone() || zone == self.at(SEED).place.zone;
        let local = self.best(orphan, Kind::TrunkZone, context);
        if let Some(source) = local.filter(|candidate| candidate.free_source) {
            return Some(source.seat);
        }
        let crosses = local.is_none() || self.may_cross(orphan, context);
        let far = if crosses && !seed_near { self.best(orphan, Kind::TrunkAll, context) } else { None };
        if let Some(source) = far.filter(|candidate| candidate.free_source) {
            return Some(source.seat);
        }
        let seed_free = self.at(SEED).trunk_children.len() < self.seed_capacity();
        if seed_free && (crosses || seed_near) {
            return Some(SEED);
        }
        let anywhere = || self.best(orphan, Kind::TrunkAll, context);
        local.or_else(anywhere).map(|candidate| candidate.seat)
    }

    /// The best trunk of its zone or of all: one of the mesh parents that it has already, or of samples of the
    /// shallowest depths.
    fn best(&self, orphan: Seat, kind: Kind, context: &mut Context<'_>) -> Option<Candidate> {
        let sitter = self.at(orphan);
        let group = sitter.groups.of(kind)?;
        let foes = context.tracker.ledger.foes(sitter.node);
        let mut best: Option<Candidate> = None;
        for &parent in &sitter.mesh {
            if self.may_be_trunk(orphan, parent, kind)
                && let Some(found) = self.weigh(orphan, parent, &foes, context)
            {
                best = best.filter(|best| best.cost <= found.cost).or(Some(found));
            }
        }
        let mut depths = 0;
        let mut drawn = Vec::with_capacity(DRAWN);
        for (rank, pool) in self.pools.ranks(group) {
            // The quarantined come last, and only when nobody else can; deeper ones where they could still be better.
            let beats =
                |best: Candidate| rank >= QUARANTINE_RANK || best.cost <= u64::from(rank) * HOP + WARM;
            if depths == DEPTHS || best.is_some_and(beats) {
                break;
            }
            drawn.clear();
            pool::draw(pool, DRAWN, context.rng, &mut drawn);
            let found = drawn.iter().filter_map(|&seat| self.weigh(orphan, seat, &foes, context));
            if let Some(found) = found.min_by_key(|candidate| candidate.cost) {
                depths += 1;
                best = best.filter(|best| best.cost <= found.cost).or(Some(found));
            }
        }
        best
    }

    /// Whether a mesh parent can become the trunk: it hangs on a root, and has room.
    fn may_be_trunk(&self, orphan: Seat, parent: Seat, kind: Kind) -> bool {
        let sitter = self.at(parent);
        let room = sitter.depth != DETACHED && sitter.trunk_children.len() < sitter.slots;
        let honest = sitter.standing <= Standing::Doubted && parent != SEED;
        let inside = kind == Kind::TrunkAll || sitter.place.zone == self.at(orphan).place.zone;
        room && honest && inside
    }

    fn weigh(
        &self,
        orphan: Seat,
        seat: Seat,
        foes: &[NodeId],
        context: &mut Context<'_>,
    ) -> Option<Candidate> {
        let (child, sitter) = (self.at(orphan), self.at(seat));
        let below = seat == orphan || !child.trunk_children.is_empty() && self.is_below(seat, orphan);
        if below || foes.contains(&sitter.node) {
            return None;
        }
        let warm = child.meshed_with(seat);
        let free = warm || sitter.children() < sitter.slots;
        let distance = match child.place.nearness(&sitter.place) {
            Nearness::Host => 0,
            Nearness::Rack => 15,
            Nearness::Zone => 30,
            Nearness::Far => 60,
        };
        let behind = if sitter.held < child.held { 40 } else { 0 };
        let stalled = if self.stalled(seat, context) { HOP } else { 0 };
        let doubt = if sitter.standing == Standing::Good { 0 } else { HOP / 2 };
        let load = 20 * sitter.children() as u64 / sitter.slots.max(1) as u64;
        let room = if free { 0 } else { DRIVES_OUT };
        let luck = context.rng.random_range(0..15);
        let hops = u64::from(sitter.depth) * HOP;
        let warmth = if warm { 0 } else { WARM };
        let cost = hops + distance + behind + stalled + doubt + load + room + luck + warmth;
        Some(Candidate { seat, cost, free_source: free && sitter.stage == Stage::Complete })
    }

    /// Whether a downloader has had no news for too long to be a good parent.
    pub(super) fn stalled(&self, seat: Seat, context: &Context<'_>) -> bool {
        let sitter = self.at(seat);
        sitter.stage == Stage::Wanting
            && context.stalled_before.is_some_and(|long_ago| sitter.heard < long_ago)
    }

    /// Moves children of an overcrowded seed to whoever has room by now.
    pub(super) fn relieve_seed(&mut self, context: &mut Context<'_>) {
        let mut failed = Vec::new();
        // All the room may be below one of them, so one failure proves nothing; blame may cause more.
        while self.at(SEED).trunk_children.len() > self.seed_capacity()
            && failed.len() < 4
            && self.pools.any_trunk()
        {
            let leaf_first = |seat: &Seat| self.at(*seat).trunk_children.len();
            let children = self.at(SEED).trunk_children.iter().copied();
            let movable = children.filter(|seat| !failed.contains(seat)).take(DRAWN * 4);
            let Some(child) = movable.min_by_key(leaf_first) else { break };
            self.detach(child, true);
            let place = match self.best(child, Kind::TrunkZone, context) {
                Some(local) => Some(local),
                None => self.best(child, Kind::TrunkAll, context),
            };
            if place.is_none() {
                failed.push(child);
            }
            self.attach(child, place.map_or(SEED, |candidate| candidate.seat));
        }
    }

    /// Lets a few deep members, or needless ways out of a zone, find a better place.
    pub(super) fn lift_some(&mut self, context: &mut Context<'_>) {
        for _ in 0..LIFTED.min(self.population()) {
            let seat = Seat(context.rng.random_range(0..self.sitters.len() as u32));
            let sitter = self.at(seat);
            let zone = self.zones.get(&sitter.place.zone);
            let ways = zone.map_or(0, |zone| zone.crossers.len());
            let surplus = sitter.outside > 0
                && ways > context.settings.gateways_per_zone
                && !context.tracker.single_zone();
            if sitter.stage != Stage::Wanting || (sitter.depth < 3 && !surplus) {
                continue;
            }
            let (old_depth, old_outside) = (sitter.depth, sitter.outside);
            let Some(old) = self.detach(seat, true) else { continue };
            let found = self.trunk_for(seat, context).unwrap_or(old);
            let honest = self.at(found).standing <= Standing::Doubted;
            let shallower = self.at(found).depth.saturating_add(2) < old_depth;
            let crossing = self.at(found).place.zone != self.at(seat).place.zone;
            let inward = surplus && old_outside > self.at(seat).outside && !crossing;
            self.attach(seat, if honest && (shallower || inward) { found } else { old });
        }
    }

    /// Cuts what ties two who quarrel, either way, and gives the one who lost its trunk another.
    pub(super) fn part(&mut self, by: NodeId, about: NodeId, context: &mut Context<'_>) {
        let (Some(by), Some(about)) = (self.seat_of(by), self.seat_of(about)) else { return };
        for (child, parent) in [(by, about), (about, by)] {
            let meshed = self.unlink_mesh(child, parent, true);
            let orphaned = self.at(child).trunk == Some(parent);
            if orphaned {
                self.detach(child, true);
                self.adopt(child, context);
            }
            if meshed || orphaned {
                self.top_up(child, context);
            }
        }
    }
}
