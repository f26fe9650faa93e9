//! Somebody in a [swarm](super::swarm): how far it is, its edges, and which pools it belongs in.

use std::collections::VecDeque;
use std::time::Instant;

use common::node::NodeId;

use super::pool::{KINDS, Kind};
use crate::tracker::{Place, Standing};

/// The depth of those that hang on no root at the moment.
pub(super) const DETACHED: u32 = u32::MAX;
/// Added to the rank of the quarantined: deeper than any honest node.
pub(super) const QUARANTINE_RANK: u32 = 1 << 30;
/// A place in a swarm's table; reused after its sitter left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Seat(pub(super) u32);

/// The seat of the seed, in every swarm.
pub(super) const SEED: Seat = Seat(0);

/// How far a sitter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody sits here.
    Vacant,
    /// Wants the task and waits until its length is known.
    Waiting,
    /// Wants the task: has a trunk.
    Wanting,
    /// Has all of it: a root.
    Complete,
    /// The supernode's own node: the first root.
    Seed,
}

/// Somebody in a swarm.
#[derive(Debug)]
pub(super) struct Sitter {
    pub(super) node: NodeId,
    pub(super) place: Place,
    pub(super) slots: usize,
    pub(super) standing: Standing,
    pub(super) stage: Stage,
    pub(super) held: u32,
    /// Hops along trunks to a root, 0 for roots, or [`DETACHED`].
    pub(super) depth: u32,
    pub(super) trunk: Option<Seat>,
    /// The other parents.
    pub(super) mesh: Vec<Seat>,
    pub(super) trunk_children: Vec<Seat>,
    pub(super) mesh_children: Vec<Seat>,
    /// Number of parents in other zones.
    pub(super) outside: u16,
    /// When it last had news, to tell the stalled.
    pub(super) heard: Instant,
    /// When it was last given more parents on demand.
    pub(super) given: Option<Instant>,
    /// Mesh parents that it let go on demand.
    pub(super) let_go: VecDeque<Seat>,
    /// Whether the seat (not the sitter) is in the queue of the hungry.
    pub(super) queued: bool,
    /// Where it is shelved, for [`Swarm::refresh`](super::swarm::Swarm::refresh) alone to change.
    pub(super) trunk_rank: Option<u32>,
    pub(super) in_mesh: bool,
    /// Whether it is counted as a source.
    pub(super) source: bool,
    /// Its spot in each pool that it is in.
    pub(super) spots: [u32; KINDS],
}

// === impl Sitter ===

impl Sitter {
    pub(super) fn new(node: NodeId, place: Place, slots: usize, stage: Stage, now: Instant) -> Self {
        Self {
            node,
            place,
            slots,
            standing: Standing::Good,
            stage,
            held: 0,
            depth: if stage == Stage::Seed { 0 } else { DETACHED },
            trunk: None,
            mesh: Vec::new(),
            trunk_children: Vec::new(),
            mesh_children: Vec::new(),
            outside: 0,
            heard: now,
            given: None,
            let_go: VecDeque::new(),
            queued: false,
            trunk_rank: None,
            in_mesh: false,
            source: false,
            spots: [0; KINDS],
        }
    }

    pub(super) fn children(&self) -> usize {
        self.trunk_children.len() + self.mesh_children.len()
    }

    pub(super) fn parents(&self) -> impl Iterator<Item = Seat> {
        self.trunk.into_iter().chain(self.mesh.iter().copied())
    }

    /// Where it stands among possible trunks, if it can be one more child's.
    pub(super) fn rank(&self) -> Option<u32> {
        let able = self.depth != DETACHED && self.trunk_children.len() < self.slots;
        match self.standing {
            Standing::Outcast => None,
            Standing::Quarantined => able.then_some(self.depth.saturating_add(QUARANTINE_RANK)),
            Standing::Good | Standing::Doubted => able.then_some(self.depth),
        }
    }

    /// Whether it can take a mesh child: a quarter of the slots is kept for trunks, so that these rarely
    /// have to drive a mesh child out.
    pub(super) fn takes_mesh(&self) -> bool {
        let settled = matches!(self.stage, Stage::Wanting | Stage::Complete);
        settled && self.standing <= Standing::Doubted && self.children() < self.slots - self.slots / 4
    }

    pub(super) fn group(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::TrunkZone | Kind::Zone => Some(self.place.zone),
            Kind::TrunkAll | Kind::All => Some(0),
            Kind::Rack => Some(self.place.rack).filter(|&rack| rack != 0),
            Kind::Host => Some(self.place.host).filter(|&host| host != 0),
        }
    }
}
