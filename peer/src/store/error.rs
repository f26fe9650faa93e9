//! What can go wrong in the store, in words that name the thing and the way out. The engine asks
//! [`StoreError::is_full`] to decide whether a pull is streamed through without being kept.

use std::io;
use std::path::{Path, PathBuf};

use common::piece::{ByteRange, PieceIndex};
use common::task::TaskId;
use rustix::io::Errno;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room, and nothing left to evict.
    #[error(
        "no room for {needed} more bytes in {}: {cause}, and every blob left there is in use; \
         free disk space or raise the quota", dir.display()
    )]
    Full {
        /// The store's folder.
        dir: PathBuf,
        /// Bytes that were wanted.
        needed: u64,
        /// Which limit was reached.
        cause: FullCause,
    },
    /// The path, or one above it, is something else than a folder.
    #[error("{} is not a folder: name another data folder, or move what is there", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder cannot be written.
    #[error("{} cannot be written: give this user write access, or name another data folder", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later release wrote the folder.
    #[error(
        "{} has format {found}, which a later release wrote, and this one reads up to {known}: upgrade, or name \
         another data folder", path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// Another process has the folder open.
    #[error(
        "{} is in use by another process{holder}: stop that one, or name another data folder", path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// ` (process N)` where known, else empty.
        holder: String,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done to it.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A piece of another length than the geometry says, or no piece of the task at all.
    #[error("piece {} of task {task} is {expected} bytes long, not {given}", index.0)]
    WrongLength {
        /// The task.
        task: TaskId,
        /// The piece.
        index: PieceIndex,
        /// The length by the geometry; 0 when there is no such piece.
        expected: u64,
        /// The length that was given.
        given: u64,
    },
    /// A read past the end of the task.
    #[error("bytes {}..{} are not within task {task} of {length} bytes", range.start, range.end)]
    OutOfRange {
        /// The task.
        task: TaskId,
        /// What was asked for.
        range: ByteRange,
        /// The task's length.
        length: u64,
    },
    /// A blob with missing pieces cannot be proven.
    #[error("task {task} cannot be proven: {held} of {pieces} pieces are present")]
    Incomplete {
        /// The task.
        task: TaskId,
        /// Pieces present.
        held: u32,
        /// Pieces in the task.
        pieces: u32,
    },
    /// A piece's bytes are others than those that were written.
    #[error(
        "piece {} in {} has changed on the disk and is forgotten: ask again, and check the disk if it happens again",
        index.0, path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which piece.
        index: PieceIndex,
    },
    /// Somebody else's file holds the task's bytes.
    #[error("{} is not this store's: it is read and never written", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The store was closed.
    #[error("the store in {} is closed", dir.display())]
    Closed {
        /// The store's folder.
        dir: PathBuf,
    },
}

/// Which limit a full store has reached.
#[derive(Debug, thiserror::Error)]
pub enum FullCause {
    /// The configured quota.
    #[error("the quota of {0} bytes is reached")]
    Quota(u64),
    /// The part of the disk that must stay free.
    #[error("{0} bytes of the disk must stay free (keep-free)")]
    KeepFree(u64),
    /// The file system (ENOSPC), the user's disk quota (EDQUOT), or the slice of it that is kept free for the index.
    #[error("the disk is full ({0})")]
    Disk(io::Error),
}

/// Why the index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The system refused: full, read-only, not permitted. What is on the disk may be sound.
    #[error("the store's index in {}: {source}", path.display())]
    System {
        /// The index's folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is on the disk cannot be read.
    #[error("the store's index in {} is damaged ({reason}): restart to have it rebuilt from the blobs", path.display())]
    Damaged {
        /// The index's folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A value could not be put into its stored form.
    #[error("a record cannot be stored")]
    Encode(#[from] serde_json::Error),
}

// === impl StoreError ===

impl StoreError {
    /// Whether there is no room: the bytes can still be streamed through without being kept.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } | Self::Index(IndexError::System { source, .. }) => means_full(source),
            _ => false,
        }
    }

    pub(super) fn io(path: &Path, doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), doing, source: source.into() }
    }

    /// The error of setting a folder up at `path`.
    pub(super) fn folder(path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        let path = path.to_owned();
        match source.kind() {
            NotADirectory | AlreadyExists => Self::NotAFolder { path, source },
            PermissionDenied | ReadOnlyFilesystem => Self::NotWritable { path, source },
            _ => Self::Io { path, doing: "set up the folder", source },
        }
    }
}

/// Whether a file operation failed for want of room.
pub(super) fn means_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
        || matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disks_are_told_from_other_failures() {
        let path = Path::new("/data");
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(StoreError::io(path, "write", errno).is_full());
        }
        assert!(!StoreError::io(path, "write", Errno::IO).is_full());
        let cause = FullCause::Quota(10);
        let text = StoreError::Full { dir: path.into(), needed: 5, cause }.to_string();
        assert!(text.contains("/data") && text.contains("quota of 10 bytes"), "{text}");
    }
}
