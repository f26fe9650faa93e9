//! What a download sees of the supernode. The engine knows no roles: a peer gives it its sessions with the
//! supernodes ([`remote`]), the supernode's own seed the tracker itself, a lone `get` [`Nobody`].
//!
//! Orders come down, notices go up. Both channels are bounded. A download never waits for room in its notices
//! (they are soft state: what does not fit is dropped, and said again by later ones), so a coordinator may wait
//! for room in the orders without a deadlock.

pub mod directory;
pub mod driver;
pub mod fleet;
mod harbour;
mod hearsay;
mod line;
mod muster;
pub mod remote;
pub mod session;
pub mod standing;
mod testimony;

use std::collections::BTreeMap;

use common::digest::Digest;
use common::node::{Contact, NodeId};
use common::piece::{Geometry, PieceIndex};
use common::task::{Credentials, Source, TaskId};
use common::telemetry::trace::TraceContext;
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::{Failure, Fault, Priority};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Orders waiting for a download: it takes them at once.
pub const ORDERS: usize = 64;
/// What waits for a coordinator, from all downloads of the node.
pub const NOTICES: usize = 4096;

/// The wish to enter a swarm.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What is wanted.
    pub source: Source,
    /// What opens it at the origin.
    pub credentials: Credentials,
    /// Pieces that are here already.
    pub held: u32,
    /// How urgent it is.
    pub priority: Priority,
    /// What it is part of, if that is traced.
    pub trace: Option<TraceContext>,
}

/// A place in a swarm; it is given up by dropping it.
pub struct Membership {
    /// What the coordinator says.
    pub orders: mpsc::Receiver<Order>,
    /// What it is told.
    pub notices: Notices,
}

/// A download's line to its coordinator; all downloads of a node share one channel, so that a coordinator has one
/// thing to wait for. Dropping it says [`Notice::Left`].
pub struct Notices {
    task: TaskId,
    sender: mpsc::Sender<(TaskId, Notice)>,
}

// === impl Notices ===

impl Notices {
    /// The line of one task.
    pub fn new(task: TaskId, sender: mpsc::Sender<(TaskId, Notice)>) -> Self {
        Self { task, sender }
    }

    /// Says something, if there is room.
    pub fn say(&self, notice: Notice) {
        let _ = self.sender.try_send((self.task, notice));
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.say(Notice::Left);
    }
}

/// From the coordinator to a download.
#[derive(Debug)]
pub enum Order {
    /// The wish goes to this supernode.
    Joining(NodeId),
    /// The task's length is known, and, for a small one, all its bytes.
    Joined {
        /// Length and cut.
        geometry: Geometry,
        /// All the bytes, unverified.
        inline: Option<Vec<u8>>,
    },
    /// Piece digests that may be relied on.
    Digests {
        /// The first piece.
        first: PieceIndex,
        /// Its digest, and those of the pieces after it.
        digests: Vec<Digest>,
    },
    /// Another coordinator had begun the task and vouched for these pieces: they are with the neighbours, and only the rest
    /// is to be asked of the origin.
    Recalled {
        /// Length and cut.
        geometry: Geometry,
        /// The digests of pieces, which may be relied on.
        digests: BTreeMap<PieceIndex, Digest>,
    },
    /// Whom to get pieces from.
    Parents {
        /// New ones.
        add: Vec<Contact>,
        /// Those to let go.
        remove: Vec<NodeId>,
    },
    /// The pieces of those digests make the blob.
    Proven,
    /// They do not, and nobody is to keep them.
    Poisoned,
    /// The coordinator cannot get the task.
    Failed(Failure),
    /// Ask the origin yourself: you are the seed, or there is no coordinator.
    GoToOrigin,
    /// The coordinator is out of reach for now; it may come back.
    Lost,
}

/// From a download to its coordinator.
#[derive(Debug)]
pub enum Notice {
    /// The length is known (said by those who ask the origin).
    Known(Geometry),
    /// So many pieces are here now.
    Progress(u32),
    /// All of it is here, and right.
    Proven(Geometry),
    /// It cannot be had.
    Failed {
        /// Its bytes do not have the digest.
        poisoned: bool,
    },
    /// A neighbour wronged us.
    Blame {
        /// Who.
        node: NodeId,
        /// How.
        fault: Fault,
    },
    /// The parents do not give what is wanted.
    MoreParents,
    /// The download is over, or given up.
    Left,
}

/// Whoever knows the swarms.
pub trait Coordinator: Send + Sync + 'static {
    /// Enters the swarm of a task. Never fails: what goes wrong comes as an order.
    fn join(&self, task: TaskId, wish: Wish) -> Membership;

    /// Whether pieces from this node count as the seed's.
    fn is_seed(&self, node: NodeId) -> bool;

    /// Has a question put to an origin for one of this node's clients; `None` when there is nobody to do it.
    fn inquire(&self, _: Inquiry, _: Option<TraceContext>) -> BoxFuture<'_, Option<Inquired>> {
        Box::pin(std::future::ready(None))
    }
}

/// No supernode at all: every download asks the origin.
pub struct Nobody;

// === impl Nobody ===

impl Coordinator for Nobody {
    fn join(&self, task: TaskId, _: Wish) -> Membership {
        let (orders, receiver) = mpsc::channel(1);
        // The notices' receiver is dropped: nobody listens, and the download does not mind.
        let (notices, _) = mpsc::channel(1);
        let notices = Notices::new(task, notices);
        orders.try_send(Order::GoToOrigin).expect("invariant: the channel is new and holds one");
        Membership { orders: receiver, notices }
    }

    fn is_seed(&self, _: NodeId) -> bool {
        false
    }
}
