//! What the store does of its own accord: tasks go that nobody used for long, or that are too much, before a pull has
//! to wait for that, and the folder is measured. [`crate::housekeeping`] comes here every moment; [`super::limits`]
//! and [`super::shelf`] decide.
//!
//! # Invariants
//! - Tasks go a few at a time, and pulls get their turn between two steps.
//! - A closed store is left alone: the folder may be another's by now.

use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use common::telemetry::{Eviction, Metrics};

use super::error::StoreError;
use super::folder::Disk;
use super::shelf::{Effort, Plan};
use super::{Inner, Store, unix_millis};

/// What goes at a time: a layer or two, some milliseconds of unlinking.
const STEP_BYTES: u64 = 256 * 1024 * 1024;
/// The same where there are many small ones.
const STEP_TASKS: usize = 64;
/// Between two steps, for those who wait for the disk.
const PAUSE: Duration = Duration::from_millis(20);

/// How much room the store takes, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of blob data.
    pub blobs: u64,
    /// What the data folder takes on the disk.
    pub total: u64,
    /// What the index takes of it.
    pub index: u64,
    /// What the data folder may take.
    pub quota: Option<u64>,
    /// What the disk has free.
    pub free: u64,
    /// What it has to have free.
    pub keep_free: u64,
    /// Tasks known.
    pub tasks: u64,
    /// Pinned ones.
    pub pinned_tasks: u64,
    /// Their bytes.
    pub pinned_bytes: u64,
}

// === impl Store ===

impl Store {
    /// Lets go what has to go. Blocks, for as long as that takes.
    ///
    /// # Errors
    /// When the index or a file fails.
    pub fn tend(&self) -> Result<(), StoreError> {
        self.tend_at(unix_millis())
    }

    /// The same with the clock at `now`, in Unix milliseconds.
    pub(super) fn tend_at(&self, now: u64) -> Result<(), StoreError> {
        let inner = &*self.0;
        let disk = inner.folder.disk().unwrap_or_default();
        *inner.bounds.lock().unwrap_or_else(PoisonError::into_inner) = inner.limits.on(disk.total);
        if let Some(ttl) = inner.limits.ttl {
            let before = now.saturating_sub(ttl.as_millis() as u64);
            while inner.forget_unused(before)? {
                thread::sleep(PAUSE);
            }
        }
        while let Some(reason) = inner.begins() {
            if !inner.ease(reason)? {
                break;
            }
        }
        Ok(())
    }

    /// Looks at what the data folder takes on the disk. Blocks: it asks for every file.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn measure(&self) -> Result<(), StoreError> {
        let inner = &*self.0;
        let before = inner.shelf().bytes();
        let survey = inner.folder.survey();
        let survey = survey.map_err(|error| StoreError::io(inner.folder.root(), "measure", error))?;
        inner.meter.note(&survey, &before, &inner.shelf().bytes());
        Ok(())
    }

    /// How much room there is, and who takes it.
    pub fn room(&self) -> Room {
        let inner = &*self.0;
        let (disk, bounds) = (inner.folder.disk().unwrap_or_default(), inner.bounds());
        let shelf = inner.shelf();
        let (pinned_tasks, pinned_bytes) = shelf.pinned();
        Room {
            blobs: shelf.used,
            total: shelf.used.saturating_add_signed(inner.meter.overhead()),
            index: inner.meter.index(),
            quota: Some(bounds.quota).filter(|&quota| quota < u64::MAX),
            free: disk.free,
            keep_free: bounds.keep_free,
            tasks: shelf.slots.len() as u64,
            pinned_tasks,
            pinned_bytes,
        }
    }
}

// === impl Room ===

impl Room {
    /// Sets the gauges.
    pub(crate) fn show(&self, metrics: &Metrics) {
        for (gauge, value) in [
            (&metrics.store_bytes, self.total),
            (&metrics.store_blob_bytes, self.blobs),
            (&metrics.store_index_bytes, self.index),
            (&metrics.store_pinned_bytes, self.pinned_bytes),
            (&metrics.store_quota_bytes, self.quota.unwrap_or_default()),
            (&metrics.store_free_bytes, self.free),
            (&metrics.store_tasks, self.tasks),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

// === impl Inner ===

impl Inner {
    /// What counts against the quota, and what the disk has free.
    fn load(&self) -> (u64, u64) {
        // A file system that does not tell is never short of room.
        let told = |disk: Disk| if disk.total > 0 { disk.free } else { u64::MAX };
        let free = self.folder.disk().map_or(u64::MAX, told);
        (self.shelf().used.saturating_add(self.overhead(&self.bounds())), free)
    }

    fn begins(&self) -> Option<Eviction> {
        let (usage, free) = self.load();
        self.bounds().begins(usage, free)
    }

    /// Evicts in steps until the low watermark; false when nothing more could go.
    fn ease(&self, reason: Eviction) -> Result<bool, StoreError> {
        loop {
            let (usage, free) = self.load();
            let excess = self.bounds().excess(reason, usage, free);
            if excess == 0 {
                return Ok(true);
            }
            if !self.step(reason, excess.min(STEP_BYTES))? {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
    }

    fn step(&self, reason: Eviction, bytes: u64) -> Result<bool, StoreError> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Ok(false);
        }
        let plan = self.shelf().plan(bytes, Effort::Best);
        match plan {
            Plan::Evict(tasks) => self.evict(&tasks, reason).map(|()| true),
            // Somebody else evicts: look again.
            Plan::Wait => Ok(true),
            Plan::Enough | Plan::Impossible => Ok(false),
        }
    }

    /// Lets some tasks go that nobody used since `before`; false when there was none left.
    fn forget_unused(&self, before: u64) -> Result<bool, StoreError> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Ok(false);
        }
        let tasks = self.shelf().expired(before, STEP_TASKS);
        if tasks.is_empty() {
            return Ok(false);
        }
        self.evict(&tasks, Eviction::Ttl).map(|()| true)
    }
}
