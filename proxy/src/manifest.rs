//! What a manifest names: an image's layers in order, for reading ahead, and all that whoever may have the manifest may have
//! with it, for permission. Bytes from outside; what cannot be read names nothing.
//!
//! # Invariants
//! [`named`] believes only a text that all readers read alike. A registry checks what *it* reads, and registries written in
//! Go take `Layers` and `layerſ` for `layers`, and of two of them the last: whoever may push could name one blob to the
//! registry and another one to this node.
//!
//! Sources: OCI image-spec, "Image Manifest" (`config`; `layers`, base first) and "Image Index" (`manifests`); Docker's
//! schema 2 is the same here.

use std::collections::BTreeMap;

use common::digest::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Layers of an image that are looked at: overlay file systems stop there.
const MAX_LAYERS: usize = 128;
/// Things that a manifest is believed to name: an index of every platform with attestations has some dozen.
const MAX_NAMED: usize = 1024;
/// The longest media type (RFC 6838: two names of 127 characters).
const MAX_TYPE: usize = 255;

/// What an image's manifest is called.
const IMAGES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// What a list of manifests is called.
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Keys that mean something here.
const KEYS: [&str; 7] = ["mediatype", "config", "layers", "manifests", "digest", "size", "urls"];

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
#[serde(default, rename_all = "camelCase")]
struct Manifest {
    media_type: String,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    #[serde(flatten)]
    others: Others,
}

/// Keys that are not known here.
type Others = BTreeMap<String, IgnoredAny>;

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
    #[serde(flatten)]
    others: Others,
}

/// Whether some reader takes one of these keys for one that is known.
fn mislead(others: &Others) -> bool {
    let folded = |key: &String| {
        key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>()
    };
    others.keys().map(folded).any(|key| KEYS.contains(&key.as_str()))
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

/// All that a registry checks to be in the repository when it takes a manifest of this type: config and layers, or an index's
/// manifests. A `subject` need not exist there, so it is not among them. A type that is only `claimed`, by another manifest,
/// has to be the text's own word, too.
pub(crate) fn named(bytes: &[u8], media_type: &str, claimed: bool) -> Vec<Named> {
    let Manifest { media_type: own, config, layers, manifests, others } = parse(bytes);
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let is_image = IMAGES.contains(&media_type) && manifests.is_empty();
    let is_index = INDEXES.contains(&media_type) && config.is_none() && layers.is_empty();
    let says_so = own == media_type || own.is_empty() && !claimed;
    if !says_so || !(is_image || is_index) || mislead(&others) {
        return Vec::new();
    }
    let all: Vec<Descriptor> = config.into_iter().chain(layers).chain(manifests).take(MAX_NAMED).collect();
    if all.iter().any(|descriptor| mislead(&descriptor.others)) {
        return Vec::new();
    }
    let named = |Descriptor { digest, size, media_type, urls, .. }: Descriptor| {
        let known = is_index && !media_type.is_empty() && media_type.len() <= MAX_TYPE;
        let media_type = known.then_some(media_type);
        urls.is_empty().then_some(Named { digest: digest.parse().ok()?, size, media_type })
    };
    all.into_iter().filter_map(named).collect()
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

    fn part(text: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"t","digest":"{}","size":7{more}}}"#, Digest::of(text.as_bytes()))
    }

    fn names(text: &str, media_type: Option<&str>) -> Named {
        Named { digest: Digest::of(text.as_bytes()), size: 7, media_type: media_type.map(str::to_owned) }
    }

    #[test]
    fn all_that_a_registry_has_checked_is_named_and_nothing_else() {
        let (config, layer, elsewhere) =
            (part("config", ""), part("layer", ""), part("elsewhere", r#","urls":["https://x"]"#));
        let image = format!(
            r#"{{"mediaType":"{}","config":{config},"layers":[{layer},{elsewhere}],"subject":{layer},"x":{layer}}}"#,
            IMAGES[0]
        );
        let expected = [names("config", None), names("layer", None)];
        assert_eq!(named(image.as_bytes(), IMAGES[0], false), expected);
        assert_eq!(named(image.as_bytes(), &format!("{}; charset=utf-8", IMAGES[0]), false), expected);
        let index = format!(r#"{{"manifests":[{}],"subject":{layer}}}"#, part("child", ""));
        for media_type in INDEXES {
            assert_eq!(named(index.as_bytes(), media_type, false), [names("child", Some("t"))]);
        }
        for (text, media_type) in [
            (&image, IMAGES[1]),
            (&image, INDEXES[0]),
            (&index, IMAGES[0]),
            (&image, "application/json"),
            (&format!(r#"{{"layers":[{layer}],"manifests":[{layer}]}}"#), IMAGES[0]),
            (&format!(r#"{{"layers":[{layer}],"manifests":[{layer}]}}"#), INDEXES[0]),
        ] {
            assert_eq!(named(text.as_bytes(), media_type, false), [], "{text} as {media_type}");
        }
    }

    #[test]
    fn a_text_that_others_may_read_otherwise_names_nothing() {
        let (mine, other) = (part("mine", ""), part("other", ""));
        let digest = Digest::of(b"mine");
        let in_layer = |more: &str| format!(r#"{{"layers":[{}]}}"#, part("other", more));
        for text in [
            format!(r#"{{"layers":[{other}],"Layers":[{mine}]}}"#),
            format!(r#"{{"layers":[{other}],"layer\u017f":[{mine}]}}"#),
            format!(r#"{{"layers":[{other}],"layers":[{mine}]}}"#),
            format!(r#"{{"layers":[{other}],"LAYERS":[]}}"#),
            format!(r#"{{"layers":[{other}],"MediaType":"x"}}"#),
            format!(r#"{{"layers":[{other}],"Config":{mine}}}"#),
            in_layer(&format!(r#","Digest":"{digest}""#)),
            in_layer(&format!(r#","digest":"{digest}""#)),
            in_layer(r#","URLs":["https://x"]"#),
            in_layer(r#","url\u017f":["https://x"]"#),
            in_layer(r#","\u0055rls":["https://x"]"#),
        ] {
            assert_eq!(named(text.as_bytes(), IMAGES[0], false), [], "{text}");
        }
        assert_eq!(
            named(in_layer(r#","annotations":{}"#).as_bytes(), IMAGES[0], false),
            [names("other", None)]
        );
    }

    #[test]
    fn a_type_that_another_manifest_claims_must_be_the_texts_own_word() {
        let layer = format!(r#""layers":[{{"digest":"{}","size":7}}]"#, Digest::of(b"layer"));
        let silent = format!("{{{layer}}}");
        let spoken = format!(r#"{{"mediaType":"{}",{layer}}}"#, IMAGES[0]);
        assert_eq!(named(silent.as_bytes(), IMAGES[0], true), []);
        assert_eq!(named(silent.as_bytes(), IMAGES[0], false).len(), 1);
        assert_eq!(named(spoken.as_bytes(), IMAGES[0], true).len(), 1);
        assert_eq!(named(spoken.as_bytes(), IMAGES[1], true), []);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (layers(&bytes), named(&bytes, IMAGES[0], true));
        }
    }
}
