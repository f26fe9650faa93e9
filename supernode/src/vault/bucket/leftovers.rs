//! Uploads in parts that are under way, noted on the disk. S3 keeps the parts of an upload that is never ended, unseen, and
//! bills them; so what a killed process left is aborted at the next start. Used by `uploads`.
//!
//! # Crash safety
//! A note is written as soon as the upload has an id, and removed once it is ended. A kill between the id and the note leaves
//! an empty upload, which the bucket's lifecycle rule removes.

use std::io;
use std::path::{Path, PathBuf};

use common::task::TaskId;

/// The longest id that is believed: S3's have some hundred characters.
const MAX_ID: u64 = 4096;

/// The folder with the notes.
#[derive(Debug, Clone)]
pub(super) struct Leftovers(PathBuf);

// === impl Leftovers ===

impl Leftovers {
    /// Makes the folder below `data_dir` where it is missing.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("cache-uploads");
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// An upload begins.
    pub(super) fn note(&self, task: TaskId, id: &str) -> io::Result<()> {
        std::fs::write(self.0.join(task.hex()), id)
    }

    /// It has ended.
    pub(super) fn ended(&self, task: TaskId) {
        match std::fs::remove_file(self.0.join(task.hex())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%task, "the note of an upload stays: {error}");
            }
            _ => {}
        }
    }

    /// What earlier runs left.
    pub(super) fn all(&self) -> Vec<(TaskId, String)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry)));
        let small = named.filter(|(_, entry)| entry.metadata().is_ok_and(|meta| meta.len() <= MAX_ID));
        small.filter_map(|(task, entry)| Some((task, std::fs::read_to_string(entry.path()).ok()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_and_did_not_end_is_found_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (TaskId([1; 32]), TaskId([2; 32]));
        let notes = Leftovers::open(dir.path()).unwrap();
        notes.note(one, "first").unwrap();
        notes.note(two, "second").unwrap();
        notes.ended(two);
        notes.ended(two);
        std::fs::write(dir.path().join("cache-uploads/stranger"), "x").unwrap();
        assert_eq!(Leftovers::open(dir.path()).unwrap().all(), [(one, "first".to_owned())]);
    }
}
