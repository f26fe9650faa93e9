//! How members come to a swarm, get on, and go.

use common::node::NodeId;

use super::Context;
use super::sitter::{DETACHED, SEED, Seat, Stage};
use super::swarm::{Copy, Swarm};
use crate::tracker::Standing;

// === impl Swarm ===

impl Swarm {
    /// Somebody wants the task, or says again that it does.
    pub(super) fn join(&mut self, node: NodeId, held: u32, context: &mut Context<'_>) {
        let Some(seat) = self.enter(node, context) else { return };
        self.advance(seat, held, context);
    }

    /// Somebody has all of the task, of so many pieces.
    pub(super) fn hold(&mut self, node: NodeId, pieces: u32, context: &mut Context<'_>) {
        if self.pieces.is_some_and(|known| known != pieces) {
            // Another length than ours under the same name: nothing that anybody here could use.
            return;
        }
        let first = self.pieces.replace(pieces).is_none();
        let Some(seat) = self.enter(node, context) else { return };
        self.advance(seat, pieces, context);
        if first {
            self.start_waiting(context);
        }
    }

    /// Somebody has so many pieces now.
    pub(super) fn progress(&mut self, node: NodeId, held: u32, context: &mut Context<'_>) {
        if let Some(seat) = self.seat_of(node) {
            self.advance(seat, held, context);
        }
    }

    /// Somebody goes.
    pub(super) fn leave(&mut self, node: NodeId, context: &mut Context<'_>) {
        let Some(seat) = self.seat_of(node) else { return };
        // It is nobody's trunk and misses nothing from here on; it hangs where it is until all below it are elsewhere.
        self.set_stage(seat, Stage::Vacant);
        self.refresh(seat);
        self.drop_children(seat, context);
        self.drop_parents(seat);
        self.vacate(seat);
    }

    /// The seed knows how many pieces there are.
    pub(super) fn seed_meta(&mut self, pieces: u32, context: &mut Context<'_>) -> Vec<NodeId> {
        let old = self.pieces.replace(pieces);
        if self.copy == Copy::None {
            self.copy = Copy::Growing;
        }
        let mut refuted = Vec::new();
        if old == Some(pieces) {
            // Said with every join. Nobody waits for what is known.
            return refuted;
        }
        if old.is_some() {
            // They hold something else under this name. What the seed read at the origin is right.
            let holders = self.taken().filter(|&seat| self.at(seat).stage == Stage::Complete);
            refuted.extend(holders.map(|seat| self.at(seat).node));
            refuted.iter().for_each(|&node| self.leave(node, context));
        }
        self.start_waiting(context);
        refuted
    }

    /// The seed has so many pieces now.
    pub(super) fn seed_progress(&mut self, held: u32, whole: bool) {
        let Some(pieces) = self.pieces else { return };
        self.at_mut(SEED).held = if whole { pieces } else { held.min(pieces) };
        if whole {
            self.copy = Copy::Whole;
        } else if self.copy == Copy::None {
            self.copy = Copy::Growing;
        }
    }

    /// The seed has it no more.
    pub(super) fn seed_dropped(&mut self) {
        self.copy = Copy::None;
        self.at_mut(SEED).held = 0;
        if self.sources > 0 {
            for child in self.at(SEED).mesh_children.clone() {
                self.unlink_mesh(child, SEED, true);
            }
        }
        // Its trunk children move as far as others have room, when the seed is relieved after the event.
    }

    /// A member's standing changed: an outcast loses its children.
    pub(super) fn set_standing(&mut self, node: NodeId, standing: Standing, context: &mut Context<'_>) {
        let Some(seat) = self.seat_of(node) else { return };
        if std::mem::replace(&mut self.at_mut(seat).standing, standing) == standing {
            return;
        }
        self.refresh(seat);
        if standing == Standing::Outcast {
            self.drop_children(seat, context);
        }
    }

    /// The seat of a member, new or old.
    fn enter(&mut self, node: NodeId, context: &mut Context<'_>) -> Option<Seat> {
        if let Some(seat) = self.seat_of(node) {
            return Some(seat);
        }
        let known = context.tracker.get(node)?;
        let seat =
            self.seat(&known.member.contact, known.place, usize::from(known.member.slots), context.now);
        self.at_mut(seat).standing = known.standing;
        self.draw_in(known.place.zone);
        Some(seat)
    }

    /// Notes how much a member holds, and what follows.
    fn advance(&mut self, seat: Seat, held: u32, context: &mut Context<'_>) {
        let Some(pieces) = self.pieces else {
            self.at_mut(seat).held = held;
            return;
        };
        let held = held.min(pieces);
        let sitter = self.at_mut(seat);
        if held > sitter.held {
            sitter.heard = context.now;
        }
        sitter.held = held;
        match sitter.stage {
            Stage::Waiting | Stage::Wanting if held == pieces => self.finish(seat),
            Stage::Waiting => self.start(seat, context),
            // It lost what it had: it is a root no more.
            Stage::Complete if held < pieces => self.start(seat, context),
            _ => {}
        }
    }

    /// A member wants from now on.
    fn start(&mut self, seat: Seat, context: &mut Context<'_>) {
        self.set_stage(seat, Stage::Wanting);
        self.at_mut(seat).heard = context.now;
        self.sink(seat, DETACHED);
        self.adopt(seat, context);
        self.top_up(seat, context);
    }

    /// A member has it all: it serves on, and its parents' slots are free. It is told nothing, for its links
    /// still carry pieces to the parents that want some; it ends them when both sides have all.
    fn finish(&mut self, seat: Seat) {
        self.drop_parents(seat);
        self.set_stage(seat, Stage::Complete);
        self.sink(seat, 0);
    }

    /// Looks at all again after the number of pieces became known: those that waited for it start.
    fn start_waiting(&mut self, context: &mut Context<'_>) {
        for seat in self.taken().collect::<Vec<_>>() {
            let held = self.at(seat).held;
            self.advance(seat, held, context);
        }
    }

    /// Frees its slots at its parents; it is told nothing.
    fn drop_parents(&mut self, seat: Seat) {
        self.detach(seat, false);
        while let Some(&parent) = self.at(seat).mesh.last() {
            self.unlink_mesh(seat, parent, false);
        }
    }

    /// Gives all children other trunks, those first that can carry the others, and other parents where few are left.
    /// The rest get theirs with the next tick: one message for all that they lost since the last, and less to do when
    /// many go at once.
    fn drop_children(&mut self, seat: Seat, context: &mut Context<'_>) {
        let mut bereft = self.at(seat).trunk_children.clone();
        bereft.sort_by_key(|&child| std::cmp::Reverse(self.at(child).slots));
        for &child in &bereft {
            self.rehang(child, context);
        }
        while let Some(&child) = self.at(seat).mesh_children.last() {
            self.unlink_mesh(child, seat, true);
            bereft.push(child);
        }
        for child in bereft {
            let links = self.at(child).parents().count() + self.at(child).children();
            if links <= context.settings.parents_per_peer / 2 {
                self.top_up(child, context);
            }
        }
    }
}
