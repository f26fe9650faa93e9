//! Preheating by the interfaces that exist already, at the root of the supernode's HTTP port: whatever asks here becomes a
//! job of [`crate::preheat`]. Put into the HTTP by [`crate::api`], behind the same door; `docs/harbor.md` has each request.
//!
//! | route | sender |
//! | --- | --- |
//! | `GET /healthy`, `POST /oapi/v1/jobs`, `GET /oapi/v1/jobs/{id}` | Harbor 2.12 and later, vendor Dragonfly ([`dragonfly`]) |
//! | `GET /_ping`, `POST /preheats`, `GET /preheats/{id}` | Harbor before 2.12, vendor Dragonfly ([`harbor`]) |
//! | `GET /health`, `POST /registry/notifications` | Harbor, vendor Kraken; webhooks of distribution registries ([`notifications`]) |
//!
//! They are not in the description of `/api/v1`: others made these interfaces, and they change when Harbor does.
//!
//! # Invariants
//! - Where a registry is reached the settings say, never a sender: a URL names a registry and an image.
//! - A sender's credentials go to the job and nowhere else; bodies are read a few at a time, each limited in size.

mod backlog;
mod dragonfly;
mod events;
pub mod fuzz;
mod glob;
mod harbor;
mod image_of;
mod notifications;
mod refusal;
mod rules;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::routing::{get, post};
use common::task::Credentials;
use common::telemetry::Metrics;
use peer::origin::Registries;
use tokio::sync::Semaphore;

use crate::preheat::Preheats;
use crate::preheat::job::{JobId, Refused, Spec, State, View};
use image_of::image_of;
use refusal::Refusal;
use worker::Waiting;

pub use rules::{RuleError, Rules};

/// An order is a URL and a token.
const MAX_BODY: usize = 64 * 1024;
/// Bodies that are read at once: with the largest, a few megabytes.
const AT_ONCE: usize = 4;
/// The header that a token is taken from.
const AUTHORIZATION: &str = "authorization";

/// What is asked of the engine.
pub trait Jobs: Clone + Send + Sync + 'static {
    /// Takes a job on; the same one, while it is unfinished, is the same job.
    fn create(
        &self,
        spec: Spec,
        credentials: Credentials,
    ) -> impl Future<Output = Result<View, Refused>> + Send;

    /// How a job is, with its nodes.
    fn show(&self, id: JobId) -> impl Future<Output = Result<View, Refused>> + Send;

    /// Forgets a job that is over.
    fn remove(&self, id: JobId) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// What the routes are made of. Cheap to clone.
#[derive(Clone)]
pub struct Drivers<J> {
    jobs: J,
    rules: Arc<Rules>,
    registries: Registries,
    metrics: Metrics,
    waiting: Waiting,
    desk: Arc<Semaphore>,
}

// === impl Jobs ===

impl Jobs for Preheats {
    async fn create(&self, spec: Spec, credentials: Credentials) -> Result<View, Refused> {
        Preheats::create(self, spec, credentials).await.map(|(view, _)| view)
    }

    async fn show(&self, id: JobId) -> Result<View, Refused> {
        Preheats::show(self, id).await
    }

    async fn remove(&self, id: JobId) -> Result<(), Refused> {
        Preheats::remove(self, id).await
    }
}

// === impl Drivers ===

impl<J: Jobs> Drivers<J> {
    /// Drivers of this engine; pushes are preheated as `rules` say.
    pub fn new(jobs: J, rules: Rules, registries: Registries, metrics: Metrics) -> Self {
        let desk = Arc::new(Semaphore::new(AT_ONCE));
        Self { jobs, rules: Arc::new(rules), registries, metrics, waiting: Waiting::default(), desk }
    }

    /// Makes jobs of pushes, until it is dropped.
    pub async fn run(self) {
        self.waiting.run(self.jobs, self.metrics).await;
    }
}

/// The name of the image that a manifest's URL means.
fn image(url: &str, registries: &Registries) -> Result<String, Refusal> {
    let meant = image_of(url).map_err(|error| Refusal::Unfit(error.to_string()))?;
    let registry = &meant.image.registry;
    let base = registries.base_url(registry).map_err(|error| Refusal::Unfit(error.to_string()))?;
    // A sender may think that it is plain; only the settings may send a token there so.
    if meant.plain && base == format!("https://{registry}") {
        let why = "is a registry asked in plain HTTP: allow it with --insecure-registry";
        return Err(Refusal::Unfit(format!("{registry} {why} {registry}")));
    }
    Ok(meant.image.spelled())
}

/// The routes, for whom the door lets in.
pub fn router<J: Jobs>(drivers: Drivers<J>) -> Router {
    // A sender's test of the connection comes through the door like an order: it fails where that would.
    let fine = || get(async || "OK\n");
    Router::new()
        .route("/healthy", fine())
        .route("/_ping", fine())
        .route("/oapi/v1/jobs", post(dragonfly::create::<J>))
        .route("/oapi/v1/jobs/{id}", get(dragonfly::show::<J>))
        .route("/preheats", post(harbor::create::<J>))
        .route("/preheats/{id}", get(harbor::show::<J>))
        .route("/health", get(notifications::health::<J>))
        .route("/registry/notifications", post(notifications::take::<J>))
        .with_state(drivers)
}

/// The credentials of the headers that a sender would have sent along: the registry's token.
fn credentials(headers: Option<&BTreeMap<String, serde_json::Value>>) -> Result<Credentials, Refusal> {
    let mut named =
        headers.into_iter().flatten().filter(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION));
    let value = named.next().and_then(|(_, value)| value.as_str()).filter(|value| !value.is_empty());
    match value {
        None => Ok(Credentials::none()),
        Some(value) if HeaderValue::from_str(value).is_ok() => Ok(Credentials::authorization(value)),
        Some(_) => Err(Refusal::Unfit("the header Authorization holds what no header can".into())),
    }
}

/// Why a job ended without success, in a sentence.
fn why(view: &View) -> String {
    match view.state {
        State::Failed => view.message.clone().unwrap_or_else(|| "it failed".into()),
        State::Cancelled => view.message.clone().unwrap_or_else(|| "it was cancelled".into()),
        State::Pending | State::Running | State::Paused | State::Succeeded => String::new(),
    }
}
