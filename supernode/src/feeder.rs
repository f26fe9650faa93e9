//! What one peer is told about one task that it joined: the length, the piece digests as the seed learns them, and
//! the end. One feeder a peer and task; it ends when all is said, or the peer leaves.

use std::sync::Arc;
use std::time::Duration;

use common::node::NodeId;
use common::piece::{ByteRange, PieceIndex, PieceSet};
use common::task::TaskId;
use common::wire::swarm::{Failure, Join, MAX_DIGESTS, MAX_INLINE, ToPeer};
use futures_util::TryStreamExt as _;
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::handle::Handle;
use tokio::sync::mpsc;

use crate::hub::{Hub, RESERVE};
use crate::scheduler::Event;

/// Digests of pieces that arrive within this travel together.
const BATCH: Duration = Duration::from_millis(4);

/// The seed, the scheduler, and the way to the peer.
#[derive(Clone)]
pub struct Feeder {
    /// The seed's engine.
    pub engine: Engine,
    /// The scheduler.
    pub hub: Arc<Hub>,
    /// The peer.
    pub node: NodeId,
    /// Its queue.
    pub outbox: mpsc::Sender<ToPeer>,
}

/// The peer is gone.
struct Gone;

// === impl Feeder ===

impl Feeder {
    /// Serves one join to its end.
    pub async fn run(self, join: Join) {
        let task = join.source.task();
        self.engine.metrics().joins.inc();
        // Nothing is left to do for a peer that is gone.
        let _: Result<(), Gone> = match self.feed(&join).await {
            Ok(said) => said,
            Err(FetchError::Poisoned { .. }) => self.tell(ToPeer::Poisoned(task)).await,
            Err(error) => self.tell(ToPeer::Failed { task, failure: failure(error) }).await,
        };
    }

    async fn feed(&self, join: &Join) -> Result<Result<(), Gone>, FetchError> {
        let handle = self.open(join).await?;
        let (task, geometry) = (handle.task(), handle.geometry());
        if handle.length() <= MAX_INLINE {
            handle.finished().await?;
            let inline = whole(&handle).await?;
            return Ok(self.tell(ToPeer::Joined { task, geometry, inline: Some(inline) }).await);
        }
        if self.tell(ToPeer::Joined { task, geometry, inline: None }).await.is_err() {
            return Ok(Err(Gone));
        }
        self.hub.apply(Event::Join { task, node: self.node, held: join.held });
        // A copy that was here before is news to the scheduler, which forgets a swarm that nobody is in.
        self.hub.apply(Event::SeedMeta { task, pieces: geometry.pieces() });
        if handle.is_local() {
            self.hub.apply(Event::SeedProven(task));
        }
        if self.digests(&handle).await?.is_err() {
            return Ok(Err(Gone));
        }
        handle.finished().await?;
        Ok(self.tell(ToPeer::Proven(task)).await)
    }

    /// The one origin fetch of the task, begun or joined. A fetch that others began may have failed for want of
    /// their credentials: it is tried once more with this peer's.
    async fn open(&self, join: &Join) -> Result<Handle, FetchError> {
        let request = Request { source: join.source.clone(), credentials: join.credentials.clone() };
        match self.engine.open(request.clone()).await {
            Err(FetchError::Origin(failure)) if matches!(failure.status, 401 | 403 | 404) => {
                self.engine.open(request).await
            }
            result => result,
        }
    }

    /// Tells all digests, as they become known.
    async fn digests(&self, handle: &Handle) -> Result<Result<(), Gone>, FetchError> {
        let mut known = PieceSet::new(handle.geometry().pieces());
        let mut changes = handle.changes();
        while !known.is_full() {
            changes.borrow_and_update();
            let new = handle.new_digests(&mut known, MAX_DIGESTS);
            if new.is_empty() {
                if let Some(error) = handle.failure() {
                    return Err(error);
                }
                changes.changed().await.map_err(|_| FetchError::Closing)?;
                tokio::time::sleep(BATCH).await;
                continue;
            }
            let task = handle.task();
            for run in new.chunk_by(|(a, _), (b, _)| a.0 + 1 == b.0) {
                let first: PieceIndex = run[0].0;
                let digests = run.iter().map(|(_, digest)| *digest).collect();
                if self.tell(ToPeer::Digests { task, first, digests }).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    async fn tell(&self, message: ToPeer) -> Result<(), Gone> {
        while self.outbox.capacity() < RESERVE && !self.outbox.is_closed() {
            tokio::time::sleep(BATCH).await;
        }
        self.outbox.send(message).await.map_err(|_| Gone)
    }

    /// The peer wants no more of the task.
    pub fn leave(&self, task: TaskId) {
        self.hub.apply(Event::Leave { task, node: self.node });
    }
}

async fn whole(handle: &Handle) -> Result<Vec<u8>, FetchError> {
    let bytes = Vec::with_capacity(handle.length() as usize);
    let append = |mut bytes: Vec<u8>, chunk: bytes::Bytes| async move {
        bytes.extend_from_slice(&chunk);
        Ok(bytes)
    };
    handle.read(ByteRange::new(0, handle.length())).try_fold(bytes, append).await
}

fn failure(error: FetchError) -> Failure {
    match error {
        FetchError::Origin(failure) => Failure::Origin(failure),
        FetchError::Forbidden(why) => Failure::Refused(why),
        other => Failure::Unavailable(other.to_string()),
    }
}
