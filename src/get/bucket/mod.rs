//! Objects of S3-compatible buckets (`s3://BUCKET/KEY`). This process signs; whoever asks the origin needs no more than the
//! signed URL, of which the signature is a credential (see [`super::query`]): all who fetch one object share one task.
//! `server` is left out of a build without the feature `object-store`.
//!
//! # Invariants
//! - What is refused is not quoted: it may hold a password.

#[cfg(feature = "object-store")]
mod server;

use std::path::PathBuf;

use anyhow::anyhow;
use common::digest::Digest;
use common::task::Credentials;
use futures_util::stream::BoxStream;
use supernode::vault::{check_bucket, check_endpoint};

use super::wanted::Remote;
use crate::{cli, usage};
use peer::origin::query::Filter;

const SCHEME: &str = "s3://";

/// An object, or a prefix of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    pub key: String,
}

/// An object, and what it must be.
#[derive(Debug, Clone)]
pub struct Object {
    pub place: Place,
    pub digest: Option<Digest>,
    pub tag: String,
    /// Beside the signature.
    pub credentials: Credentials,
}

/// The servers that buckets are at, and how they know us.
#[derive(Debug, Clone)]
pub struct Buckets {
    endpoint: Option<String>,
    region: Option<String>,
    credentials_file: Option<PathBuf>,
    /// Leaves the signature out of a task's name, whatever else the user has in there.
    #[cfg_attr(not(feature = "object-store"), expect(dead_code, reason = "nothing is signed"))]
    filter: Filter,
}

// === impl Place ===

impl Place {
    /// Whether a source is in a bucket.
    pub fn is(source: &str) -> bool {
        source.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Reads `s3://BUCKET/KEY`; the key is taken as it stands, as Amazon's own command does it.
    ///
    /// # Errors
    /// In words for the user, when it is none.
    pub fn read(source: &str) -> anyhow::Result<Self> {
        let rest = source.get(SCHEME.len()..).unwrap_or_default();
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            let why = "credentials do not belong into s3://BUCKET/KEY: use --s3-credentials-file or the environment";
            return Err(usage(anyhow!(why)));
        }
        check_bucket(bucket)
            .map_err(|why| usage(anyhow!("a source in a bucket is s3://BUCKET/KEY, and {why}")))?;
        let part =
            |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_ascii_control());
        if !key.trim_end_matches('/').is_empty() && !key.trim_end_matches('/').split('/').all(part) {
            return Err(usage(anyhow!(
                "the key in s3://{bucket}/… has a part that is empty, . or .., or a control character: it cannot be fetched"
            )));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.key)
    }
}

// === impl Buckets ===

impl Buckets {
    /// As the flags and the environment have it.
    ///
    /// # Errors
    /// When the server's address is none.
    pub fn of(flags: &cli::Get) -> anyhow::Result<Self> {
        if let Some(endpoint) = &flags.s3_endpoint {
            check_endpoint(endpoint).map_err(|why| {
                usage(anyhow!("--s3-endpoint is not http://HOST[:PORT] or https://HOST[:PORT]: {why}"))
            })?;
        }
        Ok(Self {
            endpoint: flags.s3_endpoint.clone(),
            region: flags.s3_region.clone(),
            credentials_file: flags.s3_credentials_file.clone(),
            filter: Filter::default(),
        })
    }

    /// Where an object is to be asked for, and what opens it now.
    ///
    /// # Errors
    /// When there are no credentials where they should be, or this build knows no buckets.
    pub async fn sign(&self, object: &Object) -> anyhow::Result<Remote> {
        #[cfg(feature = "object-store")]
        return server::sign(self, object).await;
        #[cfg(not(feature = "object-store"))]
        {
            let _ = object;
            Err(self.not_built())
        }
    }

    /// The keys below a prefix, which ends at a slash or is empty, in no order.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn below(&self, prefix: &Place) -> anyhow::Result<BoxStream<'static, anyhow::Result<String>>> {
        #[cfg(feature = "object-store")]
        return server::below(self, prefix);
        #[cfg(not(feature = "object-store"))]
        {
            let _ = prefix;
            Err(self.not_built())
        }
    }

    #[cfg(not(feature = "object-store"))]
    fn not_built(&self) -> anyhow::Error {
        anyhow!("this build has no object storage: build it with --features object-store")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_is_a_bucket_and_a_key() {
        for (source, bucket, key) in [
            ("s3://data/a.bin", "data", "a.bin"),
            ("S3://my-data.eu/a b/100%?.bin", "my-data.eu", "a b/100%?.bin"),
            ("s3://data/dir/", "data", "dir/"),
            ("s3://data", "data", ""),
        ] {
            assert!(Place::is(source));
            assert_eq!(Place::read(source).unwrap(), Place { bucket: bucket.into(), key: key.into() });
        }
        for bad in
            ["s3://", "s3://A", "s3://data/../x", "s3://data//x", "s3://data/a\nb", "s3://id:hunter2@data/x"]
        {
            let error = Place::read(bad).unwrap_err();
            assert!(error.is::<crate::Usage>() && !error.to_string().contains("hunter2"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "s3://\\PC{0,40}") {
            let _ = Place::read(&text);
        }
    }
}
