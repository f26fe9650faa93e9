//! The dashboard's part of the API, for programs as well. All of it lies behind the API's [door](crate::api::guard).
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /api/v1/overview` | [`OverviewWithHistory`](super::overview::OverviewWithHistory) |
//! | `GET /api/v1/events` | the same without the history, again and again |
//! | `GET /api/v1/nodes` | [`Nodes`]: the connected nodes |
//! | `GET /api/v1/swarms` | [`Swarms`], the busiest first |
//! | `GET /api/v1/swarms/{task}` | [`SwarmDetail`]: its members and who gives to whom; 404 when there is none |
//! | `GET /api/v1/images` | [`Images`]: what is cached, by where it came from |

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::task::TaskId;
use peer::local_api::ApiError;
use peer::store::Entry;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::overview::OverviewWithHistory;
use super::{Dashboard, events, name};
use crate::hub::{MemberRow, NodeRow, SwarmRow};

/// Nodes, swarms, members and cached tasks that are shown at once.
const MOST: usize = 1000;

/// The connected nodes.
#[derive(Serialize, ToSchema)]
pub struct Nodes {
    /// How many there are.
    pub total: usize,
    /// The first of them, by id.
    pub nodes: Vec<NodeRow>,
}

/// The swarms.
#[derive(Serialize, ToSchema)]
pub struct Swarms {
    /// How many there are.
    pub total: usize,
    /// The busiest of them.
    pub swarms: Vec<SwarmRow>,
}

/// A swarm with its members.
#[derive(Serialize, ToSchema)]
pub struct SwarmDetail {
    /// It in numbers.
    pub swarm: SwarmRow,
    /// The supernode's node id: a parent that is no member.
    pub seed_node: String,
    /// The first of its members, by id.
    pub members: Vec<MemberRow>,
}

/// What is cached.
#[derive(Serialize, ToSchema)]
pub struct Images {
    /// Whether names are shown: they are to who has the token.
    pub named: bool,
    /// How many tasks there are.
    pub total: usize,
    /// Where they came from.
    pub sources: Vec<Image>,
}

/// What is cached of a repository, or of a host.
#[derive(Serialize, ToSchema)]
pub struct Image {
    /// Its name.
    pub name: Option<String>,
    /// Its tasks, the last used first.
    pub tasks: Vec<Cached>,
}

/// A task in the supernode's store.
#[derive(Serialize, ToSchema)]
pub struct Cached {
    /// Its id.
    pub task: String,
    /// What it is: `blob`, `manifest` or `file`.
    pub kind: name::Kind,
    /// Its length.
    pub length: u64,
    /// Bytes of it that are here.
    pub cached: u64,
    /// The whole is here and was checked.
    pub proven: bool,
    /// It stays.
    pub pinned: bool,
    /// Unix seconds.
    pub last_used: u64,
    /// Connected nodes that have all of it.
    pub nodes: usize,
}

/// The routes, and what OpenAPI says of them.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Dashboard: FromRef<S>,
{
    OpenApiRouter::default()
        .routes(routes!(overview))
        .routes(routes!(events::events))
        .routes(routes!(nodes))
        .routes(routes!(swarms))
        .routes(routes!(swarm))
        .routes(routes!(images))
}

/// The cluster in numbers, and its last hour
#[utoipa::path(get, path = "/overview", tag = "dashboard", responses((status = 200, description = "Now", body = OverviewWithHistory)))]
async fn overview(State(dashboard): State<Dashboard>) -> Json<OverviewWithHistory> {
    Json(dashboard.overview_with_history())
}

/// The connected nodes
#[utoipa::path(get, path = "/nodes", tag = "dashboard", responses((status = 200, description = "By id", body = Nodes)))]
async fn nodes(State(dashboard): State<Dashboard>) -> Json<Nodes> {
    let (total, nodes) = dashboard.hub.nodes(MOST);
    Json(Nodes { total, nodes })
}

/// The swarms
#[utoipa::path(get, path = "/swarms", tag = "dashboard", responses((status = 200, description = "The busiest first", body = Swarms)))]
async fn swarms(State(dashboard): State<Dashboard>) -> Json<Swarms> {
    let (total, swarms) = dashboard.hub.swarms(MOST);
    Json(Swarms { total, swarms })
}

/// A swarm, its members, and who gives to whom
#[utoipa::path(
    get, path = "/swarms/{task}", tag = "dashboard",
    params(("task" = String, Path, description = "64 hexadecimal digits", pattern = "^(sha256:)?[0-9a-f]{64}$")),
    responses(
        (status = 200, description = "Now", body = SwarmDetail),
        (status = 400, description = "It is no task id", body = ApiError),
        (status = 404, description = "No node wants or has it now", body = ApiError),
    )
)]
async fn swarm(State(dashboard): State<Dashboard>, Path(id): Path<String>) -> Response {
    let refuse = |status, error| (status, Json(ApiError { error })).into_response();
    let Ok(task) = id.parse::<TaskId>() else {
        let error = format!("{id:?} is no task id: 64 hexadecimal digits are expected");
        return refuse(StatusCode::BAD_REQUEST, error);
    };
    match dashboard.hub.swarm(task, MOST) {
        Some((swarm, members)) => {
            Json(SwarmDetail { swarm, seed_node: dashboard.engine.node().to_string(), members })
                .into_response()
        }
        None => refuse(StatusCode::NOT_FOUND, format!("no node wants or has task {task} now")),
    }
}

/// What is cached, by where it came from
#[utoipa::path(get, path = "/images", tag = "dashboard", responses((status = 200, description = "Names are shown to who has the token", body = Images)))]
async fn images(State(dashboard): State<Dashboard>) -> Result<Json<Images>, StatusCode> {
    let named = dashboard.named;
    let _turn = dashboard.desk.acquire().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let engine = dashboard.engine.clone();
    let listed = tokio::task::spawn_blocking(move || engine.store().list()).await;
    let mut entries = listed.ok().and_then(Result::ok).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    let total = entries.len();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_used));
    entries.truncate(MOST);
    let copies = dashboard.hub.copies(entries.iter().map(|entry| entry.task));
    Ok(Json(Images { named, total, sources: grouped(entries, &copies, named) }))
}

/// By where they came from, in the order of the names; without names, all in one.
fn grouped(entries: Vec<Entry>, copies: &[usize], named: bool) -> Vec<Image> {
    let mut groups: BTreeMap<Option<String>, Vec<Cached>> = BTreeMap::new();
    for (entry, &nodes) in entries.into_iter().zip(copies) {
        let (name, kind) = name::of(&entry.source_url);
        let Entry { task, geometry, held, proven, pinned, last_used, .. } = entry;
        let cached = (u64::from(held) * u64::from(geometry.piece_length())).min(geometry.length());
        let task = task.hex();
        let shown =
            Cached { task, kind, length: geometry.length(), cached, proven, pinned, last_used, nodes };
        groups.entry(name.filter(|_| named)).or_default().push(shown);
    }
    groups.into_iter().map(|(name, tasks)| Image { name, tasks }).collect()
}
