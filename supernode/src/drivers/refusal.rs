//! Why a sender's request is refused, and the bodies that requests are read from. Used by all drivers.
//!
//! # Invariants
//! - Nothing of a body is in an answer to one that cannot be read: it may hold a registry's token.

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use peer::local_api::ApiError;
use serde::Deserialize;
use serde_json::error::Category;

use crate::preheat::job::Refused;

/// When a sender is to come again: jobs take longer, but a place among them may be free at any time.
const RETRY_AFTER: &str = "10";

/// Why not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The content type is that of no JSON. A web page of somebody else can send such a body unasked.
    #[error("the body must be JSON, and Content-Type must say so: application/json")]
    NoJson,
    /// More than is read.
    #[error("the body is larger than {0} bytes: send fewer events in a request")]
    Large(usize),
    /// More than are taken at once.
    #[error("the body has more than {0} events: send fewer in a request")]
    Many(usize),
    /// It broke off.
    #[error("the body broke off")]
    Broken,
    /// Not JSON, or of another shape.
    #[error("the body {0}, at line {1}, column {2}: docs/harbor.md shows what is understood")]
    Unread(&'static str, usize, usize),
    /// It is understood, and cannot be done.
    #[error("{0}")]
    Unfit(String),
    /// More is waiting than may.
    #[error("too many pushes wait to be preheated: send it again later")]
    Full,
    /// The engine's own reason.
    #[error(transparent)]
    Job(#[from] Refused),
}

// === impl Refusal ===

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Large(_) | Self::Many(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken | Self::Unread(..) => StatusCode::BAD_REQUEST,
            Self::Unfit(_) | Self::Job(Refused::Nonsense(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Job(Refused::Unknown(_)) => StatusCode::NOT_FOUND,
            Self::Full | Self::Job(Refused::Crowded(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Job(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut answer = (status, Json(ApiError { error: self.to_string() })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        answer
    }
}

/// A request's body of at most so many bytes.
pub(super) async fn body(request: Request, most: usize) -> Result<Bytes, Refusal> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(Refusal::NoJson);
    }
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > most as u64) {
        return Err(Refusal::Large(most));
    }
    to_bytes(body, most).await.map_err(|error| {
        match error.into_inner().is::<http_body_util::LengthLimitError>() {
            true => Refusal::Large(most),
            false => Refusal::Broken,
        }
    })
}

/// `application/json`, and whatever else is written in JSON: registries' events have a type of their own.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

/// What a body says.
pub(super) fn json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "is not of the expected shape",
            Category::Eof => "ends too early",
            Category::Syntax | Category::Io => "is not JSON",
        };
        Refusal::Unread(what, error.line(), error.column())
    })
}
