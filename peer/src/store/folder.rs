//! The store's folder: where things lie in it, the lock that keeps a second process out, and how much room the
//! disk has. [`super::Store`] opens it first of all.
//!
//! `lock` · `format` · `index/` · `index.spare` · `index.broken-<unix seconds>/` (the newest damaged index) · `blobs/<2 hex>/<64 hex>`

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::task::TaskId;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{StoreError, means_full};
use super::meter::{BLOCK, Survey};

/// Blobs and index may hold what not every user of the machine may read.
const PRIVATE: u32 = 0o700;
/// What blobs leave free for the index, which a full disk throws out of step.
const INDEX_ROOM: u64 = 16 * 1024 * 1024;
/// On a small disk the index gets this share instead.
const INDEX_SHARE: u64 = 8;
/// The form in which the folder is written: a number in a file of its own. Release 0.1 wrote none.
const FORMAT: u32 = 1;
const BROKEN: &str = "index.broken-";

/// An open, locked folder.
pub(super) struct Folder {
    root: PathBuf,
    lock: File,
}

/// A file system, as it is now; a network one may not tell, and then it is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disk {
    pub(super) total: u64,
    pub(super) free: u64,
}

/// A blob's file found on the disk.
pub(super) struct Found {
    pub(super) task: TaskId,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// What it takes on the disk: less where it has holes.
    pub(super) taken: u64,
}

// === impl Folder ===

impl Folder {
    /// Makes the folder where it is missing and locks it.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let set_up = |error| StoreError::folder(root, error);
        fs::create_dir_all(root).map_err(set_up)?;
        let path = root.join("lock");
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(set_up)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let named = (&lock).take(16).read_to_string(&mut holder).is_ok();
                let holder = if named && !holder.trim().is_empty() {
                    format!(" (process {})", holder.trim())
                } else {
                    String::new()
                };
                return Err(StoreError::InUse { path: root.to_owned(), holder });
            }
            Err(error) => return Err(StoreError::io(&path, "lock", error)),
        }
        // For the error message above only: what holds is the lock, and it goes with the process.
        let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(path = %path.display(), %error, "the lock file does not name this process");
        }
        let folder = Self { root: root.to_owned(), lock };
        folder.check_format()?;
        make_private(&folder.blobs()).map_err(|error| StoreError::folder(&folder.blobs(), error))?;
        Ok(folder)
    }

    /// Refuses what a later release wrote, before anything in it is taken for damage.
    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.root.join("format");
        let written = match fs::read_to_string(&path) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(StoreError::io(&path, "read", error)),
        };
        // Whatever a later release may write behind its number.
        let digits = written.trim().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        match digits.parse::<u32>() {
            Ok(found) if found > FORMAT => {
                Err(StoreError::Newer { path: self.root.clone(), found, known: FORMAT })
            }
            Ok(_) => Ok(()),
            // A loss of power may have left it empty. It says only what is so anyway, so a full disk may do without.
            Err(_) => match fs::write(&path, format!("{FORMAT}\n")) {
                Err(error) if !means_full(&error) => Err(StoreError::io(&path, "write", error)),
                _ => Ok(()),
            },
        }
    }

    /// Lets the next one in, whatever handles are still about: they can claim nothing any more.
    pub(super) fn release(&self) {
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(dir = %self.root.display(), %error, "the folder stays locked until the process ends");
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, task: TaskId) -> PathBuf {
        let hex = task.hex();
        self.blobs().join(&hex[..2]).join(hex)
    }

    /// A new, sparse file of `length` bytes for a task. A file that is in the way is unlinked, never
    /// truncated: an older handle may still read it.
    pub(super) fn create_blob(&self, task: TaskId, length: u64) -> io::Result<File> {
        let path = self.blob(task);
        remove_if_there(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private(path.parent().unwrap_or(&self.root))?;
                options.open(&path)?
            }
            other => other?,
        };
        if let Err(error) = file.set_len(length) {
            remove_if_there(&path)?;
            return Err(error);
        }
        Ok(file)
    }

    /// Every blob file. What does not have a blob's name is a stranger's, and left alone.
    pub(super) fn found(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        let blobs = self.blobs();
        self.walk(&mut found).map_err(|source| StoreError::io(&blobs, "read the folder", source))?;
        Ok(found)
    }

    fn walk(&self, found: &mut Vec<Found>) -> io::Result<()> {
        for shelf in fs::read_dir(self.blobs())? {
            let shelf = shelf?;
            if shelf.file_name().len() != 2 || !shelf.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shelf.path())? {
                let entry = entry?;
                let task = entry.file_name().to_str().and_then(|name| name.parse::<TaskId>().ok());
                let meta = entry.metadata()?;
                match task {
                    Some(task) if meta.is_file() && self.blob(task) == entry.path() => {
                        let taken = meta.blocks() * BLOCK;
                        found.push(Found { task, path: entry.path(), length: meta.len(), taken });
                    }
                    _ => {
                        tracing::warn!(path = %entry.path().display(), "not a blob of this store: left alone")
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves a damaged index out of the way, and says where to; of several only the newest is kept.
    pub(super) fn set_index_aside(&self, unix_seconds: u64) -> io::Result<PathBuf> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(BROKEN) {
                let removed = match entry.file_type()?.is_dir() {
                    true => fs::remove_dir_all(entry.path()),
                    false => fs::remove_file(entry.path()),
                };
                removed?;
            }
        }
        let aside = self.root.join(format!("{BROKEN}{unix_seconds}"));
        fs::rename(self.index(), &aside)?;
        Ok(aside)
    }

    /// The file system that the folder is on.
    pub(super) fn disk(&self) -> io::Result<Disk> {
        let disk = rustix::fs::fstatvfs(&self.lock)?;
        Ok(Disk { total: disk.f_blocks * disk.f_frsize, free: disk.f_bavail * disk.f_frsize })
    }

    /// What the folder takes on the disk.
    pub(super) fn survey(&self) -> io::Result<Survey> {
        let (blobs, index) = (self.blobs(), self.index());
        let blob = |path: &Path| {
            let task = path.strip_prefix(&blobs).ok()?.file_name()?.to_str()?.parse::<TaskId>().ok()?;
            (self.blob(task) == path).then_some(task)
        };
        let spare = index.with_extension("spare");
        Survey::of(&self.root, blob, |path| path.starts_with(&index) || path == spare)
    }
}

// === impl Disk ===

impl Disk {
    /// How much must become free before `bytes` more leave what has to stay free: `kept`, and what the index needs.
    pub(super) fn shortfall(self, bytes: u64, kept: u64) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let room = INDEX_ROOM.min(self.total / INDEX_SHARE).max(kept);
        bytes.saturating_add(room).saturating_sub(self.free)
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// Unlinks a file that may be gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
