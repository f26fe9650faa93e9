//! Why a runtime has not got an image, in words for whoever preheats, and whether to try again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{LONGEST_NAME, USUAL};

/// Why the runtime could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No socket was named, and there is none where they usually are.
    #[error(
        "there is no container runtime's socket at {} or {}: start the runtime, or name its socket with --runtime-socket",
        USUAL[0], USUAL[1]
    )]
    NoneFound,
    /// Nothing is where the socket should be.
    #[error(
        "there is no socket at {}: start the container runtime, or name its socket with --runtime-socket",
        socket.display()
    )]
    NoSocket {
        /// Where.
        socket: PathBuf,
    },
    /// Something else is there.
    #[error("{} is no socket: name the container runtime's with --runtime-socket", socket.display())]
    NotASocket {
        /// Where.
        socket: PathBuf,
    },
    /// It is somebody else's.
    #[error(
        "this peer may not use the socket {}: run it as root or in the socket's group, or name another with --runtime-socket",
        socket.display()
    )]
    NoPermission {
        /// Where.
        socket: PathBuf,
    },
    /// A runtime that is gone left its socket.
    #[error(
        "nobody listens at the socket {}: start the container runtime, or name its socket with --runtime-socket",
        socket.display()
    )]
    NobodyListens {
        /// Where.
        socket: PathBuf,
    },
    /// It cannot be connected to for another reason.
    #[error("cannot connect to the container runtime's socket {}: {source}; --runtime-socket names another", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Who answers there is no CRI runtime, or not in version 1.
    #[error(
        "who answers at {} speaks no CRI v1 ({said}): enable it (containerd: take \"cri\" out of disabled_plugins), or name another socket with --runtime-socket",
        socket.display()
    )]
    NoCri {
        /// Where.
        socket: PathBuf,
        /// In its words.
        said: String,
    },
    /// It went away, or answered what is no answer.
    #[error("the container runtime at {} broke off over {image}: {what}; its own log says more", socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// Asked for what.
        image: String,
        /// How.
        what: String,
    },
    /// It was not done in time.
    #[error(
        "the container runtime at {} was not done with {image} within {after:?}: give it more time, or look into its log",
        socket.display()
    )]
    TimedOut {
        /// Where.
        socket: PathBuf,
        /// Asked for what.
        image: String,
        /// How long it had.
        after: Duration,
    },
    /// It said no.
    #[error("the container runtime at {} has not got {image}: {said}; {}", socket.display(), refusal.way_out())]
    Refused {
        /// Where.
        socket: PathBuf,
        /// Asked for what.
        image: String,
        /// What kind of no.
        refusal: Refusal,
        /// In its words: one line, without what opens doors.
        said: String,
    },
    /// It pulled the image and does not have it.
    #[error(
        "the container runtime at {} pulled {image} and has it no more: its disk may be too full to keep it",
        socket.display()
    )]
    Gone {
        /// Where.
        socket: PathBuf,
        /// Asked for what.
        image: String,
    },
    /// What was asked for can be no image.
    #[error(
        "an image's name has 1 to {LONGEST_NAME} visible ASCII characters, for example docker.io/library/busybox:latest"
    )]
    Name,
    /// This build has no client for CRI.
    #[error(
        "this build cannot ask a container runtime: build it with the feature `cri`, or preheat to peers instead"
    )]
    NotBuilt,
}

/// What kind of no a runtime's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The registry wants another login, or one at all.
    Unauthorized,
    /// There is no such image, or none for this machine.
    NotFound,
    /// The runtime cannot use the name or the login.
    Invalid,
    /// The registry, the network or the disk: it may be over in a while.
    Unavailable,
}

// === impl RuntimeError ===

impl RuntimeError {
    /// Whether the same call may go better in a while. A runtime that is not there may be starting; what somebody has to change
    /// first will not change by asking.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            Self::NoneFound
            | Self::NoSocket { .. }
            | Self::NobodyListens { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::Gone { .. } => true,
            Self::Refused { refusal, .. } => *refusal == Refusal::Unavailable,
            Self::NotASocket { .. }
            | Self::NoPermission { .. }
            | Self::NoCri { .. }
            | Self::Name
            | Self::NotBuilt => false,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn way_out(self) -> &'static str {
        match self {
            Self::Unauthorized => "give a login that may pull it",
            Self::NotFound => "look at its name, its tag and its platforms",
            Self::Invalid => "write its name in full, and the login as this runtime takes it",
            Self::Unavailable => "try again in a while",
        }
    }
}
