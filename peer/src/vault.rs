//! A second place for whole blobs, behind the store and in front of the origin, that several nodes share. A download
//! session that is sent to the origin looks here first; what it proved from the origin is kept here afterwards. The
//! supernode's bucket is one; peers have none.
//!
//! # Invariants
//! - A vault is never waited for: each call has its own limits, and whatever goes wrong is a miss or an end of the stream.
//! - What [`Vault::find`] tells was said by somebody who had proven the blob. The bytes may be damaged all the same: whoever
//!   reads them compares them with those digests.

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, Geometry};
use common::task::TaskId;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

/// What is known of a blob in a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Length and cut.
    pub geometry: Geometry,
    /// The digest of every piece, in order.
    pub digests: Vec<Digest>,
    /// The URL that it once was fetched by, without secrets; empty where that is not known.
    pub source_url: String,
}

/// Why bytes that should be there cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The vault does not answer, or breaks off: another time perhaps.
    Away,
    /// What is there is not what was kept, or it is gone.
    Spoilt,
}

/// A place for whole blobs.
pub trait Vault: Send + Sync + 'static {
    /// What is known of the task's blob, if it is there. `None` too when the vault does not answer soon.
    fn find(&self, task: TaskId) -> BoxFuture<'static, Option<Kept>>;

    /// The bytes of a range of the blob `kept`. A stream that ends before the range does was cut.
    fn read(
        &self,
        task: TaskId,
        kept: &Kept,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Trouble>>, Trouble>>;

    /// What is there is not what was kept: it is to go. Ends soon, whether that was possible or not.
    fn forget(&self, task: TaskId) -> BoxFuture<'static, ()>;

    /// The store holds this task now, proven: it is to be brought here when there is time.
    fn keep(&self, task: TaskId);
}
