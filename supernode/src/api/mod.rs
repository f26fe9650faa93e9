//! The supernode's HTTP: health and metrics as on every node, its state under `/api/v1`, behind a [`guard`], and the
//! [dashboard](crate::dashboard) that shows it; at its root what [others' programs](crate::drivers) ask. Without a token no image name is shown: tasks are digests. One status is
//! gathered at a time, so that asking for it over and over costs the asker.
//!
//! # Adding a route
//! A handler with `#[utoipa::path(…)]`, and `.routes(routes!(handler))` in [`routes`], which is the one way in: a route cannot be
//! without its description. What it answers with derives `ToSchema`; errors and the token are described for all ([`openapi`]).
//! Then renew `docs/openapi.json`, as the test that fails says.

pub mod guard;
mod openapi;
mod preheats;
mod schedules;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use guard::{Asker, Door};
use peer::engine::Engine;
use peer::health;
use peer::local_api::refusal::in_json;
use peer::local_api::{self, log, pulls, stored};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::dashboard::{self, Dashboard, page};
use crate::drivers::{self, Drivers};
use crate::hub::Hub;
use crate::preheat::{FIND_TIMEOUT, Preheats};
use crate::scheduler::{PeerView, TaskSummary};
use crate::schedules::Schedules;

/// A request is a few words.
const MAX_BODY: usize = 64 * 1024;
/// But a preheat may name thousands of nodes, or a thousand files.
const MAX_SPEC: usize = 1024 * 1024;
/// An answer is a page; who computes longer on it has lost its way.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Peers and swarms shown at once.
const MOST: usize = 1000;

/// What the API shows and changes.
#[derive(Clone)]
pub struct Parts {
    /// The scheduler.
    pub hub: Arc<Hub>,
    /// The seed's engine.
    pub engine: Engine,
    /// What is shown to people.
    pub dashboard: Dashboard,
    /// Preheat jobs.
    pub preheats: Preheats,
    /// What begins preheat jobs by itself.
    pub schedules: Schedules,
    /// Preheat jobs by the interfaces of others.
    pub drivers: Drivers<Preheats>,
}

/// Whether images are named to who comes in.
#[derive(Clone, Copy)]
struct Named(bool);

#[derive(Clone)]
struct Api {
    hub: Arc<Hub>,
    engine: Engine,
    desk: Arc<Semaphore>,
    dashboard: Dashboard,
    preheats: Preheats,
    schedules: Schedules,
    /// Whether who comes in may read what images are called.
    named: Named,
    /// The API's own description.
    described: Bytes,
}

/// What `GET /api/v1/status` answers.
#[derive(Serialize, ToSchema)]
#[schema(as = ClusterStatus)]
struct Status {
    /// The seed's engine.
    seed: local_api::Status,
    /// Sessions with peers.
    sessions: usize,
    /// The connected peers; at most [`MOST`].
    peers: Vec<PeerView>,
    /// The swarms, in numbers; at most [`MOST`].
    tasks: Vec<TaskSummary>,
}

impl FromRef<Api> for Dashboard {
    fn from_ref(api: &Api) -> Self {
        api.dashboard.clone()
    }
}

impl FromRef<Api> for Engine {
    fn from_ref(api: &Api) -> Self {
        api.engine.clone()
    }
}

impl FromRef<Api> for Preheats {
    fn from_ref(api: &Api) -> Self {
        api.preheats.clone()
    }
}

impl FromRef<Api> for Schedules {
    fn from_ref(api: &Api) -> Self {
        api.schedules.clone()
    }
}

impl FromRef<Api> for Named {
    fn from_ref(api: &Api) -> Self {
        api.named
    }
}

/// The routes, for whom the door lets in.
pub fn router(parts: Parts, door: Door) -> Router {
    let Parts { hub, engine, dashboard, preheats, schedules, drivers } = parts;
    let named = Named(door.shows_names());
    let dashboard = dashboard.seen_through(door.shows_names());
    let (sampled, seed) = (hub.clone(), engine.clone());
    let sample = Arc::new(move || {
        sampled.sample();
        seed.sample();
    });
    let health = health::router(engine.metrics().clone(), sample, Arc::new(|| Ok(())));
    let (routes, described) = all().split_for_parts();
    let described = openapi::complete(described).to_json().expect("invariant: a description is JSON");
    let api = Api {
        hub,
        engine,
        desk: Arc::new(Semaphore::new(1)),
        dashboard,
        preheats,
        schedules,
        named,
        described: described.into(),
    };
    let door = Arc::new(door);
    let guarded = |asker: Asker| {
        let door = door.clone();
        middleware::from_fn(move |request, next| {
            let door = door.clone();
            async move { door.pass(asker, request, next).await }
        })
    };
    let routes = routes.with_state(api).layer(DefaultBodyLimit::max(MAX_BODY)).layer(guarded(Asker::Client));
    let drivers = drivers::router(drivers).layer(middleware::from_fn(in_time)).layer(guarded(Asker::Sender));
    health.merge(page::router()).merge(routes.merge(drivers).layer(middleware::map_response(in_json)))
}

/// All that is under `/api/v1`.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::default()
        .routes(routes!(status))
        .routes(routes!(described))
        .nest("/log", log::routes())
        .nest("/tasks", stored::routes())
        .nest("/pulls", pulls::routes())
        .nest("/preheats", preheats::routes())
        .nest("/preheat-schedules", schedules::routes())
        .merge(dashboard::routes::routes())
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn(in_time))
        // Registries are asked for it, and that has a limit of its own.
        .nest("/preheats/plan", preheats::plan_routes().layer(middleware::from_fn(in_longer_time)))
}

/// Answers, or says after [`TIME_LIMIT`] that it cannot.
async fn in_time(request: Request, next: Next) -> Response {
    within(TIME_LIMIT, request, next).await
}

/// The same for a plan, whose wish is read in that time, and then found out about.
async fn in_longer_time(request: Request, next: Next) -> Response {
    within(TIME_LIMIT + FIND_TIMEOUT, request, next).await
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    let late = |_| (StatusCode::GATEWAY_TIMEOUT, "it takes too long\n").into_response();
    timeout(limit, next.run(request)).await.unwrap_or_else(late)
}

/// The same, where it is.
fn all() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::common()).nest("/api/v1", routes())
}

/// The description of the API.
#[cfg(test)]
fn description() -> utoipa::openapi::OpenApi {
    openapi::complete(all().into_openapi())
}

/// The supernode, its peers and its swarms
#[utoipa::path(get, path = "/status", tag = "cluster", responses((status = 200, description = "Now", body = Status)))]
async fn status(State(api): State<Api>) -> Result<Json<Status>, StatusCode> {
    let _turn = api.desk.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let (sessions, peers, tasks) = api.hub.summary(MOST);
    let engine = api.engine.clone();
    let seed = tokio::task::spawn_blocking(move || local_api::of(&engine, true)).await;
    let seed = seed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Status { seed, sessions, peers, tasks }))
}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "cluster",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
async fn described(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.described)
}
