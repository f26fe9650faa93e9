//! What a node's store has, and who stays in it: the same routes at a peer's socket (`/v1/tasks`) and at a supernode's API
//! (`/api/v1/tasks`), which nests them.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | every [`StoredTask`] as JSON |
//! | `POST /{id}/pin`, `DELETE` of the same | 204: the task stays, until the pin is taken away |
//! | `DELETE /{id}` | 204: it is gone; 409 when it is in use, pinned, or somebody else's file |

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use common::task::TaskId;
use serde::{Deserialize, Serialize};

use super::{failed, one_line, status_of};
use crate::engine::Engine;
use crate::error::FetchError;
use crate::store::{Entry, Release, Store, StoreError};

/// What the store has of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredTask {
    /// Its id.
    pub task: String,
    /// Its length.
    pub length: u64,
    /// Pieces that are here.
    pub held: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// The whole is here and was checked.
    pub proven: bool,
    /// It stays.
    pub pinned: bool,
    /// It is read from a content store of somebody else.
    pub adopted: bool,
    /// Unix seconds.
    pub last_used: u64,
}

/// The routes over a node's store.
pub fn router<S>(engine: Engine) -> Router<S> {
    Router::new()
        .route("/", get(tasks))
        .route("/{id}", delete(evict))
        .route("/{id}/pin", post(pin).delete(unpin))
        .with_state(engine)
}

async fn tasks(State(engine): State<Engine>) -> Response {
    let shown = in_store(engine, |store| {
        let of = |entry: Entry| StoredTask {
            task: entry.task.hex(),
            length: entry.geometry.length(),
            held: entry.held,
            pieces: entry.geometry.pieces(),
            proven: entry.proven,
            pinned: entry.pinned,
            adopted: entry.adopted,
            last_used: entry.last_used,
        };
        Ok(store.list()?.into_iter().map(of).collect::<Vec<_>>())
    });
    shown.await.map_or_else(|refusal| refusal, |tasks| Json(tasks).into_response())
}

async fn pin(engine: State<Engine>, id: Path<String>) -> Response {
    set_pinned(engine, id, Store::pin).await
}

async fn unpin(engine: State<Engine>, id: Path<String>) -> Response {
    set_pinned(engine, id, Store::unpin).await
}

async fn set_pinned(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    set: fn(&Store, TaskId) -> Result<bool, StoreError>,
) -> Response {
    let Ok(task) = id.parse::<TaskId>() else { return no_task(&id) };
    match in_store(engine, move |store| set(store, task)).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => unknown(task),
        Err(refusal) => refusal,
    }
}

async fn evict(State(engine): State<Engine>, Path(id): Path<String>) -> Response {
    let Ok(task) = id.parse::<TaskId>() else { return no_task(&id) };
    let conflict = |why: &str| failed(StatusCode::CONFLICT, format!("task {task} {why}"));
    match in_store(engine, move |store| store.evict(task)).await {
        Ok(Release::Gone) => StatusCode::NO_CONTENT.into_response(),
        Ok(Release::Unknown) => unknown(task),
        Ok(Release::InUse) => conflict("is in use: try again later"),
        Ok(Release::Pinned) => conflict("is pinned: take the pin away first"),
        Ok(Release::Foreign) => {
            conflict("is read from a content store of somebody else, and takes no room here")
        }
        Err(refusal) => refusal,
    }
}

/// Store work beside the async threads.
async fn in_store<T: Send + 'static>(
    engine: Engine,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Response> {
    let done = tokio::task::spawn_blocking(move || work(engine.store())).await;
    let done = done.map_err(|_| FetchError::Closing).and_then(|outcome| outcome.map_err(FetchError::from));
    done.map_err(|error| failed(status_of(&error), one_line(&error)))
}

fn no_task(id: &str) -> Response {
    failed(StatusCode::BAD_REQUEST, format!("{id:?} is no task id: 64 hexadecimal digits are expected"))
}

fn unknown(task: TaskId) -> Response {
    failed(StatusCode::NOT_FOUND, format!("task {task} is not in the store"))
}
