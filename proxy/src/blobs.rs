//! `GET` and `HEAD /v2/<name>/blobs/<digest>`: where the client is not known to be allowed the blob, by a manifest that the
//! origin gave it, the origin is asked; then the blob comes from the engine, or straight from the origin where the engine
//! cannot bring it. Called by [`crate::mirror`].

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use common::digest::Digest;
use common::piece::ByteRange;
use common::task::Source;
use common::wire::swarm::Priority;
use futures_util::stream::{Stream, StreamExt};
use http::StatusCode;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    RANGE,
};
use peer::engine::Request;
use peer::handle::Handle;

use crate::body;
use crate::direct::{BodyError, Direct};
use crate::error::{Refusal, Subject};
use crate::grants::Known;
use crate::path::{Name, blob_path};
use crate::permission::{WayOut, is_same, way_out};
use crate::proof::ContentDigest;
use crate::range::{Wanted, unchanged};
use crate::upstream::{Ask, BlobOrigin, Word, no_body};

/// Says what the content's digest is, in manifests and blobs alike.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Answers a request for a blob of the repository.
pub(crate) async fn answer(ask: &Ask, name: &Name, digest: ContentDigest) -> Result<Response, Refusal> {
    let path = blob_path(name, &digest);
    let granted = granted_length(ask, name, &path, &digest).await?;
    let by = ask.by(name);
    let etag = etag_of(&digest);
    if unchanged(&ask.headers, &etag) {
        return Ok(respond(StatusCode::NOT_MODIFIED, &digest, None, no_body()));
    }
    if ask.head {
        return Ok(respond(StatusCode::OK, &digest, granted, no_body()));
    }
    let origin = BlobOrigin::new(ask.upstream.clone(), path.clone(), digest.clone());
    if let ContentDigest::Sha256(known) = digest
        && let Some(handle) = of_engine(ask, &path, known, granted).await?
    {
        let (length, handle) = (handle.length(), handle.for_client(by));
        // Who reads a part of a layer may never want the next.
        if !ask.headers.contains_key(RANGE) {
            let (upstream, repository) = (&ask.upstream, ask.upstream.url(&name.path()));
            ask.ahead.gives_layer(&repository, known, &handle, (upstream.credentials(), upstream.trace()));
        }
        return Ok(serve(&ask.headers, &digest, length, |range| body::of_engine(handle, range, origin)));
    }
    let mut direct = Direct::connect(origin, granted).await?;
    match direct.total() {
        Some(length) => Ok(serve(&ask.headers, &digest, length, |range| {
            direct.want(range);
            body::of_origin(direct)
        })),
        None => Ok(respond(StatusCode::OK, &digest, None, stream_body(body::of_origin(direct)))),
    }
}

/// Whether this client may have the blob: the length that the origin or a manifest says, if one does.
async fn granted_length(
    ask: &Ask,
    name: &Name,
    path: &str,
    digest: &ContentDigest,
) -> Result<Option<u64>, Refusal> {
    let permission = ask.grants.of(&ask.upstream, &name.path());
    let sha256 = digest.sha256();
    if let Some(grant) = sha256.and_then(|digest| permission.allows(digest))
        && (grant.known.length.is_some() || !ask.head)
    {
        return Ok(grant.known.length);
    }
    let no_answer = match ask.upstream.word(path, None, Subject::Blob).await? {
        Word::Yes(_, length) => {
            sha256.iter().for_each(|digest| permission.grant(*digest, Known { length, ..Known::default() }));
            return Ok(length);
        }
        Word::No(said) => {
            sha256.iter().for_each(|digest| permission.refused_digest(&said, *digest));
            return Err(Refusal::Origin(said.into_failure(), Subject::Blob));
        }
        Word::None(refusal) => refusal,
    };
    match sha256.and_then(|digest| permission.remembers(digest)) {
        Some(grant) => {
            tracing::debug!(registry = ask.upstream.registry(), %digest, "no answer, but it was allowed: {no_answer}");
            Ok(grant.known.length)
        }
        None => Err(no_answer),
    }
}

/// The blob from the engine; `None` means that the origin is to be asked for it straight.
async fn of_engine(
    ask: &Ask,
    path: &str,
    digest: Digest,
    granted: Option<u64>,
) -> Result<Option<Handle>, Refusal> {
    let upstream = &ask.upstream;
    let source = Source::of_digest(upstream.url(path), digest);
    let (credentials, trace) = (upstream.credentials().clone(), upstream.trace());
    let request = Request { source, credentials, priority: Priority::Pull, trace };
    match upstream.engine().open(request).await {
        Ok(handle) if is_same(granted, handle.length()) => Ok(Some(handle)),
        Ok(handle) => {
            let (here, registry) = (handle.length(), upstream.registry());
            tracing::warn!(registry, %digest, here, there = granted, "the origin says another length: asking it straight");
            Ok(None)
        }
        Err(error) if way_out(&error) == WayOut::Direct => {
            tracing::warn!(registry = upstream.registry(), %digest, %error, "asking the origin straight");
            Ok(None)
        }
        Err(error) => Err(Refusal::of_engine(error, upstream.registry(), Subject::Blob)),
    }
}

/// The answer to a GET of content whose length is known; `open` brings the bytes of a range.
fn serve<S>(
    headers: &HeaderMap,
    digest: &ContentDigest,
    length: u64,
    open: impl FnOnce(ByteRange) -> S,
) -> Response
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
{
    let wanted = Wanted::of(headers, &etag_of(digest), length);
    let range = wanted.range(length);
    let (status, content_range) = match wanted {
        Wanted::Whole => (StatusCode::OK, None),
        Wanted::Part(part) => {
            let (first, last) = (part.start, part.end - 1);
            (StatusCode::PARTIAL_CONTENT, Some(format!("bytes {first}-{last}/{length}")))
        }
        Wanted::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Some(format!("bytes */{length}"))),
    };
    let body = if wanted == Wanted::Unsatisfiable { Body::empty() } else { stream_body(open(range)) };
    let mut response = respond(status, digest, Some(range.len()), body);
    if let Some(value) = content_range {
        response.headers_mut().insert(CONTENT_RANGE, text(&value));
    }
    response
}

fn respond(status: StatusCode, digest: &ContentDigest, length: Option<u64>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, text(&digest.to_string()));
    headers.insert(ETAG, text(&etag_of(digest)));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// A body that tells in the log why it was cut, for the client sees only that it was.
fn stream_body(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    Body::from_stream(stream.inspect(|item| {
        if let Err(error) = item {
            tracing::warn!(%error, "a blob's answer was cut");
        }
    }))
}

/// The strong validator of content with this digest.
pub(crate) fn etag_of(digest: &ContentDigest) -> String {
    format!("\"{digest}\"")
}

/// A header value of our own making.
pub(crate) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("invariant: digests, numbers and quotes are header text")
}
