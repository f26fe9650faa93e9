//! Images made without any tool: tar and gzip by hand, manifests as the OCI image specification writes them.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use common::digest::Digest;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use serde_json::json;

/// OCI media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The tag that every image here has.
pub(crate) const TAG: &str = "e2e";

/// Tar's unit.
const BLOCK: usize = 512;

/// Bytes with their digest and media type.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Bytes,
}

/// An image as a registry holds it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

// === impl Blob ===

impl Blob {
    pub(crate) fn new(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), media_type, bytes }
    }

    /// Its length.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn descriptor(&self) -> serde_json::Value {
        json!({"mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.size()})
    }
}

// === impl Image ===

impl Image {
    /// An image of four layers, gzipped and plain, that prints `message` when it runs. Needs `/bin/busybox`.
    pub(crate) fn runnable(repository: &str, message: &str) -> Self {
        let busybox = std::fs::read(Path::new("/bin/busybox")).expect("busybox-static is installed");
        let program = tar(&[("bin/", 0o755, b""), ("bin/busybox", 0o755, &busybox)]);
        let words = tar(&[("etc/", 0o755, b""), ("etc/message", 0o644, message.as_bytes())]);
        let ballast = tar(&[("ballast", 0o644, &noise(5 << 20, message.len() as u64))]);
        let small = tar(&[("small", 0o644, b"a layer below every limit for small ones")]);
        let layers = [(TAR_GZIP, program), (TAR_GZIP, words), (TAR, ballast), (TAR_GZIP, small)];
        Self::of(repository, &["/bin/busybox", "cat", "/etc/message"], layers.into())
    }

    /// An image with one layer of exactly `size` bytes that nothing compresses.
    pub(crate) fn single(repository: &str, size: usize, seed: u64) -> Self {
        Self::of_sizes(repository, &[size], seed)
    }

    /// An image with layers of exactly these sizes that nothing compresses.
    pub(crate) fn of_sizes(repository: &str, sizes: &[usize], seed: u64) -> Self {
        let layer = |(size, seed): (&usize, u64)| {
            // one header, and two empty blocks at the end
            let layer = tar(&[("noise", 0o644, &noise(size - 3 * BLOCK, seed))]);
            assert_eq!(layer.len(), *size, "the size is a multiple of {BLOCK}");
            (TAR, layer)
        };
        Self::of(repository, &["/noise"], sizes.iter().zip(seed..).map(layer).collect())
    }

    fn of(repository: &str, command: &[&str], layers: Vec<(&'static str, Vec<u8>)>) -> Self {
        let plain: Vec<String> = layers.iter().map(|(_, tar)| Digest::of(tar).to_string()).collect();
        let stored = |(kind, tar): (&'static str, Vec<u8>)| {
            Blob::new(kind, if kind == TAR_GZIP { gzip(&tar) } else { tar })
        };
        let layers: Vec<Blob> = layers.into_iter().map(stored).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": plain}, "history": vec![json!({"created_by": "e2e"}); layers.len()],
        });
        let config = Blob::new(CONFIG, config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(MANIFEST, manifest.to_string());
        Self { repository: repository.to_owned(), manifest, config, layers }
    }

    /// The first layer: the only one of [`Image::single`].
    pub(crate) fn layer(&self) -> &Blob {
        &self.layers[0]
    }

    /// Config and layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// `size` bytes that look random and are the same for the same `seed`.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A POSIX ustar archive; a name that ends in `/` is a folder.
fn tar(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::with_capacity(entries.iter().map(|entry| entry.2.len() + 2 * BLOCK).sum());
    for (name, mode, content) in entries {
        let mut header = [0_u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut field =
            |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, format!("{mode:07o}"));
        field(108, format!("{:07o}", 0));
        field(116, format!("{:07o}", 0));
        field(124, format!("{:011o}", content.len()));
        field(136, format!("{:011o}", 0));
        // the checksum is taken with its own field blank
        field(148, " ".repeat(8));
        field(156, if name.ends_with('/') { "5" } else { "0" }.to_owned());
        field(257, "ustar\x0000".to_owned());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// Gzip with stored blocks (RFC 1952, RFC 1951 section 3.2.4): real gzip for every reader, and quick.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.len().div_ceil(0xffff);
    for (index, block) in bytes.chunks(0xffff).enumerate() {
        let length = u16::try_from(block.len()).expect("chunks are that short");
        out.push(u8::from(index + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("small layers only").to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: OnceLock<[u32; 256]> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|index| {
            (0..8).fold(u32::try_from(index).expect("below 256"), |crc, _| {
                if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 }
            })
        })
    });
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}
