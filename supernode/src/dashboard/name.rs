//! What a task is called, read from the URL that it came from: a repository's name where it is a registry's, else a URL without
//! what opens doors. Called by the dashboard's [`routes`](super::routes).

use common::telemetry::redact;
use serde::Serialize;
use utoipa::ToSchema;

/// What a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A registry's blob: a layer, or an image's settings.
    Blob,
    /// A registry's manifest.
    Manifest,
    /// Something else.
    File,
}

/// The name, if there is one, and the kind.
pub fn of(url: &str) -> (Option<String>, Kind) {
    let url = redact(url);
    let place = url.split_once("://").map_or(url.as_str(), |(_, place)| place);
    let part = |word: &str| {
        let (host, path) = place.split_once("/v2/")?;
        Some(format!("{host}/{}", path.rsplit_once(word)?.0))
    };
    if let Some(name) = part("/blobs/") {
        return (Some(name), Kind::Blob);
    }
    if let Some(name) = part("/manifests/") {
        return (Some(name), Kind::Manifest);
    }
    (Some(place.to_owned()).filter(|place| !place.is_empty()), Kind::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_repositories_and_others_have_urls_without_secrets() {
        for (url, name, kind) in [
            ("https://r.example:5000/v2/team/app/blobs/sha256:00", "r.example:5000/team/app", Kind::Blob),
            ("https://r.example/v2/app/manifests/sha256:00", "r.example/app", Kind::Manifest),
            ("https://x.example/big.iso?sig=s3cret", "x.example/big.iso", Kind::File),
            ("https://ann:s3cret@x.example/v2/", "x.example/v2/", Kind::File),
        ] {
            assert_eq!(of(url), (Some(name.to_owned()), kind), "{url}");
        }
        assert_eq!(of(""), (None, Kind::File));
    }
}
