//! What a tag means now: one question to the registry, a HEAD, and where it wants a token that, too. No retries: the next look is one.

use std::time::{Duration, SystemTime};

use common::digest::Digest;
use common::task::{Credentials, OriginFailure};
use peer::error::FetchError;
use peer::image::ImageError;
use peer::image::reference::Reference;
use peer::image::registry::Repository;
use peer::origin::{OriginClient, RetryPolicy, retry};

/// A registry takes a second or so.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What a registry is granted that has had too many questions and does not say for how long.
const REST: Duration = Duration::from_secs(300);

/// Why it is not known what a tag means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// In a sentence.
    pub(super) why: String,
    /// How long the registry wants to be left alone.
    pub(super) rest: Option<time::Duration>,
}

/// Asks what a tag means.
pub(super) async fn look(
    origin: OriginClient,
    image: &Reference,
    credentials: Credentials,
) -> Result<Digest, Failed> {
    let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let asked = async {
        let mut repository = Repository::of(origin.with_retry(once), image, credentials)?;
        repository.look(&image.wanted()).await
    };
    let answer = tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(Err(ImageError::Slow));
    answer.map(|(digest, _)| digest).map_err(|error| {
        let rest = match &error {
            ImageError::Fetch(FetchError::Origin(failure)) => rest(failure, SystemTime::now()),
            _ => None,
        };
        Failed { why: error.to_string(), rest: rest.and_then(|rest| rest.try_into().ok()) }
    })
}

/// For how long an answer asks to be left alone.
fn rest(failure: &OriginFailure, now: SystemTime) -> Option<Duration> {
    let said = failure.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    let said = said.and_then(|(_, value)| retry::retry_after(value, now));
    match failure.status {
        429 => Some(said.unwrap_or(REST)),
        503 => said,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_had_enough_is_left_alone() {
        let now = SystemTime::UNIX_EPOCH;
        for (status, said, expected) in [
            (429, Some("7"), Some(Duration::from_secs(7))),
            (429, None, Some(REST)),
            (429, Some("soon"), Some(REST)),
            (429, Some("Thu, 01 Jan 1970 01:00:00 GMT"), Some(Duration::from_secs(3600))),
            (503, Some("7"), Some(Duration::from_secs(7))),
            (503, None, None),
            (404, Some("7"), None),
        ] {
            let headers = said.iter().map(|said| ("Retry-After".to_owned(), (*said).to_owned())).collect();
            let failure = OriginFailure { status, headers, body: Vec::new() };
            assert_eq!(rest(&failure, now), expected, "{status} {said:?}");
        }
    }
}
