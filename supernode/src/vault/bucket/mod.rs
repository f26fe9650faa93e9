//! The bucket as the seed's engine sees it: a vault. Reading is here, bringing blobs there is in `uploads`. `leftovers` are
//! uploads that were cut, `record` what is believed of an object, `health` when a bucket that fails is asked again.
//!
//! Objects: `PREFIX/blobs/ab/<64 hex>` is the content, `PREFIX/blobs/ab/<64 hex>.json` its record (see `record`).

mod health;
mod leftovers;
mod record;
#[cfg(test)]
mod tests;
mod uploads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::identity::Sealer;
use common::piece::ByteRange;
use common::task::TaskId;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt as _, multipart::MultipartStore};
use peer::store::Store;
use peer::vault::{Kept, Trouble, Vault};

use self::health::Health;
use self::leftovers::Leftovers;
use self::uploads::Queue;
use super::s3::{self, cause, is_no_bucket, is_no_range};
use super::{CacheError, CacheOptions};

/// Whether a blob is there must be said in this: a cold pull waits for it.
const ANSWER: Duration = Duration::from_millis(1800);
/// A body that stands still for so long is not waited for.
const STALL: Duration = Duration::from_secs(5);
/// What is deleted is deleted in this, or stays.
const DELETE: Duration = Duration::from_secs(2);

/// What a bucket can do; object_store's own stores can.
trait Objects: ObjectStore + MultipartStore {}
impl<T: ObjectStore + MultipartStore> Objects for T {}

/// A cluster's bucket. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bucket(Arc<Inner>);

struct Inner {
    objects: Arc<dyn Objects>,
    /// How it is called in logs.
    name: String,
    prefix: String,
    sealer: Sealer,
    store: Store,
    leftovers: Leftovers,
    queue: Queue,
    reading: Mutex<Health>,
    writing: Mutex<Health>,
}

// === impl Bucket ===

impl Bucket {
    /// A bucket behind `store`, to be [`Bucket::run`]. Asks nobody yet: one that is away is no reason not to start.
    ///
    /// # Errors
    /// When the credentials or the folder for notes, below `data_dir`, cannot be used.
    pub(super) fn open(
        options: &CacheOptions,
        data_dir: &std::path::Path,
        sealer: Sealer,
        store: Store,
    ) -> Result<Self, CacheError> {
        let objects = Arc::new(s3::open(options, true)?);
        let name = format!("s3://{}/{}", options.bucket, options.prefix);
        Self::over(objects, name, &options.prefix, data_dir, sealer, store)
    }

    fn over(
        objects: Arc<dyn Objects>,
        name: String,
        prefix: &str,
        data_dir: &std::path::Path,
        sealer: Sealer,
        store: Store,
    ) -> Result<Self, CacheError> {
        let leftovers = Leftovers::open(data_dir).map_err(|error| {
            CacheError::Client(format!("no notes of uploads can be kept in {}: {error}", data_dir.display()))
        })?;
        Ok(Self(Arc::new(Inner {
            objects,
            name,
            prefix: prefix.to_owned(),
            sealer,
            store,
            leftovers,
            queue: Queue::default(),
            reading: Mutex::default(),
            writing: Mutex::default(),
        })))
    }
}

impl Vault for Bucket {
    fn find(&self, task: TaskId) -> BoxFuture<'static, Option<Kept>> {
        let inner = self.0.clone();
        async move { inner.find(task).await }.boxed()
    }

    fn read(
        &self,
        task: TaskId,
        kept: &Kept,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Trouble>>, Trouble>> {
        let (inner, length) = (self.0.clone(), kept.geometry.length());
        async move { inner.read(task, length, range).await }.boxed()
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()> {
        let inner = self.0.clone();
        async move { inner.forget(task).await }.boxed()
    }

    fn keep(&self, task: TaskId) {
        self.0.queue.push(task);
    }
}

// === impl Inner ===

impl Inner {
    /// Where a blob's content is.
    fn blob(&self, task: TaskId) -> Path {
        let hex = task.hex();
        Path::from(format!("{}/blobs/{}/{hex}", self.prefix, &hex[..2]))
    }

    /// Where its record is.
    fn beside(&self, task: TaskId) -> Path {
        Path::from(format!("{}.json", self.blob(task)))
    }

    async fn find(&self, task: TaskId) -> Option<Kept> {
        if !lock(&self.reading).allows(Instant::now()) {
            return None;
        }
        match tokio::time::timeout(ANSWER, self.record(task)).await {
            Ok(Ok(kept)) => {
                self.can_read();
                kept
            }
            Ok(Err(error)) => {
                self.cannot_read(&cause(&error));
                None
            }
            Err(_) => {
                self.cannot_read("no answer in time");
                None
            }
        }
    }

    /// The record of a task; `None` where there is none that can be believed.
    async fn record(&self, task: TaskId) -> Result<Option<Kept>, Error> {
        let answer = match self.objects.get(&self.beside(task)).await {
            Err(error) if is_no_bucket(&error) => return Err(error),
            Err(Error::NotFound { .. }) => return Ok(None),
            answer => answer?,
        };
        if answer.meta.size > record::LONGEST {
            return Ok(None);
        }
        let kept = record::read(task, &answer.bytes().await?, &self.sealer);
        if kept.is_none() {
            tracing::debug!(%task, bucket = self.name, "a record that this cluster did not write");
        }
        Ok(kept)
    }

    async fn read(
        self: Arc<Self>,
        task: TaskId,
        length: u64,
        range: ByteRange,
    ) -> Result<BoxStream<'static, Result<Bytes, Trouble>>, Trouble> {
        let path = self.blob(task);
        let asked = GetOptions::new().with_range(Some(range.start..range.end));
        let answer = match tokio::time::timeout(STALL, self.objects.get_opts(&path, asked)).await {
            Ok(Ok(answer)) if answer.meta.size == length => answer,
            Ok(Ok(_)) => return Err(Trouble::Spoilt),
            Ok(Err(error)) => return Err(self.trouble(&error)),
            Err(_) => return Err(self.stalled()),
        };
        let body = stream::unfold(Some((answer.into_stream(), self)), async |state| {
            let (mut body, inner) = state?;
            match tokio::time::timeout(STALL, body.next()).await {
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some((body, inner)))),
                Ok(Some(Err(error))) => Some((Err(inner.trouble(&error)), None)),
                Ok(None) => None,
                Err(_) => Some((Err(inner.stalled()), None)),
            }
        });
        Ok(body.boxed())
    }

    fn trouble(&self, error: &Error) -> Trouble {
        let gone = matches!(error, Error::NotFound { .. }) && !is_no_bucket(error);
        if gone || is_no_range(error) {
            return Trouble::Spoilt;
        }
        self.cannot_read(&cause(error));
        Trouble::Away
    }

    fn stalled(&self) -> Trouble {
        self.cannot_read("it began to answer and stopped");
        Trouble::Away
    }

    /// The record first: without it nobody reads the rest.
    async fn forget(&self, task: TaskId) {
        self.queue.spoilt(task);
        let deleted = tokio::time::timeout(DELETE, async {
            self.objects.delete(&self.beside(task)).await?;
            self.objects.delete(&self.blob(task)).await
        });
        match deleted.await {
            Ok(Ok(()) | Err(Error::NotFound { .. })) => {}
            Ok(Err(error)) => self.stays(task, &cause(&error)),
            Err(_) => self.stays(task, "no answer in time"),
        }
    }

    fn stays(&self, task: TaskId, cause: &str) {
        tracing::warn!(%task, bucket = self.name, "a damaged blob cannot be deleted from the cache: {cause}");
    }

    fn can_read(&self) {
        if lock(&self.reading).worked() {
            tracing::info!(bucket = self.name, "the cache's bucket answers again");
        }
    }

    fn cannot_read(&self, cause: &str) {
        if lock(&self.reading).failed(cause, Instant::now()) {
            tracing::warn!(
                bucket = self.name,
                "the cache's bucket cannot be read: {cause}; pulls go on without it"
            );
        }
    }
}

/// A panic elsewhere leaves a health as it was: plain values.
fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}
