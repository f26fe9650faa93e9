//! The HTTP proxy: what a client would have asked of a host itself, and sends here because it was told to. Registries that
//! are spoken to in plain HTTP are served through the swarm, and so is what comes on an opened HTTPS connection ([`connect`]);
//! everything else is handed on as it came. Called by [`crate::mirror`].

pub(crate) mod connect;
mod leaves;

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use peer::engine::Engine;

use crate::error::{Refusal, Subject};
use crate::upstream::{end_to_end, relay};

pub use leaves::InterceptError;
pub(crate) use leaves::Leaves;

/// Who has handed a message on (RFC 9110, section 7.6.3).
const VIA: HeaderName = HeaderName::from_static("via");
/// Headers that are between a client and its proxy.
const FOR_THE_PROXY: [HeaderName; 2] =
    [HeaderName::from_static("proxy-authorization"), HeaderName::from_static("proxy-connection")];

/// Hands a request on to `url` and its answer back; `head` says that the answer has no body.
pub(crate) async fn pass(
    engine: &Engine,
    parts: Parts,
    body: Body,
    url: &str,
    registry: &str,
) -> Result<Response, Refusal> {
    let mut headers = end_to_end(&parts.headers);
    FOR_THE_PROXY.iter().for_each(|name| drop(headers.remove(name)));
    headers.append(VIA, via(engine));
    let head = parts.method == Method::HEAD;
    let has_body = has_body(&parts.headers);
    let body = has_body.then(|| body.into_data_stream().map(|chunk| chunk.map_err(axum::Error::into_inner)));
    let answer = engine.origin().pass(parts.method, url, &headers, body).await;
    let answer = answer.map_err(|error| Refusal::of_origin(error, registry, Subject::Registry))?;
    Ok(relay(answer, head))
}

/// Whether a request brings a body (RFC 9112, section 6.3).
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(http::header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    length || headers.contains_key(http::header::TRANSFER_ENCODING)
}

/// This node's mark on what it hands on.
pub(crate) fn via(engine: &Engine) -> HeaderValue {
    let text = format!("1.1 longshore-{}", engine.mark());
    HeaderValue::from_str(&text).expect("invariant: hex is header text")
}

/// Refuses what this node has handed on already: it would go round for ever.
pub(crate) fn check_loop(engine: &Engine, headers: &HeaderMap) -> Result<(), Refusal> {
    let mine = via(engine);
    let mark = mine.to_str().unwrap_or_default();
    let seen = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    match seen.flat_map(|value| value.split(',')).any(|hop| hop.trim() == mark) {
        true => Err(Refusal::Loop),
        false => Ok(()),
    }
}
