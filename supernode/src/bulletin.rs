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
use common::piece::{ByteRange, Geometry, PieceIndex, PieceSet};
use common::task::TaskId;
use common::wire::codec;
use common::wire::swarm::{MAX_DIGESTS, ToPeer};
use futures_util::TryStreamExt as _;
use peer::error::FetchError;
use peer::handle::Handle;
use tokio::sync::{OnceCell, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::testimony::Notary;

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
#[derive(Clone)]
pub struct Bulletins(Arc<Shared>);

struct Shared {
    notary: Notary,
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
    /// Whether the reader knows what a seal is.
    sealed: bool,
}

/// What was posted so far.
#[derive(Debug, Default)]
struct Board {
    posted: Vec<Posted>,
    /// Set when nothing more comes.
    end: Option<Result<(), FetchError>>,
}

/// Encoded messages: one or several `Digests`, without and with their seals.
#[derive(Clone, Debug)]
struct Posted {
    plain: Bytes,
    sealed: Bytes,
}

// === impl Bulletins ===

impl Bulletins {
    /// None yet; the notary seals what will be posted.
    pub fn new(notary: Notary) -> Self {
        Self(Arc::new(Shared { notary, by_task: Mutex::default(), feeders: AtomicUsize::new(0) }))
    }

    /// A place in front of the bulletin of the handle's task, for somebody who speaks this version of the protocol.
    pub fn read(&self, handle: Handle, version: u16) -> Reader {
        self.0.feeders.fetch_add(1, Ordering::Relaxed);
        let bulletin = self.bulletin(handle);
        let board = bulletin.board.clone();
        Reader { bulletin, board, read: 0, sealed: version >= 2 }
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
                let frames =
                    |posted: &Posted| if self.sealed { posted.sealed.clone() } else { posted.plain.clone() };
                let new: Vec<Bytes> = board.posted[self.read..].iter().map(frames).collect();
                self.read = board.posted.len();
                match (&new[..], &board.end) {
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
    let geometry = handle.geometry();
    let mut known = PieceSet::new(geometry.pieces());
    let mut changes = handle.changes();
    let end = loop {
        changes.borrow_and_update();
        let new = handle.new_digests(&mut known, MAX_DIGESTS);
        if !new.is_empty() {
            match encoded(&bulletins.0.notary, (handle.task(), geometry), &new) {
                Ok(posted) => poster.send_modify(|board| board.posted.push(posted)),
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

fn encoded(
    notary: &Notary,
    (task, geometry): (TaskId, Geometry),
    digests: &[(PieceIndex, Digest)],
) -> Result<Posted, FetchError> {
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    for run in digests.chunk_by(|(a, _), (b, _)| a.0 + 1 == b.0) {
        let first = run[0].0;
        let digests: Vec<Digest> = run.iter().map(|(_, digest)| *digest).collect();
        let seal = notary.seal(task, geometry, first, &digests);
        let count = digests.len() as u32;
        let frames = frame(&ToPeer::Digests { task, first, digests })?;
        plain.extend_from_slice(&frames);
        sealed.extend(frames);
        sealed.extend(frame(&ToPeer::Sealed { task, first, count, seal })?);
    }
    Ok(Posted { plain: plain.into(), sealed: sealed.into() })
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
    use common::identity::Authority;
    use common::wire::swarm::Testimony;

    #[test]
    fn runs_of_digests_are_messages_of_their_own_and_each_has_its_seal() {
        let notary = Notary::new(&Authority::open(tempfile::tempdir().unwrap().path()).unwrap());
        let digests = [1, 2, 3, 7, 8].map(|index| (PieceIndex(index), Digest::of(&index.to_le_bytes())));
        let (task, geometry) = (TaskId([7; 32]), Geometry::of(10 << 20).unwrap());
        let posted = encoded(&notary, (task, geometry), &digests).unwrap();
        let (mut plain, mut sealed) = (BytesMut::from(posted.plain), BytesMut::from(posted.sealed));
        let mut told = Vec::new();
        while let Some(ToPeer::Digests { first, digests, .. }) = codec::decode(&mut plain).unwrap() {
            let again = ToPeer::Digests { task, first, digests: digests.clone() };
            assert_eq!(codec::decode(&mut sealed).unwrap(), Some(again));
            let Some(ToPeer::Sealed { count, seal, .. }) = codec::decode(&mut sealed).unwrap() else {
                panic!()
            };
            assert_eq!(count as usize, digests.len());
            assert!(notary.believes(&Testimony { task, geometry, first, digests: digests.clone(), seal }));
            told.extend((first.0..).map(PieceIndex).zip(digests));
        }
        assert_eq!(told, digests);
        assert!(plain.is_empty() && sealed.is_empty());
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
