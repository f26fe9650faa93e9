//! The node's container runtime, asked over its CRI socket to pull an image, so that it lies there unpacked and starts with no
//! pull. Whoever preheats to the target `runtime` calls it; [`crate::daemon`] carries it.
//!
//! The pull is the runtime's own, by its own settings: where these name this node's proxy, the bytes come through the swarm.
//! `talk` says what CRI says, `grpc` is one call, `said` makes a runtime's words fit for an error. Without the feature `cri` the
//! first two are left out, and every question is answered by [`RuntimeError::NotBuilt`].
//!
//! # Invariants
//! - A call is a connection of its own that the caller's future drives: an idle node holds none, a runtime that was restarted
//!   is met anew, and dropping the future ends the call at the runtime, too.
//! - Every call has an end, and every answer a largest size.
//! - A login goes to the runtime alone: it is in no error, whatever the runtime says.

mod error;
#[cfg(feature = "cri")]
mod grpc;
#[cfg(feature = "cri")]
mod said;
#[cfg(feature = "cri")]
mod talk;
#[cfg(test)]
#[cfg(feature = "cri")]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::config::ByteSize;

pub use error::{Refusal, RuntimeError};

/// Where runtimes have their sockets, unless told otherwise: containerd, CRI-O.
pub const USUAL: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

/// The longest image name that is passed on. Host, repository and tag have at most 255, 255 and 128 characters.
const LONGEST_NAME: usize = 1024;

/// The container runtime behind its CRI socket. Cheap to clone; opens nothing before it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Where it is; none: at the first of [`USUAL`] that is there when it is asked.
    socket: Option<Arc<Path>>,
}

/// An image that a runtime has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The runtime's name for it: mostly its config's digest.
    pub id: String,
    /// What it takes, as the runtime counts: containerd counts its compressed layers.
    pub size: ByteSize,
}

/// Who asks a registry, as CRI has it. The runtime shows it to whichever of the registry's hosts asks for one, and so to this
/// node's proxy where that is its mirror.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user's name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// What a registry's token server gives tokens for, instead of a password (OAuth2: a refresh token).
    IdentityToken(String),
    /// A registry's bearer token. containerd makes no use of one: it asks the registry as if there were no login.
    RegistryToken(String),
}

// === impl Runtime ===

impl Runtime {
    /// The runtime behind `socket`, which need not be there yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket: Some(socket.into()) }
    }

    /// Whether the image is there already.
    ///
    /// # Errors
    /// When the runtime cannot be asked, or gives no answer.
    pub async fn has(&self, image: &str) -> Result<Option<Ready>, RuntimeError> {
        talk::has(&self.socket()?, named(image)?).await
    }

    /// Pulls the image and waits until it is unpacked. Dropping the future cancels the pull.
    ///
    /// # Errors
    /// When the runtime cannot be asked, says no, or is not done within `timeout`.
    pub async fn pull(
        &self,
        image: &str,
        login: Option<&Login>,
        timeout: Duration,
    ) -> Result<Ready, RuntimeError> {
        talk::pull(&self.socket()?, named(image)?, login, timeout).await
    }

    /// Looked for at each call: runtimes and peers start in any order.
    fn socket(&self) -> Result<Arc<Path>, RuntimeError> {
        if !cfg!(feature = "cri") {
            return Err(RuntimeError::NotBuilt);
        }
        let usual = || USUAL.iter().map(Path::new).find(|socket| socket.exists()).map(Arc::from);
        self.socket.clone().or_else(usual).ok_or(RuntimeError::NoneFound)
    }
}

// === impl Login ===

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, password: [redacted] }}"),
            Self::IdentityToken(_) => f.write_str("IdentityToken([redacted])"),
            Self::RegistryToken(_) => f.write_str("RegistryToken([redacted])"),
        }
    }
}

impl Login {
    /// What nobody else may see.
    #[cfg(feature = "cri")]
    fn secret(&self) -> &str {
        match self {
            Self::Password { password: secret, .. }
            | Self::IdentityToken(secret)
            | Self::RegistryToken(secret) => secret,
        }
    }
}

/// Whether it can be an image's name at all; what exactly is one, the runtime says. It will stand in errors and logs.
fn named(image: &str) -> Result<&str, RuntimeError> {
    let shown = image.bytes().all(|byte| byte.is_ascii_graphic());
    let fine = shown && !image.is_empty() && image.len() <= LONGEST_NAME;
    fine.then_some(image).ok_or(RuntimeError::Name)
}

/// What is left of [`talk`] without the feature `cri`; [`Runtime::socket`] lets nobody come here.
#[cfg(not(feature = "cri"))]
mod talk {
    use super::{Duration, Login, Path, Ready, RuntimeError};

    pub(super) async fn has(_: &Path, _: &str) -> Result<Option<Ready>, RuntimeError> {
        Err(RuntimeError::NotBuilt)
    }

    pub(super) async fn pull(
        _: &Path,
        _: &str,
        _: Option<&Login>,
        _: Duration,
    ) -> Result<Ready, RuntimeError> {
        Err(RuntimeError::NotBuilt)
    }
}
