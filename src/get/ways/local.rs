//! Through the local peer's socket. What arrived before a failure is in the peer's store: the next `get` has it from there
//! at once, so no partial file is kept here.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Method};
use peer::local_api::FetchRequest;

use super::{Done, Job};
use crate::get::output::receive;
use crate::get::report::Transfer;
use crate::local::{self, Refused};

/// Brings it.
pub(super) async fn bring(
    data_dir: Option<&Path>,
    job: &Job<'_>,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let connect = async || local::connect(data_dir).await?.context("the local peer is gone");
    let source = &job.remote.source;
    let request = FetchRequest {
        url: source.url.clone(),
        digest: source.digest.map(|digest| digest.to_string()),
        tag: source.tag.clone(),
        headers: job.remote.credentials.clone(),
        range: job.settings.excerpt,
        no_origin: job.settings.no_origin,
    };
    let request = serde_json::to_vec(&request)?;
    let response = local::ask(connect().await?, Method::POST, "/v1/fetch", request).await?;
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
        match local::ask(connect().await?, Method::GET, &format!("/v1/fetch/{task}"), Vec::new()).await {
            Err(error) if error.downcast_ref().is_some_and(|refused: &Refused| refused.status != 404) => {
                return Err(error);
            }
            _ => {}
        }
    }
    received?;
    Ok(Done { length, through: "the local peer", digest: source.digest })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn modified(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(text(headers, "last-modified")?).ok()
}
