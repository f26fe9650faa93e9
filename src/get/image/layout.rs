//! A folder that is an OCI image layout: `oci-layout`, `index.json`, and blobs by their digests; skopeo and podman read it as
//! `oci:FOLDER:TAG`. An image may be added to one that is there.
//!
//! # Invariants
//! - `index.json` names an image only when all of it is there.
//!
//! Source: OCI image-spec, "Image Layout".

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use common::digest::{Digest, Hasher};
use serde_json::{Value, json};

use crate::get::output::{self, Draft, Finish, settle};
use peer::image::reference::Reference;

const MARK: &str = "oci-layout";
const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// What an image is called in a layout.
const NAME: &str = "org.opencontainers.image.ref.name";
/// An index that we would write is some kilobytes.
const MAX_INDEX: u64 = 16 * 1024 * 1024;

/// The folder.
pub struct Layout(PathBuf);

// === impl Layout ===

impl Layout {
    /// Opens or begins one. Blocks.
    ///
    /// # Errors
    /// When something else is there.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot write {}", folder.display());
        if output::is_there(folder) {
            let empty = std::fs::read_dir(folder).with_context(failed)?.next().is_none();
            if !empty && !folder.join(MARK).is_file() {
                bail!("{} is there already, and is no OCI layout: name another folder", folder.display());
            }
        }
        std::fs::create_dir_all(folder.join("blobs/sha256")).with_context(failed)?;
        let layout = Self(folder.to_owned());
        // Now, so that what is broken off is known for a layout when it is gone on with.
        layout.write(&folder.join(MARK), VERSION.as_bytes())?;
        Ok(layout)
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is here, and right. Reads all of it: blocks.
    pub fn has(&self, digest: Digest, size: u64) -> bool {
        let read = || -> std::io::Result<Digest> {
            let mut file = std::fs::File::open(self.blob(digest))?;
            if file.metadata()?.len() != size {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 256 * 1024]);
            loop {
                match std::io::Read::read(&mut file, &mut buffer)? {
                    0 => return Ok(hasher.finish()),
                    count => hasher.update(&buffer[..count]),
                }
            }
        };
        read().is_ok_and(|found| found == digest)
    }

    /// Writes one of its files. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let draft = Draft(output::beside(path));
        std::fs::write(&draft.0, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        settle(&draft.0, path, Finish { mode: None, overwrite: true }, None)
    }

    /// Names an image whose blobs are all here. Blocks.
    ///
    /// # Errors
    /// When the index that is there cannot be read, or the new one written.
    pub fn name(&self, reference: &Reference, kind: &str, manifest: (Digest, u64)) -> anyhow::Result<()> {
        let path = self.0.join(INDEX);
        let there = match std::fs::metadata(&path) {
            Err(_) => None,
            Ok(metadata) if metadata.len() > MAX_INDEX => {
                bail!("{} is too large to be an index", path.display())
            }
            Ok(_) => {
                let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(
                    serde_json::from_slice(&text)
                        .with_context(|| format!("{} is no index", path.display()))?,
                )
            }
        };
        let index = with_image(there, reference.tag.as_deref(), kind, manifest);
        self.write(&path, index.to_string().as_bytes())
    }
}

/// An index with one image more; what had its name has none any more.
fn with_image(there: Option<Value>, tag: Option<&str>, kind: &str, (digest, size): (Digest, u64)) -> Value {
    let empty = || json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
    let mut index = there.filter(Value::is_object).unwrap_or_else(empty);
    let digest = digest.to_string();
    let mut descriptor = json!({"mediaType": kind, "digest": digest, "size": size});
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({ NAME: tag });
    }
    let mut manifests = index["manifests"].as_array().cloned().unwrap_or_default();
    manifests.retain(|other| {
        let name = other["annotations"][NAME].as_str();
        name != tag || (tag.is_none() && other["digest"] != digest.as_str())
    });
    manifests.push(descriptor);
    index["manifests"] = manifests.into();
    index
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_layout_keeps_what_it_has_and_moves_a_name() {
        let (one, two) = ((Digest::of(b"1"), 1), (Digest::of(b"2"), 2));
        let index = with_image(None, Some("v1"), "k", one);
        let index = with_image(Some(index), Some("v2"), "k", one);
        let index = with_image(Some(index), Some("v1"), "k", two);
        let index = with_image(Some(index), None, "k", two);
        let index = with_image(Some(index), None, "k", two);
        let names = |index: &Value| -> Vec<(Option<String>, u64)> {
            let of = |one: &Value| {
                (one["annotations"][NAME].as_str().map(str::to_owned), one["size"].as_u64().unwrap())
            };
            index["manifests"].as_array().unwrap().iter().map(of).collect()
        };
        assert_eq!(names(&index), [(Some("v2".into()), 1), (Some("v1".into()), 2), (None, 2)]);
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone_and_wrong_blobs_do_not_count() {
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("mine"), "mine").unwrap();
        assert!(Layout::open(home.path()).is_err());
        let layout = Layout::open(&home.path().join("new")).unwrap();
        let (right, wrong) = (Digest::of(b"right"), Digest::of(b"wrong"));
        layout.write(&layout.blob(right), b"right").unwrap();
        layout.write(&layout.blob(wrong), b"right").unwrap();
        assert!(layout.has(right, 5) && !layout.has(right, 4) && !layout.has(wrong, 5));
    }
}
