//! What two nodes say about pieces. Either may open a stream to the other; its first frame is an [`Opening`].
//!
//! - A **link** is one long stream per task and pair of nodes. Both sides push [`Link::Have`] on it as their piece
//!   sets grow (each shows only what it wants to give: super-seeding), so either may be the
//!   other's parent. A finished sending side means "I want nothing more", and ends the link when both have.
//! - A **piece** stream is one request: [`PieceReply`], and after [`PieceReply::Data`] the piece's raw bytes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::inquiry::Inquiry;
use crate::piece::{Geometry, PieceIndex};
use crate::task::TaskId;
use crate::telemetry::trace::TraceContext;

/// The most runs in one [`Link::Have`].
pub const MAX_RUNS: usize = 4096;

/// The first frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// Opens a link.
    Link {
        /// Which task.
        task: TaskId,
        /// The opener's view of it; the other side refuses another view.
        geometry: Geometry,
    },
    /// Asks for a piece.
    Piece {
        /// Which task.
        task: TaskId,
        /// Which piece.
        index: PieceIndex,
    },
    /// The rest of this stream is the peer's session with the supernode ([`super::swarm`]).
    Session,
    /// A question for an origin; [`super::inquiry::Inquired`] is the answer.
    Inquiry(Inquiry),
    /// As [`Opening::Link`], for a pull that is traced. Version 3.
    LinkTraced {
        /// Which task.
        task: TaskId,
        /// The opener's view of it.
        geometry: Geometry,
        /// What it is part of.
        trace: TraceContext,
    },
    /// As [`Opening::Inquiry`], for a pull that is traced. Version 3.
    InquiryTraced(Inquiry, TraceContext),
    /// Something to do ahead of need ([`super::errand`]): only from a supernode to a peer. Version 4.
    Errand,
}

/// A message on a link, either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// The link is up: the listener's first word.
    Accepted,
    /// No link, and why: the listener's only word.
    Refused(Refusal),
    /// Ask me for these pieces: ascending runs, at most [`MAX_RUNS`].
    Have(Vec<Range<u32>>),
    /// I hold these pieces too, but do not ask me for them yet: so the other side knows how rare they are.
    Hold(Vec<Range<u32>>),
}

/// The answer to a piece request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PieceReply {
    /// So many raw bytes follow.
    Data {
        /// The piece's length in bytes.
        length: u32,
    },
    /// None follow.
    Refused(Refusal),
}

/// Why a link or a piece is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The node does not know the task.
    UnknownTask,
    /// It knows the task, but has no such piece.
    UnknownPiece,
    /// All slots are taken.
    Busy,
    /// The two views of the task's length do not match.
    OtherGeometry,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownTask => "it does not know the task",
            Self::UnknownPiece => "it has no such piece",
            Self::Busy => "all its slots are taken",
            Self::OtherGeometry => "it has another length for the task",
        })
    }
}
