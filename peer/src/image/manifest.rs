//! What a manifest names, and which of an index's images is for a platform. Pure; bytes from outside.
//!
//! Sources: OCI image-spec, "Image Manifest" and "Image Index"; Docker's schema 2 is the same here.

use std::str::FromStr;

use common::digest::Digest;
use serde::Deserialize;

use super::ImageError;

/// What a registry is asked for: each kind by its name, for registries answer `*/*` with "there is none".
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How much of a stranger's word an error quotes, and how many platforms it names.
const MAX_SHOWN: usize = 100;
const MAX_PLATFORMS: usize = 30;
/// Layers of one image; the largest known have a few hundred.
const MAX_BLOBS: usize = 10_000;

/// Something that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is; may be missing.
    #[serde(default)]
    pub media_type: String,
    /// As text: what is not SHA-256 is no [`Digest`].
    pub digest: String,
    /// Bytes.
    pub size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// A manifest as it came.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image: its kind, and its config and layers.
    Image(String, Vec<Descriptor>),
    /// Images for several platforms.
    Index(Vec<Descriptor>),
}

// === impl Platform ===

impl Default for Platform {
    /// This machine.
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').map(str::to_owned).collect();
        match parts.as_slice() {
            [os, architecture, variant @ ..]
                if variant.len() < 2 && parts.iter().all(|part| !part.is_empty()) =>
            {
                Ok(Self {
                    os: os.clone(),
                    architecture: architecture.clone(),
                    variant: variant.first().cloned(),
                })
            }
            _ => Err("expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, for example linux/arm64".into()),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// Whether an image for `other` is one for this. Who names no variant takes any.
    fn takes(&self, other: &Self) -> bool {
        let variant = self.variant.is_none() || self.variant == other.variant;
        self.os == other.os && self.architecture == other.architecture && variant
    }
}

// === impl Descriptor ===

impl Descriptor {
    /// Its digest, if it is one that can be checked.
    ///
    /// # Errors
    /// When it is of a kind that is not known here.
    pub fn digest(&self) -> Result<Digest, ImageError> {
        self.digest.parse().map_err(|_| ImageError::Unchecked(self.digest.clone()))
    }
}

// === impl Manifest ===

impl Manifest {
    /// Reads a manifest that was answered with this content type.
    ///
    /// # Errors
    /// When it is none that is known here.
    pub fn read(text: &[u8], content_type: &str) -> Result<Self, ImageError> {
        let text: Text = serde_json::from_slice(text).map_err(|_| ImageError::NoManifest)?;
        let kind = text.media_type.filter(|kind| !kind.is_empty()).unwrap_or_else(|| content_type.to_owned());
        match (text.config, text.layers, text.manifests) {
            (None, None, Some(manifests)) => Ok(Self::Index(manifests)),
            (Some(config), Some(layers), None) if layers.len() < MAX_BLOBS => {
                let kind = if kind.is_empty() { MANIFEST.to_owned() } else { kind };
                Ok(Self::Image(kind, std::iter::once(config).chain(layers).collect()))
            }
            _ => Err(ImageError::Unknown(kind.chars().take(MAX_SHOWN).collect())),
        }
    }
}

/// The image of an index that is for a platform.
///
/// # Errors
/// When there is none.
pub fn choose<'a>(manifests: &'a [Descriptor], platform: &Platform) -> Result<&'a Descriptor, ImageError> {
    let fits = |manifest: &&Descriptor| manifest.platform.as_ref().is_some_and(|own| platform.takes(own));
    manifests.iter().find(fits).ok_or_else(|| {
        let all = manifests.iter().filter_map(|one| one.platform.as_ref().map(ToString::to_string));
        let all = all.take(MAX_PLATFORMS).collect::<Vec<_>>().join(", ");
        ImageError::NoSuchPlatform { platform: platform.to_string(), all }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index() -> Vec<Descriptor> {
        let text = r#"{"manifests":[
            {"digest":"sha256:a","size":1,"platform":{"os":"linux","architecture":"amd64"}},
            {"digest":"sha256:b","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v6"}},
            {"digest":"sha256:c","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}},
            {"digest":"sha256:d","size":1}]}"#;
        match Manifest::read(text.as_bytes(), "").unwrap() {
            Manifest::Index(manifests) => manifests,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_image_for_a_platform_is_chosen() {
        for (platform, digest) in [
            ("linux/amd64", Some("sha256:a")),
            ("linux/arm", Some("sha256:b")),
            ("linux/arm/v7", Some("sha256:c")),
            ("windows/amd64", None),
            ("linux/amd64/v2", None),
        ] {
            let chosen = choose(&index(), &platform.parse().unwrap()).map(|one| one.digest.clone());
            assert_eq!(chosen.as_ref().ok().map(String::as_str), digest, "{platform}");
        }
        let said = choose(&index(), &"windows/amd64".parse().unwrap()).unwrap_err().to_string();
        assert!(said.contains("linux/arm/v7"), "{said}");
        for bad in ["", "linux", "linux/", "a/b/c/d", "/amd64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_is_its_config_and_its_layers() {
        let text = r#"{"mediaType":"x","config":{"digest":"sha256:c","size":1},"layers":[{"digest":"sha256:l","size":2}]}"#;
        let Manifest::Image(kind, blobs) = Manifest::read(text.as_bytes(), "y").unwrap() else {
            panic!("an index")
        };
        assert_eq!((kind.as_str(), blobs.len(), blobs[1].size), ("x", 2, 2));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"config":{"digest":"a","size":-1},"layers":[]}"#,
        ] {
            assert!(Manifest::read(bad.as_bytes(), "").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Manifest::read(&bytes, "");
        }
    }
}
