//! The parents beside the trunk: half of them near, free and ahead, the rest at random, so that the mesh stays
//! connected and no two neighbourhoods know only themselves.

use std::ops::{Range, RangeInclusive};

use common::node::NodeId;
use rand::Rng;

use super::Context;
use super::pool::Kind;
use super::sitter::{SEED, Seat, Stage};
use super::swarm::{Copy, Swarm};
use crate::tracker::{Nearness, Standing};

/// Candidates drawn from each neighbourhood: 24 in all.
const DRAWS: [(Kind, usize); 4] = [(Kind::Host, 3), (Kind::Rack, 5), (Kind::Zone, 12), (Kind::All, 4)];
/// How many of the hungry a tick feeds per swarm: a quarter of them within these bounds, as most of those that nobody
/// has room for come round again, while a tick holds up all sessions.
const FED: RangeInclusive<usize> = 64..=1024;
/// How many parents are given on demand at once.
const MORE: usize = 2;

// === impl Swarm ===

impl Swarm {
    /// Gives a member as many parents as it lacks; whom there is nobody for waits for the next tick.
    pub(super) fn top_up(&mut self, child: Seat, context: &mut Context<'_>) {
        let lacking = self.lacking(child, context);
        let outside = self.outside_left(child, context);
        if lacking > 0 && self.add_parents(child, lacking, outside, context) < lacking {
            self.queue(child);
        }
    }

    /// How many parents a member lacks. A link carries pieces both ways, so a child that serves counts too.
    fn lacking(&self, child: Seat, context: &Context<'_>) -> usize {
        let sitter = self.at(child);
        if sitter.stage != Stage::Wanting {
            return 0;
        }
        let children = sitter.trunk_children.iter().chain(&sitter.mesh_children);
        let useful = children.filter(|&&seat| self.at(seat).slots > 0).count();
        context.settings.parents_per_peer.saturating_sub(sitter.parents().count() + useful)
    }

    fn add_parents(
        &mut self,
        child: Seat,
        wanted: usize,
        mut outside_left: usize,
        context: &mut Context<'_>,
    ) -> usize {
        let mut candidates = self.candidates(child, context);
        let near = wanted.div_ceil(2);
        let mut added = 0;
        while added < wanted && !candidates.is_empty() {
            // The near half are the best, the rest are whoever it be.
            let all = 0..candidates.len();
            let best = |all: Range<usize>| all.max_by_key(|&index| candidates[index]).unwrap_or(0);
            let index = if added < near { best(all) } else { context.rng.random_range(all) };
            let (_, parent) = candidates.swap_remove(index);
            if self.at(parent).place.zone != self.at(child).place.zone {
                if outside_left == 0 {
                    continue;
                }
                outside_left -= 1;
            }
            self.link_mesh(child, parent);
            added += 1;
        }
        added
    }

    /// How many more parents in other zones a member may have beside its trunk: one for each way out of the
    /// zone, so that zones swap without each piece crossing often; any number for who is alone in its zone.
    fn outside_left(&self, child: Seat, context: &Context<'_>) -> usize {
        let sitter = self.at(child);
        let alone = self.zones.get(&sitter.place.zone).is_none_or(|zone| zone.population == 1);
        if alone {
            return usize::MAX;
        }
        usize::from(self.may_cross(child, context)).saturating_sub(self.outside_mesh(child).count())
    }

    fn outside_mesh(&self, child: Seat) -> impl Iterator<Item = Seat> {
        let sitter = self.at(child);
        let zone = sitter.place.zone;
        sitter.mesh.iter().copied().filter(move |&parent| self.at(parent).place.zone != zone)
    }

    /// Whom a member could be linked with, and how good that would be.
    fn candidates(&self, child: Seat, context: &mut Context<'_>) -> Vec<(i64, Seat)> {
        let sitter = self.at(child);
        let mut drawn = Vec::with_capacity(24);
        for (kind, count) in DRAWS {
            if let Some(group) = sitter.groups.of(kind) {
                self.pools.draw(group, count, context.rng, &mut drawn);
            }
        }
        drawn.sort_unstable();
        drawn.dedup();
        let foes = context.tracker.ledger.foes(sitter.node);
        drawn.retain(|&seat| self.linkable(child, seat, &foes));
        drawn.into_iter().map(|seat| (self.score(child, seat, context), seat)).collect()
    }

    fn linkable(&self, child: Seat, seat: Seat, foes: &[NodeId]) -> bool {
        // Only the child is looked at while nobody quarrels: its neighbours lie all over the memory.
        let sitter = self.at(child);
        let known = seat == child || sitter.linked_with(seat) || sitter.remembers(seat);
        !known && (foes.is_empty() || !foes.contains(&self.at(seat).node))
    }

    fn score(&self, child: Seat, seat: Seat, context: &mut Context<'_>) -> i64 {
        let (sitter, other) = (self.at(child), self.at(seat));
        let near = match sitter.place.nearness(&other.place) {
            Nearness::Host => 60,
            Nearness::Rack => 40,
            Nearness::Zone => 20,
            Nearness::Far => 0,
        };
        let free = 40 - 40 * other.children() as i64 / other.slots.max(1) as i64;
        let pieces = i64::from(self.pieces.unwrap_or(1).max(1));
        let ahead = 40 * (i64::from(other.held) - i64::from(sitter.held)) / pieces;
        let doubt = if other.standing == Standing::Good { 0 } else { -50 };
        let stalled = if self.stalled(seat, context) { -40 } else { 0 };
        near + free + ahead + doubt + stalled + context.rng.random_range(0..30)
    }

    /// Answers a cry for more parents: others than those it has and had, in the place of the hindmost.
    pub(super) fn give_more(&mut self, child: Seat, context: &mut Context<'_>) {
        let recently =
            |given| context.now.saturating_duration_since(given) < context.settings.more_parents_every;
        let sitter = self.at(child);
        if sitter.stage != Stage::Wanting || sitter.given.is_some_and(recently) {
            return;
        }
        self.at_mut(child).given = Some(context.now);
        let before = self.at(child).mesh.clone();
        let outside = self.outside_left(child, context);
        let mut added = self.add_parents(child, MORE, outside, context);
        if added == 0 {
            added = self.give_last(child, context);
        }
        let total = self.at(child).parents().count();
        let surplus = total.saturating_sub(context.settings.parents_per_peer).min(added);
        let mut old: Vec<Seat> = before;
        old.sort_by_key(|&seat| (self.at(seat).held, seat));
        for parent in old.into_iter().take(surplus) {
            self.unlink_mesh(child, parent, true);
            self.at_mut(child).remember(parent);
        }
    }

    /// A parent for who cries and can be given none by the usual rules: the seed, or else one that is far.
    fn give_last(&mut self, child: Seat, context: &mut Context<'_>) -> usize {
        let (seed, zone) = (self.at(SEED), self.at(child).place.zone);
        let seed_free = self.copy != Copy::None && seed.children() < seed.slots;
        let far = self.may_cross(child, context) || self.may_break_out(child, context);
        let linked = self.at(child).parents().any(|parent| parent == SEED);
        if seed_free && !linked && (far || seed.place.zone == zone) {
            self.link_mesh(child, SEED);
            return 1;
        }
        if far { self.add_parents(child, 1, 1, context) } else { 0 }
    }

    /// Whether who gets nothing inside its zone may look outside, although the zone has ways out: they may be slow, or say that
    /// they have what they do not. A few may, and feed the others.
    fn may_break_out(&self, child: Seat, context: &Context<'_>) -> bool {
        let crossers = self.zones.get(&self.at(child).place.zone).map_or(0, |zone| zone.crossers.len());
        crossers < 2 * context.settings.gateways_per_zone
    }

    /// Feeds some of those that had to wait or lost a link since.
    pub(super) fn feed_hungry(&mut self, context: &mut Context<'_>) {
        let fed = (self.hungry.len() / 4).clamp(*FED.start(), *FED.end());
        for _ in 0..fed {
            let Some(seat) = self.hungry.pop_front() else { break };
            self.at_mut(seat).queued = false;
            self.top_up(seat, context);
        }
    }

    /// When a zone's first member is alone no more: it gives its many parents outside up, but for one.
    pub(super) fn draw_in(&mut self, zone: u64) {
        let Some(zone) = self.zones.get(&zone).filter(|zone| zone.population == 2) else { return };
        for child in zone.crossers.clone() {
            let outside: Vec<Seat> = self.outside_mesh(child).skip(1).collect();
            for parent in outside {
                self.unlink_mesh(child, parent, true);
            }
        }
    }
}
