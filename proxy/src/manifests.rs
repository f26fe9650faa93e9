//! `GET` and `HEAD /v2/<name>/manifests/<reference>`: [`crate::resolve`] says which manifest is meant, whether the client
//! may have it, and of which type it is; the bytes then come through the engine by digest, so that a manifest leaves the
//! origin once, too. Called by [`crate::mirror`].

use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use common::digest::Digest;
use common::piece::ByteRange;
use common::task::{Source, TaskId};
use common::wire::swarm::Priority;
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use peer::engine::Request;
use peer::error::FetchError;
use peer::record::By;
use peer::record::book::Given;

use crate::blobs::{CONTENT_DIGEST, etag_of, text};
use crate::error::{Refusal, Subject};
use crate::grants::Grant;
use crate::manifest::{self, Named};
use crate::path::{Name, Reference, manifest_path};
use crate::permission::{Verdict, WayOut, judge, way_out};
use crate::proof::{ContentDigest, Proof};
use crate::range::unchanged;
use crate::resolve::{Resolved, resolve};
use crate::upstream::{Ask, With, digest_of, no_body};

/// The largest manifest: what the OCI distribution-spec asks registries to take.
const MAX_MANIFEST: u64 = 4 << 20;
/// What is asked for a client that takes anything. `*/*` alone is not enough: some registries then offer only the
/// oldest type that they know, and answer 404 where the manifest is of another.
const EVERY_TYPE: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*";

/// Answers a request for a manifest.
pub(crate) async fn answer(ask: &Ask, name: &Name, reference: &Reference) -> Result<Response, Refusal> {
    let accept = accept_of(&ask.headers);
    let (digest, Grant { known, since }, said) = match resolve(ask, name, reference, &accept).await? {
        Resolved::Manifest { digest, grant, said } => (digest, grant, said),
        Resolved::Straight(Some(said)) if ask.head => return Ok(said.into_head()),
        Resolved::Straight(_) => return direct(ask, name, reference, &accept).await,
    };
    if unchanged(&ask.headers, &etag_of(&digest)) {
        return Ok(respond(StatusCode::NOT_MODIFIED, Some(&digest), None, no_body()));
    }
    let by = ask.by(name);
    let media_type = known.media_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    if ask.head {
        if let Some(sha256) = digest.sha256() {
            remember(ask, by, reference, sha256, Vec::new());
        }
        return Ok(match said {
            Some(said) => said.into_head(),
            None => head(&digest, media_type.as_ref(), known.length),
        });
    }
    if let (Some(sha256), Some(media_type)) = (digest.sha256(), &media_type)
        && let Some(bytes) = of_engine(ask, name, (sha256, &by), &accept).await?
    {
        let parts = manifest::named(&bytes, media_type.to_str().unwrap_or_default(), false);
        remember(ask, by, reference, sha256, parts);
        gave(ask, name, &bytes, (Some(media_type), known.claimed), since);
        return Ok(respond_with(Some(&digest), Some(media_type), bytes));
    }
    direct(ask, name, reference, &accept).await
}

/// What the client is about to pull is one image, however many tasks it is.
fn remember(ask: &Ask, by: By, reference: &Reference, manifest: Digest, parts: Vec<Named>) {
    let parts = parts.iter().map(|part| TaskId::of_digest(part.digest)).collect();
    let manifest = TaskId::of_digest(manifest);
    let given = Given { by, reference: reference.to_string(), manifest, parts };
    ask.upstream.engine().book().gave(given);
}

/// The client gets this manifest, and will ask for what it names.
fn gave(
    ask: &Ask,
    name: &Name,
    bytes: &[u8],
    (media_type, claimed): (Option<&HeaderValue>, bool),
    since: Option<Instant>,
) {
    let media_type = media_type.and_then(|media_type| media_type.to_str().ok()).unwrap_or_default();
    // What anybody was given says nothing of what this client would be given by the origin.
    if let Some(since) = since {
        ask.grants.of(&ask.upstream, &name.path()).learn(bytes, media_type, claimed, since);
    }
    ask.ahead.gave_manifest(&ask.upstream.url(&name.path()), Digest::of(bytes), bytes);
}

/// All that the client takes. Clients send a line per type, and all of them count.
fn accept_of(headers: &HeaderMap) -> String {
    let lines: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let joined = lines.join(", ");
    let says_something =
        joined.split(',').map(str::trim).any(|range| !range.is_empty() && !range.starts_with("*/*"));
    if says_something { joined } else { EVERY_TYPE.to_owned() }
}

/// The manifest from the engine; `None` means that the origin is to be asked for it straight.
async fn of_engine(
    ask: &Ask,
    name: &Name,
    (digest, by): (Digest, &By),
    accept: &str,
) -> Result<Option<Bytes>, Refusal> {
    let upstream = &ask.upstream;
    let reference = Reference::Digest(ContentDigest::Sha256(digest));
    let url = upstream.url(&manifest_path(name, &reference));
    let source = Source { accept: Some(accept.to_owned()), ..Source::of_digest(url, digest) };
    let (credentials, trace) = (upstream.credentials().clone(), upstream.trace());
    let request = Request { source, credentials, priority: Priority::Pull, trace };
    match read(ask, request, by).await {
        Ok(bytes) => Ok(bytes),
        // A registry may know a manifest by its tag only (converted ones); it is asked once more, as the client did.
        Err(FetchError::Origin(failure)) if failure.status == 404 => Ok(None),
        Err(error) if way_out(&error) == WayOut::Direct => {
            tracing::warn!(registry = upstream.registry(), %digest, %error, "asking the origin straight");
            Ok(None)
        }
        Err(error) => Err(Refusal::of_engine(error, upstream.registry(), Subject::Manifest)),
    }
}

/// All bytes of a task that is small; `None` when it is not.
async fn read(ask: &Ask, request: Request, by: &By) -> Result<Option<Bytes>, FetchError> {
    let handle = ask.upstream.engine().open(request).await?.for_client(by.clone());
    if handle.length() > MAX_MANIFEST {
        return Ok(None);
    }
    let mut all = BytesMut::with_capacity(handle.length() as usize);
    let mut chunks = std::pin::pin!(handle.read(ByteRange::new(0, handle.length())));
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk?);
    }
    if all.len() as u64 == handle.length() {
        return Ok(Some(all.freeze()));
    }
    Err(FetchError::Swarm("the engine's bytes ended too early".to_owned()))
}

/// The origin's answer to the client's own question, checked where there is a digest to check it by.
async fn direct(ask: &Ask, name: &Name, reference: &Reference, accept: &str) -> Result<Response, Refusal> {
    let with = With { accept: Some(accept), ..With::default() };
    let path = manifest_path(name, reference);
    let answer = ask.upstream.ask(Method::GET, &path, with, Subject::Manifest).await?;
    let headers = answer.headers.clone();
    match judge(answer.status, &headers) {
        Verdict::NoRegistry => return Err(ask.upstream.unavailable("it answers with a web page")),
        Verdict::Refused => return Err(Refusal::Origin(answer.into_failure().await, Subject::Manifest)),
        Verdict::Granted { .. } => {}
    }
    let registry = ask.upstream.registry();
    let refused = |error| Refusal::of_origin(error, registry, Subject::Manifest);
    let bytes = answer.bytes(MAX_MANIFEST as usize).await.map_err(refused)?;
    let digest = digest_of(reference, &headers);
    if let Some(digest) = &digest {
        let mut proof = Proof::of(digest);
        proof.update(&bytes);
        if !proof.holds() {
            return Err(Refusal::Damaged { registry: registry.to_owned(), digest: digest.to_string() });
        }
    }
    let media_type = headers.get(CONTENT_TYPE);
    gave(ask, name, &bytes, (media_type, false), Some(Instant::now()));
    Ok(respond_with(digest.as_ref(), media_type, bytes))
}

/// The answer to a HEAD, without having asked the origin.
fn head(digest: &ContentDigest, media_type: Option<&HeaderValue>, length: Option<u64>) -> Response {
    let mut response = respond(StatusCode::OK, Some(digest), media_type, no_body());
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn respond_with(digest: Option<&ContentDigest>, media_type: Option<&HeaderValue>, bytes: Bytes) -> Response {
    let length = bytes.len();
    let mut response = respond(StatusCode::OK, digest, media_type, Body::from(bytes));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn respond(
    status: StatusCode,
    digest: Option<&ContentDigest>,
    media_type: Option<&HeaderValue>,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(media_type) = media_type {
        headers.insert(CONTENT_TYPE, media_type.clone());
    }
    if let Some(digest) = digest {
        headers.insert(CONTENT_DIGEST, text(&digest.to_string()));
        headers.insert(ETAG, text(&etag_of(digest)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(lines: &[&'static str]) -> String {
        accept_of(&lines.iter().map(|line| (ACCEPT, HeaderValue::from_static(line))).collect())
    }

    #[test]
    fn every_accept_line_counts() {
        let lines = ["application/vnd.oci.image.manifest.v1+json", "application/json;q=0.5, */*"];
        assert_eq!(accepting(&lines), lines.join(", "));
    }

    #[test]
    fn a_client_that_takes_anything_is_offered_every_type() {
        for lines in [&[][..], &["*/*"], &["*/*;q=0.8"], &[" */* ", ""]] {
            assert_eq!(accepting(lines), EVERY_TYPE, "{lines:?}");
        }
    }

    #[test]
    fn a_reference_by_digest_wins_over_what_the_origin_says() {
        let (mine, other) = (Digest::of(b"mine"), Digest::of(b"other"));
        let said = HeaderMap::from_iter([(CONTENT_DIGEST, text(&other.to_string()))]);
        let mine = ContentDigest::Sha256(mine);
        assert_eq!(digest_of(&Reference::Digest(mine.clone()), &said), Some(mine));
        let tag = Reference::Tag("latest".to_owned());
        assert_eq!(digest_of(&tag, &said), Some(ContentDigest::Sha256(other)));
        assert_eq!(digest_of(&tag, &HeaderMap::new()), None);
        let nonsense = HeaderMap::from_iter([(CONTENT_DIGEST, HeaderValue::from_static("sha256:x"))]);
        assert_eq!(digest_of(&tag, &nonsense), None);
    }
}
