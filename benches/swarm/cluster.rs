//! The real daemons: a supernode, and a peer on every node, with empty stores.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::time;

use crate::client;
use crate::net::Host;
use crate::options::Options;
use crate::process::Process;
use crate::running::Setting;

const QUIC_PORT: u16 = 7700;
/// The ports are the defaults; every host has all of its own.
const PEER_HTTP: &str = "http://127.0.0.1:7712";
pub(crate) const PROXY: &str = "http://127.0.0.1:7711";
/// A daemon is up in a fraction of this, even with hundreds of them on two processors.
const START_LIMIT: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    pub(crate) supernode: Process,
    pub(crate) peers: Vec<Process>,
    pub(crate) address: String,
    data: PathBuf,
}

/// Bytes that a peer got, by where they came from.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Sources {
    pub(crate) origin: u64,
    pub(crate) seed: u64,
    pub(crate) peer: u64,
    pub(crate) local: u64,
}

// === impl Cluster ===

impl Cluster {
    /// Starts everything and waits until every peer is a member.
    pub(crate) async fn start(setting: &Setting<'_>) -> anyhow::Result<Self> {
        let Setting { options, address: registry, supernode, nodes, folder, logs, .. } = setting;
        let data = folder.join("supernode");
        let mut command = daemon(supernode, options, "supernode", &data);
        command.args(["--insecure-registry", registry, "--origin-allow", registry]);
        let process = Process::start("supernode", command, logs)?;
        let address = format!("{}:{QUIC_PORT}", supernode.address);
        let mut cluster = Self { supernode: process, peers: Vec::new(), address, data };
        cluster.up().await?;
        for node in nodes {
            let mut command = daemon(node, options, "peer", &folder.join(&node.name));
            command.args(["--supernode", &cluster.address, "--insecure-registry", registry]);
            command.arg("--join-token-file").arg(cluster.token());
            if let Some(zone) = node.zone {
                command.args(["--zone", &format!("zone-{zone}")]);
            }
            cluster.peers.push(Process::start(&node.name, command, logs)?);
        }
        for (node, peer) in nodes.iter().zip(&mut cluster.peers) {
            ready(node, peer).await?;
        }
        Ok(cluster)
    }

    /// The file with the cluster's first join token.
    pub(crate) fn token(&self) -> PathBuf {
        self.data.join("join-token")
    }

    /// The supernode's data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// All of the daemons.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.supernode).chain(&self.peers)
    }

    async fn up(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !(self.token().exists() && self.data.join("addresses.json").exists()) {
            if self.supernode.ended().is_some() || begun.elapsed() > START_LIMIT {
                bail!("the supernode does not start\n{}", self.supernode.tail());
            }
            time::sleep(LOOK).await;
        }
        Ok(())
    }
}

// === impl Sources ===

impl Sources {
    /// Asks the peer on `host`.
    pub(crate) async fn of(host: &Host) -> anyhow::Result<Self> {
        let get = async || {
            let answer = client::plain()?.get(format!("{PEER_HTTP}/metrics")).send().await?;
            Ok(answer.error_for_status()?.text().await?)
        };
        let metrics = host.inside(get).await.with_context(|| format!("no metrics of {}", host.name))?;
        let of = |source: &str| {
            let series = format!("longshore_received_bytes_total{{source=\"{source}\"}} ");
            let value =
                metrics.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse::<f64>().ok());
            value.unwrap_or(0.0) as u64
        };
        Ok(Self { origin: of("origin"), seed: of("seed"), peer: of("peer"), local: of("local") })
    }
}

fn daemon(host: &Host, options: &Options, role: &str, data: &Path) -> std::process::Command {
    let mut command = host.command(&options.longshore);
    // Nothing of the machine's own settings but how much is logged.
    let settings = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in settings.filter(|name| name.starts_with("LONGSHORE_") && name != "LONGSHORE_LOG") {
        command.env_remove(name);
    }
    command.arg(role).arg("--data-dir").arg(data);
    command
}

async fn ready(host: &Host, peer: &mut Process) -> anyhow::Result<()> {
    let begun = Instant::now();
    let ask = async || {
        let client = client::plain()?;
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            let answer = client.get(format!("{PEER_HTTP}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(true);
            }
            time::sleep(LOOK).await;
        }
        Ok(false)
    };
    let ready = host.inside(ask).await?;
    if !ready || peer.ended().is_some() {
        bail!("{} is not ready after {} s\n{}", host.name, begun.elapsed().as_secs(), peer.tail());
    }
    Ok(())
}
