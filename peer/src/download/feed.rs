//! The origin as a source of a download: runs the ranged fetch and writes what it brings. Used by the seed, by a
//! peer whose supernode is gone, and by a lone `get`.

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{Geometry, PieceIndex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::FetchError;
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
    },
    /// It cannot go on.
    Failed(FetchError),
    /// All has been delivered and written.
    Done,
}

/// A running fetch from the origin; dropping it ends it.
pub struct Feed {
    events: mpsc::Receiver<OriginEvent>,
    fetching: JoinSet<Result<(), OriginError>>,
    writes: JoinSet<Result<(PieceIndex, Digest), FetchError>>,
    /// What it may take, of all downloads and of the origins.
    allowances: [Allowance; 2],
    done: bool,
}

// === impl Feed ===

impl Feed {
    /// Begins to fetch.
    pub fn start(origin: OriginClient, wanted: Fetch, limits: &Limits) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let mut fetching = JoinSet::new();
        fetching.spawn(fetch(origin, wanted, sender));
        let allowances = [limits.download.allowance(), limits.origin.allowance()];
        Self { events, fetching, writes: JoinSet::new(), allowances, done: false }
    }

    /// Writes a piece beside the async threads; [`Fed::Written`] follows.
    pub fn write(&mut self, blob: Blob, index: PieceIndex, chunks: Vec<Bytes>, digest: Digest) {
        let allowances = self.allowances.clone();
        self.writes.spawn(async move {
            let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            for allowance in allowances {
                allowance.pass(length).await;
            }
            let write = move || blob.write_piece(index, &chunks, digest).map(|()| (index, digest));
            tokio::task::spawn_blocking(write)
                .await
                .map_err(|_| FetchError::Closing)?
                .map_err(FetchError::from)
        });
    }

    /// The next thing that happens; pends forever after [`Fed::Done`] or [`Fed::Failed`].
    pub async fn next(&mut self) -> Fed {
        loop {
            tokio::select! {
                biased;
                Some(written) = self.writes.join_next() => match written {
                    Ok(Ok((index, digest))) => return Fed::Written { index, digest },
                    Ok(Err(error)) => return self.fail(error),
                    Err(_) => return self.fail(FetchError::Closing),
                },
                Some(event) = self.events.recv(), if self.writes.len() < WRITES => match event {
                    OriginEvent::Meta { geometry, .. } => return Fed::Meta(geometry),
                    OriginEvent::Piece { index, chunks, digest } => return Fed::Piece { index, chunks, digest },
                },
                Some(ended) = self.fetching.join_next(), if self.events.is_closed() && self.events.is_empty() => {
                    match ended {
                        Ok(Ok(())) => {}
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
