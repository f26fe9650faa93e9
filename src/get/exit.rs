//! How a `get` ends, as its exit code: scripts act on it. Read by `main` once the error has been said.
//!
//! | code | it means |
//! | --- | --- |
//! | 0 | done |
//! | 1 | it did not work |
//! | 2 | the command line makes no sense |
//! | 3 | the content is not what its digest promises |
//! | 4 | the origin does not have it, or refuses it |
//! | 5 | the time was up |
//! | 130 | interrupted |

use std::fmt;

use common::digest::Digest;
use peer::error::FetchError;

use crate::Usage;
use crate::local::Refused;

/// Done.
#[cfg(test)]
const DONE: u8 = 0;
const FAILED: u8 = 1;
const NONSENSE: u8 = 2;
const OTHER_CONTENT: u8 = 3;
const REFUSED: u8 = 4;
const TIME_UP: u8 = 5;
/// As a shell says it of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Answers that say "not this, not to you": asking again brings the same.
const REFUSALS: [u16; 6] = [401, 403, 404, 407, 410, 451];

/// What ends a fetch beside what the engine and the local daemon say.
#[derive(Debug)]
pub enum Stop {
    /// The content has another digest than was asked for.
    OtherContent(Digest),
    /// The origin's content is another than it was at the start.
    Changed,
    /// `--timeout`.
    TimeUp,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// Whoever read our standard output has had enough.
    NobodyReads,
    /// Some of several sources failed: each has said why, the first with this code.
    Several { failed: usize, of: usize, code: u8 },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherContent(digest) => write!(f, "the content is not {digest}: nothing was kept"),
            Self::Changed => f.write_str("the content at the origin changed while it was fetched: ask again"),
            Self::TimeUp => f.write_str("the time was up: give more with --timeout"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::NobodyReads => f.write_str("nobody reads the output any more"),
            Self::Several { failed, of, .. } => write!(f, "{failed} of {of} sources could not be fetched"),
        }
    }
}

impl std::error::Error for Stop {}

/// The exit code that an error stands for.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() {
        return Some(NONSENSE);
    }
    if let Some(stop) = cause.downcast_ref::<Stop>() {
        return Some(match stop {
            Stop::OtherContent(_) => OTHER_CONTENT,
            Stop::TimeUp => TIME_UP,
            Stop::Interrupted => INTERRUPTED,
            Stop::Changed | Stop::NobodyReads => FAILED,
            Stop::Several { code, .. } => *code,
        });
    }
    if let Some(refused) = cause.downcast_ref::<Refused>() {
        return Some(match refused.status {
            // The peer's own word for it; an origin has no reason to say that of a GET.
            409 => OTHER_CONTENT,
            status if REFUSALS.contains(&status) => REFUSED,
            _ => FAILED,
        });
    }
    Some(match cause.downcast_ref::<FetchError>()? {
        FetchError::Poisoned { .. } => OTHER_CONTENT,
        FetchError::Origin(failure) if REFUSALS.contains(&failure.status) => REFUSED,
        _ => FAILED,
    })
}

/// Whether a daemon or an origin said no.
pub fn is_refused(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let refused = cause.downcast_ref::<Refused>().map(|refused| refused.status);
        let status = refused.or_else(|| match cause.downcast_ref() {
            Some(FetchError::Origin(failure)) => Some(failure.status),
            _ => None,
        });
        // 400: a daemon that knows no files.
        matches!(status, Some(400 | 403))
    })
}

/// Whether the error needs no word.
pub fn is_silent(error: &anyhow::Error) -> bool {
    matches!(error.root_cause().downcast_ref(), Some(Stop::NobodyReads))
}

/// Whether whoever was asked does not know us (any more).
pub fn is_unauthorized(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let answered =
            matches!(cause.downcast_ref(), Some(FetchError::Origin(failure)) if failure.status == 401);
        answered || matches!(cause.downcast_ref(), Some(Refused { status: 401, .. }))
    })
}

/// Whether another attempt may end better.
pub fn may_pass(error: &anyhow::Error) -> bool {
    let passing = |status: u16| matches!(status, 408 | 429) || status >= 500;
    error.chain().any(|cause| {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return passing(refused.status);
        }
        match cause.downcast_ref::<FetchError>() {
            Some(FetchError::Origin(failure)) => passing(failure.status),
            Some(FetchError::Unavailable(_) | FetchError::Swarm(_)) => true,
            _ => matches!(cause.downcast_ref(), Some(Stop::Changed)),
        }
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use common::task::{OriginFailure, TaskId};

    use super::*;

    fn origin(status: u16) -> anyhow::Error {
        FetchError::Origin(OriginFailure { status, headers: Vec::new(), body: Vec::new() }).into()
    }

    #[test]
    fn every_end_has_its_code_whatever_was_said_around_it() {
        let poisoned = FetchError::Poisoned { task: TaskId([0; 32]) };
        let cases = [
            (anyhow::anyhow!("the disk is full"), FAILED),
            (crate::usage(anyhow::anyhow!("no")), NONSENSE),
            (poisoned.into(), OTHER_CONTENT),
            (Stop::OtherContent(Digest([0; 32])).into(), OTHER_CONTENT),
            (Refused { status: 409, said: String::new() }.into(), OTHER_CONTENT),
            (origin(404), REFUSED),
            (Refused { status: 401, said: String::new() }.into(), REFUSED),
            (origin(503), FAILED),
            (Stop::TimeUp.into(), TIME_UP),
            (Stop::Interrupted.into(), INTERRUPTED),
            (Stop::Several { failed: 1, of: 2, code: REFUSED }.into(), REFUSED),
        ];
        for (error, expected) in cases {
            let said = format!("{error:#}");
            let around = Err::<(), _>(error).context("cannot fetch it").unwrap_err();
            assert_eq!(code(&around), expected, "{said}");
            assert_ne!(code(&around), DONE);
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(may_pass(&origin(503)) && may_pass(&origin(429)) && !may_pass(&origin(404)));
        assert!(!may_pass(&Stop::OtherContent(Digest([0; 32])).into()));
        assert!(!may_pass(&anyhow::anyhow!("the disk is full")));
        let nobody = Err::<(), _>(Stop::NobodyReads).context("cannot fetch it").unwrap_err();
        assert!(is_silent(&nobody) && !is_silent(&origin(404)));
    }
}
