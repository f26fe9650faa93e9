//! Preheat schedules over HTTP.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /api/v1/preheat-schedules` with a [`Spec`] | 201 and the schedule; 200 where there is the same one |
//! | `GET /api/v1/preheat-schedules` | all, the newest first, each with its last run |
//! | `GET /api/v1/preheat-schedules/{id}` | one, with its last runs |
//! | `POST /api/v1/preheat-schedules/{id}/pause`, `…/resume`, `…/run` | the schedule |
//! | `DELETE /api/v1/preheat-schedules/{id}` | it is forgotten; a job that it began goes on |
//!
//! Names and credentials are as in [`super::preheats`].

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use peer::local_api::ApiError;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::preheats::{credentials, failed, taken_on, unfit};
use super::{Api, MAX_SPEC, Named};
use crate::schedules::{Change, Refused, ScheduleId, Schedules, Spec, View};

/// Which schedule.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("id"))]
#[expect(dead_code, reason = "the description is made of it")]
struct Id(
    /// Its number.
    u64,
);

/// All that is under `/api/v1/preheat-schedules`.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .layer(DefaultBodyLimit::max(MAX_SPEC))
        .routes(routes!(show, remove))
        .routes(routes!(change))
}

/// All schedules, the newest first, each with its last run
#[utoipa::path(
    get,
    path = "/",
    operation_id = "list_preheat_schedules",
    tag = "preheats",
    responses((status = 200, description = "All of them", body = Vec<View>))
)]
async fn list(State(schedules): State<Schedules>, State(named): State<Named>) -> Json<Vec<View>> {
    Json(schedules.list().await.into_iter().map(|view| seen(view, named)).collect())
}

/// Who may not know what images are called is not told by schedules either.
fn seen(view: View, Named(named): Named) -> View {
    if named { view } else { view.unnamed() }
}

/// Begin a preheat job again and again: at times of a calendar, or when a tag moves
#[utoipa::path(
    post,
    path = "/",
    operation_id = "create_preheat_schedule",
    tag = "preheats",
    params(("x-registry-authorization" = Option<String>, Header, description = "What the registry is to see as `Authorization`; kept in memory only, so that a restart of the supernode forgets it: `credentials` says so")),
    request_body = Spec,
    responses(
        (status = 200, description = "There is the same one, with these credentials from now on", body = View),
        (status = 201, description = "It is made", body = View),
        (status = 400, description = "It makes no sense", body = ApiError),
        (status = 422, description = "It is no schedule", body = ApiError),
        (status = 503, description = "There are too many", body = ApiError),
    )
)]
async fn create(
    State(schedules): State<Schedules>,
    headers: HeaderMap,
    spec: Result<Json<Spec>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(spec) = spec.map_err(IntoResponse::into_response)?;
    let (view, new) = schedules.create(spec, credentials(&headers).map_err(unfit)?).await.map_err(refused)?;
    Ok(taken_on(view, new))
}

/// A schedule with its last runs
#[utoipa::path(
    get,
    path = "/{id}",
    operation_id = "show_preheat_schedule",
    tag = "preheats",
    params(Id),
    responses(
        (status = 200, description = "Now", body = View),
        (status = 400, description = "It is no number", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
    )
)]
async fn show(
    State(schedules): State<Schedules>,
    State(named): State<Named>,
    Path(id): Path<ScheduleId>,
) -> Result<Json<View>, Response> {
    schedules.show(id).await.map(|view| Json(seen(view, named))).map_err(refused)
}

/// Forget a schedule
#[utoipa::path(
    delete,
    path = "/{id}",
    operation_id = "remove_preheat_schedule",
    tag = "preheats",
    params(Id),
    responses(
        (status = 204, description = "It is gone; a job that it began goes on"),
        (status = 400, description = "It is no number", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
    )
)]
async fn remove(
    State(schedules): State<Schedules>,
    Path(id): Path<ScheduleId>,
) -> Result<StatusCode, Response> {
    schedules.remove(id).await.map(|()| StatusCode::NO_CONTENT).map_err(refused)
}

/// Let a schedule begin nothing by itself for now, go on with it, or run it now
#[utoipa::path(
    post,
    path = "/{id}/{change}",
    operation_id = "change_preheat_schedule",
    tag = "preheats",
    params(("id" = u64, Path, description = "Its number."), ("change" = inline(Change), Path, description = "What is to become of it.")),
    responses(
        (status = 200, description = "It is so; what follows a tag looks at it first", body = View),
        (status = 400, description = "It is no number, or no such change", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
        (status = 409, description = "It is to run, and does", body = ApiError),
    )
)]
async fn change(
    State(schedules): State<Schedules>,
    Path((id, change)): Path<(ScheduleId, Change)>,
) -> Result<Json<View>, Response> {
    schedules.change(id, change).await.map(Json).map_err(refused)
}

fn refused(refused: Refused) -> Response {
    let status = match refused {
        Refused::Nonsense(_) => StatusCode::BAD_REQUEST,
        Refused::Unknown(_) => StatusCode::NOT_FOUND,
        Refused::Busy(_) => StatusCode::CONFLICT,
        Refused::Crowded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failed(status, refused.to_string())
}
