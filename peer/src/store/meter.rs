//! What the data folder takes on the disk, as `du` counts: blobs whose last block is half empty, pieces that were
//! written and never claimed, the index, which takes several times its live bytes, keys, folders. [`super::tend`]
//! looks now and then; between two looks the books tell what was added and what went.
//!
//! # Invariants
//! - A task that is written while it is looked at counts as the books say: what a pull adds during a look is no
//!   overhead.
//! - Nothing outside the folder is looked at: links are counted, not followed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use common::task::TaskId;

/// The unit of `st_blocks`, whatever the file system's own.
pub(super) const BLOCK: u64 = 512;

/// What was found at the last look.
#[derive(Default)]
pub(super) struct Meter {
    /// What the folder takes beyond the bytes on the books; less than nothing where the file system compresses.
    overhead: AtomicI64,
    index: AtomicU64,
}

/// What a folder takes on the disk.
#[derive(Default)]
pub(super) struct Survey {
    blobs: HashMap<TaskId, u64>,
    index: u64,
    /// The index and everything else that is no blob.
    others: u64,
}

// === impl Meter ===

impl Meter {
    /// Notes what a survey found, with what the books said of each task before and after it.
    pub(super) fn note(&self, survey: &Survey, before: &HashMap<TaskId, u64>, after: &HashMap<TaskId, u64>) {
        let slack = |(task, taken): (&TaskId, &u64)| match (before.get(task), after.get(task)) {
            (Some(before), Some(after)) if before != after => 0,
            (_, after) => signed(*taken) - signed(after.copied().unwrap_or(0)),
        };
        let overhead = signed(survey.others) + survey.blobs.iter().map(slack).sum::<i64>();
        self.overhead.store(overhead, Ordering::Release);
        self.index.store(survey.index, Ordering::Release);
    }

    /// Bytes beyond those on the books.
    pub(super) fn overhead(&self) -> i64 {
        self.overhead.load(Ordering::Acquire)
    }

    /// What the index takes.
    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// === impl Survey ===

impl Survey {
    /// Looks at every file below `root`; `blob` says which are blobs, `index` which belong to the index.
    pub(super) fn of(
        root: &Path,
        blob: impl Fn(&Path) -> Option<TaskId>,
        index: impl Fn(&Path) -> bool,
    ) -> io::Result<Self> {
        let mut survey = Self { others: fs::symlink_metadata(root)?.blocks() * BLOCK, ..Self::default() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            // What goes while it is looked at takes nothing.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
                let taken = meta.blocks() * BLOCK;
                match blob(&path).filter(|_| meta.is_file()) {
                    Some(task) => drop(survey.blobs.insert(task, taken)),
                    None => survey.others += taken,
                }
                if index(&path) {
                    survey.index += taken;
                }
                if meta.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(survey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_during_a_look_is_no_overhead() {
        let of = |entries: &[(u8, u64)]| -> HashMap<TaskId, u64> {
            entries.iter().map(|&(n, bytes)| (TaskId([n; 32]), bytes)).collect()
        };
        // One is settled, one is being written, one is no longer on the books, and one is only partly claimed.
        let survey =
            Survey { blobs: of(&[(1, 4096), (2, 70_000), (3, 8192), (4, 20_000)]), index: 500, others: 1000 };
        let before = of(&[(1, 100), (2, 10), (4, 15_000)]);
        let after = of(&[(1, 100), (2, 90_000), (4, 15_000)]);
        let meter = Meter::default();
        meter.note(&survey, &before, &after);
        assert_eq!(meter.overhead(), 1000 + (4096 - 100) + 8192 + 5000);
        assert_eq!(meter.index(), 500);
    }
}
