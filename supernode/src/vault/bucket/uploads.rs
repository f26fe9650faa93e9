//! Brings what the store holds proven to the bucket, in the background: a few blobs at a time, large ones in parts, again and
//! again until it is there. Fed by the engine ([`peer::vault::Vault::keep`]), and at the start with all that is in the store.
//!
//! # Invariants
//! - A record is written after all of its blob; so what was cut looks like nothing at all.
//! - Each piece is compared with its digest once more before it leaves: a damaged disk spoils no other cache.
//! - In memory are at most [`BLOBS`] × [`PARTS`] parts. A blob is pinned in the store only while it is under way.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, PieceIndex};
use common::task::TaskId;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _, PutPayload};
use peer::store::{Blob, StoreError};
use peer::vault::Kept;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Bucket, Inner, lock, record};
use crate::vault::s3::cause;

/// Blobs at a time.
const BLOBS: usize = 2;
/// Parts of a blob at a time.
const PARTS: usize = 2;
/// A part: whole pieces of any size, and above the 5 MiB that S3 asks for. What is not longer goes in one request.
const PART: u64 = 8 * 1024 * 1024;
/// S3 takes no more parts than this.
const MAX_PARTS: u64 = 10_000;
/// A part is tried so often before the whole upload begins anew.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Tasks that wait. What is beyond is found at the next start.
const MAX_WAITING: usize = 100_000;

/// The tasks that are to be in the bucket.
#[derive(Default)]
pub(super) struct Queue {
    lists: Mutex<Lists>,
    more: Notify,
}

#[derive(Default)]
struct Lists {
    waiting: VecDeque<TaskId>,
    known: HashSet<TaskId>,
    /// What is there is wrong, whatever its record says.
    spoilt: HashSet<TaskId>,
}

/// Why a blob did not get there.
enum Failure {
    /// The bucket: later.
    Bucket(Error),
    /// This node cannot read it: it is left out.
    Here(String),
}

// === impl Queue ===

impl Queue {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task is to be in the bucket.
    pub(super) fn push(&self, task: TaskId) {
        let mut lists = self.lists();
        if lists.waiting.len() < MAX_WAITING && lists.known.insert(task) {
            lists.waiting.push_back(task);
            drop(lists);
            self.more.notify_one();
        }
    }

    /// What is there of the task is wrong, even if it cannot be deleted.
    pub(super) fn spoilt(&self, task: TaskId) {
        let mut lists = self.lists();
        if lists.spoilt.len() < MAX_WAITING {
            lists.spoilt.insert(task);
        }
    }

    fn is_spoilt(&self, task: TaskId) -> bool {
        self.lists().spoilt.contains(&task)
    }

    async fn pop(&self) -> TaskId {
        loop {
            let next = self.lists().waiting.pop_front();
            match next {
                Some(task) => return task,
                None => self.more.notified().await,
            }
        }
    }

    fn again(&self, task: TaskId) {
        self.lists().waiting.push_back(task);
        self.more.notify_one();
    }

    fn done(&self, task: TaskId) {
        let mut lists = self.lists();
        lists.known.remove(&task);
        lists.spoilt.remove(&task);
    }
}

// === impl Bucket ===

impl Bucket {
    /// Brings blobs there until it is dropped; first what earlier runs proved and did not bring.
    pub(in crate::vault) async fn run(self) {
        self.abort_leftovers().await;
        let store = self.0.store.clone();
        match tokio::task::spawn_blocking(move || store.proven()).await {
            Ok(Ok(proven)) => proven.into_iter().for_each(|(task, _)| self.0.queue.push(task)),
            Ok(Err(error)) => {
                tracing::warn!("what the store holds cannot be compared with the cache: {error}")
            }
            Err(_) => {}
        }
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = under_way.join_next() => {}
                task = self.next(), if under_way.len() < BLOBS => {
                    let bucket = self.clone();
                    under_way.spawn(async move { bucket.bring(task).await });
                }
            }
        }
    }

    /// The next task, once the bucket may be asked.
    async fn next(&self) -> TaskId {
        loop {
            let wait = lock(&self.0.writing).wait(Instant::now());
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        self.0.queue.pop().await
    }

    async fn bring(&self, task: TaskId) {
        let inner = &self.0;
        // While it fails, one blob at a time finds out whether it still does.
        if !lock(&inner.writing).allows(Instant::now()) {
            return inner.queue.again(task);
        }
        match inner.upload(task).await {
            Ok(()) => {
                inner.queue.done(task);
                if lock(&inner.writing).worked() {
                    tracing::info!(bucket = inner.name, "the cache's bucket takes blobs again");
                }
            }
            Err(Failure::Here(why)) => {
                inner.queue.done(task);
                tracing::warn!(%task, "a blob is not brought to the cache: {why}");
            }
            Err(Failure::Bucket(error)) => {
                let cause = cause(&error);
                if lock(&inner.writing).failed(&cause, Instant::now()) {
                    tracing::warn!(
                        bucket = inner.name,
                        "the cache's bucket takes no blobs: {cause}; trying on"
                    );
                }
                inner.queue.again(task);
            }
        }
    }

    async fn abort_leftovers(&self) {
        let inner = &self.0;
        for (task, id) in inner.leftovers.all() {
            match inner.objects.abort_multipart(&inner.blob(task), &id).await {
                Ok(()) | Err(Error::NotFound { .. }) => inner.leftovers.ended(task),
                // The note stays for the next start.
                Err(error) => tracing::debug!(%task, "a cut upload is not aborted: {}", cause(&error)),
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    async fn upload(&self, task: TaskId) -> Result<(), Failure> {
        let store = self.store.clone();
        let blob = blocking(move || store.get(task)).await?;
        // It may have been evicted meanwhile.
        let Some(blob) = blob.filter(Blob::is_proven) else { return Ok(()) };
        if !self.queue.is_spoilt(task) && self.record(task).await?.is_some() {
            return Ok(());
        }
        let (geometry, asked) = (blob.geometry(), blob.clone());
        let digests: Vec<Digest> =
            blocking(move || asked.pieces()).await?.into_iter().map(|(_, digest)| digest).collect();
        if digests.len() != geometry.pieces() as usize {
            return Err(Failure::Here("it is not whole any more".to_owned()));
        }
        let kept = Kept { geometry, digests, source_url: blob.source_url() };
        let path = self.blob(task);
        if geometry.length() <= PART {
            let payload = payload(&blob, &kept, ByteRange::new(0, geometry.length())).await?;
            self.objects.put(&path, payload).await?;
        } else {
            self.upload_in_parts(&path, &blob, &kept).await?;
        }
        let record = record::write(task, &kept, &self.sealer);
        self.objects.put(&self.beside(task), record.into()).await?;
        tracing::debug!(%task, bucket = self.name, "brought to the cache");
        Ok(())
    }

    async fn upload_in_parts(&self, path: &Path, blob: &Blob, kept: &Kept) -> Result<(), Failure> {
        let task = blob.task();
        let id = self.objects.create_multipart(path).await?;
        if let Err(error) = self.leftovers.note(task, &id) {
            tracing::debug!(%task, "an upload is not noted: {error}");
        }
        let ranges = parts(kept.geometry.length(), u64::from(kept.geometry.piece_length()));
        let parts = stream::iter(ranges.into_iter().enumerate())
            .map(|(index, range)| self.part(path, &id, index, range, blob, kept))
            .buffered(PARTS)
            .try_collect()
            .await;
        let done = match parts {
            Ok(parts) => {
                self.objects.complete_multipart(path, &id, parts).await.map(drop).map_err(Failure::Bucket)
            }
            Err(failure) => Err(failure),
        };
        // What is neither complete nor aborted keeps its note: the next start aborts it.
        if done.is_ok() || self.objects.abort_multipart(path, &id).await.is_ok() {
            self.leftovers.ended(task);
        }
        done
    }

    async fn part(
        &self,
        path: &Path,
        id: &String,
        index: usize,
        range: ByteRange,
        blob: &Blob,
        kept: &Kept,
    ) -> Result<PartId, Failure> {
        let payload = payload(blob, kept, range).await?;
        let mut tries = 1;
        loop {
            match self.objects.put_part(path, id, index, payload.clone()).await {
                Err(_) if tries < TRIES => tokio::time::sleep(PAUSE * tries).await,
                result => return Ok(result?),
            }
            tries += 1;
        }
    }
}

/// Ranges of one length, of whole pieces, and not too many.
fn parts(length: u64, piece: u64) -> Vec<ByteRange> {
    let part = PART.max(length.div_ceil(MAX_PARTS)).next_multiple_of(piece);
    let starts = (0..length).step_by(usize::try_from(part).unwrap_or(usize::MAX));
    starts.map(|start| ByteRange::new(start, length.min(start + part))).collect()
}

/// The bytes of a range of whole pieces, each compared with its digest.
async fn payload(blob: &Blob, kept: &Kept, range: ByteRange) -> Result<PutPayload, Failure> {
    let pieces: Vec<_> = kept
        .geometry
        .pieces_of(range)
        .map(|index| (kept.geometry.range(PieceIndex(index)), kept.digests[index as usize]))
        .collect();
    let blob = blob.clone();
    let read = tokio::task::spawn_blocking(move || {
        let piece = |(range, digest): (ByteRange, Digest)| {
            let bytes = blob.read(range)?;
            Ok((Digest::of(&bytes) == digest).then_some(bytes))
        };
        pieces.into_iter().map(piece).collect::<Result<Option<Vec<Bytes>>, StoreError>>()
    });
    let read = read.await.map_err(|_| Failure::Here("this node is closing".to_owned()))?;
    let bytes = read.map_err(|error| Failure::Here(error.to_string()))?;
    Ok(bytes.ok_or_else(|| Failure::Here("the store's copy is damaged".to_owned()))?.into_iter().collect())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure::Here(error.to_string())),
        Err(_) => Err(Failure::Here("this node is closing".to_owned())),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Bucket(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::piece::Geometry;

    #[test]
    fn parts_are_whole_pieces_of_one_length_and_few_enough() {
        for length in [PART + 1, 3 * PART, (1 << 37) + 5] {
            let geometry = Geometry::of(length).unwrap();
            let parts = parts(length, u64::from(geometry.piece_length()));
            assert!(parts.len() as u64 <= MAX_PARTS);
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, length));
            for pair in parts.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
                assert_eq!(pair[0].len(), parts[0].len());
                assert_eq!(pair[0].end % u64::from(geometry.piece_length()), 0);
            }
        }
    }
}
