//! The peer's local API: HTTP on the Unix socket `<data-dir>/longshore.sock`. `get` fetches through it and
//! `status` asks it. Who may open the socket is the file system's to say: its folder is the daemon's own. Other users may be
//! given a socket with `/v1/fetch` alone (see [`crate::socket`]).
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`] as JSON |
//! | `/v1/tasks…` | see [`stored`] |
//! | `/v1/log` | see [`log`] |
//! | `/v1/pulls…` | see [`pulls`] |
//! | `POST /v1/fetch` with [`FetchRequest`] | the bytes, `Content-Length`, `Last-Modified` if the origin says it, and `X-Longshore-Task`; cut short if it fails midway |
//! | `GET /v1/fetch/{task}` | why the task was cut short of late, as an error |
//!
//! Errors are [`ApiError`] as JSON, those of the HTTP library too ([`refusal`]). A fetch that the origin refused has its
//! status; 409 says that the content is not what its digest promises.

pub mod excerpt;
mod fetch;
pub mod log;
pub mod pulls;
pub mod refusal;
pub mod stored;

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use common::telemetry::{ByteSource, Label as _, Recipient};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

pub use self::excerpt::{Excerpt, ExcerptError};
pub use self::fetch::{FILE, FetchRequest, IN_PLACE, LENGTH};
use crate::coordinator::remote::SupernodeView;
use crate::engine::Engine;
use crate::error::FetchError;

/// An error as JSON.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// One line for people.
    pub error: String,
}

/// How a node is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Its id.
    pub node: String,
    /// Its release.
    pub version: String,
    /// Whether it has a session with any supernode.
    pub supernode: bool,
    /// The supernodes that it knows of.
    #[serde(default)]
    pub supernodes: Vec<SupernodeStatus>,
    /// Tasks that are being fetched or handed on.
    pub tasks: Vec<TaskStatus>,
    /// Whole tasks in the store.
    pub stored_tasks: usize,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Tasks that are read from a content store of somebody else.
    #[serde(default)]
    pub adopted_tasks: u64,
    /// Their bytes.
    #[serde(default)]
    pub adopted_bytes: u64,
    /// Tasks that somebody wants kept.
    #[serde(default)]
    pub pinned_tasks: u64,
    /// What the data folder takes on the disk.
    #[serde(default)]
    pub disk_bytes: u64,
    /// What it may take.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    /// What the disk has free.
    #[serde(default)]
    pub free_bytes: u64,
    /// What neighbours did to this node, worst first.
    #[serde(default)]
    pub neighbours: Vec<NeighbourStatus>,
    /// Bytes received, by where they came from.
    pub received: BTreeMap<String, u64>,
    /// Bytes sent, by to whom.
    pub sent: BTreeMap<String, u64>,
}

/// How it is at an address of a supernode.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SupernodeStatus {
    /// Where.
    pub address: String,
    /// Who was last met there.
    pub node: Option<String>,
    /// Whether there is a session with that node.
    pub connected: bool,
}

/// What a neighbour did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NeighbourStatus {
    /// Its id.
    pub node: String,
    /// How often it did what.
    pub faults: BTreeMap<String, u64>,
    /// Whether nothing is taken from it now.
    pub barred: bool,
}

/// How a task is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskStatus {
    /// Its id.
    pub task: String,
    /// Its length, once known.
    pub length: Option<u64>,
    /// Pieces that are here.
    pub held: u32,
    /// Pieces in all, once known.
    pub pieces: Option<u32>,
}

#[derive(Clone)]
struct Api {
    engine: Engine,
    supernodes: watch::Receiver<Vec<SupernodeView>>,
}

/// The routes.
pub fn router(engine: Engine, supernodes: watch::Receiver<Vec<SupernodeView>>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .with_state(Api { engine: engine.clone(), supernodes })
        .nest("/v1/log", log::routes().into())
        .nest("/v1/tasks", Router::from(stored::routes()).with_state(engine.clone()))
        .nest("/v1/pulls", Router::from(pulls::routes()).with_state(engine.clone()))
        .merge(for_clients(engine))
        .layer(middleware::map_response(refusal::in_json))
}

/// The routes for whoever may fetch and nothing else.
pub fn for_clients(engine: Engine) -> Router {
    let routes = Router::new()
        .route("/", post(fetch::fetch))
        .route("/{task}", get(fetch::why))
        .with_state(fetch::Fetches::new(engine));
    Router::new().nest("/v1/fetch", routes).layer(middleware::map_response(refusal::in_json))
}

async fn status(State(api): State<Api>) -> Response {
    let view = |seen: &SupernodeView| SupernodeStatus {
        address: seen.address.to_string(),
        node: seen.node.map(|node| node.to_string()),
        connected: seen.connected,
    };
    let supernodes: Vec<_> = api.supernodes.borrow().iter().map(view).collect();
    let connected = supernodes.iter().any(|supernode| supernode.connected);
    match tokio::task::spawn_blocking(move || of(&api.engine, connected)).await {
        Ok(status) => Json(Status { supernodes, ..status }).into_response(),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the status could not be gathered".into()),
    }
}

/// How the node of this engine is. Reads the store: not for async threads.
pub fn of(engine: &Engine, supernode: bool) -> Status {
    let metrics = engine.metrics();
    let tasks = engine.live_tasks().into_iter().map(|(task, held, geometry)| TaskStatus {
        task: task.hex(),
        length: geometry.map(|geometry| geometry.length()),
        held,
        pieces: geometry.map(|geometry| geometry.pieces()),
    });
    let stored = engine.store().list().unwrap_or_default();
    let (adopted_tasks, adopted_bytes) = engine.store().adopted_usage();
    let room = engine.store().room();
    let received = [
        ("origin", ByteSource::Origin),
        ("seed", ByteSource::Seed),
        ("peer", ByteSource::Peer),
        ("local", ByteSource::Local),
        ("cache", ByteSource::Cache),
    ];
    let sent = [("peer", Recipient::Peer), ("client", Recipient::Client)];
    let neighbours = engine.neighbours().into_iter().map(|record| NeighbourStatus {
        node: record.node.to_string(),
        faults: record.faults.iter().map(|(fault, count)| (fault.value().to_owned(), *count)).collect(),
        barred: record.barred,
    });
    Status {
        node: engine.node().to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        supernode,
        supernodes: Vec::new(),
        tasks: tasks.collect(),
        stored_tasks: stored.iter().filter(|entry| entry.proven && !entry.adopted).count(),
        stored_bytes: room.blobs,
        adopted_tasks,
        adopted_bytes,
        pinned_tasks: room.pinned_tasks,
        disk_bytes: room.total,
        quota_bytes: room.quota,
        free_bytes: room.free,
        neighbours: neighbours.collect(),
        received: received
            .map(|(name, source)| (name.into(), metrics.received_bytes.of(source).get()))
            .into(),
        sent: sent.map(|(name, to)| (name.into(), metrics.sent_bytes.of(to).get())).into(),
    }
}

/// An error with its causes.
fn one_line(error: &FetchError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

fn status_of(error: &FetchError) -> StatusCode {
    match error {
        FetchError::Origin(failure) => {
            StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY)
        }
        FetchError::Forbidden(_) => StatusCode::FORBIDDEN,
        FetchError::Poisoned { .. } => StatusCode::CONFLICT,
        FetchError::StoreFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        FetchError::Closing => StatusCode::SERVICE_UNAVAILABLE,
        FetchError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn failed(status: StatusCode, error: String) -> Response {
    (status, Json(ApiError { error })).into_response()
}
