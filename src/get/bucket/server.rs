//! Asks and signs by the library that the seed's bucket uses, too.
//!
//! Credentials are, in this order: `--s3-credentials-file`, those of AWS's environment variables (also for web identities and
//! containers), `~/.aws/credentials`. With none of them requests are unsigned, as for a public bucket: the address that only
//! machines in AWS have is not asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use common::task::Source;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore as _;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer as _;
use supernode::vault::s3::{self, cause};
use supernode::vault::{CacheError, CacheOptions};

use super::{Buckets, Object, Place};
use crate::get::wanted::Remote;
use crate::usage;
use peer::origin::query::Parted;

/// A long download may ask for its last range so much later; temporary credentials end their signatures earlier.
const SIGNED_FOR: Duration = Duration::from_secs(12 * 60 * 60);
/// By each of these the library has credentials.
const ENVIRONMENT: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

pub(super) async fn sign(buckets: &Buckets, object: &Object) -> anyhow::Result<Remote> {
    let (client, signed) = client(buckets, &object.place.bucket)?;
    let path = Path::parse(&object.place.key).context("its key cannot be asked for")?;
    let mut url = client
        .signed_url(hyper::Method::GET, &path, SIGNED_FOR)
        .await
        .map_err(|error| anyhow!("its URL cannot be signed: {}", cause(&error)))?;
    let Parted { name, key } = buckets.filter.part(url.query().unwrap_or_default());
    url.set_query((!name.is_empty()).then_some(name.as_str()));
    let mut credentials = object.credentials.clone();
    if signed {
        credentials.add_query(key);
    }
    let source = Source { url: url.into(), digest: object.digest, tag: object.tag.clone(), accept: None };
    Ok(Remote { source, credentials })
}

pub(super) fn below(
    buckets: &Buckets,
    prefix: &Place,
) -> anyhow::Result<BoxStream<'static, anyhow::Result<String>>> {
    let (client, _) = client(buckets, &prefix.bucket)?;
    let path = Path::parse(&prefix.key).context("its keys cannot be asked for")?;
    let listed = client.list(Some(&path).filter(|path| !path.as_ref().is_empty()));
    let shown = prefix.to_string();
    let keys = listed.map_ok(|object| object.location.to_string());
    Ok(keys.map_err(move |error| anyhow!("what is in {shown} cannot be listed: {}", cause(&error))).boxed())
}

/// The client, and whether it signs.
fn client(buckets: &Buckets, bucket: &str) -> anyhow::Result<(AmazonS3, bool)> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let by_environment = buckets.credentials_file.is_none() && ENVIRONMENT.iter().any(set);
    let credentials_file =
        buckets.credentials_file.clone().or_else(|| left_by_aws().filter(|_| !by_environment));
    let signed = by_environment || credentials_file.is_some();
    let options = CacheOptions {
        bucket: bucket.to_owned(),
        prefix: String::new(),
        endpoint: buckets.endpoint.clone(),
        region: buckets.region.clone(),
        credentials_file,
    };
    let client = s3::open(&options, signed).map_err(|error| match error {
        CacheError::Credentials { .. } => usage(error),
        other => anyhow!(other),
    })?;
    Ok((client, signed))
}

/// The file that Amazon's own command keeps, if it is there.
fn left_by_aws() -> Option<PathBuf> {
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").filter(|path| !path.is_empty());
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws/credentials"));
    named.map(PathBuf::from).or_else(usual).filter(|path| path.is_file())
}
