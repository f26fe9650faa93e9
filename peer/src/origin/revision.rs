//! Which revision of a URL is meant, where no digest says so: content behind a URL changes, a task never does. So
//! the revision that the origin names now becomes part of the task, and yesterday's copy is another task. Asked
//! with the client's own credentials, it is also the proof that this client may have the content.

use std::time::SystemTime;

use common::digest::Digest;
use common::task::{Credentials, Source};
use http::{HeaderMap, Method, StatusCode, header};

use super::OriginError;
use super::client::OriginClient;

/// Where the origin names no revision, content of the same minute is taken for the same: enough for a burst.
const UNNAMED_SECONDS: u64 = 60;

/// The source with its present revision in the tag. A source with a digest needs none.
///
/// # Errors
/// With the origin's answer, when it does not let this client have the content; when it cannot be asked.
pub async fn revised(
    client: &OriginClient,
    source: Source,
    credentials: &Credentials,
) -> Result<Source, OriginError> {
    if source.digest.is_some() {
        return Ok(source);
    }
    let answer = client.ask(Method::HEAD, &source.url, &HeaderMap::new(), credentials).await?;
    let unasked = matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
    if !answer.status.is_success() && !unasked {
        return Err(OriginError::Answer(answer.into_failure().await));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let revision = revision(&answer.headers).unwrap_or_else(|| format!("minute {}", now / UNNAMED_SECONDS));
    Ok(Source { tag: format!("{}\n{revision}", source.tag), ..source })
}

/// What tells this revision from others: a strong entity tag, or else the time of the last change with the length.
fn revision(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| Digest::of(value.as_bytes()).hex());
    let weak = headers.get(header::ETAG).is_some_and(|tag| tag.as_bytes().starts_with(b"W/"));
    if let Some(tag) = text(header::ETAG).filter(|_| !weak) {
        return Some(format!("tag {tag}"));
    }
    let changed = text(header::LAST_MODIFIED)?;
    Some(format!("changed {changed} {}", text(header::CONTENT_LENGTH).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), header::HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_change_that_the_origin_names_is_another_revision() {
        let one = headers(&[(header::ETAG, "\"a\"")]);
        let two = headers(&[(header::ETAG, "\"b\"")]);
        assert_ne!(revision(&one), revision(&two));
        let (monday, tuesday) = ("Mon, 16 Nov 2026 08:00:00 GMT", "Tue, 17 Nov 2026 08:00:00 GMT");
        let one = headers(&[(header::LAST_MODIFIED, monday), (header::CONTENT_LENGTH, "5")]);
        let two = headers(&[(header::LAST_MODIFIED, tuesday), (header::CONTENT_LENGTH, "5")]);
        assert_ne!(revision(&one), revision(&two));
    }

    #[test]
    fn a_weak_tag_names_no_revision() {
        assert_eq!(revision(&headers(&[(header::ETAG, "W/\"a\"")])), None);
    }
}
