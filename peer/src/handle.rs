//! A client's hold on a task: its length, and its bytes in order, each range as soon as its pieces are there. The
//! proxy and `get` read through it; ranged, on-demand reads are the same call.

use std::sync::Arc;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, Geometry, PieceIndex, PieceSet};
use common::task::TaskId;
use common::telemetry::{ByteSource, Metrics};
use futures_util::Stream;
use tokio::sync::watch;

use crate::download::shared::{Phase, Shared};
use crate::error::FetchError;
use crate::recheck::{Looks, Recheck};
use crate::record::book::Book;
use crate::record::scribe::Reading;
use crate::record::{By, Doing};
use crate::store::{Blob, StoreError};

/// Bytes read from the disk at once: enough that the change of threads does not show, little enough that a
/// thousand slow readers fit into memory.
const CHUNK: u64 = 256 * 1024;

/// A task that is wanted. While it lives the task is not evicted. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    geometry: Geometry,
    metrics: Metrics,
    local: Local,
    /// Who reads, if that is to be written down.
    by: Option<By>,
}

/// What a handle knows of what was here before.
#[derive(Clone)]
pub(crate) struct Local {
    /// Whether the task was here, whole, before anybody asked: then its bytes come from this node.
    pub(crate) is: bool,
    /// What was looked at of late.
    pub(crate) looks: Looks,
    /// Where reading it is written down.
    pub(crate) book: Arc<Book>,
}

// === impl Handle ===

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, geometry: Geometry, metrics: Metrics, local: Local) -> Self {
        Self { shared, geometry, metrics, local, by: None }
    }

    /// The same, read for a client whose pull is to be remembered.
    pub fn for_client(self, by: By) -> Self {
        Self { by: Some(by), ..self }
    }

    /// Which task.
    pub fn task(&self) -> TaskId {
        self.shared.task()
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.geometry.length()
    }

    /// How it is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether it was here, whole, already.
    pub fn is_local(&self) -> bool {
        self.local.is
    }

    /// Number of pieces that are here.
    pub fn held(&self) -> u32 {
        self.shared.held()
    }

    /// Where the bytes are, if the file is the store's own; complete only once [`Handle::finished`].
    pub fn path(&self) -> Option<std::path::PathBuf> {
        self.shared.blob().filter(|blob| !blob.is_adopted()).map(|blob| blob.path().to_owned())
    }

    /// The URL that it was first fetched by.
    pub fn source_url(&self) -> Option<String> {
        self.shared.blob().map(|blob| blob.source_url())
    }

    /// Wakes with every piece that arrives and every change of phase.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes()
    }

    /// The digests of pieces that are here and not in `known`, at most `most`, ascending; adds them to it.
    pub fn new_digests(&self, known: &mut PieceSet, most: usize) -> Vec<(PieceIndex, Digest)> {
        self.shared.new_digests(known, most)
    }

    /// Waits until the whole is here and proven.
    ///
    /// # Errors
    /// When the task fails.
    pub async fn finished(&self) -> Result<(), FetchError> {
        self.shared.finished().await
    }

    /// Waits until the whole is here and proven, and the disk says so: a restart finds it whole.
    ///
    /// # Errors
    /// When the task or the disk fails.
    pub async fn kept(&self) -> Result<(), FetchError> {
        self.finished().await?;
        let Some(blob) = self.shared.blob().filter(|blob| !blob.is_proven()) else { return Ok(()) };
        // The session does the same, and tells nobody when.
        let proven = tokio::task::spawn_blocking(move || blob.prove()).await;
        proven.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(FetchError::from)
    }

    /// The error that ended the task, if one did.
    pub fn failure(&self) -> Option<FetchError> {
        match self.shared.phase() {
            Phase::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The bytes of `range` (cut to the task's length), in order, each chunk as soon as its pieces are verified.
    /// The task's very last piece is withheld until the whole is proven, and the range's until it is vouched for or
    /// proven. Ends early with an error, never with wrong bytes.
    pub fn read(&self, range: ByteRange) -> impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static {
        let range = ByteRange::new(range.start.min(self.length()), range.end.min(self.length()));
        let reader = Reader {
            handle: self.clone(),
            changes: self.shared.changes(),
            at: range.start,
            end: range.end,
            recheck: Recheck::new(self.local.looks.clone()),
            reading: None,
        };
        futures_util::stream::try_unfold(reader, Reader::next)
    }

    fn begin_reading(&self) -> Option<Reading> {
        let by = self.by.as_ref()?;
        Some(match self.local.is {
            true => self.local.book.read_stored(self.task(), self.geometry, by),
            false => self.shared.scribe().begin_reading(by),
        })
    }
}

struct Reader {
    handle: Handle,
    changes: watch::Receiver<u64>,
    at: u64,
    end: u64,
    recheck: Recheck,
    /// Begun with the first byte that is asked for.
    reading: Option<Reading>,
}

// === impl Reader ===

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, FetchError> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.reading.is_none() {
            self.reading = self.handle.begin_reading();
        }
        self.turn(Doing::Reads, 0);
        let ready = loop {
            // Marked as seen before looking, so that no change between looking and waiting is missed.
            self.changes.borrow_and_update();
            let ready = self.ready();
            if ready > self.at {
                break ready;
            }
            if let Some(error) = self.handle.failure() {
                return Err(error);
            }
            self.turn(Doing::Waits(self.handle.geometry.piece_at(self.at)), 0);
            self.changes.changed().await.map_err(|_| FetchError::Closing)?;
        };
        self.turn(Doing::Reads, 0);
        let range = ByteRange::new(self.at, ready.min(self.end).min(self.at + CHUNK));
        let blob = self.handle.shared.blob().ok_or(FetchError::Closing)?;
        if !self.handle.local.is {
            let read = tokio::task::spawn_blocking(move || blob.read(range)).await;
            let bytes = read.map_err(|_| FetchError::Closing)??;
            self.at = range.end;
            self.turn(Doing::Gave, bytes.len() as u64);
            return Ok(Some((bytes, self)));
        }
        let bytes = self.read_stored(blob, range.start, range.end).await?;
        self.handle.metrics.received_bytes.of(ByteSource::Local).inc_by(bytes.len() as u64);
        self.at += bytes.len() as u64;
        self.turn(Doing::Gave, bytes.len() as u64);
        Ok(Some((bytes, self)))
    }

    fn turn(&self, doing: Doing, bytes: u64) {
        if let Some(reading) = &self.reading {
            reading.turn(doing, bytes);
        }
    }

    /// Reads what has lain on the disk, as far as one piece goes, and looks at it again.
    async fn read_stored(&mut self, blob: Blob, start: u64, end: u64) -> Result<Bytes, FetchError> {
        let piece = self.handle.geometry.piece_at(start);
        let range = ByteRange::new(start, end.min(self.handle.geometry.range(piece).end));
        let digest = self.handle.shared.digest(piece).ok_or(FetchError::Closing)?;
        let fresh = Recheck::new(self.handle.local.looks.clone());
        let (mut recheck, until) = (std::mem::replace(&mut self.recheck, fresh), self.end);
        let read = tokio::task::spawn_blocking(move || {
            let bytes = recheck.read(&blob, (range, until), digest);
            (bytes, recheck)
        });
        let (bytes, recheck) = read.await.map_err(|_| FetchError::Closing)?;
        self.recheck = recheck;
        if let Err(error @ StoreError::Damaged { .. }) = &bytes {
            tracing::warn!(task = ?self.handle.task(), "{error}");
            self.handle.shared.set_damaged();
        }
        Ok(bytes?)
    }

    /// The byte up to which the bytes from here on may be read.
    fn ready(&self) -> u64 {
        let geometry = self.handle.geometry;
        let proven = matches!(self.handle.shared.phase(), Phase::Proven);
        let first = geometry.piece_at(self.at);
        let most = (CHUNK / u64::from(geometry.piece_length())) as u32 + 2;
        let mut end = first.0 + self.handle.shared.ready(first, most);
        if !proven {
            end = end.min(geometry.pieces() - 1);
            // A range that ends before the task does has a last piece, too: one that nobody vouches for yet waits.
            let last = geometry.piece_at(self.end - 1);
            if end > last.0 && !self.handle.shared.may_serve(last) {
                end = last.0;
            }
        }
        if end <= first.0 { self.at } else { geometry.range(PieceIndex(end - 1)).end }
    }
}
