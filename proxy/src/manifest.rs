//! What a manifest names: an image's layers in order, for reading ahead, and all that whoever may have the manifest may have
//! with it, for permission. Bytes from outside; what cannot be read names nothing.
//!
//! Sources: OCI image-spec, "Image Manifest" (`config`; `layers`, base first) and "Image Index" (`manifests`); Docker's
//! schema 2 is the same here.

use common::digest::Digest;
use serde::Deserialize;

/// Layers of an image that are looked at: overlay file systems stop there.
const MAX_LAYERS: usize = 128;
/// Things that a manifest is believed to name: an index of every platform with attestations has some dozen.
const MAX_NAMED: usize = 1024;
/// The longest media type (RFC 6838: two names of 127 characters).
const MAX_TYPE: usize = 255;

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its bytes, as the manifest says.
    pub(crate) size: u64,
}

/// Something that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its bytes, as the manifest says.
    pub(crate) size: u64,
    /// Its type, where it is a manifest itself.
    pub(crate) media_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    media_type: String,
    /// Where else it may be had. Registries take such content unseen, so its being named proves nothing.
    #[serde(default)]
    urls: Vec<String>,
}

fn parse(bytes: &[u8]) -> Manifest {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// The layers of the manifest in `bytes`, in order, up to the first that is not known by SHA-256.
pub(crate) fn layers(bytes: &[u8]) -> Vec<Layer> {
    let layer = |descriptor: &Descriptor| {
        Some(Layer { digest: descriptor.digest.parse().ok()?, size: descriptor.size })
    };
    parse(bytes).layers.iter().map_while(layer).take(MAX_LAYERS).collect()
}

/// All that a registry checks to be in the repository when it takes the manifest: config, layers, and an index's manifests. A
/// `subject` need not exist there, so it is not among them.
pub(crate) fn named(bytes: &[u8]) -> Vec<Named> {
    let Manifest { config, layers, manifests } = parse(bytes);
    let blobs = config.into_iter().chain(layers).map(|descriptor| (descriptor, false));
    let all = blobs.chain(manifests.into_iter().map(|descriptor| (descriptor, true)));
    let named = |(descriptor, is_manifest): (Descriptor, bool)| {
        let Descriptor { digest, size, media_type, urls } = descriptor;
        let known = is_manifest && !media_type.is_empty() && media_type.len() <= MAX_TYPE;
        let media_type = known.then_some(media_type);
        urls.is_empty().then_some(Named { digest: digest.parse().ok()?, size, media_type })
    };
    all.filter_map(named).take(MAX_NAMED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layers_come_in_the_manifests_order() {
        let digests = [Digest::of(b"base"), Digest::of(b"app")];
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{0}","size":2}},
                "layers":[{{"mediaType":"x","digest":"{0}","size":7}},{{"digest":"{1}","size":9}}]}}"#,
            digests[0], digests[1]
        );
        let expected = [Layer { digest: digests[0], size: 7 }, Layer { digest: digests[1], size: 9 }];
        assert_eq!(layers(text.as_bytes()), expected);
        let other = text.replace(&digests[1].to_string(), "sha512:00");
        assert_eq!(layers(other.as_bytes()), expected[..1], "the one before it can still be read ahead");
    }

    #[test]
    fn an_index_has_none() {
        let text = format!(r#"{{"manifests":[{{"digest":"{}","size":7}}]}}"#, Digest::of(b""));
        assert_eq!(layers(text.as_bytes()), []);
    }

    #[test]
    fn a_manifest_without_end_has_an_end() {
        let layer = format!(r#"{{"digest":"{}","size":1}}"#, Digest::of(b""));
        let text = format!(r#"{{"layers":[{}]}}"#, vec![layer; MAX_LAYERS + 9].join(","));
        assert_eq!(layers(text.as_bytes()).len(), MAX_LAYERS);
    }

    #[test]
    fn all_that_a_registry_has_checked_is_named_and_nothing_else() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let part = |text: &str, more: &str| {
            format!(r#"{{"mediaType":"t","digest":"{}","size":7{more}}}"#, digest(text))
        };
        let text = format!(
            r#"{{"config":{},"layers":[{},{}],"manifests":[{}],"subject":{}}}"#,
            part("config", ""),
            part("layer", ""),
            part("elsewhere", r#","urls":["https://x"]"#),
            part("child", ""),
            part("subject", "")
        );
        let names = |name, media_type: Option<&str>| Named {
            digest: digest(name),
            size: 7,
            media_type: media_type.map(str::to_owned),
        };
        assert_eq!(
            named(text.as_bytes()),
            [names("config", None), names("layer", None), names("child", Some("t"))]
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (layers(&bytes), named(&bytes));
        }
    }
}
