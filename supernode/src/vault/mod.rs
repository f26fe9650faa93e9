//! The seed's cache in an S3-compatible bucket that all supernodes of a cluster share: what one of them has fetched whole,
//! none asks the origin for again, and a supernode with an empty disk starts warm. The local store stays the first tier.
//! [`crate::daemon`] opens it and gives it to the seed's engine; docs/object-storage.md is its page for users.
//!
//! `options` is what the user says; `s3` is the client, which `longshore get` uses as well. `bucket` and `s3` are left out of a build
//! without the feature `object-store`.
//!
//! # Invariants
//! - Nobody waits for the bucket: every question has a limit, and one that fails is a miss. While it fails, it is not asked.
//! - An object counts once its record is there, which is written last and sealed with the cluster's key; and each of its
//!   pieces counts once it has the digest in that record.
//! - No credential is in a log or an error. Answers are not quoted: they may hold some.
//!
//! # Crash safety
//! What was proven and is not in the bucket is found by comparing both at the start. An upload in parts that was cut is
//! noted on the disk, and aborted then.

#[cfg(feature = "object-store")]
mod bucket;
mod options;
#[cfg(feature = "object-store")]
pub mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::identity::Authority;
#[cfg(feature = "object-store")]
use common::identity::Sealer;
use peer::store::Store;
use peer::tasks::Tasks;
use peer::vault::Vault;

#[cfg(feature = "object-store")]
use bucket::Bucket;
pub use options::{CacheOptions, check_bucket, check_endpoint};

/// Why a bucket cannot be used as it was named.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The bucket's name.
    #[error("--cache-url is not s3://BUCKET or s3://BUCKET/PREFIX: {0}")]
    Url(&'static str),
    /// The server's address.
    #[error("--cache-endpoint is not http://HOST[:PORT] or https://HOST[:PORT]: {0}")]
    Endpoint(&'static str),
    /// A setting that means nothing alone.
    #[error("{0} is given without --cache-url s3://BUCKET/PREFIX")]
    Lonely(&'static str),
    /// The credentials file.
    #[error("the credentials file {path} cannot be used: {why}", path = path.display())]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The client could not be set up.
    #[error("the client of the bucket cannot be set up: {0}")]
    Client(String),
    /// Left out of this build.
    #[error("this build has no object storage: build it with --features object-store")]
    NotBuilt,
}

/// The bucket behind `store`, and among `tasks` what brings blobs there. Asks nobody yet.
///
/// # Errors
/// When the credentials, or the folder for notes below `data_dir`, cannot be used.
pub fn open(
    cache: &CacheOptions,
    data_dir: &Path,
    authority: &Authority,
    store: &Store,
    tasks: &Tasks,
) -> Result<Arc<dyn Vault>, CacheError> {
    #[cfg(feature = "object-store")]
    {
        let bucket = Bucket::open(cache, data_dir, Sealer::new(authority), store.clone())?;
        tasks.spawn(bucket.clone().run());
        Ok(Arc::new(bucket))
    }
    #[cfg(not(feature = "object-store"))]
    {
        let _ = (cache, data_dir, authority, store, tasks);
        Err(CacheError::NotBuilt)
    }
}
