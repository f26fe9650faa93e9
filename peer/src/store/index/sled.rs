//! The durable index: sled in a folder of its own. Small keys only, never blob bytes: sled takes several times
//! the live bytes on disk.
//!
//! # Crash safety
//! sled writes a log; what a kill -9 or a loss of power leaves is a prefix of the operations, without those of the
//! last [`FLUSH_EVERY_MS`] unless [`Index::flush`] was called after them.
//!
//! # Full disks
//! Once sled has met a full disk, every later operation fails until it is opened anew. So a file of [`SPARE_BYTES`]
//! beside the index is kept in reserve: on a full disk it is given up and the database opened again, which loses
//! what was not flushed, as a kill would. The operation still fails; the next one can succeed, and can evict.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Index, Visit};
use crate::store::error::{IndexError, means_full};
use crate::store::folder::remove_if_there;
use crate::store::seldom::Seldom;

/// sled's default is 1 GiB, more than the daemon itself takes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// How much a kill -9 may lose: claims only, whose pieces are then fetched again.
const FLUSH_EVERY_MS: u64 = 200;
/// A store that was dropped in this process a moment ago may still hold sled's own lock.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Eight of sled's segments: enough to open and to write down some evictions.
const SPARE_BYTES: u64 = 4 * 1024 * 1024;

/// An index in a sled database.
pub(in crate::store) struct SledIndex {
    path: PathBuf,
    database: RwLock<Database>,
    /// The spare file was given up and is to be laid again.
    spent: AtomicBool,
    said_full: Seldom,
}

struct Database {
    /// How often it was opened anew.
    opened: u64,
    /// `None` after an attempt to open it anew has failed.
    db: Option<sled::Db>,
}

// === impl SledIndex ===

impl SledIndex {
    /// Opens or makes the database in the folder `path`.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, IndexError> {
        let db = match open_database(path) {
            Err(IndexError::System { source, .. }) if means_full(&source) => {
                give_up_spare(path);
                open_database(path)?
            }
            other => other?,
        };
        let database = RwLock::new(Database { opened: 0, db: Some(db) });
        let index = Self {
            path: path.to_owned(),
            database,
            spent: AtomicBool::new(true),
            said_full: Seldom::default(),
        };
        index.lay_spare();
        Ok(index)
    }

    fn run<T>(&self, operation: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, IndexError> {
        let (opened, outcome) = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let outcome = match &database.db {
                Some(db) => operation(db),
                None => Err(sled::Error::Io(io::ErrorKind::StorageFull.into())),
            };
            (database.opened, outcome)
        };
        match outcome {
            Ok(value) => {
                self.lay_spare();
                Ok(value)
            }
            Err(error) => {
                let error = told(&self.path, error);
                if matches!(&error, IndexError::System { source, .. } if means_full(source)) {
                    self.open_anew(opened);
                }
                Err(error)
            }
        }
    }

    /// Recovers from a full disk, unless somebody else has since this was the case.
    fn open_anew(&self, opened: u64) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.opened != opened {
            return;
        }
        if self.said_full.due(Instant::now()) {
            tracing::warn!(path = %self.path.display(), "the disk is full: the index is opened anew");
        }
        database.opened += 1;
        // The old one holds sled's lock.
        database.db = None;
        give_up_spare(&self.path);
        self.spent.store(true, Ordering::Release);
        match open_database(&self.path) {
            Ok(db) => database.db = Some(db),
            Err(error) => tracing::debug!(%error, "the index cannot be opened for now"),
        }
    }

    /// Lays the spare file where it is missing and there is room for twice that: sled needs some now, too.
    fn lay_spare(&self) {
        let roomy = || {
            let disk = rustix::fs::statvfs(&self.path);
            disk.is_ok_and(|disk| disk.f_bavail * disk.f_frsize >= 2 * SPARE_BYTES)
        };
        if !self.spent.load(Ordering::Acquire) || !roomy() || !self.spent.swap(false, Ordering::AcqRel) {
            return;
        }
        let path = spare(&self.path);
        let laid = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SPARE_BYTES)?));
        if let Err(error) = laid {
            tracing::debug!(path = %path.display(), %error, "no spare room for the index");
            give_up_spare(&self.path);
            self.spent.store(means_full(&error), Ordering::Release);
        }
    }
}

fn open_database(path: &Path) -> Result<sled::Db, IndexError> {
    remove_half_snapshots(path).map_err(|source| IndexError::System { path: path.to_owned(), source })?;
    let config =
        sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
    let mut tries = 0;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if is_lock(&error) && tries < LOCK_TRIES => {
                tries += 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(told(path, error)),
        }
    }
}

fn spare(path: &Path) -> PathBuf {
    path.with_extension("spare")
}

fn give_up_spare(path: &Path) {
    if let Err(error) = remove_if_there(&spare(path)) {
        tracing::debug!(path = %path.display(), %error, "the spare room stays");
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
        Ok(self.run(|db| db.get(key))?.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, IndexError> {
        Ok(self.run(|db| db.insert(key, value))?.is_none())
    }

    fn delete(&self, key: &[u8]) -> Result<bool, IndexError> {
        Ok(self.run(|db| db.remove(key))?.is_some())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        self.run(|db| {
            db.scan_prefix(prefix).try_for_each(|pair| pair.map(|(key, value)| visit(&key, &value)))
        })
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.run(|db| db.flush().map(drop))
    }

    fn losses(&self) -> u64 {
        self.database.read().unwrap_or_else(PoisonError::into_inner).opened
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
