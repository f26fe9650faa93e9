//! Somebody in a [swarm](super::swarm): how far it is, its edges, and which pools it belongs in.

use std::net::SocketAddr;
use std::time::Instant;

use common::node::{Contact, NodeId};

use super::pool::{Groups, KINDS};
use crate::tracker::{Place, Standing};

/// How many let-go parents a sitter remembers, to be given others.
const REMEMBERED: usize = 4;

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
    address: SocketAddr,
    pub(super) place: Place,
    /// Its pools' groups.
    pub(super) groups: Groups,
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
    /// Mesh parents that it let go on demand, the last ones, in a ring; the seed, which is drawn by nobody, for none.
    let_go: [Seat; REMEMBERED],
    let_go_next: u8,
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
    pub(super) fn new(contact: &Contact, place: Place, slots: usize, stage: Stage, now: Instant) -> Self {
        Self {
            node: contact.id,
            address: contact.address,
            place,
            groups: Groups::NONE,
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
            let_go: [SEED; REMEMBERED],
            let_go_next: 0,
            queued: false,
            trunk_rank: None,
            in_mesh: false,
            source: false,
            spots: [0; KINDS],
        }
    }

    /// How others reach it.
    pub(super) fn contact(&self) -> Contact {
        Contact { id: self.node, address: self.address }
    }

    pub(super) fn children(&self) -> usize {
        self.trunk_children.len() + self.mesh_children.len()
    }

    pub(super) fn parents(&self) -> impl Iterator<Item = Seat> {
        self.trunk.into_iter().chain(self.mesh.iter().copied())
    }

    /// Where it stands among possible trunks, if it can be one more child's.
    pub(super) fn rank(&self) -> Option<u32> {
        let hangs = self.depth != DETACHED && self.stage != Stage::Vacant;
        let able = hangs && self.trunk_children.len() < self.slots;
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

    /// Whether there is an edge between it and another, either way.
    pub(super) fn linked_with(&self, other: Seat) -> bool {
        self.trunk == Some(other) || self.trunk_children.contains(&other) || self.meshed_with(other)
    }

    /// Whether there is an edge beside the trunks between it and another, either way.
    pub(super) fn meshed_with(&self, other: Seat) -> bool {
        self.mesh.contains(&other) || self.mesh_children.contains(&other)
    }

    /// Remembers a mesh parent as one not to give again soon.
    pub(super) fn remember(&mut self, parent: Seat) {
        self.let_go[usize::from(self.let_go_next)] = parent;
        self.let_go_next = (self.let_go_next + 1) % REMEMBERED as u8;
    }

    /// Whether it let a parent go not long ago.
    pub(super) fn remembers(&self, parent: Seat) -> bool {
        self.let_go.contains(&parent)
    }
}
