//! What a daemon logs, changed while it runs: at a peer's socket (`/v1/log`) and at a supernode's API (`/api/v1/log`).
//!
//! | request | answer |
//! | --- | --- |
//! | `GET` | [`Logged`] as JSON |
//! | `PUT` with [`Logged`] | 204: this is logged until the daemon ends; 400 when it cannot be read |

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use common::telemetry;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, failed};

/// What is logged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// As in `LONGSHORE_LOG`: `debug`, or `info,peer=debug`.
    #[schema(min_length = 1, max_length = 1024, example = "info,peer=debug")]
    pub directives: String,
}

/// The route, and what OpenAPI says of it.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::default().routes(routes!(show, set))
}

/// What the daemon logs
#[utoipa::path(get, path = "/", operation_id = "show_log", tag = "log", responses((status = 200, description = "What is logged", body = Logged)))]
async fn show() -> Json<Logged> {
    Json(Logged { directives: telemetry::logged() })
}

/// Log this from now on
///
/// Until the daemon ends.
#[utoipa::path(
    put,
    path = "/",
    operation_id = "set_log",
    tag = "log",
    request_body = Logged,
    responses(
        (status = 204, description = "This is logged"),
        (status = 400, description = "It cannot be read; nothing changed", body = ApiError),
    )
)]
async fn set(Json(wish): Json<Logged>) -> Response {
    match telemetry::log_from_now_on(&wish.directives) {
        Ok(()) => {
            tracing::info!(directives = wish.directives, "what is logged was changed");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(why) => failed(StatusCode::BAD_REQUEST, why),
    }
}
