//! What all peers of a task are told alike: a small task's bytes, and the digests of pieces as the seed learns them. A
//! task has one bulletin while anybody is fed from it, and one crier who asks the seed and encodes; the feeders of a
//! thousand peers only carry what is posted.
//!
//! # Invariants
//! - A bulletin belongs to one download session of the seed. After that has failed nobody new reads it.
//! - However many feeders there are, few batches a second are posted to all of them together: see [`pause`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, PieceIndex, PieceSet};
use common::task::TaskId;
use common::wire::codec;
use common::wire::swarm::{MAX_DIGESTS, ToPeer};
use futures_util::TryStreamExt as _;
use peer::error::FetchError;
use peer::handle::Handle;
use tokio::sync::{OnceCell, watch};
use tokio_util::task::AbortOnDropHandle;

/// What is no longer than this comes with the answer, always: a manifest, a config. It is hardly longer than what a swarm
/// costs in words.
pub const ALWAYS_INLINE: u64 = 16 * 1024;
/// Digests of pieces that arrive within this travel together, at least.
const BATCH: Duration = Duration::from_millis(4);
/// What it costs to wake a feeder and send a packet, and as much again for everything else.
const PER_FEEDER: Duration = Duration::from_micros(50);
/// Peers cannot use a piece whose digest they do not know.
const LONGEST: Duration = Duration::from_millis(250);

/// The bulletins of all tasks. Cheap to clone.
#[derive(Clone, Default)]
pub struct Bulletins(Arc<Shared>);

#[derive(Default)]
struct Shared {
    by_task: Mutex<HashMap<TaskId, Weak<Bulletin>>>,
    feeders: AtomicUsize,
}

/// The bulletin of one task.
pub struct Bulletin {
    handle: Handle,
    inline: OnceCell<Bytes>,
    board: watch::Receiver<Board>,
    /// None where all bytes are said at once.
    _crier: Option<AbortOnDropHandle<()>>,
    bulletins: Bulletins,
}

/// A feeder's place in front of a bulletin.
pub struct Reader {
    bulletin: Arc<Bulletin>,
    board: watch::Receiver<Board>,
    read: usize,
}

/// What was posted so far.
#[derive(Debug, Default)]
struct Board {
    /// Encoded `Digests`, one or several messages each.
    frames: Vec<Bytes>,
    /// Set when nothing more comes.
    end: Option<Result<(), FetchError>>,
}

// === impl Bulletins ===

impl Bulletins {
    /// A place in front of the bulletin of the handle's task.
    pub fn read(&self, handle: Handle) -> Reader {
        self.0.feeders.fetch_add(1, Ordering::Relaxed);
        let bulletin = self.bulletin(handle);
        let board = bulletin.board.clone();
        Reader { bulletin, board, read: 0 }
    }

    fn bulletin(&self, handle: Handle) -> Arc<Bulletin> {
        let task = handle.task();
        let mut by_task = self.lock();
        let present = by_task.get(&task).and_then(Weak::upgrade);
        if let Some(present) = &present
            && present.handle.failure().is_none()
        {
            return present.clone();
        }
        let new = Arc::new(Bulletin::new(handle, self.clone()));
        by_task.insert(task, Arc::downgrade(&new));
        // In this order: the last one to drop a bulletin takes the lock.
        drop(by_task);
        drop(present);
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Weak<Bulletin>>> {
        // A poisoned lock means a panic between two plain changes of the map.
        self.0.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bulletin ===

impl Bulletin {
    fn new(handle: Handle, bulletins: Bulletins) -> Self {
        let (poster, board) = watch::channel(Board::default());
        let long = handle.length() > ALWAYS_INLINE;
        let crier = long.then(|| tokio::spawn(cry(handle.clone(), poster, bulletins.clone())));
        let (inline, _crier) = (OnceCell::new(), crier.map(AbortOnDropHandle::new));
        Self { handle, inline, board, _crier, bulletins }
    }
}

impl Drop for Bulletin {
    fn drop(&mut self) {
        let mut by_task = self.bulletins.lock();
        let task = self.handle.task();
        // A new one may have taken its place.
        if by_task.get(&task).is_some_and(|present| present.strong_count() == 0) {
            by_task.remove(&task);
        }
    }
}

// === impl Reader ===

impl Reader {
    /// The encoded `Joined` with all bytes of a task that is small enough for that, once it is here.
    ///
    /// # Errors
    /// When the task cannot be had.
    pub async fn inline(&self) -> Result<Bytes, FetchError> {
        let Bulletin { handle, inline, .. } = &*self.bulletin;
        inline.get_or_try_init(|| joined_with_bytes(handle)).await.cloned()
    }

    /// What was posted since the last call, encoded, as soon as there is something; `None` when that was all.
    ///
    /// # Errors
    /// When the task cannot be had.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            {
                let board = self.board.borrow_and_update();
                let new = &board.frames[self.read..];
                self.read = board.frames.len();
                match (new, &board.end) {
                    ([], None) => {}
                    ([], Some(end)) => return end.clone().map(|()| None),
                    ([one], _) => return Ok(Some(one.clone())),
                    (many, _) => return Ok(Some(many.concat().into())),
                }
            }
            self.board.changed().await.map_err(|_| FetchError::Closing)?;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.bulletin.bulletins.0.feeders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Posts all digests as they become known.
async fn cry(handle: Handle, poster: watch::Sender<Board>, bulletins: Bulletins) {
    let mut known = PieceSet::new(handle.geometry().pieces());
    let mut changes = handle.changes();
    let end = loop {
        changes.borrow_and_update();
        let new = handle.new_digests(&mut known, MAX_DIGESTS);
        if !new.is_empty() {
            match encoded(handle.task(), &new) {
                Ok(frames) => poster.send_modify(|board| board.frames.push(frames)),
                Err(error) => break Err(error),
            }
            continue;
        }
        if known.is_full() {
            break Ok(());
        }
        if let Some(error) = handle.failure() {
            break Err(error);
        }
        if changes.changed().await.is_err() {
            break Err(FetchError::Closing);
        }
        tokio::time::sleep(pause(bulletins.0.feeders.load(Ordering::Relaxed))).await;
    };
    poster.send_modify(|board| board.end = Some(end));
}

/// How long digests are gathered: the more feeders there are, over all tasks, the longer, so that a large swarm does
/// not keep the supernode busy with tiny messages.
fn pause(feeders: usize) -> Duration {
    (BATCH + PER_FEEDER * u32::try_from(feeders).unwrap_or(u32::MAX)).min(LONGEST)
}

fn encoded(task: TaskId, digests: &[(PieceIndex, Digest)]) -> Result<Bytes, FetchError> {
    let mut frames = Vec::new();
    for run in digests.chunk_by(|(a, _), (b, _)| a.0 + 1 == b.0) {
        let first = run[0].0;
        let digests = run.iter().map(|(_, digest)| *digest).collect();
        frames.extend(frame(&ToPeer::Digests { task, first, digests })?);
    }
    Ok(frames.into())
}

async fn joined_with_bytes(handle: &Handle) -> Result<Bytes, FetchError> {
    handle.finished().await?;
    let bytes = Vec::with_capacity(handle.length() as usize);
    let append = |mut bytes: Vec<u8>, chunk: Bytes| async move {
        bytes.extend_from_slice(&chunk);
        Ok(bytes)
    };
    let inline = handle.read(ByteRange::new(0, handle.length())).try_fold(bytes, append).await?;
    let (task, geometry) = (handle.task(), handle.geometry());
    Ok(frame(&ToPeer::Joined { task, geometry, inline: Some(inline) })?.into())
}

fn frame(message: &ToPeer) -> Result<Vec<u8>, FetchError> {
    // Only what is too long cannot be encoded, and neither a batch of digests nor a small task is.
    codec::encode(message).map_err(|_| FetchError::Closing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn runs_of_digests_are_messages_of_their_own() {
        let digests = [1, 2, 3, 7, 8].map(|index| (PieceIndex(index), Digest::of(&index.to_le_bytes())));
        let task = TaskId([7; 32]);
        let mut frames = BytesMut::from(encoded(task, &digests).unwrap());
        let mut told = Vec::new();
        while let Some(ToPeer::Digests { first, digests, .. }) = codec::decode(&mut frames).unwrap() {
            told.extend((first.0..).map(PieceIndex).zip(digests));
        }
        assert_eq!(told, digests);
    }

    #[test]
    fn few_feeders_are_told_at_once_and_many_in_batches() {
        assert!(pause(1) < BATCH * 2);
        for feeders in [10, 200, 1_000, 4_000] {
            let a_second = feeders as f64 / pause(feeders).as_secs_f64();
            assert!(a_second < 20_000.0, "{feeders}: {a_second}");
        }
        assert_eq!(pause(usize::MAX), LONGEST);
    }
}
