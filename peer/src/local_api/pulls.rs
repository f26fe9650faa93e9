//! The last pulls of a node: the same routes at a peer's socket (`/v1/pulls`) and at a supernode's API (`/api/v1/pulls`, of its
//! seed), which nests them.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | [`Pulls`] as JSON: those that go on and the last that are over, the newest first |
//! | `GET /explain?of=NAME` | [`Explanation`] as JSON; 404 when nothing of that name is remembered. NAME is a task, or as many digits of it as no other has, or an image as it was typed |

use std::time::{Instant, UNIX_EPOCH};

use axum::Json;
use axum::extract::{FromRef, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, failed};
use crate::engine::Engine;
use crate::record::book::FindError;
use crate::record::explain::{Explanation, Summary, explain};

/// What is remembered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pulls {
    /// Images that clients asked for.
    pub images: Vec<ImagePull>,
    /// Tasks.
    pub pulls: Vec<Summary>,
}

/// An image that a client asked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImagePull {
    /// `registry/repository:tag`.
    pub image: String,
    /// What the client calls itself.
    pub client: String,
    /// When it was asked for: Unix milliseconds.
    pub asked: u64,
    /// The tasks of its manifests, and of all that they name.
    pub tasks: Vec<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// A task, or as many of its digits as no other has, or an image as it was typed
    of: String,
}

/// The routes over a node's pulls, and what OpenAPI says of them.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Engine: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(pulls)).routes(routes!(explained))
}

/// The last pulls
#[utoipa::path(get, path = "/", operation_id = "list_pulls", tag = "pulls", responses((status = 200, description = "The newest first", body = Pulls)))]
async fn pulls(State(engine): State<Engine>) -> Json<Pulls> {
    let (now, wall) = (Instant::now(), std::time::SystemTime::now());
    let millis = |asked: Instant| {
        let at = wall.checked_sub(now.saturating_duration_since(asked));
        at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_millis() as u64)
    };
    let images = engine.book().images().into_iter().map(|image| ImagePull {
        image: image.title(),
        client: image.by.client.to_string(),
        asked: millis(image.by.asked),
        tasks: image.parts.iter().map(|part| part.hex()).collect(),
    });
    Json(Pulls { images: images.collect(), pulls: engine.book().latest(now) })
}

/// What a pull waited for
#[utoipa::path(
    get, path = "/explain", operation_id = "explain_pull", tag = "pulls", params(Wanted),
    responses(
        (status = 200, description = "Where its bytes came from, and when", body = Explanation),
        (status = 404, description = "Nothing of that name is remembered", body = ApiError),
        (status = 409, description = "Several tasks begin so", body = ApiError),
    )
)]
async fn explained(State(engine): State<Engine>, Query(wanted): Query<Wanted>) -> Response {
    match engine.book().find(&wanted.of) {
        // Some hundred small tables are added up: not for async threads.
        Ok(found) => {
            let work = move || explain(found.title, &found.records, Instant::now());
            match tokio::task::spawn_blocking(work).await {
                Ok(explanation) => Json(explanation).into_response(),
                Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the pull could not be explained".into()),
            }
        }
        Err(error @ FindError::Unknown(_)) => failed(StatusCode::NOT_FOUND, error.to_string()),
        Err(error @ FindError::Ambiguous(_)) => failed(StatusCode::CONFLICT, error.to_string()),
    }
}
