//! Whom the nodes pull from in one measurement: started and warm, then pulled from, then asked what it cost.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::aria2::{self, Swarm};
use crate::client::{self, Clock, Pull, Times};
use crate::cluster::{self, Cluster, Sources};
use crate::content::{Content, REPOSITORY};
use crate::net::Host;
use crate::options::{Child, Contender, Options};
use crate::preheat;
use crate::process::Process;

/// What is done, and where everything runs.
pub(crate) struct Setting<'a> {
    pub(crate) options: &'a Options,
    pub(crate) content: &'a Arc<Content>,
    /// `IP:PORT` of the registry.
    pub(crate) address: &'a str,
    pub(crate) registry: &'a Host,
    pub(crate) supernode: &'a Host,
    /// Where the bad peer stands.
    pub(crate) stranger: &'a Host,
    pub(crate) nodes: Vec<Host>,
    /// For the data of this measurement.
    pub(crate) folder: &'a Path,
    pub(crate) logs: &'a Path,
}

/// The processes of a contender.
pub(crate) enum Running {
    Longshore { cluster: Cluster, hostile: Option<Process> },
    Direct,
    Aria2(Swarm),
}

/// What the contender's processes used, and where their bytes came from.
#[derive(Serialize)]
pub(crate) struct Cost {
    /// Seconds of processor time of all of them.
    pub(crate) cpu: f64,
    /// The largest of a node, in bytes.
    pub(crate) peer_peak: u64,
    /// The supernode, or the seeder.
    pub(crate) supernode_peak: u64,
    /// Of each node.
    pub(crate) sources: Option<Vec<Sources>>,
}

// === impl Running ===

impl Running {
    pub(crate) async fn start(contender: Contender, setting: &Setting<'_>) -> anyhow::Result<Self> {
        Ok(match contender {
            Contender::Longshore | Contender::Preheat | Contender::Beside => {
                Self::Longshore { cluster: Cluster::start(setting).await?, hostile: None }
            }
            Contender::Direct => Self::Direct,
            Contender::Aria2 => Self::Aria2(Swarm::start(setting).await?),
        })
    }

    /// Adds the bad peer. It wants the blob at once.
    pub(crate) fn spoil(&mut self, setting: &Setting<'_>) -> anyhow::Result<()> {
        let (Self::Longshore { cluster, hostile }, Some(kind)) = (self, setting.options.hostile) else {
            bail!("only Longshore has a bad peer");
        };
        let largest = setting.content.blobs.iter().max_by_key(|blob| blob.size).context("nothing to pull")?;
        let mut command = Child::Hostile.command(setting.stranger)?;
        command.args(["--kind", &format!("{kind:?}").to_lowercase(), "--supernode", &cluster.address]);
        command.arg("--join-token-file").arg(cluster.token());
        command.arg("--data-dir").arg(setting.folder.join("hostile"));
        command.args(["--blob", &largest.digest.to_string(), "--registry", setting.address]);
        command.args(["--repository", REPOSITORY]);
        *hostile = Some(Process::start("hostile", command, setting.logs)?);
        Ok(())
    }

    /// All nodes pull everything, each at its time after `start`; gives their times in order.
    pub(crate) async fn pull(
        &self,
        contender: Contender,
        setting: &Setting<'_>,
        start: Instant,
    ) -> anyhow::Result<Vec<Times>> {
        let Setting { options, content, address, nodes, .. } = setting;
        // Not looked at again: it works as long as it is held.
        let _beside = match (self, contender) {
            (Self::Longshore { cluster, .. }, Contender::Preheat) => {
                return preheat::bring(cluster, setting, start).await;
            }
            (Self::Longshore { cluster, .. }, Contender::Beside) => {
                Some(preheat::beside(cluster, setting, start).await?)
            }
            _ => None,
        };
        let limit = options.limit(contender);
        let each = nodes.iter().cloned().enumerate().map(async |(number, node)| {
            let clock = Clock { start, begins: options.begins(number), limit };
            let pull = |base: String, registry| Pull { base, registry, content: Arc::clone(content) };
            let times = match self {
                Self::Longshore { .. } => {
                    let pull = pull(cluster::PROXY.to_owned(), Some((*address).to_owned()));
                    client::pull(node, pull, clock).await
                }
                Self::Direct => client::pull(node, pull(format!("http://{address}"), None), clock).await,
                Self::Aria2(_) => aria2::download(node, clock).await,
            };
            times.map_err(|error| anyhow!("{error:#}\n{}", self.tail(number)))
        });
        try_join_all(each).await
    }

    /// Processor time so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.processes().iter().map(|process| process.cpu().as_secs_f64()).sum()
    }

    /// What it took since its processors' time was `cpu`.
    pub(crate) async fn cost(&self, nodes: &[Host], cpu: f64) -> anyhow::Result<Option<Cost>> {
        let cpu = self.cpu() - cpu;
        if let Self::Longshore { hostile: Some(hostile), .. } = self
            && !hostile.said().contains("in a swarm")
        {
            bail!("the bad peer did not join the swarm\n{}", hostile.tail());
        }
        let sources = match self {
            Self::Longshore { .. } => Some(try_join_all(nodes.iter().map(Sources::of)).await?),
            Self::Direct | Self::Aria2(_) => None,
        };
        let processes = self.processes();
        let Some((supernode, peers)) = processes.split_first() else { return Ok(None) };
        let peer_peak = peers.iter().map(|peer| peer.peak_memory()).max().unwrap_or(0);
        Ok(Some(Cost { cpu, peer_peak, supernode_peak: supernode.peak_memory(), sources }))
    }

    /// The supernode or the seeder, then the nodes'.
    fn processes(&self) -> Vec<&Process> {
        match self {
            Self::Longshore { cluster, .. } => cluster.processes().collect(),
            Self::Direct => Vec::new(),
            Self::Aria2(swarm) => swarm.processes().collect(),
        }
    }

    /// The end of the logs that tell of a node.
    fn tail(&self, node: usize) -> String {
        let processes = self.processes();
        let tails =
            [node + 1, 0].map(|index| processes.get(index).map_or_else(String::new, |one| one.tail()));
        tails.join("\n")
    }
}
