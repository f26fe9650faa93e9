//! What read-ahead wants to know of an image's manifest: its layers, in order. Bytes from outside; what cannot be read has
//! no layers.
//!
//! Source: OCI image-spec, "Image Manifest" (`layers`: base first, each with `digest` and `size`); Docker's schema 2 is
//! the same here. An index has no layers.

use common::digest::Digest;
use serde::Deserialize;

/// Layers of an image that are looked at: overlay file systems stop there.
const MAX_LAYERS: usize = 128;

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its bytes, as the manifest says.
    pub(crate) size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// The layers of the manifest in `bytes`, in order, up to the first that is not known by SHA-256.
pub(crate) fn layers(bytes: &[u8]) -> Vec<Layer> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return Vec::new() };
    let layer = |descriptor: &Descriptor| {
        Some(Layer { digest: descriptor.digest.parse().ok()?, size: descriptor.size })
    };
    manifest.layers.iter().map_while(layer).take(MAX_LAYERS).collect()
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

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = layers(&bytes);
        }
    }
}
