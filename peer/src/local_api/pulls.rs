//! The last pulls of a node: the same routes at a peer's socket (`/v1/pulls`) and at a supernode's API (`/api/v1/pulls`, of its
//! seed), which nests them.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | [`Pulls`] as JSON: those that go on and the last that are over, the newest first |
//! | `GET /explain?of=NAME` | [`Explanation`] as JSON; 404 when nothing of that name is remembered. NAME is a task, or as many digits of it as no other has, or an image as it was typed |

use std::time::{Instant, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::failed;
use crate::engine::Engine;
use crate::record::book::FindError;
use crate::record::explain::{Summary, explain};

/// What is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pulls {
    /// Images that clients asked for.
    pub images: Vec<ImagePull>,
    /// Tasks.
    pub pulls: Vec<Summary>,
}

/// An image that a client asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

#[derive(Deserialize)]
struct Wanted {
    of: String,
}

/// The routes over a node's pulls.
pub fn router<S>(engine: Engine) -> Router<S> {
    Router::new().route("/", get(pulls)).route("/explain", get(explained)).with_state(engine)
}

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
