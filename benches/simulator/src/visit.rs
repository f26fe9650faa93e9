//! What a node may look at and touch while it is its turn, and what is the same for all.

use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::Geometry;
use common::wire::swarm::Fault;

use crate::post::{Node, Post};

/// A request for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) piece: u32,
}

/// What a peer says to its supernode.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// It connected.
    Up,
    /// It wants the task; it has some pieces already.
    Join,
    /// It does no more.
    Leave,
    /// Some pieces came; how many there are is looked up when this arrives.
    Progress,
    /// It has all.
    Proven,
    MoreParents,
    Blame(Node, Fault),
    /// Its session, of this number, ended.
    Down(u32),
}

/// To whom something is said, and by whom.
pub(crate) type Ends = (Node, Node);

/// What is the same for all and does not change.
pub(crate) struct Fixed {
    pub(crate) geometry: Geometry,
    pub(crate) base: Instant,
    pub(crate) step: Duration,
    /// Steps on the way within a zone, and between zones.
    pub(crate) near: u32,
    pub(crate) far: u32,
    pub(crate) zone_of: Vec<u16>,
    /// Number of supernodes.
    pub(crate) supernodes: u32,
    /// The origin's number, one past the last peer's.
    pub(crate) origin: Node,
    pub(crate) rng: u64,
}

/// A node's turn.
pub(crate) struct Visit<'a> {
    pub(crate) fixed: &'a Fixed,
    pub(crate) now: Instant,
    pub(crate) step: u64,
    /// What the supernodes vouch for.
    pub(crate) sites: &'a [Site],
    pub(crate) out: &'a mut Out,
}

/// What nodes have to say and want done.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) post: Post,
    pub(crate) asks: Vec<Request>,
    pub(crate) cancels: Vec<Request>,
    /// To a supernode from a peer, with the step in which it arrives.
    pub(crate) notices: Vec<(u64, (Node, Node), Notice)>,
    /// Who saw which fault in whom.
    pub(crate) faults: Vec<(Node, Node, Fault)>,
    /// Who trusts whom no more.
    pub(crate) barred: Vec<(Node, Node)>,
    pub(crate) counts: Counts,
}

/// What a supernode vouches for.
#[derive(Default)]
pub(crate) struct Site {
    /// Changes when all of it is forgotten.
    pub(crate) edition: u32,
    /// Pieces whose digests its seed knows, and since which step they are posted.
    pub(crate) log: Vec<(u32, u64)>,
    /// When the batch of digests is posted that is gathered now, or was last.
    pub(crate) posted: u64,
}

/// What is counted on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hedges: u64,
    pub(crate) fallbacks: u32,
    pub(crate) cries: u64,
    pub(crate) pieces: u64,
    pub(crate) tells: u64,
    pub(crate) most_links: usize,
    /// Pieces that were asked for without a digest to compare them with.
    pub(crate) blind: u64,
}

// === impl Fixed ===

impl Fixed {
    /// Whether a node is a supernode, and so a seed.
    pub(crate) fn is_seed(&self, node: Node) -> bool {
        node < self.supernodes
    }

    /// Steps from one node to another, 0 when that is less than half a step.
    pub(crate) fn delay(&self, from: Node, to: Node) -> u32 {
        let zone = |node: Node| self.zone_of[node as usize];
        if zone(from) == zone(to) { self.near } else { self.far }
    }

    /// A node's name: as random as the real ones, which are hashes, and its number can be read off it.
    pub(crate) fn id(&self, node: Node) -> NodeId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mix(self.rng ^ (u64::from(node) << 20)).to_be_bytes());
        id[12..].copy_from_slice(&node.to_be_bytes());
        NodeId(id)
    }

    /// The time of a step.
    pub(crate) fn at(&self, step: u64) -> Instant {
        self.base + Duration::from_nanos(self.step.as_nanos() as u64 * step)
    }

    /// The first step that is not before a time.
    pub(crate) fn step_of(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        since.div_ceil(self.step.as_nanos()) as u64
    }

    /// Steps in a span, one at least.
    pub(crate) fn steps(&self, span: Duration) -> u64 {
        (span.as_nanos().div_ceil(self.step.as_nanos()) as u64).max(1)
    }
}

/// A node's number, from its name.
pub(crate) fn number(id: NodeId) -> Node {
    Node::from_be_bytes([id.0[12], id.0[13], id.0[14], id.0[15]])
}

/// Scatters numbers (SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// === impl Visit ===

impl Visit<'_> {
    /// Says something to a supernode.
    pub(crate) fn notice(&mut self, to: Node, from: Node, notice: Notice) {
        let at = self.step + u64::from(self.fixed.delay(from, to).max(1));
        self.out.notices.push((at, (to, from), notice));
    }
}
