//! The client of a real bucket: object_store's, with limits of ours. Called by [`super::Bucket::open`].

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};

use super::cause::cause;
use super::credentials::File;
use crate::vault::{CacheError, CacheOptions};

/// Somebody who is there picks up in this.
const CONNECT: Duration = Duration::from_secs(2);
/// The most that one request may take: a part of an upload in this is 70 kB/s.
const REQUEST: Duration = Duration::from_secs(120);
/// What S3 servers of one's own mostly call theirs.
const REGION: &str = "us-east-1";

/// Sets the client up; asks nobody.
///
/// # Errors
/// When the credentials file or the environment cannot be used.
pub(super) fn open(options: &CacheOptions) -> Result<AmazonS3, CacheError> {
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
    if let Some(path) = &options.credentials_file {
        builder = builder.with_credentials(Arc::new(File::open(path)?));
    }
    builder.build().map_err(|error| CacheError::Client(cause(&error)))
}
