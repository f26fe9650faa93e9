//! A task's handle: its pieces are written, read, forgotten and proven here. The engine holds one for every
//! download and every reader.
//!
//! # Invariants
//! - A piece is claimed only after all its bytes were written.
//! - Two writers of one piece bring the same verified bytes, so the order in which they write does not matter.
//! - The bytes of an adopted task are read and nothing else: its file is not ours.
//! - Once a task is removed its handles are on their own: their claims move from the index into memory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::piece::{ByteRange, Geometry, PieceIndex};
use common::task::TaskId;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::error::StoreError;
use super::folder::remove_if_there;
use super::gc::Reservation;
use super::index::Record;
use super::{Inner, unix_millis};

/// The most buffers that one `pwritev` takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;
/// How stale the stored time of last use may be: every use would otherwise be an index write.
const TOUCH_SECONDS: u64 = 60;
/// How much of a file is hashed at a time.
const HASH_CHUNK: usize = 1024 * 1024;

/// A handle on one task's bytes. What somebody has in hand is not evicted.
#[derive(Clone)]
pub struct Blob(pub(super) Arc<BlobInner>);

/// What all handles of a task share.
pub(super) struct BlobInner {
    store: Arc<Inner>,
    task: TaskId,
    geometry: Geometry,
    path: PathBuf,
    file: File,
    proven: AtomicBool,
    /// The file is somebody else's.
    adopted: bool,
    /// The file system lets one writer of a file in at a time, and the others burn a core waiting there.
    writing: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    record: Record,
    /// The claims of a task that was removed under this handle.
    private: Option<BTreeMap<PieceIndex, Digest>>,
}

// === impl BlobInner ===

impl BlobInner {
    /// The blob of a record; `None` when there is no file of that length.
    pub(super) fn open(store: Arc<Inner>, task: TaskId, record: Record) -> Result<Option<Self>, StoreError> {
        if let Some(foreign) = &record.adopted {
            let (file, path) = (foreign.open(), foreign.path().to_owned());
            return Ok(file.map(|file| Self::new(store, task, record, path, file)));
        }
        let path = store.folder.blob(task);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path, "open", error)),
        };
        let length = file.metadata().map_err(|error| StoreError::io(&path, "look at", error))?.len();
        Ok((length == record.geometry.length()).then(|| Self::new(store, task, record, path, file)))
    }

    /// A new, empty blob: the file, then its record.
    pub(super) fn create(store: Arc<Inner>, task: TaskId, record: Record) -> Result<Self, StoreError> {
        let path = store.folder.blob(task);
        let length = record.geometry.length();
        let file = store.with_room(
            0,
            |error| StoreError::io(&path, "create", error),
            || store.folder.create_blob(task, length),
        )?;
        if let Err(error) = store.index.put_record(task, &record) {
            remove_if_there(&path).map_err(|error| StoreError::io(&path, "remove", error))?;
            return Err(error.into());
        }
        Ok(Self::new(store, task, record, path, file))
    }

    fn new(store: Arc<Inner>, task: TaskId, record: Record, path: PathBuf, file: File) -> Self {
        let (geometry, adopted) = (record.geometry, record.adopted.is_some());
        let proven = AtomicBool::new(record.proven);
        let state = Mutex::new(State { record, private: None });
        Self { store, task, geometry, path, file, proven, adopted, writing: Mutex::new(()), state }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the task out of the index; the handles keep its claims for themselves.
    pub(super) fn detach(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut claims = BTreeMap::new();
        self.store.index.durably(|| {
            claims.extend(self.store.index.remove_task(self.task)?);
            Ok::<_, StoreError>(())
        })?;
        state.private = Some(claims);
        Ok(())
    }

    fn claimed(&self, index: PieceIndex) -> Result<Option<Digest>, StoreError> {
        match &self.state().private {
            Some(private) => Ok(private.get(&index).copied()),
            None => Ok(self.store.index.claimed(self.task, index)?),
        }
    }

    fn claim(&self, index: PieceIndex, digest: Digest, space: Reservation<'_>) -> Result<(), StoreError> {
        let closed = self.store.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(StoreError::Closed { dir: self.store.folder.root().to_owned() });
        }
        let mut state = self.state();
        match &mut state.private {
            Some(private) => drop(private.insert(index, digest)),
            None if self.store.index.claim(self.task, index, digest)? => space.settle(self.task),
            None => {}
        }
        Ok(())
    }

    /// Changes the record and stores it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), StoreError> {
        let mut state = self.state();
        change(&mut state.record);
        if state.private.is_none() {
            self.store.index.put_record(self.task, &state.record)?;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |error| StoreError::io(&self.path, doing, error)
    }
}

// === impl Blob ===

impl Blob {
    /// The task.
    pub fn task(&self) -> TaskId {
        self.0.task
    }

    /// Its cut.
    pub fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    /// Whether the whole is there and was checked.
    pub fn is_proven(&self) -> bool {
        self.0.proven.load(Ordering::Acquire)
    }

    /// Whether the bytes are in a file of somebody else, which is to be read and nothing else.
    pub fn is_adopted(&self) -> bool {
        self.0.adopted
    }

    /// Whether the store still knows the task: one that was removed lives on for its handles alone.
    pub fn is_kept(&self) -> bool {
        self.0.state().private.is_none()
    }

    /// The file, for a lone download that moves it to where it was asked for.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// An unproven task is fetched by another URL from now on: whose content it is in the end, nobody can say who only
    /// began it.
    pub(super) fn now_from(&self, source_url: &str) -> Result<(), StoreError> {
        if self.0.state().record.source_url == source_url {
            return Ok(());
        }
        let url = if self.pieces()?.is_empty() { source_url } else { "" };
        self.0.update(|record| url.clone_into(&mut record.source_url))
    }

    /// The URL that the task was fetched by; empty where that was more than one, or is not known.
    pub fn source_url(&self) -> String {
        self.0.state().record.source_url.clone()
    }

    /// The origin's `Content-Type`, where it was noted.
    pub fn media_type(&self) -> Option<String> {
        self.0.state().record.media_type.clone()
    }

    /// Notes the origin's `Content-Type`.
    ///
    /// # Errors
    /// When the index fails.
    pub fn set_media_type(&self, media_type: &str) -> Result<(), StoreError> {
        self.0.update(|record| record.media_type = Some(media_type.to_owned()))
    }

    /// The pieces present, in order, each with the digest that it was checked against.
    ///
    /// # Errors
    /// When the index fails.
    pub fn pieces(&self) -> Result<Vec<(PieceIndex, Digest)>, StoreError> {
        match &self.0.state().private {
            Some(private) => Ok(private.iter().map(|(index, digest)| (*index, *digest)).collect()),
            None => Ok(self.0.store.index.claims(self.0.task)?),
        }
    }

    /// Writes a piece whose bytes the caller has checked against `digest`, then claims it. A piece that is claimed
    /// with this digest already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::WrongLength`] when the bytes are not one piece long, [`StoreError::Full`] when there is no
    /// room, else when the index or the file fails. The piece is then not claimed.
    pub fn write_piece(&self, index: PieceIndex, chunks: &[Bytes], digest: Digest) -> Result<(), StoreError> {
        let inner = &*self.0;
        let range = inner.geometry.range(index);
        let given = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if range.is_empty() || given != range.len() {
            return Err(StoreError::WrongLength { task: inner.task, index, expected: range.len(), given });
        }
        match inner.claimed(index)? {
            Some(present) if present == digest => return Ok(()),
            _ if inner.adopted => return Err(StoreError::Foreign { path: inner.path.clone() }),
            Some(_) => self.forget_piece(index)?,
            None => {}
        }
        let space = inner.store.reserve(given)?;
        let write = || {
            let _alone = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_all_at(&inner.file, chunks, range.start)
        };
        inner.store.with_room(given, inner.failed("write"), write)?;
        inner.claim(index, digest, space)
    }

    /// Claims a piece whose right bytes stand in the file unclaimed: the index flushes its claims some moments after
    /// they are made, so a kill -9 loses the last ones, but not their bytes. False when they do not stand there.
    ///
    /// # Errors
    /// When there is no room, or the index or the file fails.
    pub fn salvage(&self, index: PieceIndex, digest: Digest) -> Result<bool, StoreError> {
        let inner = &*self.0;
        let range = inner.geometry.range(index);
        if inner.adopted
            || range.is_empty()
            || is_hole(&inner.file, range)
            || Digest::of(&self.read(range)?) != digest
        {
            return Ok(false);
        }
        let space = inner.store.reserve(range.len())?;
        inner.claim(index, digest, space)?;
        Ok(true)
    }

    /// Reads bytes of the task with one positioned read into one buffer. Only bytes of claimed pieces mean anything.
    ///
    /// # Errors
    /// When the range is not within the task, or the file fails.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let length = self.0.geometry.length();
        if range.end > length {
            return Err(StoreError::OutOfRange { task: self.0.task, range, length });
        }
        let read = |buffer: &mut Vec<u8>| read_range(&self.0.file, range, buffer);
        self.0.store.buffers.bytes(range.len() as usize, read).map_err(self.0.failed("read"))
    }

    /// Drops the claim on a piece, for good; the blob is then no longer proven. Nothing happens to a missing one. An
    /// adopted blob is whole or of no use: the store forgets it.
    ///
    /// # Errors
    /// When the index fails.
    pub fn forget_piece(&self, index: PieceIndex) -> Result<(), StoreError> {
        let inner = &*self.0;
        if inner.adopted {
            inner.proven.store(false, Ordering::Release);
            inner.store.remove(inner.task)?;
        } else if inner.proven.swap(false, Ordering::AcqRel) {
            inner.update(|record| record.proven = false)?;
            inner.store.holdings_changed();
        }
        let _gate = inner.store.closed.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = inner.state();
        if let Some(private) = &mut state.private {
            private.remove(&index);
            return Ok(());
        }
        let length = inner.geometry.range(index).len();
        // Other bytes may come to stand there, and a kill -9 must not bring the old claim back over them.
        inner.store.index.durably(|| {
            if inner.store.index.disclaim(inner.task, index)? {
                inner.store.give_back(inner.task, length);
            }
            Ok(())
        })
    }

    /// Marks the whole as checked, once its bytes are on the disk itself.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] when a piece is missing; else when the index or the file fails.
    pub fn prove(&self) -> Result<(), StoreError> {
        let inner = &*self.0;
        let complete = || {
            let (held, pieces) = (self.pieces()?.len() as u32, inner.geometry.pieces());
            match held == pieces {
                true => Ok(()),
                false => Err(StoreError::Incomplete { task: inner.task, held, pieces }),
            }
        };
        // Before the sync, so that it covers every piece; after it, in case the index has lost some since.
        complete()?;
        if !inner.adopted {
            rustix::fs::fdatasync(&inner.file).map_err(|error| inner.failed("sync")(error.into()))?;
        }
        inner.store.index.durably(|| {
            complete()?;
            inner.update(|record| record.proven = true)
        })?;
        inner.proven.store(true, Ordering::Release);
        Ok(())
    }

    /// The digest of the whole file.
    ///
    /// # Errors
    /// When the file fails.
    pub fn hash(&self) -> Result<Digest, StoreError> {
        let length = self.0.geometry.length();
        let (mut hasher, mut buffer) = (Hasher::new(), Vec::with_capacity(HASH_CHUNK));
        for start in (0..length).step_by(HASH_CHUNK) {
            let range = ByteRange::new(start, length.min(start + HASH_CHUNK as u64));
            read_range(&self.0.file, range, &mut buffer).map_err(self.0.failed("read"))?;
            hasher.update(&buffer);
        }
        Ok(hasher.finish())
    }

    /// Notes that the task is in use now. Cheap: the index hears of it once a minute at most.
    pub fn touch(&self) {
        let now = unix_millis();
        self.0.store.touch(self.0.task, now);
        let (seconds, stored) = (now / 1000, self.0.state().record.last_used);
        if seconds.saturating_sub(stored) >= TOUCH_SECONDS
            && let Err(error) = self.0.update(|record| record.last_used = seconds)
        {
            tracing::debug!(task = %self.0.task, %error, "the time of last use was not stored");
        }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({:?}, {} bytes)", self.0.task, self.0.geometry.length())
    }
}

/// Whether nothing was ever written at the start of `range`. A file system without holes says that there are none.
fn is_hole(file: &File, range: ByteRange) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(range.start)) {
        Ok(data) => data >= range.end,
        Err(error) => error == Errno::NXIO,
    }
}

/// Writes all of `chunks` from `offset` on, in as few calls as the system allows.
fn write_all_at(file: &File, chunks: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<_> =
        chunks.iter().filter(|chunk| !chunk.is_empty()).map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match rustix::io::pwritev(file, &rest[..rest.len().min(MAX_SLICES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads exactly `range` into the emptied `buffer`, straight into its unused memory.
pub(super) fn read_range(file: &File, range: ByteRange, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    let wanted = range.len() as usize;
    buffer.reserve_exact(wanted);
    while buffer.len() < wanted {
        let offset = range.start + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(buffer), offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(wanted);
    Ok(())
}
