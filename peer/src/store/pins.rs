//! Who stays and who goes because somebody said so: pins, and removal on request. The local API comes here.
//!
//! # Invariants
//! - A pin is on the disk before it is confirmed, and outlives every restart with a sound index.
//! - What somebody has in hand, or has pinned, does not go on request either.

use common::task::TaskId;
use common::telemetry::Eviction;

use super::error::StoreError;
use super::gc::Arrival;
use super::{Inner, Store};

/// What came of the wish that a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It is gone.
    Gone,
    /// The store does not know it.
    Unknown,
    /// Somebody reads or writes it now.
    InUse,
    /// It is pinned.
    Pinned,
    /// Its bytes are in a file of somebody else, and take no room.
    Foreign,
}

// === impl Store ===

impl Store {
    /// Keeps a task from being evicted, until [`Store::unpin`]; false when the store does not know it.
    ///
    /// # Errors
    /// When the index fails: whether the task is pinned after a restart is then open.
    pub fn pin(&self, task: TaskId) -> Result<bool, StoreError> {
        self.0.set_pinned(task, true)
    }

    /// Takes a pin away; false when the store does not know the task.
    ///
    /// # Errors
    /// When the index fails.
    pub fn unpin(&self, task: TaskId) -> Result<bool, StoreError> {
        self.0.set_pinned(task, false)
    }

    /// Removes a task, unless it is needed.
    ///
    /// # Errors
    /// When the index or the file fails.
    pub fn evict(&self, task: TaskId) -> Result<Release, StoreError> {
        let mut kept = Release::Unknown;
        let mut bytes = 0;
        let gone = self.0.remove_if(task, |slot| {
            bytes = slot.bytes;
            kept = match slot {
                slot if slot.pinned => Release::Pinned,
                slot if slot.adopted.is_some() => Release::Foreign,
                slot if slot.live.strong_count() > 0 => Release::InUse,
                _ => Release::Gone,
            };
            kept == Release::Gone
        })?;
        if gone {
            self.0.count(Eviction::Request, bytes);
        }
        Ok(kept)
    }
}

// === impl Inner ===

impl Inner {
    fn set_pinned(&self, task: TaskId, pinned: bool) -> Result<bool, StoreError> {
        let (turn, open) = match self.arrive(task) {
            Arrival::Unknown => return Ok(false),
            Arrival::Open(blob) => (None, Some(blob)),
            Arrival::Closed(turn) => (Some(turn), None),
        };
        self.index.durably(|| match &open {
            Some(blob) => blob.update(|record| record.pinned = pinned),
            None => {
                let Some(mut record) = self.index.record(task)? else { return Ok(()) };
                record.pinned = pinned;
                Ok(self.index.put_record(task, &record)?)
            }
        })?;
        let mut shelf = self.shelf();
        let slot = shelf.slots.get_mut(&task);
        let known = slot.map(|slot| slot.pinned = pinned).is_some();
        drop(shelf);
        // Given back only now: until the books know of the pin, nobody may choose the task to go.
        drop((turn, open));
        Ok(known)
    }
}
