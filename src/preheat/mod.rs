//! `longshore preheat` and `longshore preheats`: jobs that bring images to nodes before they are wanted. The supernode does them;
//! this asks it over its socket.

mod schedules;
mod show;
mod watch;
mod workload;

use anyhow::{Context as _, bail};
use hyper::Method;
use peer::image::reference::Reference;
use supernode::preheat::{Choice, File, Spec, State, Target, View};

use crate::cli::{self, At};
use crate::get::image::logins;
use crate::local::{self, Daemon, Kind};

/// `longshore preheat`.
pub async fn run(flags: cli::Preheat) -> anyhow::Result<()> {
    let mut spec = spec(&flags)?;
    if let Some(workload) = &flags.workload {
        spec.nodes.names = workload::nodes(workload, flags.namespace.as_deref()).await?;
    }
    spec.check().map_err(crate::usage)?;
    let authorization = authorization(flags.header.as_deref(), &spec).await?;
    let mut daemon = daemon(&flags.at).await?;
    let headers: Vec<_> =
        authorization.iter().map(|value| ("x-registry-authorization", value.as_str())).collect();
    if flags.schedule.is_some() || flags.follow.is_some() {
        return schedules::make(&mut daemon, spec, &flags, &headers).await;
    }
    let body = serde_json::to_vec(&spec)?;
    if flags.plan {
        let forecast = daemon.send(Method::POST, "/preheats/plan", &headers, body).await?;
        return show::forecast(&spec, &forecast, flags.json);
    }
    let view: View = daemon.send(Method::POST, "/preheats", &headers, body).await?;
    if flags.wait {
        return end(watch::run(&mut daemon, view.id, flags.json).await?, flags.json);
    }
    show::taken_on(&view, flags.json)
}

/// `longshore preheats`.
pub async fn jobs(flags: cli::Preheats) -> anyhow::Result<()> {
    let change = async |job: cli::PreheatJob, deed: &str| {
        let mut daemon = daemon(&job.at).await?;
        let view: View =
            daemon.send(Method::POST, &format!("/preheats/{}/{deed}", job.id), &[], Vec::new()).await?;
        show::one(&view, job.json)
    };
    match flags.deed {
        None => {
            let all = daemon(&flags.at).await?.json("/preheats").await?;
            show::all(&serde_json::from_value::<Vec<View>>(all)?, flags.json)
        }
        Some(cli::PreheatDeed::Show(job)) => {
            show::one(&of(&mut daemon(&job.at).await?, job.id).await?, job.json)
        }
        Some(cli::PreheatDeed::Watch(job)) => {
            let mut daemon = daemon(&job.at).await?;
            let view = of(&mut daemon, job.id).await?;
            end(watch::run(&mut daemon, view.id, job.json).await?, job.json)
        }
        Some(cli::PreheatDeed::Pause(job)) => change(job, "pause").await,
        Some(cli::PreheatDeed::Resume(job)) => change(job, "resume").await,
        Some(cli::PreheatDeed::Cancel(job)) => change(job, "cancel").await,
        Some(cli::PreheatDeed::Schedules(flags)) => schedules::run(flags).await,
        Some(cli::PreheatDeed::Remove(job)) => {
            daemon(&job.at).await?.ask(Method::DELETE, &format!("/preheats/{}", job.id), Vec::new()).await?;
            Ok(())
        }
    }
}

/// The last word on a job that is over.
fn end(view: View, json: bool) -> anyhow::Result<()> {
    show::one(&view, json)?;
    match view.state {
        State::Succeeded => Ok(()),
        State::Cancelled => bail!("the job {} was cancelled", view.id),
        _ => bail!("the job {} failed: {}", view.id, view.message.as_deref().unwrap_or("see its nodes")),
    }
}

async fn daemon(at: &At) -> anyhow::Result<Daemon> {
    local::daemon(at, &[Kind::Supernode]).await.context("preheating is the supernode's to do")
}

async fn of(daemon: &mut Daemon, id: u64) -> anyhow::Result<View> {
    Ok(serde_json::from_value(daemon.json(&format!("/preheats/{id}")).await?)?)
}

/// What the flags say.
fn spec(flags: &cli::Preheat) -> anyhow::Result<Spec> {
    let is_url = |what: &String| what.starts_with("http://") || what.starts_with("https://");
    let (urls, images): (Vec<_>, Vec<_>) = flags.what.iter().chain(&flags.image).cloned().partition(is_url);
    let image = match (images.as_slice(), urls.is_empty()) {
        ([], _) => None,
        ([image], true) => Some(image.clone()),
        _ => {
            return Err(crate::usage(anyhow::anyhow!(
                "one image at a time, or several URLs: a job each for the rest"
            )));
        }
    };
    if flags.digest.is_some() && urls.len() != 1 {
        return Err(crate::usage(anyhow::anyhow!(
            "--digest is that of one file: an image's goes behind its name, IMAGE@sha256:…"
        )));
    }
    let file = |url: String| File { url, digest: flags.digest.clone(), tag: String::new() };
    let to = match flags.to {
        cli::PreheatTarget::Cache => Target::Cache,
        cli::PreheatTarget::Peers => Target::Peers,
        cli::PreheatTarget::Runtime => Target::Runtime,
    };
    let seconds = |time: common::config::Span| time.0.as_secs().max(1);
    Ok(Spec {
        image,
        platforms: flags.platform.clone(),
        files: urls.into_iter().map(file).collect(),
        to,
        nodes: Choice {
            names: flags.nodes.clone(),
            zones: flags.zone.clone(),
            racks: flags.rack.clone(),
            count: flags.count,
            percent: flags.percent,
        },
        parallelism: flags.parallelism,
        timeout_seconds: seconds(flags.timeout),
        backoff_limit: flags.retries,
        active_deadline_seconds: flags.deadline.map(seconds),
        ttl_seconds_after_finished: seconds(flags.ttl),
        paused: false,
        owner: None,
    })
}

/// Who the user is at the registry: as said, or by a login.
async fn authorization(header: Option<&str>, spec: &Spec) -> anyhow::Result<Option<String>> {
    if let Some(header) = header {
        let value =
            header.split_once(':').filter(|(name, _)| name.trim().eq_ignore_ascii_case("authorization"));
        let (_, value) =
            value.ok_or_else(|| crate::usage(anyhow::anyhow!("-H takes 'Authorization: value' here")))?;
        return Ok(Some(value.trim().to_owned()));
    }
    let Some(reference) = spec.image.as_deref().and_then(|image| Reference::of_image(image).ok()) else {
        return Ok(None);
    };
    let known = tokio::task::spawn_blocking(move || logins::credentials(&reference.registry)).await?;
    Ok(known.expose().find(|(name, _)| *name == "authorization").map(|(_, value)| value.to_owned()))
}
