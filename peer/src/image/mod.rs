//! What an image is at a registry: its name ([`reference`]), who one is there ([`logins`]), its manifests and what they name ([`manifest`]), and the questions
//! that bring those ([`registry`]). For who wants a whole image and has no runtime that asks: `get`, and preheating.

pub mod logins;
pub mod manifest;
pub mod reference;
pub mod registry;

use common::digest::Digest;

use crate::error::FetchError;
use crate::origin::RegistryError;

/// Why an image cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// What the registry said, or why it cannot be asked.
    #[error("{0}")]
    Fetch(FetchError),
    /// Not a registry's name.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A registry gave something else than was asked for by digest.
    #[error("the content is not {0}: nothing was kept")]
    OtherContent(Digest),
    /// Its way to tokens does not go.
    #[error("the registry wants a token, {0}")]
    Token(&'static str),
    /// Not JSON, or not that of a manifest.
    #[error("the registry's answer is no manifest")]
    NoManifest,
    /// A manifest of another kind.
    #[error("the manifest is neither that of an image nor an index ({0}): ask for an image of this decade")]
    Unknown(String),
    /// Something is named by a digest that is not SHA-256.
    #[error("the image cannot be checked: {0:?} is no SHA-256 digest")]
    Unchecked(String),
    /// An index without an image for us.
    #[error("there is no image for {platform}: choose with --platform among {all}")]
    NoSuchPlatform {
        /// Which is wanted.
        platform: String,
        /// Which there are.
        all: String,
    },
    /// The registry takes too long.
    #[error("the registry takes too long to say what the image is: try again later")]
    Slow,
    /// An index in an index.
    #[error("the index names another index for {0}")]
    Nested(String),
}

// === impl ImageError ===

impl ImageError {
    /// Whether it may go better another time, with the same credentials.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Origin(failure)) => {
                matches!(failure.status, 408 | 429) || failure.status >= 500
            }
            Self::Fetch(FetchError::Unavailable(_) | FetchError::Swarm(_) | FetchError::Closing)
            | Self::Slow => true,
            _ => false,
        }
    }
}

impl From<FetchError> for ImageError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}
