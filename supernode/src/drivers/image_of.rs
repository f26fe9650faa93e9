//! Which image a manifest's URL means: `https://h/v2/p/r/manifests/tag` is `h/p/r:tag`. Pure; asked for what Harbor and
//! registries send.
//!
//! # Invariants
//! - What is shown of a URL that is refused holds no password.
//! - What is read, [spelled](Reference::spelled), is read by [`Reference::of_image`] as the same image.

use common::digest::Digest;
use peer::image::reference::Reference;
use peer::origin::Registries;
use peer::origin::registry::canonical;
use reqwest::Url;

/// The longest URL that is looked at; names have less than 500 characters.
const MAX_URL: usize = 2048;

/// Not a manifest's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} names no image: {why}; expected https://HOST/v2/REPOSITORY/manifests/TAG")]
pub(super) struct NoImage {
    url: String,
    why: &'static str,
}

/// What a URL means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meant {
    /// The image.
    pub image: Reference,
    /// Whether the URL says plain HTTP.
    pub plain: bool,
}

/// The image that a manifest's URL means.
///
/// # Errors
/// When it means none.
pub(super) fn image_of(url: &str) -> Result<Meant, NoImage> {
    read(url).map_err(|why| {
        let short: String = url.chars().take(200).collect();
        NoImage { url: common::telemetry::redact(&short), why }
    })
}

fn read(text: &str) -> Result<Meant, &'static str> {
    if text.len() > MAX_URL {
        return Err("it is too long");
    }
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it is not of http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has more behind its path");
    }
    let path = url.path().strip_prefix("/v2/").ok_or("its path does not begin with /v2/")?;
    let (repository, wanted) = path.rsplit_once("/manifests/").ok_or("it is no manifest's")?;
    let host = url.host_str().ok_or("it has no host")?;
    let registry = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let image = reference(&registry, repository, wanted).ok_or("the registry, repository or tag is none")?;
    Ok(Meant { image, plain: url.scheme() == "http" })
}

/// The image `wanted` (a tag, or a digest) of a repository; none when it cannot be one.
pub(super) fn reference(registry: &str, repository: &str, wanted: &str) -> Option<Reference> {
    // Nothing of these may move the borders between them.
    if repository.contains([':', '@']) || wanted.contains(['@', '/']) {
        return None;
    }
    Registries::default().base_url(registry).ok()?;
    let registry = canonical(registry);
    let name = match wanted.contains(':') {
        true => format!("oci://{registry}/{repository}@{}", wanted.parse::<Digest>().ok()?),
        false => format!("oci://{registry}/{repository}:{wanted}"),
    };
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifests_url_is_an_image() {
        let digest = Digest::of(b"");
        for (url, name) in [
            ("https://h.io/v2/p/r/manifests/tag", "h.io/p/r:tag".to_owned()),
            ("http://127.0.0.1:5000/v2/r/manifests/1.0", "127.0.0.1:5000/r:1.0".into()),
            ("https://H.io:443/v2/r/manifests/x", "h.io/r:x".into()),
            ("https://[::1]:5000/v2/r/manifests/x", "[::1]:5000/r:x".into()),
            ("https://harbor/v2/library/r/manifests/x", "oci://harbor/library/r:x".into()),
            ("https://localhost/v2/r/manifests/x", "localhost/r:x".into()),
            ("https://registry-1.docker.io/v2/library/redis/manifests/7", "docker.io/library/redis:7".into()),
            ("https://h.io/v2/a/manifests/b/manifests/x", "h.io/a/manifests/b:x".into()),
            (&format!("https://h.io/v2/r/manifests/{digest}"), format!("h.io/r@{digest}")),
        ] {
            let meant = image_of(url).unwrap();
            assert_eq!(meant.image.spelled(), name, "{url}");
            assert_eq!(meant.plain, url.starts_with("http:"), "{url}");
        }
    }

    #[test]
    fn what_is_no_manifests_url_is_refused() {
        for bad in [
            "",
            "h.io/v2/r/manifests/x",
            "ftp://h.io/v2/r/manifests/x",
            "https://h.io/r/manifests/x",
            "https://h.io/v2/r/blobs/x",
            "https://h.io/v2/manifests/x",
            "https://h.io/v2/r/manifests/",
            "https://h.io/v2/R/manifests/x",
            "https://h.io/v2/r%2f/manifests/x",
            "https://h.io/v2/r/manifests/sha256:00",
            "https://h.io/v2/r/manifests/md5:00",
            "https://h.io/v2/r/manifests/x@y",
            "https://h.io/v2/r:a/manifests/x",
            "https://h.io/v2/r/manifests/x?y",
            "https://h.io/v2/r/manifests/x#y",
            "https://h,io/v2/r/manifests/x",
            "https:///v2/r/manifests/x",
            &format!("https://h.io/v2/{}/manifests/x", "a".repeat(3000)),
        ] {
            let error = image_of(bad).unwrap_err().to_string();
            assert!(error.contains("expected https://"), "{bad}: {error}");
        }
        let secret = image_of("https://u:secret@h.io/v2/r/manifests/x").unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }

    proptest! {
        #[test]
        fn what_is_read_is_named_so_that_it_is_read_again(
            url in "https?://[a-zA-Z0-9.:_\\[\\]-]{1,12}/v2/[a-z0-9:@/._-]{1,16}/manifests/[a-zA-Z0-9:@/._-]{1,10}|\\PC{0,60}"
        ) {
            if let Ok(meant) = image_of(&url) {
                prop_assert_eq!(Reference::of_image(&meant.image.spelled()), Ok(meant.image));
            }
        }
    }
}
