//! What a supernode has a peer do ahead of need (preheating). One stream an errand, opened by the supernode with
//! [`super::exchange::Opening::Errand`]: one [`Errand`] there, [`Report`]s back, the last of which says how it ended. The stream's
//! end is the errand's: a supernode that wants no more of it resets its side. Version 4.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::task::{Credentials, Source};

/// The most sources of one errand.
pub const MAX_SOURCES: usize = 256;

/// The most sources under way that a report names.
pub const MAX_UNDER_WAY: usize = 16;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Fetch these, as far as they are not here.
    Fetch {
        /// What; at most [`MAX_SOURCES`].
        sources: Vec<Source>,
        /// What opens them at the origin.
        credentials: Credentials,
    },
    /// Have the container runtime pull an image, through this node's proxy like any other.
    Pull {
        /// Its name, in full.
        image: String,
        /// Who to be at the registry.
        login: Option<Login>,
        /// How long the runtime may take, in milliseconds. In no time nothing is pulled: it is only looked whether the image is
        /// there, and 0 bytes are where it is not.
        timeout_millis: u32,
    },
}

/// A user of a registry. Its [`fmt::Debug`] shows no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Login {
    /// By name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token of the registry.
    Token(String),
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// So many bytes are here of so many that are known of. Said now and then.
    Progress {
        /// Bytes that are here.
        held: u64,
        /// Bytes that there are to be.
        total: u64,
        /// Of the errand's sources, how many are here.
        done: u32,
        /// Those that are not, and have begun: by their place in the errand, with bytes that are here. At most [`MAX_UNDER_WAY`].
        under_way: Vec<(u32, u64)>,
    },
    /// It is done: so many bytes are here.
    Done {
        /// Bytes that are here.
        held: u64,
    },
    /// It could not be done.
    Failed {
        /// Why, in a line.
        why: String,
        /// Whether it may go better another time.
        passing: bool,
    },
}

// === impl Login ===

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}
