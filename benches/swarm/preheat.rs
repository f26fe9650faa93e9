//! Jobs that bring blobs to all nodes before they are wanted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::time;

use crate::client::Times;
use crate::cluster::Cluster;
use crate::content::{Blob, REPOSITORY};
use crate::options::Contender;
use crate::process::Process;
use crate::running::Setting;

/// How often it is looked whether a job is over.
const LOOK: Duration = Duration::from_millis(20);

/// Brings the content to all nodes; as a node is no client, all are done when the job is.
pub(crate) async fn bring(
    cluster: &Cluster,
    setting: &Setting<'_>,
    start: Instant,
) -> anyhow::Result<Vec<Times>> {
    let Setting { options, content, nodes, .. } = setting;
    let mut jobs = Vec::new();
    time::sleep_until(start.into()).await;
    for blob in &content.blobs {
        jobs.push(job(cluster, setting, *blob, jobs.len())?);
    }
    let limit = options.limit(Contender::Preheat);
    for job in &mut jobs {
        let status = loop {
            match job.ended() {
                Some(status) => break status,
                None if start.elapsed() > limit => {
                    bail!("no end after {} s\n{}", limit.as_secs(), job.tail())
                }
                None => time::sleep(LOOK).await,
            }
        };
        ensure!(status.success(), "the job failed\n{}", job.tail());
    }
    let finish = start.elapsed().as_secs_f64();
    Ok(vec![Times { begun: 0.0, first_byte: 0.0, finish }; nodes.len()])
}

/// Begins to bring as much of something else at the start.
pub(crate) async fn beside(
    cluster: &Cluster,
    setting: &Setting<'_>,
    start: Instant,
) -> anyhow::Result<Process> {
    let other = setting.content.other.context("nothing was made to be preheated")?;
    time::sleep_until(start.into()).await;
    job(cluster, setting, other, 0)
}

fn job(cluster: &Cluster, setting: &Setting<'_>, blob: Blob, number: usize) -> anyhow::Result<Process> {
    let mut command = setting.supernode.command(&setting.options.longshore);
    let url = format!("http://{}/v2/{REPOSITORY}/blobs/{}", setting.address, blob.digest);
    command.args(["preheat", &url, "--digest", &blob.digest.to_string(), "--wait", "--data-dir"]);
    command.arg(cluster.data()).args(["--parallelism", &setting.nodes.len().to_string()]);
    Process::start(&format!("preheat{number}"), command, setting.logs)
}
