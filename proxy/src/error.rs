//! What a client is told when it does not get what it asked for. Every handler here fails with a [`Refusal`], which
//! becomes the JSON body of the OCI distribution-spec (section "Error codes"), or the origin's own answer.
//!
//! Two codes of Docker's registry that the specification lacks are used: `UNKNOWN`, and `UNAVAILABLE` for whatever
//! is likely to pass or to work elsewhere. The latter always has a 5xx status: runtimes then ask the registry itself.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use common::task::OriginFailure;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use peer::error::FetchError;
use peer::origin::OriginError;
use serde_json::json;

use crate::path::PathError;

/// Seconds after which a client that was turned away may come again.
const COME_AGAIN: &str = "1";

/// What an origin's refusal was about; it says which code fits where the origin sent no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A blob.
    Blob,
    /// A manifest.
    Manifest,
    /// A repository or the registry itself.
    Registry,
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The registry that `?ns=` or the settings name.
    #[error("{0}")]
    Registry(String),
    /// Something else than GET or HEAD.
    #[error("this mirror is for pulling: only GET and HEAD are answered; push to the registry itself")]
    Method,
    /// Asked as an HTTP proxy, which this is not.
    #[error(
        "this is no HTTP proxy: it listens beyond loopback; set forward-proxy = true to make it one, or use it as a mirror"
    )]
    NoProxy,
    /// A push to a mirror that does not say where to.
    #[error("this push may be meant for two registries: say which by ?ns=, or push to the registry itself")]
    Ambiguous,
    /// This node has handed the request on to itself.
    #[error("the registry that is meant is this proxy itself: correct --registry, or the client's mirror")]
    Loop,
    /// More headers than a request may have.
    #[error("the request's headers are too long: a registry would not take them either")]
    Headers,
    /// The configuration forbids the origin.
    #[error("{0}")]
    Forbidden(String),
    /// The origin's own answer.
    #[error("{0}")]
    Origin(OriginFailure, Subject),
    /// The origin cannot be reached or used.
    #[error("registry {registry} cannot be used: {why}")]
    Unavailable {
        /// Its name.
        registry: String,
        /// The chain of causes in words.
        why: String,
    },
    /// The bytes that came do not have their digest.
    #[error("what registry {registry} sent does not have the digest {digest}; nothing of it was handed on")]
    Damaged {
        /// The registry's name.
        registry: String,
        /// The digest that was promised.
        digest: String,
    },
    /// The request waited too long for its turn.
    #[error("this mirror is serving as many requests as it may; ask again or ask the registry itself")]
    Busy,
    /// The node stops.
    #[error("longshore is shutting down")]
    Closing,
}

// === impl Refusal ===

impl Refusal {
    /// What the engine's failure means to a client of `registry`.
    pub(crate) fn of_engine(error: FetchError, registry: &str, subject: Subject) -> Self {
        match error {
            FetchError::Origin(failure) => Self::Origin(failure, subject),
            FetchError::Forbidden(why) => Self::Forbidden(why),
            FetchError::Poisoned { task } => {
                Self::Damaged { registry: registry.to_owned(), digest: format!("sha256:{task}") }
            }
            FetchError::Closing => Self::Closing,
            other => Self::Unavailable { registry: registry.to_owned(), why: chain(&other) },
        }
    }

    /// What the origin client's failure means to a client of `registry`.
    pub(crate) fn of_origin(error: OriginError, registry: &str, subject: Subject) -> Self {
        Self::of_engine(error.into(), registry, subject)
    }

    /// Status and code.
    fn spoken(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Path(PathError::Elsewhere(_)) => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Path(PathError::Name(_)) | Self::Registry(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Path(PathError::Reference(_)) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::Path(PathError::Digest(_)) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Headers => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "UNSUPPORTED"),
            Self::NoProxy => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Ambiguous => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "UNSUPPORTED"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Origin(failure, subject) => code_of(failure.status, *subject),
            Self::Unavailable { .. } | Self::Damaged { .. } => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            Self::Busy | Self::Closing => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        }
    }

    /// Whether it belongs to a pull that goes well: a 401 tells the client where to get its token.
    pub(crate) fn is_ordinary(&self) -> bool {
        matches!(self, Self::Origin(failure, _) if failure.status == 401)
    }

    /// Whether the origin gave no answer to the question: what it said before is still good for a while.
    pub(crate) fn is_no_answer(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether somebody who looks after the node should see it: nothing that a client can cause at will.
    pub(crate) fn is_trouble(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Damaged { .. } | Self::Busy)
    }
}

/// The status of an origin's failure, and the code for it.
fn code_of(status: u16, subject: Subject) -> (StatusCode, &'static str) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let code = match (status, subject) {
        (StatusCode::UNAUTHORIZED, _) => "UNAUTHORIZED",
        (StatusCode::FORBIDDEN, _) => "DENIED",
        (StatusCode::NOT_FOUND, Subject::Blob) => "BLOB_UNKNOWN",
        (StatusCode::NOT_FOUND, Subject::Manifest) => "MANIFEST_UNKNOWN",
        (StatusCode::NOT_FOUND, Subject::Registry) => "NAME_UNKNOWN",
        (StatusCode::METHOD_NOT_ALLOWED, _) => "UNSUPPORTED",
        (StatusCode::TOO_MANY_REQUESTS, _) => "TOOMANYREQUESTS",
        (status, _) if status.is_server_error() => "UNAVAILABLE",
        _ => "UNKNOWN",
    };
    (status, code)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn json_body(code: &str, message: &str) -> Vec<u8> {
    json!({ "errors": [{ "code": code, "message": message, "detail": null }] }).to_string().into_bytes()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.spoken();
        let message = self.to_string();
        let mut headers = Vec::new();
        let body = match self {
            Self::Origin(failure, _) if !failure.body.is_empty() => {
                headers = failure.headers;
                failure.body
            }
            Self::Origin(failure, _) => {
                headers = failure.headers;
                // A HEAD's answer has no body, and its type and length are those of a body that nobody sent.
                headers.retain(|(name, _)| !name.starts_with("content-"));
                json_body(code, &message)
            }
            _ => json_body(code, &message),
        };
        let length = body.len();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let sent = response.headers_mut();
        for (name, value) in headers {
            let pair = (HeaderName::try_from(name), HeaderValue::try_from(value));
            if let (Ok(name), Ok(value)) = pair {
                sent.append(name, value);
            }
        }
        sent.insert(CONTENT_LENGTH, length.into());
        sent.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                sent.entry(ALLOW).or_insert(HeaderValue::from_static("GET, HEAD"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                sent.entry(RETRY_AFTER).or_insert(HeaderValue::from_static(COME_AGAIN));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(refusal: Refusal) -> (u16, http::HeaderMap, serde_json::Value) {
        let (parts, body) = refusal.into_response().into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        assert_eq!(parts.headers[CONTENT_LENGTH], bytes.len().to_string());
        let json = serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null);
        (parts.status.as_u16(), parts.headers, json)
    }

    fn refused(status: u16, body: &[u8]) -> OriginFailure {
        let challenge = r#"Bearer realm="https://auth.example/token",service="r""#;
        OriginFailure {
            status,
            headers: vec![
                ("www-authenticate".to_owned(), challenge.to_owned()),
                ("content-type".to_owned(), "text/plain".to_owned()),
            ],
            body: body.to_vec(),
        }
    }

    #[tokio::test]
    async fn a_refusal_of_our_own_has_the_body_of_the_specification() {
        let (status, headers, json) = told(Refusal::Method).await;
        assert_eq!((status, headers[ALLOW].to_str().unwrap()), (405, "GET, HEAD"));
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(json["errors"][0]["code"], "UNSUPPORTED");
        assert!(json["errors"][0]["message"].as_str().unwrap().contains("pull"));

        let (status, headers, json) = told(Refusal::Busy).await;
        assert_eq!((status, headers[RETRY_AFTER].to_str().unwrap()), (503, COME_AGAIN));
        assert_eq!(json["errors"][0]["code"], "UNAVAILABLE");
    }

    #[tokio::test]
    async fn an_answer_of_the_origin_is_handed_back_as_it_came() {
        let (status, headers, json) = told(Refusal::Origin(refused(401, b"{\"a\":1}"), Subject::Blob)).await;
        assert_eq!((status, &json["a"]), (401, &json!(1)));
        assert!(headers["www-authenticate"].to_str().unwrap().contains("auth.example"));
        assert_eq!(headers[CONTENT_TYPE], "text/plain");
    }

    #[tokio::test]
    async fn an_answer_without_body_gets_the_code_that_fits() {
        for (status, subject, code) in [
            (401, Subject::Blob, "UNAUTHORIZED"),
            (403, Subject::Manifest, "DENIED"),
            (404, Subject::Blob, "BLOB_UNKNOWN"),
            (404, Subject::Manifest, "MANIFEST_UNKNOWN"),
            (404, Subject::Registry, "NAME_UNKNOWN"),
            (429, Subject::Blob, "TOOMANYREQUESTS"),
            (500, Subject::Blob, "UNAVAILABLE"),
            (418, Subject::Blob, "UNKNOWN"),
        ] {
            let (told, headers, json) = told(Refusal::Origin(refused(status, b""), subject)).await;
            assert_eq!((told, &json["errors"][0]["code"]), (status, &json!(code)));
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            assert!(headers.contains_key("www-authenticate"));
        }
    }
}
