//! The supernode's HTTP: health and metrics as on every node, and its state under `/api/v1`. No image name is
//! shown: tasks are digests.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use peer::engine::Engine;
use peer::{health, local_api};
use serde::Serialize;

use crate::hub::Hub;
use crate::scheduler::View;

#[derive(Clone)]
struct Api {
    hub: Arc<Hub>,
    engine: Engine,
}

/// What `GET /api/v1/status` answers.
#[derive(Serialize)]
struct Status {
    /// The seed's engine.
    seed: local_api::Status,
    /// Sessions with peers.
    sessions: usize,
    /// The scheduler's state.
    swarm: View,
}

/// The routes.
pub fn router(hub: Arc<Hub>, engine: Engine) -> Router {
    let (sampled, seed) = (hub.clone(), engine.clone());
    let sample = Arc::new(move || {
        sampled.sample();
        seed.sample();
    });
    let health = health::router(engine.metrics().clone(), sample, Arc::new(|| Ok(())));
    health.merge(Router::new().route("/api/v1/status", get(status)).with_state(Api { hub, engine }))
}

async fn status(State(api): State<Api>) -> Json<Status> {
    let (sessions, swarm) = (api.hub.sessions(), api.hub.view());
    let engine = api.engine.clone();
    let seed = tokio::task::spawn_blocking(move || local_api::of(&engine, true)).await;
    let seed = seed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    Json(Status { seed, sessions, swarm })
}
