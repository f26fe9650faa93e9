//! The HTTP side door of a daemon: `/metrics` for Prometheus, `/healthz` (the process lives) and `/readyz` (it can
//! do its work) for Kubernetes. The supernode adds its API to the same router.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use common::telemetry::Metrics;

/// Says whether the daemon can do its work, and if not, why.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The routes; `sample` refreshes gauges before they are shown.
pub fn router(metrics: Metrics, sample: Arc<dyn Fn() + Send + Sync>, ready: Readiness) -> Router {
    let show = move || {
        let (metrics, sample) = (metrics.clone(), sample.clone());
        async move {
            sample();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
        }
    };
    let answer = move || {
        let ready = ready.clone();
        async move {
            match ready() {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    Router::new()
        .route("/metrics", get(show))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(answer))
}
