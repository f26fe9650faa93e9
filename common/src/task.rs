//! What a task is: one thing to distribute, how it is named, and where its bytes come from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError, Hasher};

/// The name of a task. A registry blob's is its digest, whatever repository or registry it came through;
/// another URL's is the SHA-256 of the URL and of what the user adds to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub [u8; 32]);

// === impl TaskId ===

impl TaskId {
    /// The task of content whose digest is known.
    pub fn of_digest(digest: Digest) -> Self {
        Self(digest.0)
    }

    /// The task of a URL whose content has no known digest; `tag` separates swarms of the same URL.
    pub fn of_url(url: &str, tag: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(b"longshore url task\0");
        hasher.update(&(url.len() as u64).to_le_bytes());
        hasher.update(url.as_bytes());
        hasher.update(tag.as_bytes());
        Self(hasher.finish().0)
    }

    /// 64 lower-case hex characters.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for TaskId {
    type Err = DigestError;

    /// Takes the bare hex or the `sha256:` form.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digest: Digest =
            if text.contains(':') { text.parse()? } else { format!("sha256:{text}").parse()? };
        Ok(Self(digest.0))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..12])
    }
}

/// Where a task's bytes come from, and how to know them. Holds no credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The origin's URL, `http` or `https`, without user or password.
    pub url: String,
    /// The digest of the whole, where it is known beforehand (always for a registry's blob).
    pub digest: Option<Digest>,
    /// Separates swarms of one URL.
    pub tag: String,
    /// The `Accept` header to ask the origin with (manifests need theirs).
    pub accept: Option<String>,
}

// === impl Source ===

impl Source {
    /// A source of known content.
    pub fn of_digest(url: impl Into<String>, digest: Digest) -> Self {
        Self { url: url.into(), digest: Some(digest), tag: String::new(), accept: None }
    }

    /// The task that this source is fetched as.
    pub fn task(&self) -> TaskId {
        match self.digest {
            Some(digest) => TaskId::of_digest(digest),
            None => TaskId::of_url(&self.url, &self.tag),
        }
    }
}

/// The secret headers that open a source at its origin (`Authorization` and the like), and the secret part of its query.
///
/// They travel only inside the mutual TLS between nodes and live in memory only: [`fmt::Debug`] and
/// [`fmt::Display`] show names, never values, and nothing stores them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    headers: BTreeMap<String, String>,
}

// === impl Credentials ===

impl Credentials {
    /// Under this name lies no header but a part of the URL's query that is a secret: the signature of a signed URL. No
    /// header can have the name, so whoever does not know it refuses the credentials instead of misreading them.
    pub const QUERY: &str = "?";

    /// No credential at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Credentials with one `Authorization` value.
    pub fn authorization(value: impl Into<String>) -> Self {
        let mut credentials = Self::default();
        credentials.add("authorization", value);
        credentials
    }

    /// Adds a secret header; the name is kept in lower case.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.headers.insert(name.to_ascii_lowercase(), value.into());
    }

    /// Adds what the request's query has behind that of the [`Source`]'s URL.
    pub fn add_query(&mut self, query: impl Into<String>) {
        self.headers.insert(Self::QUERY.to_owned(), query.into());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Header names and secret values, for the request to the origin only.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.headers.keys().map(|name| format!("{name}: [redacted]"))).finish()
    }
}

/// The answer of an origin that refused or failed: what the client is to see, unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginFailure {
    /// HTTP status.
    pub status: u16,
    /// The headers that matter to a client (`content-type`, `www-authenticate`, `retry-after`), lower case.
    pub headers: Vec<(String, String)>,
    /// The body, cut at [`OriginFailure::MAX_BODY`].
    pub body: Vec<u8>,
}

// === impl OriginFailure ===

impl OriginFailure {
    /// The most of an error body that is passed on: a page of JSON, not a download.
    pub const MAX_BODY: usize = 64 * 1024;
}

impl fmt::Display for OriginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the origin answered {}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_one_task_whatever_its_url() {
        let digest = Digest::of(b"x");
        let one = Source::of_digest("https://a.example/v2/x/blobs/1", digest);
        let two = Source::of_digest("https://b.example/v2/y/blobs/1", digest);
        assert_eq!(one.task(), two.task());
    }

    #[test]
    fn url_tasks_are_told_apart_by_url_and_tag() {
        let id = TaskId::of_url("http://h/a", "");
        assert_ne!(id, TaskId::of_url("http://h/b", ""));
        assert_ne!(id, TaskId::of_url("http://h/a", "blue"));
        assert_ne!(TaskId::of_url("http://h/a", "b"), TaskId::of_url("http://h/ab", ""));
        assert_eq!(id.hex().parse::<TaskId>().unwrap(), id);
    }

    #[test]
    fn credentials_never_show_their_values() {
        let secret = Credentials::authorization("Basic c2VjcmV0");
        assert!(!format!("{secret:?}").contains("c2VjcmV0"));
        assert!(format!("{secret:?}").contains("authorization"));
    }
}
