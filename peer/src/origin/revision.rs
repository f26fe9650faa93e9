//! What is asked before content is handed out through a URL: may this client have it, and which revision is meant?
//! The origin is asked with the client's own credentials, also where the content is here already: a copy is no
//! permission. Content behind a URL changes and a task never does, so where no digest says what is meant, the
//! revision that the origin names now becomes part of the task, and yesterday's copy is another task.

use std::time::SystemTime;

use common::digest::Digest;
use common::task::{Credentials, Source};
use http::{HeaderMap, Method, StatusCode, header};

use super::OriginError;
use super::client::OriginClient;
use super::plan::ContentRange;

/// Where the origin names no revision, content of the same minute is taken for the same: enough for a burst.
const UNNAMED_SECONDS: u64 = 60;

/// What an origin says of a URL to a client that may have its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What was asked for; without a digest, with its present revision in the tag.
    pub source: Source,
    /// Whether content of the same task is the same content: there is a digest, or the origin names its revisions.
    pub lasting: bool,
    /// The content's length, if it is said.
    pub length: Option<u64>,
    /// When the content was changed last, if it is said.
    pub modified: Option<SystemTime>,
}

/// The source, if the client may have it; without a digest, with its present revision in the tag.
///
/// # Errors
/// As [`look`].
pub async fn revised(
    client: &OriginClient,
    source: Source,
    credentials: &Credentials,
) -> Result<Source, OriginError> {
    look(client, source, credentials).await.map(|look| look.source)
}

/// What there is behind a URL now, if the client may have it.
///
/// # Errors
/// With the origin's answer, when it does not let this client have the content; when it cannot be asked.
pub async fn look(
    client: &OriginClient,
    source: Source,
    credentials: &Credentials,
) -> Result<Look, OriginError> {
    let mut answer = client.ask(Method::HEAD, &source.url, &HeaderMap::new(), credentials).await?;
    let headless = [StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED]
        .contains(&answer.status);
    if headless {
        // A server that knows no HEAD, or a URL signed for GET alone: asked for as little as can be.
        let first = HeaderMap::from_iter([(header::RANGE, header::HeaderValue::from_static("bytes=0-0"))]);
        answer = client.ask(Method::GET, &source.url, &first, credentials).await?;
    }
    // An empty body has no first byte.
    let empty = answer.status == StatusCode::RANGE_NOT_SATISFIABLE;
    if !answer.status.is_success() && !empty {
        return Err(OriginError::Answer(answer.into_failure().await));
    }
    let text = |name| answer.headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let length = match answer.status {
        StatusCode::PARTIAL_CONTENT => {
            text(header::CONTENT_RANGE).and_then(ContentRange::parse).and_then(|said| said.total)
        }
        _ if empty => None,
        _ => answer.length(),
    };
    let modified = text(header::LAST_MODIFIED).and_then(|date| httpdate::parse_http_date(date).ok());
    let revision = revision(&answer.headers);
    let lasting = source.digest.is_some() || revision.is_some();
    let source = if source.digest.is_some() { source } else { with_revision(source, revision) };
    Ok(Look { source, lasting, length, modified })
}

fn with_revision(source: Source, revision: Option<String>) -> Source {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let revision = revision.unwrap_or_else(|| format!("minute {}", now / UNNAMED_SECONDS));
    Source { tag: format!("{}\n{revision}", source.tag), ..source }
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
