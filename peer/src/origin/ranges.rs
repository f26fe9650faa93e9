//! The download of a task's bytes from its origin: several ranged requests side by side, in ascending order, so that the
//! front of the task is filled first; one stream where the origin serves no ranges. Called by the seed, and by a peer
//! that must do without its supernode.
//!
//! # Invariants
//! - Every event sequence starts with one [`OriginEvent::Meta`]; then each piece that was not had comes exactly once.
//! - In memory is at most one unfinished piece a reader, beside what the channel holds.

use std::sync::Arc;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, Geometry, MAX_TASK_LENGTH, PieceIndex, PieceSet};
use common::task::{Credentials, Source};
use http::header;
use tokio::sync::mpsc::Sender;
use tokio::task::{JoinError, JoinSet};

use super::plan::{FIRST_SEGMENT, Segments, hull};
use super::segment::{Asking, Content, Opened, Reply};
use super::{OriginClient, OriginError, label_of_text};

/// Ranged requests at a time: enough to fill a line that one TCP connection does not, few enough for any registry.
pub const DEFAULT_PARALLEL: usize = 4;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Where from.
    pub source: Source,
    /// With what.
    pub credentials: Credentials,
    /// Pieces that need not be fetched; `None` before the length is known.
    pub have: Option<(Geometry, PieceSet)>,
    /// Ranged requests at a time ([`DEFAULT_PARALLEL`]).
    pub parallel: usize,
    /// Whether pieces are hashed: whoever hands them on needs that, whoever only keeps them may not.
    pub hashed: bool,
}

/// What comes from the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginEvent {
    /// First: the length is known.
    Meta {
        /// The task's cut.
        geometry: Geometry,
        /// The origin's `Content-Type`; `None` too when nothing had to be asked.
        content_type: Option<String>,
    },
    /// A whole piece. Pieces come in ascending order within a segment, segments side by side.
    Piece {
        /// Which one.
        index: PieceIndex,
        /// Its bytes as they arrived.
        chunks: Vec<Bytes>,
        /// SHA-256 of the piece, if it was to be hashed.
        digest: Option<Digest>,
    },
}

/// Fetches all missing pieces and sends them as events. Ends early, and well, when the receiver is dropped.
///
/// # Errors
/// With the origin's refusal, or with what went wrong once the retries are used up; pieces sent before it are right.
pub async fn fetch(
    client: OriginClient,
    fetch: Fetch,
    events: Sender<OriginEvent>,
) -> Result<(), OriginError> {
    tokio::select! {
        result = run(client, fetch, &events) => result,
        () = events.closed() => Ok(()),
    }
}

async fn run(client: OriginClient, fetch: Fetch, events: &Sender<OriginEvent>) -> Result<(), OriginError> {
    let Fetch { source, credentials, have, parallel, hashed } = fetch;
    let parallel = parallel.max(1);
    let asking = Arc::new(Asking { client, source, credentials });
    let wanted = match &have {
        None => ByteRange::new(0, FIRST_SEGMENT),
        Some((geometry, had)) => match Segments::new(*geometry, had.clone(), parallel).next() {
            Some(segment) => segment,
            None => {
                announce(events, *geometry, None).await;
                return Ok(());
            }
        },
    };
    let opened = match first_answer(&asking, wanted, have.is_none()).await? {
        Some(opened) => opened,
        None => {
            let geometry = geometry_of(&asking, 0, have.as_ref())?;
            announce(events, geometry, None).await;
            return Ok(());
        }
    };
    let geometry = geometry_of(&asking, opened.total, have.as_ref())?;
    let content_type = opened.answer.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
    announce(events, geometry, content_type).await;
    let asking = Arc::new(asking.persistent());
    let mut have = have.map_or_else(|| PieceSet::new(geometry.pieces()), |(_, had)| had);
    let Some(everything) = hull(geometry, &have) else { return Ok(()) };
    let ranged = opened.ranged;
    let first = if ranged { ByteRange::new(wanted.start, wanted.end.min(opened.total)) } else { everything };
    let content = Content { geometry, have: have.clone(), validator: opened.validator.clone(), hashed };
    have.insert_range(geometry.pieces_of(first));
    // Without ranges nothing is left for others; with them the first reader is one of the parallel ones.
    let rest = Segments::new(geometry, have, if ranged { (parallel - 1).max(1) } else { 1 });
    let mut readers = Readers { asking, content: Arc::new(content), events, set: JoinSet::new() };
    readers.start(first, Some(opened));
    readers.run(rest.take(if ranged { usize::MAX } else { 0 }), parallel).await
}

/// The readers at work; dropping it ends them.
struct Readers<'a> {
    asking: Arc<Asking>,
    content: Arc<Content>,
    events: &'a Sender<OriginEvent>,
    set: JoinSet<Result<(), OriginError>>,
}

async fn announce(events: &Sender<OriginEvent>, geometry: Geometry, content_type: Option<String>) {
    // A receiver that is gone ends the fetch in `fetch`.
    let _ = events.send(OriginEvent::Meta { geometry, content_type }).await;
}

/// Asks for the first range; tells an empty task (`None`) from an origin that dislikes the range.
async fn first_answer(
    asking: &Asking,
    wanted: ByteRange,
    guessed: bool,
) -> Result<Option<Box<Opened>>, OriginError> {
    let opened = match asking.open(Some(wanted), None).await? {
        Reply::Body(opened) => opened,
        Reply::NoSuchRange(Some(0)) => return Ok(None),
        Reply::NoSuchRange(_) if !guessed => return Err(asking.changed("a range that was there is gone")),
        // The range starts at the first byte, so either there is none, or this origin wants no range beyond the end:
        // its answer without a range tells both.
        Reply::NoSuchRange(_) => match asking.open(None, None).await? {
            Reply::Body(opened) => opened,
            Reply::NoSuchRange(_) => return Ok(None),
        },
    };
    Ok((opened.total > 0).then_some(opened))
}

/// The cut of `total` bytes, which must be the one that is known already, if one is.
fn geometry_of(
    asking: &Asking,
    total: u64,
    known: Option<&(Geometry, PieceSet)>,
) -> Result<Geometry, OriginError> {
    match known {
        Some((geometry, _)) if geometry.length() == total => Ok(*geometry),
        Some((geometry, _)) => Err(asking.changed(format!("{} bytes became {total}", geometry.length()))),
        None => Geometry::of(total).map_err(|_| OriginError::TooLarge {
            url: label_of_text(&asking.source.url),
            limit: MAX_TASK_LENGTH,
        }),
    }
}

// === impl Readers ===

impl Readers<'_> {
    fn start(&mut self, segment: ByteRange, opened: Option<Box<Opened>>) {
        let (asking, content, events) = (self.asking.clone(), self.content.clone(), self.events.clone());
        self.set.spawn(asking.read(content, segment, opened, events));
    }

    async fn run(
        mut self,
        mut segments: impl Iterator<Item = ByteRange>,
        parallel: usize,
    ) -> Result<(), OriginError> {
        loop {
            while self.set.len() < parallel
                && let Some(segment) = segments.next()
            {
                self.start(segment, None);
            }
            match self.set.join_next().await {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    // Nothing more is sent once the caller has the error.
                    self.set.shutdown().await;
                    return Err(error);
                }
                Some(Err(error)) => return Err(lost(error)),
            }
        }
    }
}

/// A reader that panicked must not look like an end; only a bug or the runtime's end leads here.
fn lost(error: JoinError) -> OriginError {
    OriginError::Truncated { url: "the origin".to_owned(), source: error.into() }
}

#[cfg(test)]
#[path = "ranges_test.rs"]
mod tests;
