//! What a node's store has, and who stays in it: the same routes at a peer's socket (`/v1/tasks`) and at a supernode's API
//! (`/api/v1/tasks`), which nests them. OpenAPI is told here what they do.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | every [`StoredTask`] as JSON |
//! | `POST /{id}/pin`, `DELETE` of the same | 204: the task stays, until the pin is taken away |
//! | `DELETE /{id}` | 204: it is gone; 409 when it is in use, pinned, or somebody else's file |

use axum::Json;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::task::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, failed, one_line, status_of};
use crate::engine::Engine;
use crate::error::FetchError;
use crate::store::{Entry, Release, Store, StoreError};

/// What the store has of a task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
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

/// Which task a route is about.
#[derive(IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct Id(
    /// The task's id: 64 hexadecimal digits, `sha256:` before them or not
    #[param(pattern = "^(sha256:)?[0-9a-f]{64}$")]
    String,
);

/// The routes over a node's store, and what OpenAPI says of them.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Engine: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(tasks)).routes(routes!(evict)).routes(routes!(pin, unpin))
}

/// What the store has
#[utoipa::path(get, path = "/", operation_id = "list_tasks", tag = "tasks", responses((status = 200, description = "Every task", body = Vec<StoredTask>)))]
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

/// Let a task stay, until the pin is taken away
#[utoipa::path(
    post,
    path = "/{id}/pin",
    operation_id = "pin_task",
    tag = "tasks",
    params(Id),
    responses(
        (status = 204, description = "It stays"),
        (status = 400, description = "It is no task id", body = ApiError),
        (status = 404, description = "It is not in the store", body = ApiError),
    )
)]
async fn pin(engine: State<Engine>, id: Path<String>) -> Response {
    set_pinned(engine, id, Store::pin).await
}

/// Take a pin away
#[utoipa::path(
    delete,
    path = "/{id}/pin",
    operation_id = "unpin_task",
    tag = "tasks",
    params(Id),
    responses(
        (status = 204, description = "It may go when room is needed"),
        (status = 400, description = "It is no task id", body = ApiError),
        (status = 404, description = "It is not in the store", body = ApiError),
    )
)]
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

/// Drop a task
#[utoipa::path(
    delete,
    path = "/{id}",
    operation_id = "evict_task",
    tag = "tasks",
    params(Id),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "It is no task id", body = ApiError),
        (status = 404, description = "It is not in the store", body = ApiError),
        (status = 409, description = "It is in use, pinned, or somebody else's file", body = ApiError),
    )
)]
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
