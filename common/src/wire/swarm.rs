//! What a peer and its supernode say to each other, on one bidirectional control stream that the peer opens right
//! after the hello. Tasks are multiplexed on it; every message names its task. The stream's end is the session's.
//!
//! # A download, as messages
//! `Join` → `Joined`, then `Digests` and `Parents` as often as there is news, then `Proven`, or `Failed` or
//! `Poisoned` at any time. Meanwhile the peer sends `Progress` in batches and `Blame` when a neighbour misbehaves.
//!
//! # Several supernodes
//! Each `Digests` is followed by its `Seal`. A peer whose task moves to another supernode shows it both as `Testimony`:
//! what one supernode vouched for, the next need not find out anew. Revocations travel both ways for the same reason.
//!
//! # Versions
//! What came with version 2 or 3 says so, and is neither sent to nor expected of who speaks an older one. Version 3 lets a pull
//! that is traced be followed to other nodes; of others it says nothing new.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::identity::{Revocation, Seal};
use crate::node::{Contact, NodeId};
use crate::piece::{Geometry, PieceIndex};
use crate::task::{Credentials, OriginFailure, Source, TaskId};
use crate::telemetry::trace::TraceContext;

/// The longest task whose bytes come inside [`ToPeer::Joined`].
pub const MAX_INLINE: u64 = 128 * 1024;
/// The most digests in one [`ToPeer::Digests`].
pub const MAX_DIGESTS: usize = 4096;
/// The most entries in one [`ToSupernode::Progress`] or [`ToSupernode::Holdings`].
pub const MAX_ENTRIES: usize = 4096;

/// From a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupernode {
    /// Let me into the swarm of this source's task.
    Join(Join),
    /// How many pieces of each task I have now.
    Progress(Vec<(TaskId, u32)>),
    /// What I hold complete and proven: said after the session opens and as tasks are completed.
    Holdings(Vec<(TaskId, Geometry)>),
    /// I want and give no more of this task.
    Leave(TaskId),
    /// A neighbour wronged me.
    Blame {
        /// The task that it was about.
        task: TaskId,
        /// Who did it.
        node: NodeId,
        /// What it did.
        fault: Fault,
    },
    /// My parents do not give me what I want.
    MoreParents(TaskId),
    /// My certificate runs out: a PKCS #10 request, DER, for the same key.
    Renew(Vec<u8>),
    /// As [`ToSupernode::Join`], for something other than a client's pull. Version 2.
    JoinAs {
        /// The wish.
        join: Join,
        /// How urgent it is.
        priority: Priority,
    },
    /// What another supernode vouched for. Said before the join of a task that has moved. Version 2.
    Testimony(Testimony),
    /// Members that other supernodes turned out. Said when a session opens; at most [`MAX_ENTRIES`]. Version 2.
    Revoked(Vec<Revocation>),
    /// As [`ToSupernode::JoinAs`], for a pull that is traced. Version 3.
    JoinTraced {
        /// The wish.
        join: Join,
        /// How urgent it is.
        priority: Priority,
        /// What it is part of.
        trace: TraceContext,
    },
}

/// The wish to enter a swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What to fetch, if the supernode has not got it.
    pub source: Source,
    /// What opens it at the origin.
    pub credentials: Credentials,
    /// How many pieces the peer has already.
    pub held: u32,
}

/// How urgent a download is, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// It is fetched ahead of need.
    Preheat,
    /// Somebody waits for it.
    #[default]
    Pull,
}

/// The digests of consecutive pieces, and the word of the supernode that vouched for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// Which task.
    pub task: TaskId,
    /// Its length and cut.
    pub geometry: Geometry,
    /// The first piece.
    pub first: PieceIndex,
    /// Its digest and those of the pieces after it; at most [`MAX_DIGESTS`].
    pub digests: Vec<Digest>,
    /// The supernode's word for all of the above.
    pub seal: Seal,
}

/// What a neighbour can be blamed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// It sent bytes that are not the piece.
    WrongBytes,
    /// It claimed a piece and did not give it.
    FalseClaim,
    /// It could not be reached, or fell silent.
    Silent,
    /// It says again and again that it holds pieces that it does not give. Version 2.
    FalseSet,
    /// It is many times slower than the others. Version 2.
    Slow,
}

/// From the supernode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPeer {
    /// You are in.
    Joined {
        /// Which task.
        task: TaskId,
        /// Its length and cut.
        geometry: Geometry,
        /// All its bytes, when they are at most [`MAX_INLINE`] and here already.
        inline: Option<Vec<u8>>,
    },
    /// The digests of consecutive pieces.
    Digests {
        /// Which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// Its digest and those of the pieces after it; at most [`MAX_DIGESTS`].
        digests: Vec<Digest>,
    },
    /// Whom to get pieces from.
    Parents {
        /// Which task.
        task: TaskId,
        /// New parents.
        add: Vec<Contact>,
        /// Parents to let go.
        remove: Vec<NodeId>,
    },
    /// The supernode has the whole and its digest is right: pieces with the digests it sent make the blob.
    Proven(TaskId),
    /// The origin's bytes have the wrong digest: drop all of it.
    Poisoned(TaskId),
    /// The supernode cannot get it.
    Failed {
        /// Which task.
        task: TaskId,
        /// Why.
        failure: Failure,
    },
    /// The new certificate and the CA's, DER, leaf first.
    Renewed(Vec<Vec<u8>>),
    /// The renewal was refused, and why.
    RenewalRefused(String),
    /// The word for the digests in the [`ToPeer::Digests`] just before. Version 2.
    Sealed {
        /// Which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// Number of digests.
        count: u32,
        /// The supernode's word for them.
        seal: Seal,
    },
    /// Members that are turned out: all of them at the start of a session, and all of them again whenever that changes, so
    /// that the last list replaces the one before. At most [`MAX_ENTRIES`]. Version 2.
    Revoked(Vec<Revocation>),
    /// The CAs whose certificates are good from now on, DER, the one that issues first: two while one takes over from the
    /// other, and then the new one as signed by the old one, too. Version 2.
    Authorities(Vec<Vec<u8>>),
}

/// Why a supernode cannot get a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The origin's own answer.
    Origin(OriginFailure),
    /// The supernode's configuration forbids this origin, or the request makes no sense.
    Refused(String),
    /// The origin cannot be reached, or something broke here.
    Unavailable(String),
    /// There is too much to do here: help yourself, or ask again after so many milliseconds. Version 2.
    Busy {
        /// When to ask again.
        retry_after_millis: u32,
    },
}

// === impl Fault ===

impl Fault {
    /// The same in words that a version has.
    pub fn for_version(self, version: u16) -> Self {
        match self {
            Self::FalseSet if version < 2 => Self::FalseClaim,
            Self::Slow if version < 2 => Self::Silent,
            known => known,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// The same in words that a version has.
    pub fn for_version(self, version: u16) -> Self {
        match self {
            busy @ Self::Busy { .. } if version < 2 => Self::Unavailable(busy.to_string()),
            known => known,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Origin(failure) => failure.fmt(f),
            Self::Refused(why) | Self::Unavailable(why) => f.write_str(why),
            Self::Busy { retry_after_millis } => {
                write!(f, "the supernode is busy, retry in {:.1} s", f64::from(*retry_after_millis) / 1e3)
            }
        }
    }
}
