//! `POST /v1/fetch`: content through the socket, for `get`. The origin is asked first whether this client may have it.
//! When it fails midway the body is cut short, which says that it failed but not why; `GET /v1/fetch/{task}` tells that.
//!
//! Who asks `/v1/fetch?in_place` may be told where the content lies in the store (`X-Longshore-File`, and an empty body) if it
//! is here, whole. That gives nobody a right: the file system says who may read there. It is to be copied and checked, and
//! may be gone a moment later.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use common::digest::Digest;
use common::piece::ByteRange;
use common::task::{Credentials, Source, TaskId};
use common::telemetry::{Recipient, redact};
use common::wire::swarm::Priority;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::excerpt::Excerpt;
use super::{failed, one_line, status_of};
use crate::engine::{Engine, Request};
use crate::error::FetchError;
use crate::handle::Handle;
use crate::origin::look;
use crate::record::By;

/// The query of who can do with a file's name.
pub const IN_PLACE: &str = "in_place";
/// The header that names the file.
pub const FILE: &str = "x-longshore-file";
/// And the one that says how long it is.
pub const LENGTH: &str = "x-longshore-length";
/// How the record of a pull names whoever fetches through the socket.
const CLIENT: &str = "get";
/// Failures that are remembered: whoever was cut asks at once.
const MAX_FAILURES: usize = 64;

/// What is wanted through the socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// The origin's URL.
    pub url: String,
    /// `sha256:…`, if it is known.
    #[serde(default)]
    pub digest: Option<String>,
    /// Separates swarms of one URL.
    #[serde(default)]
    pub tag: String,
    /// Secret headers for the origin.
    #[serde(default)]
    pub headers: Credentials,
    /// Only these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Excerpt>,
    /// Only what is here, whole, already; the origin is asked for leave, and for nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_origin: bool,
}

/// What the routes share.
#[derive(Clone)]
pub(super) struct Fetches {
    engine: Engine,
    failures: Arc<Mutex<VecDeque<(TaskId, FetchError)>>>,
}

// === impl Fetches ===

impl Fetches {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, failures: Arc::default() }
    }

    fn note(&self, task: TaskId, error: FetchError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|(other, _)| *other != task);
        failures.truncate(MAX_FAILURES - 1);
        failures.push_front((task, error));
    }

    fn failure(&self, task: TaskId) -> Option<FetchError> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().find(|(other, _)| *other == task).map(|(_, error)| error.clone())
    }

    /// The content, and when it was changed last.
    async fn open(
        &self,
        wanted: FetchRequest,
        digest: Option<Digest>,
    ) -> Result<Option<(Handle, HeaderMap)>, FetchError> {
        let asked = Instant::now();
        let name = redact(&wanted.url);
        let source = Source { url: wanted.url, digest, tag: wanted.tag, accept: None };
        let look = look(self.engine.origin(), source, &wanted.headers).await?;
        let here = !wanted.no_origin || self.engine.local(look.source.task()).await?.is_some();
        if !here {
            return Ok(None);
        }
        let (source, credentials) = (look.source, wanted.headers);
        let request = Request { source, credentials, priority: Priority::Pull, trace: None };
        let permitted = Instant::now();
        let handle = self.engine.open(request).await?;
        let by = By { name: name.into(), client: CLIENT.into(), asked, permitted };
        let handle = handle.for_client(by);
        let mut headers = HeaderMap::new();
        let modified =
            look.modified.map(httpdate::fmt_http_date).and_then(|date| HeaderValue::from_str(&date).ok());
        headers.extend(modified.map(|date| (header::LAST_MODIFIED, date)));
        Ok(Some((handle, headers)))
    }
}

/// Hands content out.
pub(super) async fn fetch(
    State(fetches): State<Fetches>,
    uri: Uri,
    Json(wanted): Json<FetchRequest>,
) -> Response {
    let digest = match wanted.digest.as_deref().map(str::parse::<Digest>).transpose() {
        Ok(digest) => digest,
        Err(error) => return failed(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let excerpt = wanted.range;
    let (handle, mut headers) = match fetches.open(wanted, digest).await {
        Ok(Some(opened)) => opened,
        Ok(None) => {
            return failed(
                StatusCode::NOT_FOUND,
                "it is not in the peer's store, and the origin is not to be asked for it".into(),
            );
        }
        Err(error) => return failed(status_of(&error), one_line(&error)),
    };
    let (length, task) = (handle.length(), handle.task());
    let range = match excerpt {
        None => ByteRange::new(0, length),
        Some(excerpt) => match excerpt.within(length) {
            Some(range) => range,
            None => {
                return failed(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    format!("it has {length} bytes, and none in that range"),
                );
            }
        },
    };
    headers.insert(header::CONTENT_LENGTH, range.len().into());
    let task_text = HeaderValue::from_str(&task.hex()).expect("invariant: hex is header text");
    headers.insert("x-longshore-task", task_text);
    if uri.query() == Some(IN_PLACE)
        && excerpt.is_none()
        && let Some(place) = place_of(&handle)
    {
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(FILE, place);
        headers.insert(LENGTH, length.into());
        return (headers, Body::empty()).into_response();
    }
    let sent = fetches.engine.metrics().sent_bytes.of(Recipient::Client).clone();
    let bytes = handle.read(range).inspect(move |chunk| match chunk {
        Ok(chunk) => sent.inc_by(chunk.len() as u64),
        Err(error) => fetches.note(task, error.clone()),
    });
    (headers, Body::from_stream(bytes)).into_response()
}

/// Where content lies that was here before it was asked for.
fn place_of(handle: &Handle) -> Option<HeaderValue> {
    let path = handle.path().filter(|_| handle.is_local())?;
    HeaderValue::from_bytes(path.as_os_str().as_bytes()).ok()
}

/// Why content of this task was cut short.
pub(super) async fn why(State(fetches): State<Fetches>, Path(task): Path<String>) -> Response {
    match task.parse().ok().and_then(|task| fetches.failure(task)) {
        Some(error) => failed(status_of(&error), one_line(&error)),
        None => failed(StatusCode::NOT_FOUND, "nothing of that task was cut short of late".into()),
    }
}
