//! The supernode's HTTP: health and metrics as on every node, and its state under `/api/v1`. No image name is
//! shown: tasks are digests. One status is gathered at a time, so that asking for it over and over costs the asker.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use peer::engine::Engine;
use peer::{health, local_api};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::hub::Hub;
use crate::scheduler::{PeerView, TaskSummary};

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

/// The routes.
pub fn router(hub: Arc<Hub>, engine: Engine) -> Router {
    let (sampled, seed) = (hub.clone(), engine.clone());
    let sample = Arc::new(move || {
        sampled.sample();
        seed.sample();
    });
    let health = health::router(engine.metrics().clone(), sample, Arc::new(|| Ok(())));
    health.merge(Router::new().route("/api/v1/status", get(status)).with_state(Api {
        hub,
        engine,
        desk: Arc::new(Semaphore::new(1)),
    }))
}

async fn status(State(api): State<Api>) -> Result<Json<Status>, StatusCode> {
    let _turn = api.desk.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let (sessions, peers, tasks) = api.hub.summary(MOST);
    let engine = api.engine.clone();
    let seed = tokio::task::spawn_blocking(move || local_api::of(&engine, true)).await;
    let seed = seed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Status { seed, sessions, peers, tasks }))
}
