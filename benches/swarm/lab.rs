//! One measurement: everything fresh on the hosts, all nodes pull, the counters before and after.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tempfile::TempDir;
use tokio::time;

use crate::client::Times;
use crate::content::Content;
use crate::net::{Network, Plan, is_left_over};
use crate::options::{Contender, Options};
use crate::process::Machine;
use crate::registry::Registry;
use crate::running::{Cost, Running, Setting};

/// Of folders; the process's id follows.
const PREFIX: &str = "swarm-";
const REGISTRY: &str = "registry";
const SUPERNODE: &str = "supernode";
const STRANGER: &str = "stranger";
/// By the common start every thread has got its client ready.
const HEAD_START: Duration = Duration::from_millis(500);
/// The registry writes a line of its log a moment after the last byte of an answer.
const LOG_LAG: Duration = Duration::from_millis(300);

/// The network, and what is carried over it.
pub(crate) struct Lab {
    pub(crate) options: Options,
    pub(crate) content: Arc<Content>,
    network: Network,
    folder: TempDir,
}

/// What one measurement found.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) contender: &'static str,
    pub(crate) hostile: bool,
    pub(crate) ideal: f64,
    /// Bytes that every node pulled.
    pub(crate) size: u64,
    pub(crate) nodes: Vec<Times>,
    /// Bytes on the wire that left the host of the supernode, or of the seeder.
    pub(crate) supernode_sent: u64,
    /// Bytes of blobs and manifests by the registry's access log.
    pub(crate) registry_sent: u64,
    /// Bytes on the wire into each zone.
    pub(crate) into_zones: Vec<u64>,
    /// The part of the machine's processors that was busy.
    pub(crate) busy: f64,
    pub(crate) cost: Option<Cost>,
}

/// The counters of the network.
struct Counters {
    supernode: u64,
    zones: Vec<u64>,
    machine: Machine,
}

// === impl Lab ===

impl Lab {
    pub(crate) fn make(options: Options) -> anyhow::Result<Self> {
        let folder = folder()?;
        let content = Arc::new(Content::make(&options, folder.path())?);
        let zones = options.zones();
        let core = |name: &str, rate| Plan { name: name.to_owned(), rate, zone: None };
        let mut plans = vec![
            core(REGISTRY, options.registry_rate()),
            core(SUPERNODE, options.supernode_rate()),
            core(STRANGER, options.rate),
        ];
        let node = |number: u16| Plan {
            name: format!("node{}", number + 1),
            rate: options.rate,
            zone: number.checked_rem(zones),
        };
        plans.extend((0..options.nodes).map(node));
        let network = Network::make(&plans, zones, options.zone_rate)?;
        Ok(Self { options, content, network, folder })
    }

    /// Measures `contender` once; with the bad peer if `hostile`.
    pub(crate) async fn measure(
        &self,
        contender: Contender,
        hostile: bool,
        run: u16,
    ) -> anyhow::Result<Outcome> {
        let folder = tempfile::tempdir_in(self.folder.path())?;
        let logs = self.logs(contender, hostile, run)?;
        let host = self.network.host(REGISTRY)?;
        let registry = Registry::start(host, &self.content, folder.path(), &logs).await?;
        let setting = self.setting(&registry.address, folder.path(), &logs)?;
        let mut running = Running::start(contender, &setting).await?;
        let (before, cpu) = (self.counters()?, running.cpu());
        let start = Instant::now() + HEAD_START;
        if hostile {
            running.spoil(&setting)?;
        }
        let pulled = running.pull(contender, &setting, start).await;
        let times = pulled.map_err(|error| anyhow!("{error:#}\n{}", registry.tail()))?;
        let (after, cost) = (self.counters()?, running.cost(&setting.nodes, cpu).await?);
        time::sleep(LOG_LAG).await;
        let zones = after.zones.iter().zip(&before.zones).map(|(after, before)| after - before);
        Ok(Outcome {
            contender: contender.name(),
            hostile,
            ideal: self.options.ideal().as_secs_f64(),
            size: self.content.size(),
            nodes: times,
            supernode_sent: after.supernode - before.supernode,
            registry_sent: registry.sent(),
            into_zones: zones.collect(),
            busy: after.machine.busy_since(before.machine),
            cost,
        })
    }

    fn setting<'a>(
        &'a self,
        address: &'a str,
        folder: &'a Path,
        logs: &'a Path,
    ) -> anyhow::Result<Setting<'a>> {
        let host = |name: &str| self.network.host(name);
        let nodes = (1..=self.options.nodes).map(|number| host(&format!("node{number}")).cloned());
        Ok(Setting {
            options: &self.options,
            content: &self.content,
            address,
            registry: host(REGISTRY)?,
            supernode: host(SUPERNODE)?,
            stranger: host(STRANGER)?,
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            folder,
            logs,
        })
    }

    fn counters(&self) -> anyhow::Result<Counters> {
        Ok(Counters {
            supernode: self.network.host(SUPERNODE)?.sent()?,
            zones: self.network.zone_bytes()?,
            machine: Machine::now(),
        })
    }

    /// The folder for the logs of one measurement.
    fn logs(&self, contender: Contender, hostile: bool, run: u16) -> anyhow::Result<PathBuf> {
        let kept = self.options.keep_logs.clone().unwrap_or_else(|| self.folder.path().join("logs"));
        let folder =
            kept.join(format!("{}{}-{run}", contender.name(), if hostile { "-hostile" } else { "" }));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// A fresh folder for everything; what killed runs left behind goes.
fn folder() -> anyhow::Result<TempDir> {
    let parent = env!("CARGO_TARGET_TMPDIR");
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| is_left_over(name, PREFIX)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(parent)?)
}
