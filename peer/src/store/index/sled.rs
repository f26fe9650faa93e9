//! The durable index: sled in a folder of its own. Small keys only, never blob bytes: sled takes several times
//! the live bytes on disk.
//!
//! # Crash safety
//! sled writes a log; what a kill -9 or a loss of power leaves is a prefix of the operations, without those of the
//! last [`FLUSH_EVERY_MS`] unless [`Index::flush`] was called after them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::{Index, Visit};
use crate::store::error::{IndexError, means_full};

/// sled's default is 1 GiB, more than the daemon itself takes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// How much a kill -9 may lose: claims only, whose pieces are then fetched again.
const FLUSH_EVERY_MS: u64 = 200;
/// A store that was dropped in this process a moment ago may still hold sled's own lock.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An index in a sled database.
pub(in crate::store) struct SledIndex {
    path: PathBuf,
    db: sled::Db,
}

// === impl SledIndex ===

impl SledIndex {
    /// Opens or makes the database in the folder `path`.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, IndexError> {
        remove_half_snapshots(path).map_err(|source| IndexError::System { path: path.to_owned(), source })?;
        let config =
            sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let mut tries = 0;
        loop {
            match config.open() {
                Ok(db) => return Ok(Self { path: path.to_owned(), db }),
                Err(sled::Error::Io(error)) if is_lock(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(told(path, error)),
            }
        }
    }

    fn told(&self, error: sled::Error) -> IndexError {
        told(&self.path, error)
    }
}

/// A kill -9 while sled opens leaves these, and after that no open ever succeeds.
fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// sled gives this failure no kind of its own.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// What the system refuses now and may grant later must not cost the index.
fn told(path: &Path, error: sled::Error) -> IndexError {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, ReadOnlyFilesystem};
    let path = path.to_owned();
    match error {
        sled::Error::Io(source)
            if means_full(&source)
                || is_lock(&source)
                || matches!(source.kind(), OutOfMemory | PermissionDenied | ReadOnlyFilesystem)
                || matches!(Errno::from_io_error(&source), Some(Errno::MFILE | Errno::NFILE)) =>
        {
            IndexError::System { path, source }
        }
        other => IndexError::Damaged { path, reason: other.to_string() },
    }
}

impl Index for SledIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.db.get(key).map_err(|error| self.told(error))?.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, IndexError> {
        Ok(self.db.insert(key, value).map_err(|error| self.told(error))?.is_none())
    }

    fn delete(&self, key: &[u8]) -> Result<bool, IndexError> {
        Ok(self.db.remove(key).map_err(|error| self.told(error))?.is_some())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        for pair in self.db.scan_prefix(prefix) {
            let (key, value) = pair.map_err(|error| self.told(error))?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.db.flush().map(drop).map_err(|error| self.told(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_every_index_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        crate::store::index::suite::holds(&|| Box::new(SledIndex::open(&path).unwrap()), true);
    }

    #[test]
    fn half_written_snapshots_do_not_stop_an_open() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledIndex::open(dir.path()).unwrap());
        let left = dir.path().join("snap.0000000000000000.generating");
        fs::write(&left, b"half").unwrap();
        drop(SledIndex::open(dir.path()).unwrap());
        assert!(!left.exists());
    }
}
