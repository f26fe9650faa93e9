//! What a request path under `/v2/` names. The mirror parses every path here before anything else looks at it, and
//! builds the origin's URL from the parsed parts only, so that nothing a client writes (`..`, `%2f`, `//`) can
//! lead to another place of the origin.
//!
//! Source: OCI distribution-spec, section "Pulling manifests" (grammars of names and tags).
//!
//! # Invariants
//! [`Target::path`] of a parsed target begins with `/v2/`, has no empty segment, no `.` or `..`, and no `%`.

use std::fmt;
use std::str::FromStr;

use common::telemetry::RequestKind;

use crate::proof::ContentDigest;

/// The longest name: many clients limit hostname and name together to 255.
const MAX_NAME: usize = 255;
/// The longest tag, from the specification's grammar.
const MAX_TAG: usize = 128;
/// The most of a stranger's text that is quoted back in an error.
const QUOTED: usize = 140;

/// The name of a repository: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, more of them after slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

/// What a manifest is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A tag: what it names may change.
    Tag(String),
    /// A digest: what it names never changes.
    Digest(ContentDigest),
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/v2/`: does the registry speak the protocol, and to this client?
    Base,
    /// `/v2/<name>/manifests/<reference>`.
    Manifest { name: Name, reference: Reference },
    /// `/v2/<name>/blobs/<digest>`.
    Blob { name: Name, digest: ContentDigest },
    /// Anything else below `/v2/`: tags, referrers, the catalog.
    Other { path: String },
}

/// Why a path cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// Not below `/v2/`.
    #[error("{0:?} is no registry path: this is a registry mirror, and it answers below /v2/ only")]
    Elsewhere(String),
    /// Not a repository name.
    #[error(
        "{0:?} is not a repository name: lower-case letters, digits and . _ - between them, parts after /"
    )]
    Name(String),
    /// Neither tag nor digest.
    #[error("{0:?} is neither a tag nor a digest")]
    Reference(String),
    /// Not a digest.
    #[error("{0:?} is not a digest: expected sha256: or sha512: and its lower-case hex characters")]
    Digest(String),
}

// === impl Name ===

impl Name {
    fn of(segments: &[&str]) -> Result<Self, PathError> {
        let name = segments.join("/");
        let fits = !segments.is_empty() && name.len() <= MAX_NAME;
        if fits && segments.iter().all(|segment| is_component(segment)) {
            return Ok(Self(name));
        }
        Err(PathError::Name(quoted(&name)))
    }

    /// What all paths of the repository begin with.
    pub(crate) fn path(&self) -> String {
        format!("/v2/{}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a name: runs of letters and digits with exactly one separator between two of them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bounded = text.starts_with(alphanumeric) && text.ends_with(alphanumeric);
    let mut separators = text.split(alphanumeric).filter(|between| !between.is_empty());
    bounded && separators.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// A segment of a path that this crate hands on without knowing it.
fn is_plain(segment: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~:@+=-".contains(&b);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

// === impl Reference ===

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Reference {
    fn of(text: &str) -> Result<Self, PathError> {
        if text.contains(':') {
            return text.parse().map(Self::Digest).map_err(|_| PathError::Digest(quoted(text)));
        }
        if is_tag(text) { Ok(Self::Tag(text.to_owned())) } else { Err(PathError::Reference(quoted(text))) }
    }
}

// === impl Target ===

impl Target {
    /// The path at the origin.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Base => "/v2/".to_owned(),
            Self::Manifest { name, reference } => manifest_path(name, reference),
            Self::Blob { name, digest } => blob_path(name, digest),
            Self::Other { path } => path.clone(),
        }
    }

    /// What is asked for, as metrics call it.
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            Self::Manifest { .. } => RequestKind::Manifest,
            Self::Blob { .. } => RequestKind::Blob,
            Self::Base | Self::Other { .. } => RequestKind::Other,
        }
    }
}

/// The origin's path of a manifest.
pub(crate) fn manifest_path(name: &Name, reference: &Reference) -> String {
    format!("/v2/{}/manifests/{reference}", name.0)
}

/// The origin's path of a blob.
pub(crate) fn blob_path(name: &Name, digest: &ContentDigest) -> String {
    format!("/v2/{}/blobs/{digest}", name.0)
}

/// Whether something that changes a registry may be handed on to this path: it stays below `/v2/`. Upload sessions have
/// paths of the registry's own making.
pub(crate) fn is_push_path(path: &str) -> bool {
    let rest = path.strip_prefix("/v2/").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    rest.is_some_and(|rest| rest.split('/').all(is_plain))
}

impl FromStr for Target {
    type Err = PathError;

    /// Reads the path as it stood in the request line: nothing is decoded, and what would need it is refused.
    fn from_str(path: &str) -> Result<Self, PathError> {
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or_else(|| PathError::Elsewhere(quoted(path)))?,
            None => return Err(PathError::Elsewhere(quoted(path))),
        };
        let segments: Vec<&str> = rest.split('/').collect();
        match segments.as_slice() {
            // Read from the end: a repository may itself be called `blobs` or `manifests`.
            [name @ .., "manifests", reference] => {
                Ok(Self::Manifest { name: Name::of(name)?, reference: Reference::of(reference)? })
            }
            [name @ .., "blobs", digest] => {
                let name = Name::of(name)?;
                let digest = digest.parse().map_err(|_| PathError::Digest(quoted(digest)))?;
                Ok(Self::Blob { name, digest })
            }
            [name @ .., "tags", "list"] | [name @ .., "referrers", _] if Name::of(name).is_err() => {
                Err(PathError::Name(quoted(&name.join("/"))))
            }
            all if all.iter().all(|segment| is_plain(segment)) => Ok(Self::Other { path: path.to_owned() }),
            _ => Err(PathError::Name(quoted(rest))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::digest::Digest;
    use proptest::prelude::*;

    /// The specification's grammar, read literally and slowly: the model for [`is_component`].
    fn matches_grammar(text: &[u8]) -> bool {
        let word = text.iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        let rest = &text[word..];
        let dashes = rest.iter().take_while(|b| **b == b'-').count();
        rest.is_empty()
            || (dashes > 0 && matches_grammar(&rest[dashes..]))
            || [&b"."[..], b"_", b"__"]
                .iter()
                .any(|separator| rest.strip_prefix(*separator).is_some_and(matches_grammar))
    }

    #[test]
    fn the_four_kinds_of_path_are_told_apart() {
        let digest = Digest::of(b"x");
        for (path, kind) in [
            ("/v2".to_owned(), RequestKind::Other),
            ("/v2/".to_owned(), RequestKind::Other),
            ("/v2/library/busybox/manifests/latest".to_owned(), RequestKind::Manifest),
            (format!("/v2/a/manifests/{digest}"), RequestKind::Manifest),
            (format!("/v2/a/b/c/blobs/{digest}"), RequestKind::Blob),
            (format!("/v2/a/manifests/blobs/{digest}"), RequestKind::Blob),
            (format!("/v2/a/blobs/sha512:{}", "ab".repeat(64)), RequestKind::Blob),
            ("/v2/_catalog".to_owned(), RequestKind::Other),
            ("/v2/library/busybox/tags/list".to_owned(), RequestKind::Other),
            (format!("/v2/a/referrers/{digest}"), RequestKind::Other),
        ] {
            let target: Target = path.parse().unwrap();
            assert_eq!(target.kind(), kind, "{path}");
            assert_eq!(target.path().trim_end_matches('/'), path.trim_end_matches('/'));
        }
    }

    #[test]
    fn pushes_stay_below_the_api() {
        for path in ["/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/1-2_3==", "/v2/a/manifests/latest"] {
            assert!(is_push_path(path), "{path}");
        }
        for path in ["/v2", "/v2/", "/v2/a/../b/", "/v2/a%2fb/", "/v2/a//", "/x/v2/a", "/v2/a/blobs/./x"] {
            assert!(!is_push_path(path), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_the_protocol_is_refused_with_its_own_error() {
        let name = |path: &str| matches!(path.parse::<Target>(), Err(PathError::Name(_)));
        for path in [
            "/v2/../etc/manifests/x",
            "/v2/a/../b/tags/list",
            "/v2/a%2fb/manifests/x",
            "/v2//manifests/x",
            "/v2/manifests/x",
            "/v2/A/manifests/x",
            "/v2/a//b/tags/list",
            "/v2/tags/list",
            "/v2/a/b/",
            "/v2/a./manifests/x",
            &format!("/v2/{}/manifests/x", "a".repeat(256)),
        ] {
            assert!(name(path), "{path}");
        }
        assert!(matches!("/v2/a/manifests/..".parse::<Target>(), Err(PathError::Reference(_))));
        assert!(matches!("/v2/a/manifests/x%20".parse::<Target>(), Err(PathError::Reference(_))));
        assert!(matches!("/v2/a/manifests/sha256:zz".parse::<Target>(), Err(PathError::Digest(_))));
        assert!(matches!("/v2/a/blobs/latest".parse::<Target>(), Err(PathError::Digest(_))));
        for path in ["/", "/v1/x", "/v2x", "", "/metrics"] {
            assert!(matches!(path.parse::<Target>(), Err(PathError::Elsewhere(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_none_leaves_its_place(path in "(/v2)?[a-z%/._:A-Z0-9-]{0,80}|.{0,80}") {
            if let Ok(target) = path.parse::<Target>() {
                let path = target.path();
                prop_assert!(path.starts_with("/v2/"));
                prop_assert!(!path.contains('%') && !path.contains("//"));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(path.parse::<Target>().unwrap(), target);
            }
        }

        #[test]
        fn components_follow_the_grammar(text in "[a0._-]{0,9}") {
            prop_assert_eq!(is_component(&text), matches_grammar(text.as_bytes()), "{}", text);
        }

        #[test]
        fn every_tag_of_the_grammar_is_taken(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert!(is_tag(&tag));
        }
    }
}
