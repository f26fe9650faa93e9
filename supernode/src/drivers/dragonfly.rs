//! Harbor 2.12 and later, vendor Dragonfly: the part of the Dragonfly manager's Open API that Harbor uses. `POST
//! /oapi/v1/jobs` begins a job, `GET /oapi/v1/jobs/{id}` says how it is. Routed by [`super::router`].
//!
//! Harbor sends every field, with zero, an empty text or null where it has nothing to say: these mean what is usual.
//! It fails on a job that is not new (208), so one that runs already is answered like a new one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use common::task::Credentials;
use peer::image::reference::Reference;
use peer::origin::Registries;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::refusal::{Refusal, body, json};
use super::{Drivers, Jobs, MAX_BODY, credentials, image};
use crate::preheat::job::{JobId, NodeState, NodeView, Spec, State as JobState, Target, View};

/// Nodes whose result is told: Harbor writes a table of them into its log.
const MAX_TOLD: usize = 1000;
/// One cluster is all there is here.
const CLUSTER: u32 = 1;

/// What is asked for.
#[derive(Deserialize)]
struct Order {
    r#type: Option<String>,
    args: Option<Args>,
}

#[derive(Deserialize)]
struct Args {
    r#type: Option<String>,
    url: Option<String>,
    headers: Option<BTreeMap<String, serde_json::Value>>,
    scope: Option<String>,
    platform: Option<String>,
    concurrent_count: Option<i64>,
    /// Nanoseconds, as Go has them.
    timeout: Option<i64>,
}

/// How a job is.
#[derive(Debug, Serialize)]
pub(super) struct Job {
    id: JobId,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    r#type: &'static str,
    state: &'static str,
    result: Results,
}

#[derive(Debug, Serialize)]
struct Results {
    job_states: [JobResult; 1],
}

#[derive(Debug, Serialize)]
struct JobResult {
    state: &'static str,
    error: String,
    results: [Tasks; 1],
}

#[derive(Debug, Serialize)]
struct Tasks {
    scheduler_cluster_id: u32,
    success_tasks: Vec<Task>,
    failure_tasks: Vec<Task>,
}

/// The image on a node.
#[derive(Debug, Serialize)]
struct Task {
    url: String,
    hostname: String,
    /// Nodes are known by name and id here.
    ip: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// `POST /oapi/v1/jobs`.
pub(super) async fn create<J: Jobs>(
    State(drivers): State<Drivers<J>>,
    request: Request,
) -> Result<Json<Job>, Refusal> {
    let (spec, credentials) = {
        let _turn = drivers.desk.acquire().await.map_err(|_| Refusal::Full)?;
        read(&body(request, MAX_BODY).await?, &drivers.registries)?
    };
    let view = drivers.jobs.create(spec, credentials).await?;
    Ok(Json(drivers.told(&view)))
}

/// The job that a body asks for.
pub(super) fn read(body: &[u8], registries: &Registries) -> Result<(Spec, Credentials), Refusal> {
    let order: Order = json(body)?;
    let unfit = |why: String| Err(Refusal::Unfit(why));
    match given(&order.r#type) {
        Some("preheat") => {}
        Some(other) => {
            return unfit(format!("jobs of type {:?} are not done here, only preheat", short(other)));
        }
        None => return unfit("the job has no type: expected preheat".into()),
    }
    let Some(args) = order.args else { return unfit("the job has no args".into()) };
    Ok((args.spec(registries)?, credentials(args.headers.as_ref())?))
}

/// `GET /oapi/v1/jobs/{id}`.
pub(super) async fn show<J: Jobs>(
    State(drivers): State<Drivers<J>>,
    Path(id): Path<u64>,
) -> Result<Json<Job>, Refusal> {
    let view = drivers.jobs.show(JobId(id)).await?;
    Ok(Json(drivers.told(&view)))
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

// === impl Args ===

impl Args {
    fn spec(&self, registries: &Registries) -> Result<Spec, Refusal> {
        match given(&self.r#type) {
            Some("image") => {}
            Some(other) => {
                let why = "cannot be preheated this way, only image: `longshore preheat` takes files, too";
                return Err(Refusal::Unfit(format!("{:?} {why}", short(other))));
            }
            None => return Err(Refusal::Unfit("the job's args have no type: expected image".into())),
        }
        let to = match given(&self.scope) {
            // The second is what Harbor's own policies call it.
            None | Some("single_seed_peer" | "single_peer" | "all_seed_peers") => Target::Cache,
            Some("all_peers") => Target::Peers,
            Some(other) => {
                let known = "single_seed_peer, all_seed_peers, all_peers";
                return Err(Refusal::Unfit(format!("there is no scope {:?}, only {known}", short(other))));
            }
        };
        let mut spec = Spec::image(image(given(&self.url).unwrap_or_default(), registries)?, to);
        spec.platforms.extend(given(&self.platform).map(str::to_owned));
        match self.concurrent_count.unwrap_or_default() {
            0 => {}
            count => {
                spec.parallelism = u32::try_from(count)
                    .map_err(|_| Refusal::Unfit(format!("concurrent_count {count} is out of range")))?;
            }
        }
        match self.timeout.unwrap_or_default() {
            0 => {}
            nanoseconds => {
                let nanoseconds = u64::try_from(nanoseconds)
                    .map_err(|_| Refusal::Unfit(format!("timeout {nanoseconds} is negative")))?;
                // It is the whole job's, and one attempt may use it up.
                spec.timeout_seconds = nanoseconds.div_ceil(1_000_000_000);
                spec.active_deadline_seconds = Some(spec.timeout_seconds);
            }
        }
        Ok(spec)
    }
}

// === impl Drivers ===

impl<J: Jobs> Drivers<J> {
    fn told(&self, view: &View) -> Job {
        let state = match view.state {
            JobState::Pending | JobState::Running | JobState::Paused => "PENDING",
            JobState::Succeeded => "SUCCESS",
            JobState::Failed | JobState::Cancelled => "FAILURE",
        };
        let url = self.url_of(&view.spec);
        let tasks = |state: NodeState| {
            let of_state = view.nodes.iter().filter(move |node| node.state == state);
            of_state.take(MAX_TOLD).map(|node| Task::of(&url, node)).collect()
        };
        let results = [Tasks {
            scheduler_cluster_id: CLUSTER,
            success_tasks: tasks(NodeState::Succeeded),
            failure_tasks: tasks(NodeState::Failed),
        }];
        Job {
            id: view.id,
            created_at: view.created_at,
            updated_at: view.updated_at,
            r#type: "preheat",
            state,
            result: Results { job_states: [JobResult { state, error: super::why(view), results }] },
        }
    }

    /// Where the image's manifest is asked for: what Harbor shows for what was brought.
    fn url_of(&self, spec: &Spec) -> String {
        let name = spec.image.as_deref().unwrap_or_default();
        let url = Reference::of_image(name).ok().and_then(|image| {
            let base = self.registries.base_url(&image.registry).ok()?;
            Some(format!("{base}/v2/{}/manifests/{}", image.repository, image.wanted()))
        });
        url.unwrap_or_else(|| name.to_owned())
    }
}

// === impl Task ===

impl Task {
    fn of(url: &str, node: &NodeView) -> Self {
        let hostname = if node.name.is_empty() { &node.node } else { &node.name };
        Self {
            url: url.to_owned(),
            hostname: hostname.clone(),
            ip: "",
            description: (node.state == NodeState::Failed).then(|| node.reason.clone().unwrap_or_default()),
        }
    }
}
