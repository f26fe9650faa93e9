//! Tasks that one node has all of and nobody wants: most of what peers report when they come. A swarm of one would take two
//! kilobytes each, and there are tens of thousands; this takes less than a hundred bytes. The first who wants such a task
//! wakes it: it is a [swarm](super::swarm) from then on, until its holder is alone again.

use std::time::Instant;

use common::node::NodeId;
use common::task::TaskId;

use super::sitter::Stage;
use super::swarm::{Copy, Swarm};
use super::{Context, Scheduler};
use crate::tracker::Place;

/// The only copy of a task, the seed having none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lone {
    /// Who has it, and is connected.
    pub(super) node: NodeId,
    /// How many pieces that is.
    pub(super) pieces: u32,
}

// === impl Lone ===

impl Lone {
    /// What a swarm comes to, if that is nothing but a copy.
    pub(super) fn left_of(swarm: &Swarm) -> Option<Self> {
        if swarm.population() != 1 || swarm.copy != Copy::None {
            return None;
        }
        let sitter = swarm.taken().map(|seat| swarm.at(seat)).next()?;
        let pieces = swarm.pieces.filter(|_| sitter.stage == Stage::Complete)?;
        Some(Self { node: sitter.node, pieces })
    }
}

// === impl Scheduler ===

impl Scheduler {
    /// Somebody has all of a task that is in no swarm; false where somebody else has it, or there is a swarm. A holder that
    /// speaks of another length than before is not heard, as in a swarm.
    pub(super) fn hold_alone(&mut self, task: TaskId, node: NodeId, pieces: u32) -> bool {
        if self.swarms.contains_key(&task) {
            return false;
        }
        self.lone.entry(task).or_insert(Lone { node, pieces }).node == node
    }

    /// Makes a swarm of a lone copy, if there is one.
    pub(super) fn wake(&mut self, task: TaskId, now: Instant) {
        let Some(lone) = self.lone.remove(&task) else { return };
        let (tracker, settings) = (&self.tracker, &self.settings);
        let place = Place::of(&settings.seed_labels);
        let mut swarm = Swarm::new(&self.seed, place, settings.seed_slots, now);
        let mut context = Context { tracker, settings, rng: &mut self.rng, now, stalled_before: None };
        swarm.hold(lone.node, lone.pieces, &mut context);
        swarm.changes.clear();
        self.swarms.insert(task, swarm);
    }
}
