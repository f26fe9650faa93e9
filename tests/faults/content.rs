//! The images that are pulled: noise, kept in memory so that a client can compare every byte, and laid where
//! docker-registry looks for them.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::digest::Digest;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::json;

pub(crate) const TAG: &str = "latest";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) manifest: Blob,
    /// The config and the layers.
    pub(crate) blobs: Vec<Blob>,
}

/// The folder of a registry.
pub(crate) struct Shelf(PathBuf);

// === impl Blob ===

impl Blob {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), bytes }
    }

    fn descriptor(&self, kind: &str) -> serde_json::Value {
        json!({"mediaType": kind, "digest": self.digest.to_string(), "size": self.bytes.len()})
    }
}

// === impl Image ===

impl Image {
    /// Bytes of all its parts.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().chain([&self.manifest]).map(|blob| blob.bytes.len() as u64).sum()
    }

    /// The blob that is most of it.
    pub(crate) fn largest(&self) -> &Blob {
        self.blobs.iter().max_by_key(|blob| blob.bytes.len()).expect("invariant: an image has a config")
    }
}

// === impl Shelf ===

impl Shelf {
    /// An empty one.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes an image with layers of these sizes; the same `seed` is the same noise.
    pub(crate) fn add(&self, repository: &str, sizes: &[usize], seed: u64) -> anyhow::Result<Image> {
        let mut random = SmallRng::seed_from_u64(seed);
        let noise = |size: &usize| {
            let mut bytes = vec![0; *size];
            random.fill_bytes(&mut bytes);
            Blob::new(bytes)
        };
        let layers: Vec<Blob> = sizes.iter().map(noise).collect();
        let names: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": names}});
        let config = Blob::new(config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(CONFIG),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER)).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(manifest.to_string());
        let blobs = std::iter::once(config).chain(layers).collect();
        let image = Image { repository: repository.to_owned(), manifest, blobs };
        self.lay(&image)?;
        Ok(image)
    }

    /// The file of a blob's bytes.
    pub(crate) fn file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.tree().join("blobs/sha256").join(&hex[..2]).join(&hex).join("data")
    }

    fn tree(&self) -> PathBuf {
        self.0.join("docker/registry/v2")
    }

    fn lay(&self, image: &Image) -> anyhow::Result<()> {
        for blob in image.blobs.iter().chain([&image.manifest]) {
            let file = self.file(blob.digest);
            fs::create_dir_all(file.parent().unwrap_or(&file))?;
            fs::write(file, &blob.bytes)?;
        }
        let home = self.tree().join("repositories").join(&image.repository);
        let link = |folder: String, digest: Digest| {
            let folder = home.join(folder);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("link"), digest.to_string())
        };
        for blob in &image.blobs {
            link(format!("_layers/sha256/{}", blob.digest.hex()), blob.digest)?;
        }
        let (manifest, hex) = (image.manifest.digest, image.manifest.digest.hex());
        link(format!("_manifests/revisions/sha256/{hex}"), manifest)?;
        link(format!("_manifests/tags/{TAG}/current"), manifest)?;
        Ok(link(format!("_manifests/tags/{TAG}/index/sha256/{hex}"), manifest)?)
    }
}
