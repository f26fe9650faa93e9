//! The blob store: one sparse file a task, and an index of the pieces that are in it. The engine writes verified
//! pieces here, reads them back for clients and for other nodes, and finds after a restart what it had.
//!
//! All calls block; async callers go through `spawn_blocking`. What each file is for: `blobs` a task's handle,
//! `index` what is known, `limits`, `shelf` and `gc` who goes when room is wanted, `tend` who goes in the
//! background, `pins` who stays, `meter` what the folder takes on the disk, `recovery` what is believed after a restart,
//! `folder` where things lie, `adopted` blobs whose bytes are in files of somebody else, `notes` what a daemon keeps beside its blobs.
//!
//! # Invariants
//! - A claimed piece's bytes are on the disk and have the claimed digest: bytes first, then the claim.
//! - A task with a live [`Blob`], or one that is pinned, is never evicted.
//! - Files outside the store's folder are read and nothing else.
//! - No lock is held over reads or writes of blob data, except one task's own while it is removed.
//!
//! # Crash safety
//! After a kill -9 the kernel still holds every byte that was written before its claim. After a loss of power it
//! may not: then every claim that was not proven is checked again (`recovery`).

mod adopted;
mod blobs;
mod buffers;
mod error;
mod folder;
mod gc;
mod index;
mod limits;
mod meter;
pub mod notes;
mod pins;
mod recovery;
mod seldom;
mod shelf;
mod tend;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::piece::Geometry;
use common::task::TaskId;
use common::telemetry::Metrics;
use tokio::sync::watch;

pub use self::adopted::{Adoption, Finding, Foreign, Inspection, Standing, Verified};
pub use self::blobs::Blob;
use self::blobs::BlobInner;
use self::buffers::Buffers;
pub use self::error::{FullCause, IndexError, StoreError};
use self::folder::Folder;
use self::gc::Arrival;
use self::index::{Index, Record, Run};
use self::limits::Bounds;
pub use self::limits::Limits;
use self::meter::Meter;
pub use self::pins::Release;
use self::seldom::Seldom;
use self::shelf::Shelf;
pub use self::tend::Room;

/// A folder of blobs. Cloning it gives another handle on the same.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// How a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreOptions {
    /// How much to keep.
    pub limits: Limits,
    /// Whether the index outlives the process. A store for a single download needs none, and keeps no room free
    /// for one.
    pub durable: bool,
}

/// What the store holds of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task.
    pub task: TaskId,
    /// Its cut.
    pub geometry: Geometry,
    /// Pieces present.
    pub held: u32,
    /// The whole is there and was checked.
    pub proven: bool,
    /// Unix seconds.
    pub last_used: u64,
    /// Where the bytes came from, without credentials.
    pub source_url: String,
    /// The bytes are in a file of somebody else.
    pub adopted: bool,
    /// Somebody wants it kept.
    pub pinned: bool,
}

/// What every handle shares.
struct Inner {
    folder: Folder,
    index: Box<dyn Index>,
    limits: Limits,
    /// What they are on this disk, at the last look.
    bounds: Mutex<Bounds>,
    meter: Meter,
    said_full: Seldom,
    metrics: Metrics,
    durable: bool,
    shelf: Mutex<Shelf<BlobInner>>,
    /// Told whenever a task's turn ends.
    changed: Condvar,
    /// True once closed. Claims are made and dropped under a read guard, so that none follows the mark of a clean
    /// end or falls between the lines while the books are drawn up anew.
    closed: RwLock<bool>,
    /// The index's losses that the books know of.
    losses: AtomicU64,
    boot_id: String,
    buffers: Buffers,
    /// Counts the changes of what is held whole.
    holdings: watch::Sender<u64>,
}

// === impl Store ===

impl Store {
    /// Opens the store in `dir`, makes it where it is missing, and puts right what the last run left behind.
    ///
    /// # Errors
    /// When the folder cannot be made, written or locked. A damaged index is no error: it is set aside and rebuilt.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_counted(dir, options, Metrics::new())
    }

    /// The same; what goes is counted.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_counted(dir: &Path, options: StoreOptions, metrics: Metrics) -> Result<Self, StoreError> {
        let folder = Folder::open(dir)?;
        let total = folder.disk().map_or(0, |disk| disk.total);
        let boot_id = recovery::boot_id();
        let (index, slots) = recovery::open_index(&folder, options.durable, &boot_id)?;
        let store = Self(Arc::new(Inner {
            folder,
            index,
            limits: options.limits,
            bounds: Mutex::new(options.limits.on(total)),
            meter: Meter::default(),
            said_full: Seldom::default(),
            metrics,
            durable: options.durable,
            shelf: Mutex::new(Shelf::new(slots)),
            changed: Condvar::new(),
            closed: RwLock::new(false),
            losses: AtomicU64::new(0),
            boot_id,
            buffers: Buffers::default(),
            holdings: watch::Sender::new(0),
        }));
        // The quota may be lower than it was; nothing is in use yet, so there is always enough to evict.
        store.0.reserve(0).map(drop)?;
        Ok(store)
    }

    /// The blob of a known task. The task is not evicted while the handle, or a clone of it, lives.
    ///
    /// # Errors
    /// When the index or the file fails.
    pub fn get(&self, task: TaskId) -> Result<Option<Blob>, StoreError> {
        let turn = match self.0.arrive(task) {
            Arrival::Unknown => return Ok(None),
            Arrival::Open(blob) => return Ok(Some(Blob(blob))),
            Arrival::Closed(turn) => turn,
        };
        let record = self.0.index.record(task)?;
        let blob = match record {
            Some(record) => BlobInner::open(Arc::clone(&self.0), task, record)?,
            None => None,
        };
        let Some(blob) = blob else {
            tracing::warn!(%task, "a blob's file is gone or of another length: forgotten");
            self.0.remove_closed(turn)?;
            return Ok(None);
        };
        let blob = Arc::new(blob);
        turn.open(&blob);
        Ok(Some(Blob(blob)))
    }

    /// The blob of a task with this geometry: the present one, or a new, empty one. A task of another geometry is
    /// replaced. Room for what is missing is made first, by evicting the least recently used tasks that nobody has
    /// in hand. Of `source_url`, user, password and query are not kept.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no room; else when the index or the file fails.
    pub fn create(&self, task: TaskId, geometry: Geometry, source_url: &str) -> Result<Blob, StoreError> {
        self.0.fits(geometry.length())?;
        loop {
            if let Some(blob) = self.get(task)? {
                if blob.geometry() == geometry {
                    if !blob.is_proven() {
                        let missing = geometry.length().saturating_sub(self.0.bytes_of(task));
                        self.0.foresee(missing)?;
                        self.0.reserve(missing).map(drop)?;
                        blob.now_from(&without_secrets(source_url))?;
                    }
                    blob.touch();
                    return Ok(blob);
                }
                drop(blob);
                self.remove(task)?;
            }
            self.0.foresee(geometry.length())?;
            self.0.reserve(geometry.length()).map(drop)?;
            let Some(mut turn) = self.0.arrive_new(task) else { continue };
            let record = Record {
                geometry,
                source_url: without_secrets(source_url),
                proven: false,
                media_type: None,
                last_used: unix_seconds(),
                pinned: false,
                adopted: None,
            };
            let blob = Arc::new(BlobInner::create(Arc::clone(&self.0), task, record)?);
            turn.gone = false;
            turn.open(&blob);
            return Ok(Blob(blob));
        }
    }

    /// Removes a task. Handles that are out keep reading, and even writing, their unlinked file; nobody else sees it.
    ///
    /// # Errors
    /// When the index or the file fails.
    pub fn remove(&self, task: TaskId) -> Result<(), StoreError> {
        self.0.remove(task)
    }

    /// Everything that is here.
    ///
    /// # Errors
    /// When the index fails.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut held: HashMap<TaskId, u32> = HashMap::new();
        self.0.index.each_claim(&mut |claim| *held.entry(claim.task).or_default() += 1)?;
        let records = self.0.index.records()?;
        Ok(records
            .into_iter()
            .filter_map(|(task, record)| record.map(|record| (task, record)))
            .map(|(task, record)| Entry {
                task,
                geometry: record.geometry,
                held: held.get(&task).copied().unwrap_or_default(),
                proven: record.proven,
                last_used: self.0.last_used(task).unwrap_or(record.last_used),
                source_url: record.source_url,
                adopted: record.adopted.is_some(),
                pinned: record.pinned,
            })
            .collect())
    }

    /// The tasks that are here whole and proven; cheaper than [`Store::list`].
    ///
    /// # Errors
    /// When the index fails.
    pub fn proven(&self) -> Result<Vec<(TaskId, Geometry)>, StoreError> {
        let records = self.0.index.records()?.into_iter();
        let proven =
            records.filter_map(|(task, record)| Some((task, record.filter(|record| record.proven)?)));
        Ok(proven.map(|(task, record)| (task, record.geometry)).collect())
    }

    /// Wakes when a task may have gone, and when one was adopted.
    pub fn holdings(&self) -> watch::Receiver<u64> {
        self.0.holdings.subscribe()
    }

    /// Bytes of blob data present, and of writes under way; adopted blobs take none of ours.
    pub fn usage(&self) -> u64 {
        self.0.shelf().used
    }

    /// Brings everything to the disk and marks the end as clean, so that the next start has nothing to check. No
    /// piece can be claimed after this, and the folder may be opened anew.
    pub fn close(&self) {
        let mut closed = self.0.closed.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *closed, true) {
            return;
        }
        let run = Run { boot_id: self.0.boot_id.clone(), clean: true };
        let done = recovery::settle(&*self.0.index, &self.0.folder)
            .and_then(|()| Ok(self.0.index.set_run(&run)?))
            .and_then(|()| Ok(self.0.index.flush()?));
        if let Err(error) = done {
            let dir = self.0.folder.root().display();
            tracing::warn!(%dir, %error, "the store did not close cleanly: the next start checks it");
        }
        self.0.folder.release();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.folder.root().display())
    }
}

// === impl Inner ===

impl Inner {
    fn bytes_of(&self, task: TaskId) -> u64 {
        self.shelf().slots.get(&task).map_or(0, |slot| slot.bytes)
    }

    fn last_used(&self, task: TaskId) -> Option<u64> {
        self.shelf().slots.get(&task).map(|slot| slot.last_used / 1000)
    }
}

/// A URL as it may lie on the disk. Signed URLs carry their secret in the query, so that goes too.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unix_millis() -> u64 {
    since_epoch().as_millis() as u64
}

fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}
