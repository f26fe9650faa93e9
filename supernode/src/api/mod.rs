//! The supernode's HTTP: health and metrics as on every node, its state under `/api/v1`, behind a [`guard`], and the
//! [dashboard](crate::dashboard) that shows it. Without a token no image name is shown: tasks are digests. One status is
//! gathered at a time, so that asking for it over and over costs the asker.

pub mod guard;
pub mod tls;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router, middleware};
use guard::Door;
use peer::engine::Engine;
use peer::health;
use peer::local_api::{self, log, stored};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::dashboard::{Dashboard, page, routes};
use crate::hub::Hub;
use crate::scheduler::{PeerView, TaskSummary};

/// A request is a few words.
const MAX_BODY: usize = 64 * 1024;
/// Peers and swarms shown at once.
const MOST: usize = 1000;

#[derive(Clone)]
struct Api {
    hub: Arc<Hub>,
    engine: Engine,
    desk: Arc<Semaphore>,
}

/// What `GET /api/v1/status` answers.
#[derive(Serialize)]
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

/// The routes, for whom the door lets in.
pub fn router(hub: Arc<Hub>, engine: Engine, dashboard: Dashboard, door: Door) -> Router {
    let shown = routes::router(dashboard, door.shows_names());
    let (sampled, seed) = (hub.clone(), engine.clone());
    let sample = Arc::new(move || {
        sampled.sample();
        seed.sample();
    });
    let health = health::router(engine.metrics().clone(), sample, Arc::new(|| Ok(())));
    let tasks = stored::router(engine.clone());
    let api = Api { hub, engine, desk: Arc::new(Semaphore::new(1)) };
    let door = Arc::new(door);
    let guarded = middleware::from_fn(move |request, next| {
        let door = door.clone();
        async move { door.pass(request, next).await }
    });
    let routes = Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/log", log::methods())
        .with_state(api)
        .nest("/api/v1/tasks", tasks)
        .nest("/api/v1", shown);
    health.merge(page::router()).merge(routes.layer(DefaultBodyLimit::max(MAX_BODY)).layer(guarded))
}

async fn status(State(api): State<Api>) -> Result<Json<Status>, StatusCode> {
    let _turn = api.desk.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let (sessions, peers, tasks) = api.hub.summary(MOST);
    let engine = api.engine.clone();
    let seed = tokio::task::spawn_blocking(move || local_api::of(&engine, true)).await;
    let seed = seed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Status { seed, sessions, peers, tasks }))
}
