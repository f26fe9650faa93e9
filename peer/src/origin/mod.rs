//! All that is asked of an origin (a registry, or any HTTP(S) server): by the seed, by a peer that must do
//! without its supernode, by the proxy (HEADs, manifests, pass-through) and by a lone `get`.
//!
//! [`client`] asks and gives an [`Answer`], [`folders`] answers for files that nodes share, [`pass`] hands on what is the client's own affair, [`guard`] says who may be asked, [`query`] what of a URL is a key, [`registry`] where a registry's name is reached, [`retry`]
//! when to ask again, and [`ranges`] brings the bytes of a whole task ([`plan`] cuts it, [`segment`] reads one cut).
//!
//! # Invariants
//! - The undisturbed fetch takes every byte from the origin exactly once.
//! - No error text holds a header's value, a user's name or password, or a query string: those may be secrets.

pub mod activity;
mod address;
pub mod answer;
pub mod client;
#[cfg(test)]
pub(crate) mod fake;
mod folders;
pub mod fuzz;
pub mod guard;
mod pass;
pub(crate) mod plan;
pub mod query;
pub mod ranges;
pub mod registry;
pub mod retry;
pub mod revision;
pub(crate) mod segment;

use std::path::PathBuf;

use common::task::OriginFailure;
use reqwest::Url;

pub use answer::Answer;
pub use client::{OriginClient, OriginOptions};
pub use guard::{OriginPolicy, Refusal};
pub use ranges::{Fetch, OriginEvent, fetch};
pub use registry::{Registries, RegistryError};
pub use retry::RetryPolicy;
pub use revision::{Look, look, revised};

/// The most of a URL that an error quotes.
const MAX_LABEL: usize = 200;

/// A cause whose kind does not matter to the caller.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an origin could not be asked, or did not bring what it promised. URLs are shown without query.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The origin answered, but not with the bytes: the client is to see this answer as it is.
    #[error("{0}")]
    Answer(OriginFailure),
    /// The configuration or a rule without exception forbids to ask there.
    #[error("asking {url} is not allowed: {why}")]
    Forbidden {
        /// What was to be asked.
        url: String,
        /// The rule, and the setting that would allow it.
        why: Refusal,
    },
    /// No answer at all, after the retries.
    #[error("the origin {origin} cannot be reached: check its address, the network and its certificate")]
    Unreachable {
        /// Scheme, host and port.
        origin: String,
        /// The last attempt's error.
        #[source]
        source: Cause,
    },
    /// A length is needed to cut the task into pieces.
    #[error("{url} was answered without a length: only content of a known length can be distributed")]
    NoLength {
        /// What was asked.
        url: String,
    },
    /// The content is not what it was when the fetch began.
    #[error("{url} changed while it was fetched ({what}): ask again")]
    Changed {
        /// What was asked.
        url: String,
        /// What was seen.
        what: String,
    },
    /// The answer's body broke off and could not be resumed.
    #[error("the answer for {url} broke off before its end")]
    Truncated {
        /// What was asked.
        url: String,
        /// The last attempt's error.
        #[source]
        source: Cause,
    },
    /// More bytes than the asker takes.
    #[error("the answer for {url} is too large: more than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// What is taken at most.
        limit: u64,
    },
    /// A circle of redirects, most likely.
    #[error("{url} redirects more than {limit} times")]
    TooManyRedirects {
        /// What was asked first.
        url: String,
        /// How many are followed.
        limit: usize,
    },
    /// Not a URL that can be asked.
    #[error("{url:?} is not a URL that can be fetched: {why}")]
    BadUrl {
        /// The text, without query and without user.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A credential or header that no HTTP request can carry.
    #[error("the value of the {name:?} header has characters that HTTP does not allow")]
    BadHeader {
        /// The header's name; its value is never shown.
        name: String,
    },
    /// A registry's name or URL in the settings or in a request.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A path in `--origin-folder`.
    #[error("--origin-folder {0} is no absolute path: write /PATH")]
    Folder(PathBuf),
    /// A host pattern in `--origin-allow` or `--insecure-registry`.
    #[error(transparent)]
    Pattern(#[from] guard::PatternError),
    /// An extra CA file that cannot be used.
    #[error("the CA file {path} cannot be used: it must be readable and hold PEM certificates")]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// The TLS client could not be set up.
    #[error("the TLS client for origins cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// A URL as it may be shown: without user, password, query and fragment.
fn label(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = match url.host_str() {
        Some(host) => host,
        None if url.scheme() == folders::SCHEME => "",
        None => return format!("{}:…", url.scheme()),
    };
    format!("{}://{host}{port}{}", url.scheme(), url.path()).chars().take(MAX_LABEL).collect()
}

/// `host:port` of a URL; the port is always there, IPv6 keeps its brackets. Files of shared folders are one place.
fn place(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// `host:port` of what a caller would ask.
///
/// # Errors
/// When it is no URL.
pub fn place_of(url: &str) -> Result<String, OriginError> {
    parse_url(url).map(|url| place(&url))
}

/// What may be shown of a text that should be a URL.
fn label_of_text(text: &str) -> String {
    if let Ok(url) = Url::parse(text)
        && names_something(&url)
    {
        return label(&url);
    }
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let shown = shown.rsplit_once('@').map_or(shown, |(_, behind)| behind);
    shown.chars().take(MAX_LABEL).collect()
}

/// Parses what a caller typed or a neighbour sent.
fn parse_url(text: &str) -> Result<Url, OriginError> {
    let refused = |why: String| OriginError::BadUrl { url: label_of_text(text), why };
    let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
    if names_something(&url) { Ok(url) } else { Err(refused("it names no host".to_owned())) }
}

/// A host, or a file.
fn names_something(url: &Url) -> bool {
    url.has_host() || url.scheme() == folders::SCHEME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_show_neither_users_nor_queries() {
        let url = Url::parse("https://me:secret@h.example/a/b?X-Amz-Signature=secret#secret").unwrap();
        assert_eq!(label(&url), "https://h.example/a/b");
        for text in ["https://me:secret@h o/a?secret", "me:secret@", "::?secret"] {
            let error = parse_url(text).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
