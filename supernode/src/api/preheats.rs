//! Preheat jobs over HTTP.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /api/v1/preheats` with a [`Spec`] | 201 and the job; 200 where the same one is not done yet |
//! | `POST /api/v1/preheats/plan` with a [`Spec`] | what it would come to; nothing is brought |
//! | `GET /api/v1/preheats` | all jobs, the newest first |
//! | `GET /api/v1/preheats/{id}` | one, with its nodes |
//! | `POST /api/v1/preheats/{id}/pause`, `…/resume`, `…/cancel` | the job |
//! | `DELETE /api/v1/preheats/{id}` | it is ended and forgotten |
//!
//! To who looks without a token, on the machine, images and files are not named.
//!
//! What opens the registry comes in a header of its own, [`AUTHORIZATION`]: a body may be kept, shown and logged.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use common::task::Credentials;
use peer::local_api::ApiError;
use serde::Serialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, MAX_SPEC, Named};
use crate::preheat::{Change, Forecast, JobId, Preheats, Refused, Spec, View};

/// The header with the `Authorization` that the registry is to see.
const AUTHORIZATION: &str = "x-registry-authorization";

/// Which job.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("id"))]
#[expect(dead_code, reason = "the description is made of it")]
struct Id(
    /// Its number.
    u64,
);

/// All that is under `/api/v1/preheats`.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .layer(DefaultBodyLimit::max(MAX_SPEC))
        .routes(routes!(show, remove))
        .routes(routes!(change))
}

/// All that is under `/api/v1/preheats/plan`, which may take longer than other answers.
pub(super) fn plan_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::default().routes(routes!(plan)).layer(DefaultBodyLimit::max(MAX_SPEC))
}

/// All jobs, the newest first, without their nodes; of the names and files that one was asked for, the first hundred
#[utoipa::path(
    get,
    path = "/",
    operation_id = "list_preheats",
    tag = "preheats",
    responses((status = 200, description = "Those that are not forgotten yet", body = Vec<View>))
)]
async fn list(State(preheats): State<Preheats>, State(named): State<Named>) -> Json<Vec<View>> {
    Json(preheats.list().await.into_iter().map(|view| seen(view, named)).collect())
}

/// Who may not know what images are called is not told by their jobs either.
fn seen(view: View, Named(named): Named) -> View {
    if named { view } else { view.unnamed() }
}

/// Bring an image or files to the cache, to nodes' peers or into nodes' runtimes
#[utoipa::path(
    post,
    path = "/",
    operation_id = "create_preheat",
    tag = "preheats",
    params(("x-registry-authorization" = Option<String>, Header, description = "What the registry is to see as `Authorization`; kept in memory only")),
    request_body = Spec,
    responses(
        (status = 200, description = "The same job is not done yet", body = View),
        (status = 201, description = "It is taken on", body = View),
        (status = 400, description = "It makes no sense", body = ApiError),
        (status = 422, description = "It is no job", body = ApiError),
        (status = 503, description = "Too much is going on", body = ApiError),
    )
)]
async fn create(
    State(preheats): State<Preheats>,
    headers: HeaderMap,
    spec: Result<Json<Spec>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(spec) = spec.map_err(IntoResponse::into_response)?;
    let (view, new) = preheats.create(spec, credentials(&headers).map_err(unfit)?).await.map_err(refused)?;
    Ok(taken_on(view, new))
}

/// What a job would come to: bytes, from where, and how long; nothing but manifests is fetched
#[utoipa::path(
    post,
    path = "/",
    operation_id = "plan_preheat",
    tag = "preheats",
    params(("x-registry-authorization" = Option<String>, Header, description = "What the registry is to see as `Authorization`")),
    request_body = Spec,
    responses(
        (status = 200, description = "At this moment", body = Forecast),
        (status = 400, description = "It makes no sense", body = ApiError),
        (status = 422, description = "It is no job", body = ApiError),
        (status = 502, description = "The origin does not say what it is", body = ApiError),
    )
)]
async fn plan(
    State(api): State<Api>,
    headers: HeaderMap,
    spec: Result<Json<Spec>, JsonRejection>,
) -> Result<Json<Forecast>, Response> {
    let Json(spec) = spec.map_err(IntoResponse::into_response)?;
    let present = (api.hub, api.dashboard.highest_speeds());
    api.preheats.plan(spec, credentials(&headers).map_err(unfit)?, present).await.map(Json).map_err(refused)
}

/// A job with its nodes
#[utoipa::path(
    get,
    path = "/{id}",
    operation_id = "show_preheat",
    tag = "preheats",
    params(Id),
    responses(
        (status = 200, description = "Now", body = View),
        (status = 400, description = "It is no number", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
    )
)]
async fn show(
    State(preheats): State<Preheats>,
    State(named): State<Named>,
    Path(id): Path<JobId>,
) -> Result<Json<View>, Response> {
    preheats.show(id).await.map(|view| Json(seen(view, named))).map_err(refused)
}

/// End a job and forget it
#[utoipa::path(
    delete,
    path = "/{id}",
    operation_id = "remove_preheat",
    tag = "preheats",
    params(Id),
    responses(
        (status = 204, description = "It is gone; what was brought stays"),
        (status = 400, description = "It is no number", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
    )
)]
async fn remove(State(preheats): State<Preheats>, Path(id): Path<JobId>) -> Result<StatusCode, Response> {
    preheats.remove(id).await.map(|()| StatusCode::NO_CONTENT).map_err(refused)
}

/// Let nobody work on a job for now, go on with it, or end it
#[utoipa::path(
    post,
    path = "/{id}/{change}",
    operation_id = "change_preheat",
    tag = "preheats",
    params(("id" = u64, Path, description = "Its number."), ("change" = inline(Change), Path, description = "What is to become of it.")),
    responses(
        (status = 200, description = "It is so, or was over already", body = View),
        (status = 400, description = "It is no number, or no such change", body = ApiError),
        (status = 404, description = "There is none", body = ApiError),
    )
)]
async fn change(
    State(preheats): State<Preheats>,
    Path((id, change)): Path<(JobId, Change)>,
) -> Result<Json<View>, Response> {
    preheats.change(id, change).await.map(Json).map_err(refused)
}

/// What opens the registry, as the request says it.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials, String> {
    match headers.get(AUTHORIZATION).map(|value| value.to_str()) {
        None => Ok(Credentials::none()),
        Some(Ok(value)) => Ok(Credentials::authorization(value)),
        Some(Err(_)) => Err(format!("the header {AUTHORIZATION} has characters that HTTP does not allow")),
    }
}

fn refused(refused: Refused) -> Response {
    let status = match refused {
        Refused::Nonsense(_) => StatusCode::BAD_REQUEST,
        Refused::Unknown(_) => StatusCode::NOT_FOUND,
        Refused::Origin(_) => StatusCode::BAD_GATEWAY,
        Refused::Crowded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failed(status, refused.to_string())
}

/// What there is now, by what was asked for.
pub(super) fn taken_on(view: impl Serialize, new: bool) -> Response {
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(view)).into_response()
}

/// What was said cannot be used.
pub(super) fn unfit(why: String) -> Response {
    failed(StatusCode::BAD_REQUEST, why)
}

pub(super) fn failed(status: StatusCode, error: String) -> Response {
    (status, Json(ApiError { error })).into_response()
}
