//! What the outside sees of a task while its session runs: clients read from it and wait for pieces, neighbours
//! are served from it, and the seed's sessions take piece digests from it. Only the session writes, but that a reader says
//! when the disk has changed what lay there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use common::digest::Digest;
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::task::TaskId;
use common::wire::swarm::Priority;
use tokio::sync::watch;

use crate::error::FetchError;
use crate::record::scribe::Scribe;
use crate::store::Blob;

/// How far a task is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Its length is not known.
    Starting,
    /// Pieces arrive.
    Running,
    /// All is here and right.
    Proven,
    /// It cannot be had.
    Failed(FetchError),
}

/// The visible state of one task.
pub struct Shared {
    task: TaskId,
    known: OnceLock<Known>,
    phase: watch::Sender<Phase>,
    /// Counts every change of the table.
    changes: watch::Sender<u64>,
    /// Somebody waits for it; else it is fetched ahead of need.
    urgent: AtomicBool,
    /// A reader found that the disk has changed what lay there.
    damaged: watch::Sender<bool>,
    /// Writes down what happens.
    scribe: Arc<Scribe>,
}

/// What there is once the length is known.
struct Known {
    blob: Blob,
    table: Mutex<Table>,
}

struct Table {
    present: PieceSet,
    /// May be handed to neighbours.
    offered: PieceSet,
    digests: Vec<Option<Digest>>,
}

// === impl Shared ===

impl Shared {
    /// A task of which nothing is known.
    pub fn new(task: TaskId) -> Self {
        Self {
            task,
            known: OnceLock::new(),
            phase: watch::Sender::new(Phase::Starting),
            changes: watch::Sender::new(0),
            urgent: AtomicBool::new(false),
            damaged: watch::Sender::new(false),
            scribe: Arc::new(Scribe::new(task)),
        }
    }

    /// A task that is whole and proven in the store.
    pub fn proven(blob: Blob) -> Self {
        let shared = Self::new(blob.task());
        let pieces = blob.geometry().pieces();
        shared.start(blob);
        {
            let mut table = shared.table().expect("invariant: just started");
            table.present.insert_range(0..pieces);
            table.offered.insert_range(0..pieces);
        }
        shared.set_phase(Phase::Proven);
        shared
    }

    /// Which task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Who writes down what happens to it.
    pub fn scribe(&self) -> &Arc<Scribe> {
        &self.scribe
    }

    /// The length and where bytes go are known from now on.
    pub(super) fn start(&self, blob: Blob) {
        let pieces = blob.geometry().pieces();
        let table = Table {
            present: PieceSet::new(pieces),
            offered: PieceSet::new(pieces),
            digests: vec![None; pieces as usize],
        };
        let started = self.known.set(Known { blob, table: Mutex::new(table) });
        debug_assert!(started.is_ok(), "a task starts once");
        self.set_phase(Phase::Running);
    }

    /// A piece is written and right.
    pub(super) fn set_present(&self, index: PieceIndex, digest: Digest) {
        if let Some(mut table) = self.table() {
            table.present.insert(index);
            table.digests[index.0 as usize] = Some(digest);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A piece may be handed to neighbours.
    pub(super) fn offer(&self, index: PieceIndex) {
        if let Some(mut table) = self.table() {
            table.offered.insert(index);
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn table(&self) -> Option<MutexGuard<'_, Table>> {
        let known = self.known.get()?;
        // A poisoned lock means a panic between two plain assignments: the data is still a valid table.
        Some(known.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Somebody else wants it, perhaps more urgently than those before.
    pub fn hasten(&self, priority: Priority) {
        self.urgent.fetch_or(priority == Priority::Pull, Ordering::Relaxed);
    }

    /// Whether somebody waits for it.
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// How far the task is.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Length and cut, once known.
    pub fn geometry(&self) -> Option<Geometry> {
        self.known.get().map(|known| known.blob.geometry())
    }

    /// Where the bytes are, once the length is known.
    pub fn blob(&self) -> Option<Blob> {
        self.known.get().map(|known| known.blob.clone())
    }

    /// Whether a neighbour may have this piece now.
    pub fn may_serve(&self, index: PieceIndex) -> bool {
        self.table().is_some_and(|table| table.offered.contains(index) && table.present.contains(index))
    }

    /// The digest of a piece that is here.
    pub fn digest(&self, index: PieceIndex) -> Option<Digest> {
        self.table().and_then(|table| table.digests.get(index.0 as usize).copied().flatten())
    }

    /// Number of pieces that are here.
    pub fn held(&self) -> u32 {
        self.table().map_or(0, |table| table.present.count())
    }

    /// Number of pieces in a row that are here, from `first` on, at most `most`.
    pub fn ready(&self, first: PieceIndex, most: u32) -> u32 {
        let Some(table) = self.table() else { return 0 };
        let end = table.present.pieces().min(first.0.saturating_add(most));
        (first.0..end).take_while(|index| table.present.contains(PieceIndex(*index))).count() as u32
    }

    /// The digests of pieces that are here and not in `known`; adds them to it. Ascending.
    pub fn new_digests(&self, known: &mut PieceSet, most: usize) -> Vec<(PieceIndex, Digest)> {
        let Some(table) = self.table() else { return Vec::new() };
        if table.present.count() == known.count() {
            return Vec::new();
        }
        let new: Vec<_> = table
            .present
            .iter()
            .filter(|index| !known.contains(*index))
            .filter_map(|index| Some((index, table.digests[index.0 as usize]?)))
            .take(most)
            .collect();
        new.iter().for_each(|(index, _)| {
            known.insert(*index);
        });
        new
    }

    /// The store has forgotten a piece that is in the table: the session is to end, and the next wish to fetch it anew.
    pub fn set_damaged(&self) {
        self.damaged.send_replace(true);
    }

    /// Waits until the store has forgotten a piece.
    pub async fn damaged(&self) {
        let mut damaged = self.damaged.subscribe();
        // It does not close before `self` goes.
        let _ = damaged.wait_for(|damaged| *damaged).await;
    }

    /// A receiver that wakes with every change of pieces or phase.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until the length is known.
    ///
    /// # Errors
    /// When the task fails first.
    pub async fn started(&self) -> Result<Geometry, FetchError> {
        let mut phase = self.phase.subscribe();
        let reached = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match reached.map(|phase| phase.clone()) {
            Ok(Phase::Failed(error)) => Err(error),
            Ok(_) => self.geometry().ok_or(FetchError::Closing),
            Err(_) => Err(FetchError::Closing),
        }
    }

    /// Waits until the whole is proven.
    ///
    /// # Errors
    /// When the task fails.
    pub async fn finished(&self) -> Result<(), FetchError> {
        let mut phase = self.phase.subscribe();
        let reached = phase.wait_for(|phase| matches!(phase, Phase::Proven | Phase::Failed(_))).await;
        match reached.map(|phase| phase.clone()) {
            Ok(Phase::Failed(error)) => Err(error),
            Ok(_) => Ok(()),
            Err(_) => Err(FetchError::Closing),
        }
    }
}
