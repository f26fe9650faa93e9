//! What stands beside a blob in the bucket: its length and the digests of its pieces, as the supernode that proved it knew
//! them, sealed with the cluster's key. It is written after the blob, and without it there is none. JSON, so that people
//! can read it. Used by the bucket and `uploads`.

use common::digest::Digest;
use common::identity::{Seal, Sealer};
use common::piece::Geometry;
use common::task::TaskId;
use peer::vault::Kept;
use serde::{Deserialize, Serialize};

/// Far above the record of any image's layer (500 GiB); keeps a wrong object from filling the memory.
pub(super) const LONGEST: u64 = 8 * 1024 * 1024;
/// What is sealed: part of the statement, so that another version's seals mean nothing here.
const KIND: &str = "cached blob 1";

#[derive(Serialize, Deserialize)]
struct Written {
    length: u64,
    /// Where it was fetched from, without secrets.
    source: String,
    /// SHA-256 of each piece, in hex.
    pieces: Vec<String>,
    /// The cluster's word for all of it, in hex.
    seal: String,
}

/// The record as it is kept.
pub(super) fn write(task: TaskId, kept: &Kept, sealer: &Sealer) -> Vec<u8> {
    let written = Written {
        length: kept.geometry.length(),
        source: kept.source_url.clone(),
        pieces: kept.digests.iter().map(Digest::hex).collect(),
        seal: hex::encode(seal(task, kept, sealer).0),
    };
    serde_json::to_vec_pretty(&written).expect("invariant: texts and numbers are JSON")
}

/// The record, if a supernode of this cluster has written it for this task.
pub(super) fn read(task: TaskId, bytes: &[u8], sealer: &Sealer) -> Option<Kept> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    let geometry = Geometry::of(written.length).ok()?;
    let digests = written.pieces.iter().map(|hex| format!("sha256:{hex}").parse().ok());
    let digests: Vec<Digest> = digests.collect::<Option<_>>()?;
    let mut seal = Seal([0; 32]);
    hex::decode_to_slice(&written.seal, &mut seal.0).ok()?;
    let kept = Kept { geometry, digests, source_url: written.source };
    let whole = kept.digests.len() == geometry.pieces() as usize;
    let ours = sealer.verify(KIND, &statement(task, &kept).each_ref().map(Vec::as_slice), &seal);
    (whole && ours).then_some(kept)
}

fn seal(task: TaskId, kept: &Kept, sealer: &Sealer) -> Seal {
    sealer.seal(KIND, &statement(task, kept).each_ref().map(Vec::as_slice))
}

fn statement(task: TaskId, kept: &Kept) -> [Vec<u8>; 4] {
    let digests = kept.digests.iter().flat_map(|digest| digest.0).collect();
    let length = kept.geometry.length().to_le_bytes().to_vec();
    [task.0.to_vec(), length, kept.source_url.clone().into_bytes(), digests]
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::identity::Authority;

    #[test]
    fn only_what_this_cluster_has_sealed_for_this_task_is_believed() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealer = Sealer::new(&Authority::open(here.path()).unwrap());
        let other = Sealer::new(&Authority::open(there.path()).unwrap());
        let task = TaskId::of_digest(Digest::of(b"whole"));
        let digests = vec![Digest::of(b"one"), Digest::of(b"two")];
        let geometry = Geometry::of(300 * 1024).unwrap();
        let kept = Kept { geometry, digests, source_url: "https://h.example/v2/a".into() };
        let bytes = write(task, &kept, &sealer);
        assert_eq!(read(task, &bytes, &sealer), Some(kept));
        assert_eq!(read(task, &bytes, &other), None);
        assert_eq!(read(TaskId([1; 32]), &bytes, &sealer), None);
        for (from, to) in [
            ("307200", "307201"),
            ("h.example", "i.example"),
            (&Digest::of(b"one").hex(), &Digest::of(b"two").hex()),
        ] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from));
            assert_eq!(read(task, text.replacen(from, to, 1).as_bytes(), &sealer), None, "{from}");
        }
        assert_eq!(read(task, b"", &sealer), None);
    }
}
