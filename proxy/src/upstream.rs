//! One client's request seen from the origin's side: which registry it is for, with whose credentials it is asked,
//! and how the registry's answers come back. Made by [`crate::mirror`] for every request, used by all handlers.
//!
//! # Invariants
//! The client's `Authorization` goes into [`Credentials`] and nowhere else. Nothing else of the client's headers is
//! passed on but what a handler names.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::response::Response;
use common::task::{Credentials, OriginFailure};
use common::telemetry::trace::{Side, Span, TraceContext};
use common::wire::inquiry::Inquiry;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode};
use peer::engine::Engine;
use peer::origin::answer::FAILURE_HEADERS;
use peer::origin::{Answer, RetryPolicy};
use peer::record::By;

use crate::blobs::CONTENT_DIGEST;
use crate::direct::{Cause, Opening, Origin};
use crate::error::{Refusal, Subject};
use crate::grants::Grants;
use crate::path::{Name, Reference};
use crate::permission::{Verdict, is_no_answer, judge};
use crate::proof::ContentDigest;
use crate::readahead::ReadAhead;

/// A client waits for what is asked straight: a hiccup of the origin is masked, a longer failure is told soon, so that
/// the client can go elsewhere.
const ATTEMPTS: u32 = 3;
/// The longest refusal that is remembered word for word.
const MAX_WORDS: usize = 4 * 1024;
/// Headers that belong to one connection (RFC 9110, section 7.6.1, and what older software sends).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The registry that a request is for, as this client may see it.
pub(crate) struct Upstream {
    engine: Engine,
    registry: String,
    base: String,
    credentials: Credentials,
    trace: Option<TraceContext>,
}

/// One client's request.
pub(crate) struct Ask {
    /// Where the answer is had.
    pub(crate) upstream: Arc<Upstream>,
    /// The client's headers.
    pub(crate) headers: HeaderMap,
    /// What the client calls itself, and when it asked.
    pub(crate) client: Arc<str>,
    pub(crate) asked: Instant,
    /// Whether only the headers of the answer are wanted.
    pub(crate) head: bool,
    /// Fetches what will be asked for next.
    pub(crate) ahead: ReadAhead,
    /// What clients were allowed before.
    pub(crate) grants: Grants,
}

/// An origin's answer without content.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// What the origin said of a refusal, where it was asked for its words.
    pub(crate) body: Bytes,
}

/// What an origin thinks of a client's wish.
pub(crate) enum Word {
    /// The client may have it; its length, where the origin says one.
    Yes(Said, Option<u64>),
    /// It may not, or there is no such thing.
    No(Said),
    /// The origin gives no answer; this is what the client is told if nothing is known from before.
    None(Refusal),
}

/// What is wanted of an origin's refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Nothing: a HEAD will do.
    Unsaid,
    /// Its body, which takes a GET.
    Wanted,
}

/// What is asked of the origin beside the method and the path.
#[derive(Debug, Default)]
pub(crate) struct With<'a> {
    /// The media types that are taken.
    pub(crate) accept: Option<&'a str>,
    /// The first byte that is wanted.
    pub(crate) from: u64,
}

// === impl Ask ===

impl Ask {
    /// Who asks, for the record of the pull; that it may have it is known from now on.
    pub(crate) fn by(&self, name: &Name) -> By {
        let name = format!("{}/{name}", self.upstream.registry());
        By { name: name.into(), client: self.client.clone(), asked: self.asked, permitted: Instant::now() }
    }
}

// === impl Upstream ===

impl Upstream {
    /// The registry `name` for a client that sent `headers`.
    pub(crate) fn new(
        engine: &Engine,
        name: &str,
        headers: &HeaderMap,
        trace: Option<TraceContext>,
    ) -> Result<Self, Refusal> {
        // The name is not quoted: whoever writes `user:password@host` there shall not read it in a log.
        let refused = |_| Refusal::Registry("the registry that is meant is not HOST or HOST:PORT".to_owned());
        let base = engine.origin().registries().base_url(name).map_err(refused)?;
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credentials = authorization.map_or_else(Credentials::none, Credentials::authorization);
        Ok(Self { engine: engine.clone(), registry: name.to_owned(), base, credentials, trace })
    }

    /// The registry's name.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The node's engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the client's request is part of, if that is traced.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// What opens the registry for this client.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The origin's URL of a path under `/v2/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Asks the origin; every answer is one, whatever its status. `subject` is what a failure is about.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        with: With<'_>,
        subject: Subject,
    ) -> Result<Answer, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = with.accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
            headers.insert(ACCEPT, accept);
        }
        if with.from > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", with.from))
        {
            headers.insert(RANGE, range);
        }
        let origin =
            self.engine.origin().with_retry(RetryPolicy { attempts: ATTEMPTS, ..RetryPolicy::default() });
        let answer = origin.ask(method, &self.url(path), &headers, &self.credentials).await;
        answer.map_err(|error| Refusal::of_origin(error, &self.registry, subject))
    }

    /// Asks the origin what it thinks of this client's wish, once for all who wish the same at this moment.
    pub(crate) async fn inquire(
        &self,
        path: &str,
        accept: Option<&str>,
        words: Words,
        subject: Subject,
    ) -> Result<Said, Refusal> {
        let inquiry = Inquiry {
            url: self.url(path),
            accept: accept.map(str::to_owned),
            credentials: self.credentials.clone(),
            words: words == Words::Wanted,
        };
        let mut span = Span::within("proxy.permission", self.trace, Side::Client);
        span.note("server.address", self.registry.as_str());
        let answered = self.engine.inquire(inquiry, span.context()).await;
        match &answered {
            Ok(answered) => span.note("http.response.status_code", answered.status),
            Err(_) => span.fail(),
        }
        drop(span);
        let answered = answered.map_err(|error| Refusal::of_engine(error, &self.registry, subject))?;
        let status = StatusCode::from_u16(answered.status);
        let status = status.map_err(|_| self.unavailable("its status is no HTTP status"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in answered.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                headers.append(name, value);
            }
        }
        Ok(Said { status, headers, body: answered.body.into() })
    }

    /// Whether the origin would give the client what is at this path.
    pub(crate) async fn word(
        &self,
        path: &str,
        accept: Option<&str>,
        subject: Subject,
    ) -> Result<Word, Refusal> {
        let said = match self.inquire(path, accept, Words::Unsaid, subject).await {
            Ok(said) => said,
            Err(refusal) if refusal.is_no_answer() => return Ok(Word::None(refusal)),
            Err(refusal) => return Err(refusal),
        };
        Ok(match judge(said.status, &said.headers) {
            Verdict::Granted { length } => Word::Yes(said, length),
            Verdict::NoRegistry => Word::None(self.unavailable("it answers with a web page")),
            Verdict::Refused if is_no_answer(said.status) => {
                Word::None(Refusal::Origin(said.into_failure(), subject))
            }
            Verdict::Refused => Word::No(said),
        })
    }

    /// A failure of this registry in words.
    pub(crate) fn unavailable(&self, why: impl Into<String>) -> Refusal {
        Refusal::Unavailable { registry: self.registry.clone(), why: why.into() }
    }
}

/// The origin's answer as the client's: status, headers and body as they come. `head` says that no body will.
pub(crate) fn relay(answer: Answer, head: bool) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status;
    *response.headers_mut() = end_to_end(&answer.headers);
    *response.body_mut() = if head { no_body() } else { Body::from_stream(answer.bytes_stream()) };
    response
}

// === impl Said ===

impl Said {
    /// What the client is to see of a refusal.
    pub(crate) fn into_failure(self) -> OriginFailure {
        let Self { status, headers, body } = self;
        let mut kept = Vec::new();
        for name in FAILURE_HEADERS {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            kept.extend(values.map(|value| (name.to_owned(), value.to_owned())));
        }
        OriginFailure { status: status.as_u16(), headers: kept, body: body.into() }
    }

    /// The same, with no more than a client needs to know how to ask.
    pub(crate) fn brief(&self) -> Self {
        let mut headers = HeaderMap::new();
        for name in FAILURE_HEADERS.map(HeaderName::from_static) {
            headers.extend(
                self.headers.get_all(&name).iter().take(4).map(|value| (name.clone(), value.clone())),
            );
        }
        let body = if self.body.len() <= MAX_WORDS { self.body.clone() } else { Bytes::new() };
        Self { status: self.status, headers, body }
    }

    /// The digest of what the origin means: the reference's own, else what it says.
    pub(crate) fn digest_of(&self, reference: &Reference) -> Option<ContentDigest> {
        digest_of(reference, &self.headers)
    }

    /// The answer to a client's HEAD.
    pub(crate) fn into_head(self) -> Response {
        let mut response = Response::new(no_body());
        *response.status_mut() = self.status;
        *response.headers_mut() = end_to_end(&self.headers);
        response
    }
}

/// The digest of what the origin means: the reference's own, else what its headers say.
pub(crate) fn digest_of(reference: &Reference, headers: &HeaderMap) -> Option<ContentDigest> {
    match reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(_) => headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok(),
    }
}

/// The body of an answer to a HEAD. A stream, because the length of a body that is known to be empty would be taken
/// for the content's.
pub(crate) fn no_body() -> Body {
    Body::from_stream(stream::empty::<Result<Bytes, std::convert::Infallible>>())
}

/// The headers without those of the connection that they came by.
pub(crate) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')) {
        kept.remove(name.trim());
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// A blob at the origin, for streaming it without the engine.
#[derive(Clone)]
pub(crate) struct BlobOrigin {
    upstream: Arc<Upstream>,
    path: String,
    digest: ContentDigest,
}

// === impl BlobOrigin ===

impl BlobOrigin {
    /// The blob at `path`.
    pub(crate) fn new(upstream: Arc<Upstream>, path: String, digest: ContentDigest) -> Self {
        Self { upstream, path, digest }
    }

    async fn ask_from(&self, from: u64) -> Result<Opening, Refusal> {
        let with = With { from, ..With::default() };
        let answer = self.upstream.ask(Method::GET, &self.path, with, Subject::Blob).await?;
        let (start, total) = match answer.status {
            StatusCode::OK => (0, answer.length()),
            StatusCode::PARTIAL_CONTENT => content_range(&answer.headers)
                .ok_or_else(|| self.upstream.unavailable("it sent a part without a Content-Range"))?,
            _ => return Err(Refusal::Origin(answer.into_failure().await, Subject::Blob)),
        };
        let bytes = answer.bytes_stream().map(|chunk| chunk.map_err(Cause::from)).boxed();
        Ok(Opening { start, total, bytes })
    }
}

impl Origin for BlobOrigin {
    fn open(&self, from: u64) -> BoxFuture<'_, Result<Opening, Refusal>> {
        Box::pin(self.ask_from(from))
    }

    fn damaged(&self) -> Refusal {
        Refusal::Damaged { registry: self.upstream.registry.clone(), digest: self.digest.to_string() }
    }

    fn digest(&self) -> &ContentDigest {
        &self.digest
    }
}

/// First byte and total length of `bytes FIRST-LAST/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) =
        headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("link", "</v2/x/tags/list?n=2>; rel=\"next\""),
            ("www-authenticate", "Basic realm=\"a\""),
            ("www-authenticate", "Bearer realm=\"b\""),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let kept = end_to_end(&headers);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept.get_all("www-authenticate").iter().count(), 2);
        assert!(kept.contains_key("link"));
    }

    #[test]
    fn content_ranges_are_read() {
        let read = |text: &'static str| {
            content_range(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]))
        };
        assert_eq!(read("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(read("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "items 5-9/10", "bytes 5/10", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_content_range_panics(text in "(bytes )?[0-9*/ -]{0,30}") {
            let _ = content_range(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_str(&text).unwrap())]));
        }
    }
}
