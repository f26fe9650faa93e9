//! The origin as a source of a download: runs the ranged fetch and writes what it brings. Used by the seed, by a
//! peer whose supernode is gone, and by a lone `get`. Where there is a vault that has the task, it is read first, and the origin
//! is asked for what it left out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::telemetry::ByteSource;
use common::telemetry::trace::Span;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::retrieval::Retrieval;
use super::shared::Shared;
use crate::error::FetchError;
use crate::exchange::courtesy::{self, Courtesy};
use crate::limit::{Allowance, Limits};
use crate::origin::{Fetch, OriginClient, OriginError, OriginEvent, fetch};
use crate::store::Blob;

/// Pieces between the network and the disk: each is memory, in every download at once.
const WAITING: usize = 2;
/// Pieces being written at once.
const WRITES: usize = 4;

/// What the session must know.
#[derive(Debug)]
pub enum Fed {
    /// The length is known.
    Meta(Geometry),
    /// A piece came, not yet written.
    Piece {
        /// Which.
        index: PieceIndex,
        /// Its bytes.
        chunks: Vec<Bytes>,
        /// Its digest, computed here.
        digest: Digest,
    },
    /// A piece is written.
    Written {
        /// Which.
        index: PieceIndex,
        /// Its digest.
        digest: Digest,
        /// Who gave it.
        from: ByteSource,
        /// For how long this node's own limits held it back.
        limited: Duration,
    },
    /// It cannot go on.
    Failed(FetchError),
    /// All has been delivered and written.
    Done,
}

/// A piece on the disk: which, its digest, who gave it, and for how long this node's own limits held it back.
type Written = (PieceIndex, Digest, ByteSource, Duration);

/// What one source left for the next to fetch; nothing after the origin.
type Rest = Option<PieceSet>;

/// Whether a task gives way to others, and to whom.
pub struct Manners {
    /// The task.
    pub shared: Arc<Shared>,
    /// All of the node's.
    pub courtesy: Courtesy,
}

/// A running fetch, from the vault where it has the task, then from the origin; dropping it ends it.
pub struct Feed {
    events: mpsc::Receiver<OriginEvent>,
    fetching: JoinSet<Result<Rest, OriginError>>,
    writes: JoinSet<Result<Written, FetchError>>,
    /// Who is asked at the moment.
    from: ByteSource,
    /// How the origin is asked, once the vault has given what it has.
    next: Option<(OriginClient, Fetch)>,
    /// What it may take, of all downloads, and of the origins.
    download: Allowance,
    of_origins: Allowance,
    manners: Manners,
    done: bool,
    /// As long as it lasts, if it is part of what is traced.
    _span: Span,
}

// === impl Manners ===

impl Manners {
    /// Waits until this task may take more. What nobody reads is not sent: the origin's TCP window fills.
    async fn turn(&self) {
        while !self.shared.is_urgent() && !self.courtesy.lets_pass(Instant::now()) {
            tokio::time::sleep(courtesy::LOOK_AGAIN).await;
        }
    }

    fn took(&self, bytes: u64) {
        if !self.shared.is_urgent() {
            self.courtesy.charge(bytes);
        }
    }
}

// === impl Feed ===

impl Feed {
    /// Begins to fetch.
    pub(super) fn start(
        origin: OriginClient,
        wanted: Fetch,
        retrieval: Option<Retrieval>,
        (limits, manners): (&Limits, Manners),
        span: Span,
    ) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let (fetching, writes) = (JoinSet::new(), JoinSet::new());
        let (download, of_origins) = (limits.download.allowance(), limits.origin.allowance());
        let (from, next) = (ByteSource::Origin, Some((origin, wanted)));
        let (done, _span) = (false, span);
        let mut feed =
            Self { events, fetching, writes, from, next, download, of_origins, manners, done, _span };
        match (retrieval, &feed.next) {
            (Some(retrieval), Some((_, Fetch { have: Some((_, have)), parallel, .. }))) => {
                feed.from = ByteSource::Cache;
                let retrieve = retrieval.run(have.clone(), *parallel, sender);
                feed.fetching.spawn(async move { Ok(Some(retrieve.await)) });
            }
            _ => feed.ask_origin(sender),
        }
        feed
    }

    fn ask_origin(&mut self, sender: mpsc::Sender<OriginEvent>) {
        if let Some((origin, wanted)) = self.next.take() {
            self.from = ByteSource::Origin;
            self.fetching.spawn(async move { fetch(origin, wanted, sender).await.map(|()| None) });
        }
    }

    /// The vault has given what it has.
    fn go_on(&mut self, held: PieceSet) {
        let whole = held.is_full();
        match &mut self.next {
            Some((_, Fetch { have: Some((_, have)), .. })) if !whole => *have = held,
            _ => return,
        }
        let (sender, events) = mpsc::channel(WAITING);
        self.events = events;
        self.ask_origin(sender);
    }

    /// Who is asked at the moment.
    pub fn from(&self) -> ByteSource {
        self.from
    }

    /// Writes a piece beside the async threads; [`Fed::Written`] follows.
    pub fn write(&mut self, blob: Blob, index: PieceIndex, chunks: Vec<Bytes>, digest: Digest) {
        let from = self.from;
        let of_origins = (from == ByteSource::Origin).then(|| self.of_origins.clone());
        let allowances = std::iter::once(self.download.clone()).chain(of_origins);
        self.writes.spawn(async move {
            let begun = Instant::now();
            let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            for allowance in allowances {
                allowance.pass(length).await;
            }
            let limited = begun.elapsed();
            let write =
                move || blob.write_piece(index, &chunks, digest).map(|()| (index, digest, from, limited));
            tokio::task::spawn_blocking(write)
                .await
                .map_err(|_| FetchError::Closing)?
                .map_err(FetchError::from)
        });
    }

    /// The next thing that happens; pends forever after [`Fed::Done`] or [`Fed::Failed`].
    pub async fn next(&mut self) -> Fed {
        loop {
            let (ended, room) =
                (self.events.is_closed() && self.events.is_empty(), self.writes.len() < WRITES);
            let event = async {
                self.manners.turn().await;
                self.events.recv().await
            };
            tokio::select! {
                biased;
                Some(written) = self.writes.join_next() => match written {
                    Ok(Ok((index, digest, from, limited))) => return Fed::Written { index, digest, from, limited },
                    Ok(Err(error)) => return self.fail(error),
                    Err(_) => return self.fail(FetchError::Closing),
                },
                Some(event) = event, if room => match event {
                    OriginEvent::Meta { geometry, .. } => return Fed::Meta(geometry),
                    OriginEvent::Piece { index, chunks, digest: Some(digest) } => {
                        self.manners.took(chunks.iter().map(|chunk| chunk.len() as u64).sum());
                        return Fed::Piece { index, chunks, digest };
                    }
                    // We ask for all of them to be hashed.
                    OriginEvent::Piece { digest: None, .. } => {}
                },
                Some(ended) = self.fetching.join_next(), if ended => {
                    match ended {
                        Ok(Ok(None)) => {}
                        Ok(Ok(Some(held))) => self.go_on(held),
                        Ok(Err(error)) => return self.fail(error.into()),
                        Err(_) => return self.fail(FetchError::Closing),
                    }
                }
                else => {
                    // The last event and the fetch's own end are two things: the second may be an error.
                    if !self.fetching.is_empty() {
                        continue;
                    }
                    if !self.done {
                        self.done = true;
                        return Fed::Done;
                    }
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn fail(&mut self, error: FetchError) -> Fed {
        self.done = true;
        self.fetching.abort_all();
        Fed::Failed(error)
    }
}
