//! An origin's answer whose body is still to come: as a stream, whole, or as the failure that a client is to see. Made by
//! [`super::client`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use common::task::OriginFailure;
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use http::header::{self, HeaderMap};

use super::retry::{self, Outcome};
use super::{Cause, OriginError, label};

/// An error's body is small; whoever takes longer keeps the rest of it.
const FAILURE_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of a failure that its client needs.
pub const FAILURE_HEADERS: [&str; 4] =
    ["content-type", "www-authenticate", "retry-after", "docker-distribution-api-version"];

/// An origin's answer with its body still to come.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// All headers, as they came.
    pub headers: HeaderMap,
    response: reqwest::Response,
    idle: Duration,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(response: reqwest::Response, idle: Duration) -> Self {
        Self { status: response.status(), headers: response.headers().clone(), response, idle }
    }

    /// The body's length as the header says it.
    pub fn length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The URL that answered, after all redirects, as it may be shown.
    pub(super) fn label(&self) -> String {
        label(self.response.url())
    }

    /// What the retries are to make of it.
    pub(super) fn outcome(&self) -> Outcome {
        let value = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = value.and_then(|value| retry::retry_after(value, SystemTime::now()));
        Outcome::Answered { status: self.status, retry_after }
    }

    /// The body as it comes. It ends with an error when it breaks off or is silent for too long; the time in which
    /// nobody reads does not count.
    pub fn bytes_stream(self) -> impl Stream<Item = Result<Bytes, OriginError>> + Send + Unpin + 'static {
        let (url, idle) = (Arc::<str>::from(self.label()), self.idle);
        let chunks = stream::unfold(Some(self.response), move |response| {
            let url = url.clone();
            async move {
                let mut response = response?;
                let source: Cause = match tokio::time::timeout(idle, response.chunk()).await {
                    Ok(Ok(chunk)) => return chunk.map(|chunk| (Ok(chunk), Some(response))),
                    Ok(Err(error)) => error.without_url().into(),
                    Err(elapsed) => elapsed.into(),
                };
                Some((Err(OriginError::Truncated { url: url.to_string(), source }), None))
            }
        });
        Box::pin(chunks)
    }

    /// The whole body, if it is at most `limit` bytes.
    ///
    /// # Errors
    /// When it is longer, or breaks off.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, OriginError> {
        let too_large = OriginError::TooLarge { url: self.label(), limit: limit as u64 };
        // Not the header: that of a HEAD tells of a body that does not come.
        if self.response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large);
        }
        let mut stream = self.bytes_stream();
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > limit {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// What the client is to see of an answer that is no success. Its body is cut at [`OriginFailure::MAX_BODY`], and
    /// where it breaks off: a failure with half a page is still that failure.
    pub async fn into_failure(self) -> OriginFailure {
        let mut failure =
            OriginFailure { status: self.status.as_u16(), headers: Vec::new(), body: Vec::new() };
        for name in FAILURE_HEADERS {
            for value in self.headers.get_all(name) {
                if let Ok(value) = value.to_str() {
                    failure.headers.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        let mut stream = self.bytes_stream();
        let body = &mut failure.body;
        let reading = async {
            while let Some(Ok(chunk)) = stream.next().await {
                let room = OriginFailure::MAX_BODY - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() == OriginFailure::MAX_BODY {
                    break;
                }
            }
        };
        if tokio::time::timeout(FAILURE_BODY_TIMEOUT, reading).await.is_err() {
            tracing::debug!(status = failure.status, "the rest of the failure's body did not come in time");
        }
        failure
    }
}
