//! Making room, and taking tasks out. [`super::Store`] and [`super::Blob`] come here before they write and when a
//! write found the disk full; [`super::shelf`] decides who goes.
//!
//! # Invariants
//! - `used`, with what the folder takes beside its blobs, never goes above the quota: a write reserves its bytes first.
//! - A task is in the hands of one [`Turn`] while it is opened, made or removed; no lock is held meanwhile.
//!
//! # Crash safety
//! A removal reaches the disk before the file is unlinked. Without that a kill -9 could bring the claims back, and a
//! new file of the same task, full of holes, would stand under them.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use common::task::TaskId;
use common::telemetry::Eviction;
use rustix::io::Errno;

use super::blobs::BlobInner;
use super::error::{FullCause, StoreError, means_full};
use super::folder::{Disk, remove_if_there};
use super::limits::Bounds;
use super::shelf::{Effort, Plan, Shelf, Slot, Stage};
use super::{Inner, unix_millis};

/// Part of the blobs that goes when the disk is full, so that not every single write has to evict.
const DISK_STEP: u64 = 32;

/// The index itself may be what finds the disk full; it then draws on its spare room, and forgets what was not
/// flushed.
const EVICTION_TRIES: u32 = 2;

/// The right to change one task's slot; given back when dropped.
pub(super) struct Turn<'a> {
    store: &'a Inner,
    task: TaskId,
    /// Nothing of the task is left: its slot goes too.
    pub(super) gone: bool,
}

/// Bytes counted as used before they are written; given back when dropped.
pub(super) struct Reservation<'a> {
    store: &'a Inner,
    bytes: u64,
}

/// What one finds on coming to a task.
pub(super) enum Arrival<'a> {
    /// The store does not know it.
    Unknown,
    /// Somebody has it open.
    Open(Arc<BlobInner>),
    /// Nobody has it open; it is the caller's turn to.
    Closed(Turn<'a>),
}

// === impl Turn ===

impl Turn<'_> {
    /// Puts the handle out: from here on the task is pinned by it.
    pub(super) fn open(self, blob: &Arc<BlobInner>) {
        if let Some(slot) = self.store.shelf().slots.get_mut(&self.task) {
            slot.live = Arc::downgrade(blob);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut shelf = self.store.shelf();
        if self.gone {
            shelf.remove(self.task);
        } else if let Some(slot) = shelf.slots.get_mut(&self.task) {
            slot.stage = Stage::Settled;
        }
        drop(shelf);
        self.store.changed.notify_all();
    }
}

// === impl Reservation ===

impl Reservation<'_> {
    /// The bytes are there and belong to `task` now.
    pub(super) fn settle(mut self, task: TaskId) {
        if let Some(slot) = self.store.shelf().slots.get_mut(&task) {
            slot.bytes += std::mem::take(&mut self.bytes);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut shelf = self.store.shelf();
            shelf.used = shelf.used.saturating_sub(self.bytes);
        }
    }
}

// === impl Inner ===

impl Inner {
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf<BlobInner>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, shelf: MutexGuard<'a, Shelf<BlobInner>>) -> MutexGuard<'a, Shelf<BlobInner>> {
        self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody opens, makes or removes the task.
    fn settled(&self, task: TaskId) -> MutexGuard<'_, Shelf<BlobInner>> {
        let mut shelf = self.shelf();
        while shelf.slots.get(&task).is_some_and(|slot| slot.stage != Stage::Settled) {
            shelf = self.wait(shelf);
        }
        shelf
    }

    /// Comes to a task to open it.
    pub(super) fn arrive(&self, task: TaskId) -> Arrival<'_> {
        let mut shelf = self.settled(task);
        let Some(slot) = shelf.slots.get_mut(&task) else { return Arrival::Unknown };
        if let Some(blob) = slot.live.upgrade() {
            return Arrival::Open(blob);
        }
        slot.stage = Stage::Opening;
        Arrival::Closed(Turn { store: self, task, gone: false })
    }

    /// Comes to a task to make it; `None` when it is known already.
    pub(super) fn arrive_new(&self, task: TaskId) -> Option<Turn<'_>> {
        let mut shelf = self.settled(task);
        if shelf.slots.contains_key(&task) {
            return None;
        }
        let slot = Slot { stage: Stage::Opening, ..Slot::new(0, unix_millis()) };
        shelf.slots.insert(task, slot);
        Some(Turn { store: self, task, gone: true })
    }

    /// Takes a task out, whoever has it open: those go on with it privately.
    pub(super) fn remove(&self, task: TaskId) -> Result<(), StoreError> {
        self.remove_if(task, |_| true).map(drop)
    }

    /// The same, if its slot is as `wanted`; says whether it was.
    pub(super) fn remove_if(
        &self,
        task: TaskId,
        wanted: impl FnOnce(&Slot<BlobInner>) -> bool,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.settled(task);
        let Some(slot) = shelf.slots.get_mut(&task).filter(|slot| wanted(slot)) else { return Ok(false) };
        slot.stage = Stage::Leaving;
        let open = slot.live.upgrade();
        drop(shelf);
        let turn = Turn { store: self, task, gone: false };
        match open {
            Some(blob) => {
                blob.detach()?;
                self.unlink(turn)?;
            }
            None => self.remove_closed(turn)?,
        }
        Ok(true)
    }

    /// Takes a task out that nobody has open.
    pub(super) fn remove_closed(&self, turn: Turn<'_>) -> Result<(), StoreError> {
        self.index.durably(|| self.index.remove_task(turn.task).map(drop))?;
        self.unlink(turn)
    }

    fn unlink(&self, mut turn: Turn<'_>) -> Result<(), StoreError> {
        // The index knows it no more: a file that will not go is an orphan, and the next start tries again.
        turn.gone = true;
        self.holdings_changed();
        // Ours by its place: an adopted blob has no file there, and a foreign one is never touched.
        let path = self.folder.blob(turn.task);
        remove_if_there(&path).map_err(|source| StoreError::io(&path, "remove", source))
    }

    /// Whoever tells others what is held here looks again.
    pub(super) fn holdings_changed(&self) {
        self.holdings.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Takes tasks out that are marked as leaving.
    pub(super) fn evict(&self, tasks: &[TaskId], reason: Eviction) -> Result<(), StoreError> {
        let turns: Vec<_> = tasks.iter().map(|&task| Turn { store: self, task, gone: false }).collect();
        self.index
            .durably(|| turns.iter().try_for_each(|turn| self.index.remove_task(turn.task).map(drop)))?;
        tracing::debug!(tasks = turns.len(), ?reason, dir = %self.folder.root().display(), "evicted");
        turns.into_iter().try_for_each(|turn| {
            self.count(reason, self.bytes_of(turn.task));
            self.unlink(turn)
        })
    }

    pub(super) fn count(&self, reason: Eviction, bytes: u64) {
        self.metrics.evictions.of(reason).inc();
        self.metrics.evicted_bytes.of(reason).inc_by(bytes);
    }

    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts against the quota besides the bytes on the books.
    pub(super) fn overhead(&self, bounds: &Bounds) -> u64 {
        bounds.counted(u64::try_from(self.meter.overhead()).unwrap_or(0))
    }

    /// Whether a task can be here at all. A sparse file takes no room, but its table of pieces takes memory, and its length
    /// is what some origin claims.
    pub(super) fn fits(&self, bytes: u64) -> Result<(), StoreError> {
        match self.folder.disk() {
            // Some network file systems do not tell.
            Ok(disk) if disk.total > 0 && bytes > disk.total => {
                Err(self.full(bytes, FullCause::Disk(Errno::NOSPC.into())))
            }
            _ => Ok(()),
        }
    }

    /// Reserves `bytes` under the quota, evicting what must go.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, StoreError> {
        self.balance()?;
        let bounds = self.bounds();
        let overhead = self.overhead(&bounds);
        let mut shelf = self.shelf();
        loop {
            let wanted = shelf.used.saturating_add(overhead).saturating_add(bytes);
            let over = wanted.saturating_sub(bounds.quota);
            match shelf.plan(over, Effort::Exact) {
                Plan::Enough => {
                    shelf.used += bytes;
                    return Ok(Reservation { store: self, bytes });
                }
                Plan::Evict(tasks) => {
                    drop(shelf);
                    self.evict(&tasks, Eviction::Quota)?;
                    shelf = self.shelf();
                }
                Plan::Wait => shelf = self.wait(shelf),
                Plan::Impossible => return Err(self.full(bytes, FullCause::Quota(bounds.quota))),
            }
        }
    }

    /// Refuses a task of which `bytes` are missing when the disk cannot take them even once everything has gone that
    /// could: the cache is not emptied for what will not fit.
    pub(super) fn foresee(&self, bytes: u64) -> Result<(), StoreError> {
        let short = self.shortfall(bytes).unwrap_or_default();
        if short == 0 || short <= self.shelf().idle() {
            return Ok(());
        }
        Err(self.disk_full(bytes, Errno::NOSPC.into()))
    }

    /// Does `write`, which wants `bytes` of the disk; on a full disk evicts once and does it again.
    pub(super) fn with_room<T>(
        &self,
        bytes: u64,
        describe: impl FnOnce(io::Error) -> StoreError,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let mut attempt = || {
            if self.shortfall(bytes)? > 0 { Err(Errno::NOSPC.into()) } else { write() }
        };
        let mut outcome = attempt();
        if outcome.as_ref().is_err_and(means_full) && self.ease_disk(bytes)? {
            outcome = attempt();
        }
        outcome.map_err(|error| match means_full(&error) {
            true => self.disk_full(bytes, error),
            false => describe(error),
        })
    }

    /// What the disk lacks before `bytes` fit; a store for a single download leaves that to the disk.
    fn shortfall(&self, bytes: u64) -> io::Result<u64> {
        if self.durable { Ok(self.folder.disk()?.shortfall(bytes, self.bounds().keep_free)) } else { Ok(0) }
    }

    /// Frees some of the disk; false when nothing could go.
    fn ease_disk(&self, bytes: u64) -> Result<bool, StoreError> {
        let short = self.shortfall(bytes).unwrap_or_default();
        for _ in 0..EVICTION_TRIES {
            let mut shelf = self.shelf();
            let wanted = bytes.max(short).max(shelf.used / DISK_STEP).max(1);
            match shelf.plan(wanted, Effort::Best) {
                Plan::Evict(tasks) => {
                    drop(shelf);
                    match self.evict(&tasks, Eviction::Disk) {
                        Err(error) if error.is_full() => continue,
                        other => return other.map(|()| true),
                    }
                }
                Plan::Wait => {
                    drop(self.wait(shelf));
                    return Ok(true);
                }
                Plan::Enough | Plan::Impossible => return Ok(false),
            }
        }
        Ok(false)
    }

    /// A piece of `task` is no longer there.
    pub(super) fn give_back(&self, task: TaskId, bytes: u64) {
        let mut shelf = self.shelf();
        if let Some(slot) = shelf.slots.get_mut(&task) {
            slot.bytes = slot.bytes.saturating_sub(bytes);
            shelf.used = shelf.used.saturating_sub(bytes);
        }
    }

    /// Somebody uses `task` now.
    pub(super) fn touch(&self, task: TaskId, unix_millis: u64) {
        if let Some(slot) = self.shelf().slots.get_mut(&task) {
            slot.last_used = unix_millis;
        }
    }

    fn disk_full(&self, needed: u64, error: io::Error) -> StoreError {
        let kept = self.bounds().keep_free;
        let others = self.folder.disk().is_ok_and(|disk: Disk| disk.shortfall(needed, 0) == 0);
        self.full(needed, if kept > 0 && others { FullCause::KeepFree(kept) } else { FullCause::Disk(error) })
    }

    /// Says so at most once in a while: every piece of every pull may come here.
    fn full(&self, needed: u64, cause: FullCause) -> StoreError {
        let error = StoreError::Full { dir: self.folder.root().to_owned(), needed, cause };
        if self.said_full.due(Instant::now()) {
            tracing::warn!("{error}; until then what does not fit is streamed through and not kept");
        }
        error
    }
}
