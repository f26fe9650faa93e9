//! What a daemon logs, changed while it runs: at a peer's socket (`/v1/log`) and at a supernode's API (`/api/v1/log`).
//!
//! | request | answer |
//! | --- | --- |
//! | `GET` | [`Logged`] as JSON |
//! | `PUT` with [`Logged`] | 204: this is logged until the daemon ends; 400 when it cannot be read |

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use common::telemetry;
use serde::{Deserialize, Serialize};

use super::failed;

/// What is logged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// As in `LONGSHORE_LOG`: `debug`, or `info,peer=debug`.
    pub directives: String,
}

/// The route's methods.
pub fn methods<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    get(show).put(set)
}

async fn show() -> Json<Logged> {
    Json(Logged { directives: telemetry::logged() })
}

async fn set(Json(wish): Json<Logged>) -> Response {
    match telemetry::log_from_now_on(&wish.directives) {
        Ok(()) => {
            tracing::info!(directives = wish.directives, "what is logged was changed");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(why) => failed(StatusCode::BAD_REQUEST, why),
    }
}
