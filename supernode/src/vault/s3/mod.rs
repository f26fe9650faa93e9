//! The client of a real bucket: object_store's, with limits of ours. `credentials` is a file of them, `cause` what may be said
//! of a failure. Used by the seed's bucket and by `longshore get`.

mod cause;
mod credentials;

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};

pub use self::cause::cause;
pub(super) use self::cause::{is_no_bucket, is_no_range};
use self::credentials::File;
use super::{CacheError, CacheOptions};

/// Somebody who is there picks up in this.
const CONNECT: Duration = Duration::from_secs(2);
/// The most that one request may take: a part of an upload in this is 70 kB/s.
const REQUEST: Duration = Duration::from_secs(120);
/// What S3 servers of one's own mostly call theirs.
const REGION: &str = "us-east-1";

/// Sets the client up; asks nobody. Where requests are not `signed`, they are anybody's, whatever the environment says.
///
/// # Errors
/// When the credentials file or the environment cannot be used.
pub fn open(options: &CacheOptions, signed: bool) -> Result<AmazonS3, CacheError> {
    let plain = options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let limits = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST);
    // Whoever asks has another way, or tries again himself.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(limits.with_allow_http(plain))
        .with_retry(retry)
        .with_bucket_name(&options.bucket);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| std::env::var_os(name).is_some());
    match &options.region {
        Some(region) => builder = builder.with_region(region),
        None if !named => builder = builder.with_region(REGION),
        None => {}
    }
    if !signed {
        builder = builder.with_skip_signature(true).with_access_key_id("").with_secret_access_key("");
    } else if let Some(path) = &options.credentials_file {
        builder = builder.with_credentials(Arc::new(File::open(path)?));
    }
    builder.build().map_err(|error| CacheError::Client(cause(&error)))
}
