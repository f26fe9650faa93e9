//! What is pulled: blobs that nothing can compress, the same in every run, laid where docker-registry looks for them.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use common::digest::{Digest, Hasher};
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::json;

use crate::options::{Contender, Mode, Options};

/// The repository that everything is a part of.
pub(crate) const REPOSITORY: &str = "bench/content";
pub(crate) const TAG: &str = "latest";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Layers of the image.
const LAYERS: usize = 40;
/// Shares no divisor with the number of layers: a step that visits all of them, large and small mixed.
const STRIDE: usize = 7;
/// A seed that no layer has.
const OTHER: u64 = 1000;
const CHUNK: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One blob, or an image with its manifest.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) manifest: Option<Blob>,
    /// What is preheated beside a pull.
    pub(crate) other: Option<Blob>,
    store: PathBuf,
}

// === impl Content ===

impl Content {
    /// Makes what `options` ask for in `folder`.
    pub(crate) fn make(options: &Options, folder: &Path) -> anyhow::Result<Self> {
        let mut content =
            Self { blobs: Vec::new(), manifest: None, other: None, store: folder.join("store") };
        if options.against.contains(&Contender::Beside) {
            content.other = Some(content.noise(options.size, OTHER)?);
        }
        if options.mode != Mode::ManyLayers {
            content.blobs.push(content.noise(options.size, 0)?);
            return Ok(content);
        }
        let layers: Vec<Blob> = sizes(options.size)
            .into_iter()
            .zip(0..)
            .map(|(size, seed)| content.noise(size, seed))
            .collect::<anyhow::Result<_>>()?;
        let config = content.text(&json!({"architecture": "amd64", "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>(),
        }}))?;
        let part = |kind: &str, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.size});
        let manifest = content.text(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config),
            "layers": layers.iter().map(|layer| part(LAYER, layer)).collect::<Vec<_>>(),
        }))?;
        content.tag(manifest.digest)?;
        content.blobs = std::iter::once(config).chain(layers).collect();
        content.manifest = Some(manifest);
        Ok(content)
    }

    /// Bytes of all blobs, and of the manifest.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().chain(&self.manifest).map(|blob| blob.size).sum()
    }

    /// The registry's folder.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The file that holds a blob's bytes.
    pub(crate) fn file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.tree().join("blobs/sha256").join(&hex[..2]).join(&hex).join("data")
    }

    fn tree(&self) -> PathBuf {
        self.store.join("docker/registry/v2")
    }

    /// A blob of noise.
    fn noise(&self, size: u64, seed: u64) -> anyhow::Result<Blob> {
        fs::create_dir_all(&self.store)?;
        let draft = self.store.join("draft");
        let (mut rng, mut hasher) = (SmallRng::seed_from_u64(seed), Hasher::new());
        let (mut left, mut chunk) = (size, vec![0; CHUNK]);
        let mut file = BufWriter::new(File::create(&draft)?);
        while left > 0 {
            let part = &mut chunk[..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            rng.fill_bytes(part);
            hasher.update(part);
            file.write_all(part)?;
            left -= part.len() as u64;
        }
        file.flush()?;
        self.place(&draft, Blob { digest: hasher.finish(), size })
    }

    fn text(&self, value: &serde_json::Value) -> anyhow::Result<Blob> {
        let (draft, text) = (self.store.join("draft"), value.to_string());
        fs::write(&draft, &text)?;
        self.place(&draft, Blob { digest: Digest::of(text.as_bytes()), size: text.len() as u64 })
    }

    /// Makes the draft a blob of the repository.
    fn place(&self, draft: &Path, blob: Blob) -> anyhow::Result<Blob> {
        let file = self.file(blob.digest);
        fs::create_dir_all(file.parent().unwrap_or(&file))?;
        fs::rename(draft, file)?;
        self.link(&format!("_layers/sha256/{}", blob.digest.hex()), blob.digest)?;
        Ok(blob)
    }

    fn tag(&self, manifest: Digest) -> anyhow::Result<()> {
        let hex = manifest.hex();
        self.link(&format!("_manifests/revisions/sha256/{hex}"), manifest)?;
        self.link(&format!("_manifests/tags/{TAG}/current"), manifest)?;
        self.link(&format!("_manifests/tags/{TAG}/index/sha256/{hex}"), manifest)
    }

    fn link(&self, folder: &str, digest: Digest) -> anyhow::Result<()> {
        let folder = self.tree().join("repositories").join(REPOSITORY).join(folder);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("link"), digest.to_string())?)
    }
}

/// Sizes as images have them: a few layers hold nearly everything, many are tiny. They add up to `total`.
fn sizes(total: u64) -> Vec<u64> {
    let weights: Vec<f64> = (0..LAYERS).map(|rank| (1.0 + rank as f64).powf(-1.5)).collect();
    let sum: f64 = weights.iter().sum();
    let mut sizes: Vec<u64> = (0..LAYERS)
        .map(|place| ((total as f64 * weights[place * STRIDE % LAYERS] / sum) as u64).max(1))
        .collect();
    // What rounding left goes to the largest, which is the first.
    sizes[0] += total.saturating_sub(sizes.iter().sum());
    sizes
}
