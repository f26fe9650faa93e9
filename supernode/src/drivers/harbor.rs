//! Harbor before 2.12, vendor Dragonfly: the interface of Dragonfly's first supernode. `POST /preheats` begins a job,
//! `GET /preheats/{id}` says how it is. Routed by [`super::router`].

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use common::digest::Digest;
use common::task::Credentials;
use peer::image::reference::Reference;
use peer::origin::Registries;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::refusal::{Refusal, body, json};
use super::{Drivers, Jobs, MAX_BODY, credentials, image};
use crate::preheat::job::{JobId, Spec, State as JobState, Target, View};

/// What is asked for. `image` and `tag` are in the URL as well.
#[derive(Deserialize)]
struct Order {
    r#type: Option<String>,
    url: Option<String>,
    headers: Option<BTreeMap<String, serde_json::Value>>,
    digest: Option<String>,
}

/// What was begun.
#[derive(Debug, Serialize)]
pub(super) struct Begun {
    #[serde(rename = "ID")]
    id: String,
}

/// How it is.
#[derive(Debug, Serialize)]
pub(super) struct Job {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "startTime", with = "time::serde::rfc3339")]
    start_time: OffsetDateTime,
    #[serde(
        rename = "finishTime",
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    finish_time: Option<OffsetDateTime>,
    #[serde(rename = "errorMsg")]
    error: String,
    #[serde(rename = "Status")]
    status: &'static str,
}

/// `POST /preheats`.
pub(super) async fn create<J: Jobs>(
    State(drivers): State<Drivers<J>>,
    request: Request,
) -> Result<Json<Begun>, Refusal> {
    let (spec, credentials) = {
        let _turn = drivers.desk.acquire().await.map_err(|_| Refusal::Full)?;
        read(&body(request, MAX_BODY).await?, &drivers.registries)?
    };
    let view = drivers.jobs.create(spec, credentials).await?;
    Ok(Json(Begun { id: view.id.to_string() }))
}

/// The job that a body asks for.
pub(super) fn read(body: &[u8], registries: &Registries) -> Result<(Spec, Credentials), Refusal> {
    let order: Order = json(body)?;
    if order.r#type.as_deref() != Some("image") {
        return Err(Refusal::Unfit("only the type image can be preheated this way".into()));
    }
    let credentials = credentials(order.headers.as_ref())?;
    let mut image = image(order.url.as_deref().unwrap_or_default(), registries)?;
    if let Some(digest) = order.digest.filter(|digest| !digest.is_empty()) {
        let digest: Digest = digest
            .parse()
            .map_err(|_| Refusal::Unfit("the digest is not sha256:<64 hex characters>".into()))?;
        let read = Reference::of_image(&image).map_err(|error| Refusal::Unfit(error.to_string()))?;
        image = Reference { digest: Some(digest), ..read }.spelled();
    }
    Ok((Spec::image(image, Target::Cache), credentials))
}

/// `GET /preheats/{id}`.
pub(super) async fn show<J: Jobs>(
    State(drivers): State<Drivers<J>>,
    Path(id): Path<u64>,
) -> Result<Json<Job>, Refusal> {
    Ok(Json(Job::of(&drivers.jobs.show(JobId(id)).await?)))
}

// === impl Job ===

impl Job {
    fn of(view: &View) -> Self {
        let status = match view.state {
            JobState::Pending | JobState::Paused => "WAITING",
            JobState::Running => "RUNNING",
            JobState::Succeeded => "SUCCESS",
            JobState::Failed | JobState::Cancelled => "FAILED",
        };
        Self {
            id: view.id.to_string(),
            start_time: view.created_at,
            finish_time: view.finished_at,
            error: super::why(view),
            status,
        }
    }
}
