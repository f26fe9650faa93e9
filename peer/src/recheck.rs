//! Looks again at what has lain on this node's disk, while it is read for a client. Disks forget; a runtime that is given
//! one wrong byte throws the whole layer away, asks again, and would be given the same byte for ever. Pieces that are not
//! what was claimed are forgotten, so that the next wish fetches it anew. Used by [`crate::handle`] for tasks that were here
//! before anybody asked: what has just arrived was hashed a moment ago.
//!
//! Hashing costs as much as everything else in handing out a warm blob. So what was looked at is not looked at again for a
//! day ([`Looks`]), unless the file was written to since.
//!
//! # Invariants
//! - The last bytes of a piece go out only if all of it is right, so no answer with a wrong byte looks whole.
//! - A range that leaves a piece before its end is not checked: lazy runtimes read a few kilobytes, and hashing megabytes
//!   for them would cost more than it is worth.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::piece::{ByteRange, PieceIndex, PieceSet};
use common::task::TaskId;

use crate::store::{Blob, StoreError};

/// What is read at once of a piece's beginning, where a range begins within it.
const CHUNK: u64 = 256 * 1024;

/// What was right a day ago is looked at again.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// Tasks whose looks are remembered: with more, some are looked at more often.
const MAX_TASKS: usize = 4096;

/// The piece that is being read.
pub(crate) struct Recheck {
    looks: Looks,
    /// Which, up to where it is hashed, and how.
    under_way: Option<(PieceIndex, u64, Hasher)>,
}

/// Which pieces were found right of late. Clones are the same memory.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<HashMap<TaskId, Look>>>);

struct Look {
    stamp: Stamp,
    at: Instant,
    right: PieceSet,
}

/// What a file system changes when a file is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

// === impl Stamp ===

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let (written, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
        Some(Self { inode: file.ino(), written, changed })
    }
}

// === impl Looks ===

impl Looks {
    /// Whether a piece was found right of late and nothing was written since.
    fn is_fresh(&self, blob: &Blob, piece: PieceIndex) -> bool {
        let stamp = Stamp::of(blob.path());
        let looks = self.lock();
        looks.get(&blob.task()).is_some_and(|look| {
            Some(look.stamp) == stamp && look.right.contains(piece) && look.at.elapsed() < FRESH
        })
    }

    /// A piece is right.
    fn note(&self, blob: &Blob, piece: PieceIndex, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        let mut looks = self.lock();
        if looks.len() >= MAX_TASKS && !looks.contains_key(&blob.task()) {
            looks.retain(|_, look| look.at.elapsed() < FRESH / 24);
            if looks.len() >= MAX_TASKS {
                looks.clear();
            }
        }
        let new = || Look { stamp, at: Instant::now(), right: PieceSet::new(blob.geometry().pieces()) };
        let look = looks.entry(blob.task()).or_insert_with(new);
        if look.stamp != stamp || look.at.elapsed() >= FRESH {
            *look = new();
        }
        look.right.insert(piece);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Look>> {
        // A panic in between would leave a table that only says less.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Recheck ===

impl Recheck {
    /// Nothing is being read.
    pub(crate) fn new(looks: Looks) -> Self {
        Self { looks, under_way: None }
    }

    /// Reads `range`, which lies within one piece whose digest is claimed to be `digest`, on the way to `until`. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the piece is not what it was, else when the file or the index fails.
    pub(crate) fn read(
        &mut self,
        blob: &Blob,
        (range, until): (ByteRange, u64),
        digest: Digest,
    ) -> Result<Bytes, StoreError> {
        let stamp = Stamp::of(blob.path());
        let bytes = blob.read(range)?;
        let piece = blob.geometry().piece_at(range.start);
        let whole = blob.geometry().range(piece);
        if until < whole.end || self.under_way.is_none() && self.looks.is_fresh(blob, piece) {
            return Ok(bytes);
        }
        let mut hasher = match self.under_way.take() {
            Some((before, at, hasher)) if before == piece && at == range.start => hasher,
            _ => hashed(blob, ByteRange::new(whole.start, range.start))?,
        };
        hasher.update(&bytes);
        if range.end < whole.end {
            self.under_way = Some((piece, range.end, hasher));
        } else if hasher.finish() != digest {
            forget_changed(blob, piece)?;
            return Err(StoreError::Damaged { path: blob.path().to_owned(), index: piece });
        } else {
            self.looks.note(blob, piece, stamp);
        }
        Ok(bytes)
    }
}

/// Forgets `first`, and every other piece that has changed: the pieces that stay are not hashed again when the blob is
/// made whole, and a disk that has lost one seldom lost no other.
fn forget_changed(blob: &Blob, first: PieceIndex) -> Result<(), StoreError> {
    let pieces = if blob.is_adopted() { Vec::new() } else { blob.pieces()? };
    blob.forget_piece(first)?;
    for (index, digest) in pieces.into_iter().filter(|(index, _)| *index != first) {
        if hashed(blob, blob.geometry().range(index))?.finish() != digest {
            blob.forget_piece(index)?;
        }
    }
    Ok(())
}

fn hashed(blob: &Blob, range: ByteRange) -> Result<Hasher, StoreError> {
    let mut hasher = Hasher::new();
    for start in (range.start..range.end).step_by(CHUNK as usize) {
        hasher.update(&blob.read(ByteRange::new(start, range.end.min(start + CHUNK)))?);
    }
    Ok(hasher)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use common::piece::Geometry;
    use common::task::TaskId;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{Store, StoreOptions};

    const LENGTH: u64 = 700_000;

    /// Three pieces, proven.
    fn stored(dir: &TempDir) -> Blob {
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        let geometry = Geometry::of(LENGTH).unwrap();
        let content: Vec<u8> = (0..LENGTH).map(|at| (at * 7 % 251) as u8).collect();
        let blob =
            store.create(TaskId::of_digest(Digest::of(&content)), geometry, "http://origin/blob").unwrap();
        for index in (0..geometry.pieces()).map(PieceIndex) {
            let range = geometry.range(index);
            let piece = Bytes::copy_from_slice(&content[range.start as usize..range.end as usize]);
            let digest = Digest::of(&piece);
            blob.write_piece(index, &[piece], digest).unwrap();
        }
        blob.prove().unwrap();
        blob
    }

    /// Reads from `start` to `end` as a client does, in odd steps; how far it came.
    fn read(blob: &Blob, start: u64, end: u64) -> (u64, Option<StoreError>) {
        look_and_read(blob, &Looks::default(), start, end)
    }

    fn look_and_read(blob: &Blob, looks: &Looks, start: u64, end: u64) -> (u64, Option<StoreError>) {
        let digests: Vec<Digest> = blob.pieces().unwrap().into_iter().map(|(_, digest)| digest).collect();
        let (mut recheck, mut at) = (Recheck::new(looks.clone()), start);
        while at < end {
            let piece = blob.geometry().piece_at(at);
            let to = end.min(at + 100_001).min(blob.geometry().range(piece).end);
            match recheck.read(blob, (ByteRange::new(at, to), end), digests[piece.0 as usize]) {
                Ok(_) => at = to,
                Err(error) => return (at, Some(error)),
            }
        }
        (at, None)
    }

    fn flip(blob: &Blob, place: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(blob.path()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    }

    #[test]
    fn what_is_right_is_read_from_anywhere_to_anywhere() {
        let dir = TempDir::new().unwrap();
        let blob = stored(&dir);
        for (start, end) in [(0, LENGTH), (1, LENGTH), (300_000, LENGTH), (0, 262_144), (5, 300_000)] {
            let (reached, error) = read(&blob, start, end);
            assert!(error.is_none() && reached == end, "{start} to {end}: {error:?}");
        }
        assert!(blob.is_proven());
    }

    #[test]
    fn a_piece_that_has_changed_is_cut_before_its_end_and_forgotten() {
        for start in [0, 262_145, 400_000] {
            let dir = TempDir::new().unwrap();
            let blob = stored(&dir);
            flip(&blob, 262_144);
            let (reached, error) = read(&blob, start, LENGTH);
            assert!(matches!(error, Some(StoreError::Damaged { index: PieceIndex(1), .. })), "{error:?}");
            assert!(reached < 2 * 262_144, "the end of the changed piece went out");
            assert!(!blob.is_proven());
            assert_eq!(blob.pieces().unwrap().len(), 2);
        }
    }

    #[test]
    fn all_that_has_changed_is_forgotten_with_the_first() {
        let dir = TempDir::new().unwrap();
        let blob = stored(&dir);
        flip(&blob, 100);
        flip(&blob, LENGTH - 1);
        assert!(read(&blob, 0, LENGTH).1.is_some());
        let left: Vec<PieceIndex> = blob.pieces().unwrap().into_iter().map(|(index, _)| index).collect();
        assert_eq!(left, [PieceIndex(1)]);
    }

    #[test]
    fn what_was_found_right_is_hashed_again_once_the_file_was_written_to() {
        let dir = TempDir::new().unwrap();
        let (blob, looks) = (stored(&dir), Looks::default());
        assert!(look_and_read(&blob, &looks, 0, LENGTH).1.is_none());
        let pieces = blob.geometry().pieces();
        assert!((0..pieces).all(|index| looks.is_fresh(&blob, PieceIndex(index))));
        flip(&blob, 300_000);
        assert!(!looks.is_fresh(&blob, PieceIndex(0)));
        assert!(look_and_read(&blob, &looks, 0, LENGTH).1.is_some());
    }

    #[test]
    fn a_few_bytes_are_read_without_hashing_the_piece() {
        let dir = TempDir::new().unwrap();
        let blob = stored(&dir);
        flip(&blob, 262_144);
        assert!(read(&blob, 300_000, 300_010).1.is_none());
        assert!(blob.is_proven());
    }
}
