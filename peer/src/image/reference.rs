//! The name of an image in a registry: `oci://HOST/REPOSITORY:TAG`, `docker://…`, as skopeo writes them. Pure.
//!
//! Sources: OCI distribution-spec, section "Pulling manifests" (grammars); Docker's short names (`docker.io`, `library/`,
//! `latest`).

use std::str::FromStr;

use common::digest::Digest;

/// Docker Hub, which is meant where no host is named.
pub const HUB: &str = "docker.io";
/// Where Docker Hub keeps what has one word for a name.
const LIBRARY: &str = "library";
const LATEST: &str = "latest";
/// From the specification.
const MAX_TAG: usize = 128;
/// Many registries limit host and repository to so much.
const MAX_NAME: usize = 255;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry's name: `HOST` or `HOST:PORT`.
    pub registry: String,
    /// The repository's name there.
    pub repository: String,
    /// What it is called there, and in the layout.
    pub tag: Option<String>,
    /// What it must be; it is asked by this where it is given.
    pub digest: Option<Digest>,
}

/// Not an image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceError(String);

impl std::fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = common::telemetry::redact(&self.0);
        write!(f, "{shown:?} names no image: expected [oci://|docker://]HOST/REPOSITORY[:TAG][@sha256:…]")
    }
}

impl std::error::Error for ReferenceError {}

/// Whether a source is meant as an image.
pub fn is_image(source: &str) -> bool {
    source.starts_with("oci://") || source.starts_with("docker://")
}

fn is_repository(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let component = |text: &str| {
        let mut separators = text.split(alphanumeric).filter(|between| !between.is_empty());
        text.starts_with(alphanumeric)
            && text.ends_with(alphanumeric)
            && separators.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
    };
    text.len() <= MAX_NAME && text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// A host has a dot or a port, or is this machine; `team/app` has none.
fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refused = || ReferenceError(text.to_owned());
        let (docker, name) = match (text.strip_prefix("docker://"), text.strip_prefix("oci://")) {
            (Some(name), _) => (true, name),
            (None, Some(name)) => (false, name),
            (None, None) => return Err(refused()),
        };
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| refused())?)),
            None => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) || !docker => (host, path),
            _ if docker => (HUB, name),
            _ => return Err(refused()),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, digest.is_none().then_some(LATEST)),
        };
        let short = registry == HUB && !repository.contains('/');
        let repository = if short { format!("{LIBRARY}/{repository}") } else { repository.to_owned() };
        if registry.is_empty() || !is_repository(&repository) || !tag.is_none_or(is_tag) {
            return Err(refused());
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

// === impl Reference ===

impl Reference {
    /// An image's name as `docker pull` takes it: `nginx`, `quay.io/team/app:1`, with or without `docker://` or `oci://`.
    ///
    /// # Errors
    /// When it names no image.
    pub fn of_image(text: &str) -> Result<Self, ReferenceError> {
        match is_image(text) {
            true => text.parse(),
            false => format!("docker://{text}").parse().map_err(|_| ReferenceError(text.to_owned())),
        }
    }

    /// Its name as [`Self::of_image`] reads it; with `oci://` in front where it would mean another image without, for a host
    /// without a dot is a repository there.
    pub fn spelled(&self) -> String {
        let name = self.to_string();
        match Self::of_image(&name) {
            Ok(read) if read == *self => name,
            _ => format!("oci://{name}"),
        }
    }

    /// What the manifest is asked by.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| LATEST.to_owned()),
        }
    }

    /// The folder that it gets where nobody names one.
    pub fn folder(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_skopeo_reads_them() {
        let digest = Digest::of(b"");
        for (text, shown) in [
            ("docker://busybox", "docker.io/library/busybox:latest".to_owned()),
            ("docker://team/app:1", "docker.io/team/app:1".into()),
            ("docker://localhost/app", "localhost/app:latest".into()),
            ("oci://127.0.0.1:5000/a/b:v1.2", "127.0.0.1:5000/a/b:v1.2".into()),
            ("oci://quay.test/a/b", "quay.test/a/b:latest".into()),
            (&format!("oci://quay.test/a@{digest}"), format!("quay.test/a@{digest}")),
            (&format!("oci://quay.test/a:x@{digest}"), format!("quay.test/a:x@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "oci://",
            "oci://host",
            "oci://host/",
            "oci://host/A",
            "oci://host/../x",
            "oci://host/a:",
            "oci:///a",
            "oci://host/a:b c",
            "oci://host/a@sha256:00",
            "docker://",
            "docker://u:p@host/x",
            "http://host/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_needs_no_scheme() {
        for (text, shown) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("quay.io/team/app:1", "quay.io/team/app:1"),
            ("oci://quay.test/a", "quay.test/a:latest"),
        ] {
            assert_eq!(Reference::of_image(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "https://quay.io/a", "docker://docker://a", "A"] {
            assert!(Reference::of_image(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_plain(text in "(oci|docker)://[a-zA-Z0-9.:/@_%-]{0,30}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert!(!reference.folder().is_empty() && !reference.folder().contains(['/', '%']));
                prop_assert!(!reference.repository.contains("..") && !reference.repository.starts_with('/'));
            }
        }
    }
}
