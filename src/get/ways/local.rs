//! Through the local peer's socket. What arrived before a failure is in the peer's store: the next `get` has it from there
//! at once, so no partial file is kept here.

use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use common::digest::Digest;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Response};
use peer::local_api::{FetchRequest, IN_PLACE};
use tokio::net::UnixStream;

use super::stored::Stored;
use super::{Done, Job};
use crate::get::output::receive;
use crate::get::report::Transfer;
use crate::get::wanted::Target;
use crate::local::{self, Door, Refused};

const FETCH: &str = "/v1/fetch";

/// Brings it.
pub(super) async fn bring(door: &Door, job: &Job<'_>, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
    let stream = connect(door).await?;
    if let (Some(digest), Target::File(path)) = (may_copy(&stream, job), job.target) {
        let response = ask(stream, job, &format!("{FETCH}?{IN_PLACE}")).await?;
        let Some(stored) = Stored::told_of(response.headers()) else {
            return stream_of(response, door, job, transfer).await;
        };
        match stored.copy(digest, (path, job.settings.finish), modified(response.headers()), transfer).await {
            Ok(length) => {
                return Ok(Done { length, through: "the local peer's store", digest: Some(digest) });
            }
            // Evicted a moment ago, or not what it was: the peer will find out, and mend it.
            Err(error) => tracing::debug!("the peer's file cannot be copied: {error:#}"),
        }
        let response = ask(connect(door).await?, job, FETCH).await?;
        return stream_of(response, door, job, transfer).await;
    }
    let response = ask(stream, job, FETCH).await?;
    stream_of(response, door, job, transfer).await
}

async fn connect(door: &Door) -> anyhow::Result<UnixStream> {
    door.connect().await?.context("the local peer is gone")
}

/// The digest to check it by, if the peer's own file will do. The peer's word on where that is counts only if it is of
/// this user, and has nothing to gain by a lie.
fn may_copy(stream: &UnixStream, job: &Job<'_>) -> Option<Digest> {
    let own = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
    let whole = job.settings.excerpt.is_none() && !job.settings.paced;
    job.remote.source.digest.filter(|_| own && whole)
}

async fn ask(stream: UnixStream, job: &Job<'_>, path: &str) -> anyhow::Result<Response<Incoming>> {
    let source = &job.remote.source;
    let request = FetchRequest {
        url: source.url.clone(),
        digest: source.digest.map(|digest| digest.to_string()),
        tag: source.tag.clone(),
        headers: job.remote.credentials.clone(),
        range: job.settings.excerpt,
        no_origin: job.settings.no_origin,
    };
    local::ask(stream, Method::POST, path, serde_json::to_vec(&request)?).await
}

/// Takes what the peer sends.
async fn stream_of(
    response: Response<Incoming>,
    door: &Door,
    job: &Job<'_>,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let headers = response.headers().clone();
    let length = text(&headers, "content-length").and_then(|text| text.parse().ok());
    let length: u64 = length.context("the peer did not say how long the content is")?;
    let mut cut = false;
    let body = response.into_body().into_data_stream().map(|chunk| {
        chunk.map_err(|_| {
            cut = true;
            anyhow!("the peer cut the transfer: its log says why")
        })
    });
    let received = receive(job, (length, modified(&headers)), body, transfer).await;
    if cut && let Some(task) = text(&headers, "x-longshore-task") {
        // Its answer is the error. A peer of an older release has none.
        match local::ask(connect(door).await?, Method::GET, &format!("/v1/fetch/{task}"), Vec::new()).await {
            Err(error) if error.downcast_ref().is_some_and(|refused: &Refused| refused.status != 404) => {
                return Err(error);
            }
            _ => {}
        }
    }
    received?;
    Ok(Done { length, through: "the local peer", digest: job.remote.source.digest })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn modified(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(text(headers, "last-modified")?).ok()
}
