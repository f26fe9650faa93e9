//! The HTTP proxy: what a client would have asked of a host itself, and sends here because it was told to. Registries that
//! are spoken to in plain HTTP are served through the swarm, and so is what comes on an opened HTTPS connection ([`connect`]);
//! everything else is handed on as it came. Called by [`crate::mirror`].

pub(crate) mod connect;
mod leaves;
mod pipe;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{PROXY_AUTHORIZATION, VIA};
use http::request::Parts;
use http::{HeaderMap, Method};
use peer::engine::Engine;

use crate::error::{Refusal, Subject};
use crate::upstream::{end_to_end, relay};

pub use leaves::InterceptError;
pub(crate) use leaves::Leaves;

/// Hands a request on to `url`, and its answer back.
pub(crate) async fn pass(
    engine: &Engine,
    parts: Parts,
    body: Body,
    url: &str,
    registry: &str,
) -> Result<Response, Refusal> {
    let mut headers = end_to_end(&parts.headers);
    // It is between a client and its proxy.
    headers.remove(PROXY_AUTHORIZATION);
    let head = parts.method == Method::HEAD;
    let body = (!body.is_end_stream())
        .then(|| body.into_data_stream().map(|chunk| chunk.map_err(axum::Error::into_inner)));
    let answer = engine.origin().pass(parts.method, url, &headers, body).await;
    let answer = answer.map_err(|error| Refusal::of_origin(error, registry, Subject::Registry))?;
    Ok(relay(answer, head))
}

/// Refuses what this cluster has asked itself: it would go round for ever.
pub(crate) fn check_loop(engine: &Engine, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(mark) = engine.origin().via().and_then(|mark| mark.to_str().ok()) else { return Ok(()) };
    let seen = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    match seen.flat_map(|value| value.split(',')).any(|hop| hop.trim() == mark) {
        true => Err(Refusal::Loop),
        false => Ok(()),
    }
}
