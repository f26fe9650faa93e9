//! Every error of an API has one shape, [`ApiError`]: also what the HTTP library or a guard says in plain words of a route that
//! is not there, of a wrong method, of a body that cannot be read. Laid over all routes by [`super::router`] and by the
//! supernode's API, so that a route which is added cannot forget it.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::ApiError;

/// What the library says of a request is a line.
const LONGEST: usize = 4096;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer, as JSON if it is an error.
pub async fn in_json(answer: Response) -> Response {
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    if !failed || answer.headers().get(header::CONTENT_TYPE) == Some(&JSON) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let said = to_bytes(body, LONGEST).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
    let error = if said.is_empty() { nothing_said(status).to_owned() } else { said };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, JSON);
    Response::from_parts(parts, Body::from(serde_json::json!(ApiError { error }).to_string()))
}

fn nothing_said(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "there is no such route",
        StatusCode::METHOD_NOT_ALLOWED => "not with this method: the header Allow names those of this route",
        _ => status.canonical_reason().unwrap_or("it failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse as _;

    async fn error(answer: Response) -> (StatusCode, String) {
        let answer = in_json(answer).await;
        let status = answer.status();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        let body = to_bytes(answer.into_body(), LONGEST).await.unwrap();
        (status, serde_json::from_slice::<ApiError>(&body).unwrap().error)
    }

    #[tokio::test]
    async fn whatever_is_said_of_a_failure_is_said_in_json() {
        let plain = (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "who\n \"are\" you\n");
        let told = in_json(plain.clone().into_response()).await;
        assert_eq!(told.headers()[header::WWW_AUTHENTICATE], "Bearer", "headers stay");
        assert_eq!(error(plain.into_response()).await, (StatusCode::UNAUTHORIZED, "who \"are\" you".into()));
        let empty = error(StatusCode::METHOD_NOT_ALLOWED.into_response()).await.1;
        assert!(empty.contains("Allow"), "{empty}");
        let ours = super::super::failed(StatusCode::CONFLICT, "in use".into());
        assert_eq!(error(ours).await, (StatusCode::CONFLICT, "in use".into()));
        let long = (StatusCode::BAD_REQUEST, "x".repeat(LONGEST + 1)).into_response();
        assert_eq!(error(long).await, (StatusCode::BAD_REQUEST, "Bad Request".into()));
    }

    #[tokio::test]
    async fn a_good_answer_is_left_alone() {
        let answer = in_json("fine".into_response()).await;
        assert_eq!(to_bytes(answer.into_body(), LONGEST).await.unwrap(), "fine");
    }
}
