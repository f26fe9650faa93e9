//! Adopted blobs: whole blobs that lie in files of somebody else, a container runtime's content store, and are read
//! from there. The [content store's watcher](crate::content_store) finds and verifies them; from then on a blob of the
//! store is a blob of the store, wherever its bytes are.
//!
//! # Invariants
//! - A foreign file is opened for reading only, never through a link in its own name, and is otherwise left alone.
//! - A task is adopted only after the whole file was hashed and its digest is the task; its pieces' digests come from
//!   the same bytes.
//! - A file that is not the very one that was hashed (inode, length, times of change) counts as gone.
//! - What somebody has in hand is not switched under them.
//!
//! # Crash safety
//! The claims and the record are on the disk before our own copy is unlinked. A crash in between leaves a file that the
//! record does not need: the next start removes it.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use common::digest::{Digest, Hasher};
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::blobs::read_range;
use super::error::StoreError;
use super::folder::remove_if_there;
use super::gc::{Arrival, Turn};
use super::index::{Index, Record};
use super::{Inner, Store, unix_seconds};

/// So much is hashed in one step: some tens of milliseconds of a core.
const STEP: u64 = 16 * 1024 * 1024;

/// A file of somebody else, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    path: PathBuf,
    length: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How the store stands to a task that somebody else has, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has nothing of it that matters.
    Free,
    /// It holds the whole in a file of its own.
    Whole,
    /// Somebody reads or writes its own copy now.
    InHand,
    /// It reads it from a foreign file.
    Adopted,
}

/// What came of an adoption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The task is read from the foreign file now.
    Done {
        /// Bytes of our own that became free.
        released: u64,
    },
    /// Somebody has the task in hand: to be tried again later.
    InHand,
}

/// A foreign file that is being hashed.
pub struct Inspection {
    task: TaskId,
    foreign: Foreign,
    file: File,
    geometry: Geometry,
    whole: Hasher,
    digests: Vec<Digest>,
    buffer: Vec<u8>,
}

/// What an inspection found.
pub enum Finding {
    /// The bytes are those of the task.
    Right(Verified),
    /// They are not.
    Wrong,
    /// The file was changed meanwhile: to be looked at again.
    Changed,
}

/// A foreign file that was hashed and found right.
pub struct Verified {
    task: TaskId,
    foreign: Foreign,
    geometry: Geometry,
    digests: Vec<Digest>,
}

// === impl Foreign ===

impl Foreign {
    /// The file as it is now; `None` when there is no regular file of that name.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn look(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Self::of(path, &meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(path: &Path, meta: &Metadata) -> Option<Self> {
        meta.is_file().then(|| Self {
            path: path.to_owned(),
            length: meta.len(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file, if it is still the same. Whatever stands against that, the blob can be had elsewhere.
    pub(super) fn open(&self) -> Option<File> {
        // What is no regular file may keep an open waiting for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty()).ok()?);
        self.is_still(&file).then_some(file)
    }

    fn is_still(&self, file: &File) -> bool {
        file.metadata().ok().and_then(|meta| Self::of(&self.path, &meta)).as_ref() == Some(self)
    }
}

// === impl Inspection ===

impl Inspection {
    /// Opens a file to be hashed; `None` when it is not there any more, or not the same.
    pub fn begin(task: TaskId, foreign: Foreign) -> Option<Self> {
        let (geometry, file) = (Geometry::of(foreign.length).ok()?, foreign.open()?);
        let (whole, digests, buffer) = (Hasher::new(), Vec::new(), Vec::new());
        Some(Self { task, foreign, file, geometry, whole, digests, buffer })
    }

    /// Hashes some megabytes; false when that was the last of them. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        let mut read = 0;
        while read < STEP && (self.digests.len() as u32) < self.geometry.pieces() {
            let range = self.geometry.range(PieceIndex(self.digests.len() as u32));
            read_range(&self.file, range, &mut self.buffer)
                .map_err(|error| StoreError::io(&self.foreign.path, "read", error))?;
            self.whole.update(&self.buffer);
            self.digests.push(Digest::of(&self.buffer));
            read += range.len();
        }
        Ok((self.digests.len() as u32) < self.geometry.pieces())
    }

    /// The verdict, after the last step. Blocks until the bytes are on the disk itself: what is proven outlives a
    /// loss of power.
    ///
    /// # Errors
    /// When the file cannot be synced.
    pub fn finish(self) -> Result<Finding, StoreError> {
        let Self { task, foreign, file, geometry, whole, digests, .. } = self;
        if digests.len() as u32 != geometry.pieces() || !foreign.is_still(&file) {
            return Ok(Finding::Changed);
        }
        if TaskId::of_digest(whole.finish()) != task {
            return Ok(Finding::Wrong);
        }
        rustix::fs::fdatasync(&file).map_err(|error| StoreError::io(&foreign.path, "sync", error))?;
        Ok(Finding::Right(Verified { task, foreign, geometry, digests }))
    }
}

// === impl Verified ===

impl Verified {
    /// The file.
    pub fn foreign(&self) -> &Foreign {
        &self.foreign
    }

    fn pieces(&self) -> impl Iterator<Item = (PieceIndex, Digest)> {
        (0..).map(PieceIndex).zip(self.digests.iter().copied())
    }
}

// === impl Store ===

impl Store {
    /// Reads the task from the foreign file from now on. A copy of our own is given up, unless somebody has it in hand.
    ///
    /// # Errors
    /// When the index fails, or the store is closed.
    pub fn adopt(&self, verified: &Verified) -> Result<Adoption, StoreError> {
        let inner = &*self.0;
        let Some(mut turn) = inner.turn_of(verified.task) else { return Ok(Adoption::InHand) };
        inner.switch(verified)?;
        turn.gone = false;
        let path = inner.folder.blob(verified.task);
        if let Err(error) = remove_if_there(&path) {
            tracing::warn!(path = %path.display(), %error, "a needless copy stays until the next start");
        }
        let released = inner.bytes_of(verified.task);
        inner.shelf().adopt(verified.task, verified.geometry.length());
        drop(turn);
        inner.holdings_changed();
        Ok(Adoption::Done { released })
    }

    /// Forgets a task that is read from a foreign file; says whether it was. A copy of our own stays.
    ///
    /// # Errors
    /// When the index fails.
    pub fn disown(&self, task: TaskId) -> Result<bool, StoreError> {
        self.0.remove_if(task, |slot| slot.adopted.is_some())
    }

    /// How the store stands to a task.
    ///
    /// # Errors
    /// When the index fails.
    pub fn standing(&self, task: TaskId) -> Result<Standing, StoreError> {
        let in_hand = match self.0.shelf().slots.get(&task) {
            None => return Ok(Standing::Free),
            Some(slot) if slot.adopted.is_some() => return Ok(Standing::Adopted),
            Some(slot) => slot.live.strong_count() > 0,
        };
        let whole = || Ok::<_, StoreError>(self.0.index.record(task)?.is_some_and(|record| record.proven));
        Ok(match in_hand {
            true => Standing::InHand,
            false if whole()? => Standing::Whole,
            false => Standing::Free,
        })
    }

    /// The tasks that are read from foreign files.
    ///
    /// # Errors
    /// When the index fails.
    pub fn adopted(&self) -> Result<Vec<(TaskId, Foreign)>, StoreError> {
        let records = self.0.index.records()?.into_iter();
        Ok(records.filter_map(|(task, record)| Some((task, record?.adopted?))).collect())
    }

    /// How many tasks are read from foreign files, and their bytes.
    pub fn adopted_usage(&self) -> (u64, u64) {
        let shelf = self.0.shelf();
        let lengths = shelf.slots.values().filter_map(|slot| slot.adopted);
        lengths.fold((0, 0), |(count, bytes), length| (count + 1, bytes + length))
    }
}

// === impl Inner ===

impl Inner {
    /// The right to change a task that nobody has in hand.
    fn turn_of(&self, task: TaskId) -> Option<Turn<'_>> {
        loop {
            match self.arrive(task) {
                Arrival::Open(_) => return None,
                Arrival::Closed(turn) => return Some(turn),
                Arrival::Unknown => {
                    if let Some(turn) = self.arrive_new(task) {
                        return Some(turn);
                    }
                }
            }
        }
    }

    /// Makes the index say that the foreign file has the bytes. Where it says already that all of these pieces are here,
    /// one record changes, so that at no moment neither copy is known.
    fn switch(&self, verified: &Verified) -> Result<(), StoreError> {
        let Verified { task, foreign, geometry, .. } = verified;
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(StoreError::Closed { dir: self.folder.root().to_owned() });
        }
        let before = self.index.record(*task)?;
        let same = before.as_ref().is_some_and(|record| record.proven && record.geometry == *geometry)
            && verified.pieces().eq(self.index.claims(*task)?);
        let adopted = Some(foreign.clone());
        let record = match before {
            Some(before) if before.proven => Record { geometry: *geometry, adopted, ..before },
            // Whoever began to fetch it need not have had it.
            Some(before) => {
                let source_url = String::new();
                Record { geometry: *geometry, proven: true, adopted, source_url, ..before }
            }
            None => Record {
                geometry: *geometry,
                source_url: String::new(),
                proven: true,
                media_type: None,
                last_used: unix_seconds(),
                pinned: false,
                adopted,
            },
        };
        self.index.durably(|| {
            if !same {
                self.index.remove_task(*task)?;
                for (index, digest) in verified.pieces() {
                    self.index.claim(*task, index, digest)?;
                }
            }
            Ok(self.index.put_record(*task, &record)?)
        })
    }
}

/// Whether a record found at the start is of an adopted task that can be read as before.
pub(super) fn holds(index: &dyn Index, task: TaskId, record: &Record) -> Result<bool, StoreError> {
    let Some(foreign) = record.adopted.as_ref().filter(|_| record.proven) else { return Ok(false) };
    Ok(foreign.length == record.geometry.length()
        && index.claims(task)?.len() == record.geometry.pieces() as usize
        && foreign.open().is_some())
}
