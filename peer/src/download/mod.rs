//! One task on one node: from the first wish for it until nobody needs it any more. A [`session`] is a single
//! task of the runtime that owns all of a download's state and decides; it uses
//!
//! - [`mesh`]: links to neighbours, which piece to ask of whom and to show to whom;
//! - `doorstep`: how often a neighbour may open a link;
//! - [`feed`]: the origin, where this node must ask it;
//! - `retrieval`: a vault of whole blobs, which a seed reads before it asks the origin;
//! - [`proof`]: the digest of the whole, where no supernode vouches for the pieces;
//! - [`shared`]: what clients and neighbours see of the task meanwhile.
//!
//! # Invariants
//! - A piece is marked present only after its bytes were compared with a digest and written. Where nobody
//!   vouches for digests (at the origin itself) the piece's own digest is recorded, and the task is proven only by
//!   the digest of the whole.
//! - A neighbour is shown only pieces that are vouched for, or the task is proven, or this node is the seed.
//! - The task is called proven exactly once, and nothing is said to be finished before.

mod doorstep;
pub mod feed;
pub mod mesh;
pub mod proof;
mod retrieval;
pub mod session;
pub mod shared;

use std::sync::Arc;

use common::node::NodeId;
use common::task::TaskId;
use common::telemetry::Metrics;
use tokio::sync::Semaphore;

use crate::coordinator::Coordinator;
use crate::exchange::courtesy::Courtesy;
use crate::exchange::line::Line;
use crate::exchange::pool::Pool;
use crate::exchange::reveal::Style;
use crate::limit::Limits;
use crate::origin::OriginClient;
use crate::record::book::Book;
use crate::store::Store;
use crate::trust::Trust;
use crate::vault::Vault;

/// Unit of the memory budget.
pub const BUDGET_UNIT: u64 = 64 * 1024;

/// What all sessions of a node share.
pub struct Context {
    /// Where bytes are kept.
    pub store: Store,
    /// Neighbours; none for a lone fetch.
    pub pool: Option<Arc<Pool>>,
    /// Who knows the swarms.
    pub coordinator: Arc<dyn Coordinator>,
    /// How origins are asked.
    pub origin: OriginClient,
    /// Where whole blobs are looked for before the origin is asked.
    pub vault: Option<Arc<dyn Vault>>,
    /// What is counted.
    pub metrics: Metrics,
    /// How thrifty this node shows its pieces.
    pub style: Style,
    /// How preheats give way to pulls.
    pub courtesy: Courtesy,
    /// The pieces that all its tasks have asked for.
    pub downlink: Line,
    /// The pieces that all its tasks have shown to children that have not taken them yet.
    pub uplink: Line,
    /// Bytes that may be in memory on their way in, in units of [`BUDGET_UNIT`].
    pub budget: Arc<Semaphore>,
    /// What neighbours did, over all tasks.
    pub trust: Trust,
    /// The limits that the operator set.
    pub limits: Limits,
    /// What happened in the last downloads.
    pub book: Arc<Book>,
}

// === impl Context ===

impl Context {
    /// Who we are; a lone fetch is nobody.
    pub fn node(&self) -> NodeId {
        self.pool.as_ref().map_or(NodeId([0; 16]), |pool| pool.node())
    }

    /// Whether nothing is to be taken from a neighbour for what it did.
    pub fn is_barred(&self, node: NodeId) -> bool {
        !self.coordinator.is_seed(node) && self.trust.is_barred(node)
    }

    /// A seed for this session's choices: different on every node and task, the same on every run.
    pub fn seed_for(&self, task: TaskId) -> u64 {
        let mut seed = [0; 8];
        for (at, byte) in self.node().0.iter().chain(&task.0).enumerate() {
            seed[at % 8] ^= byte.rotate_left(at as u32 % 7);
        }
        u64::from_le_bytes(seed)
    }
}
