//! The real daemons on their hosts, with empty stores: the registry, the supernode, the peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use peer::store::{Store, StoreOptions};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time;

use crate::content::Image;
use crate::disk::Disk;
use crate::lab::{Lab, ORIGIN, SUPERNODE, node};
use crate::net::Host;
use crate::process::Process;

const LONGSHORE: &str = env!("CARGO_BIN_EXE_longshore");
const REGISTRY_PORT: u16 = 5000;
/// The daemons' ports are the defaults; every host has all of its own.
const QUIC_PORT: u16 = 7700;
const PEER_HTTP: &str = "http://127.0.0.1:7712";
/// A daemon is up in a fraction of this.
const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// The registry writes a line of its log a moment after the last byte of an answer.
const LOG_LAG: Duration = Duration::from_millis(300);

/// Index of the registry among the nodes.
pub(crate) const REGISTRY: usize = 0;
/// Index of the supernode.
pub(crate) const SEED: usize = 1;
/// Index of the first peer.
pub(crate) const PEERS: usize = 2;

pub(crate) struct Cluster {
    /// The registry, the supernode, then the peers.
    pub(crate) nodes: Vec<Node>,
    folder: TempDir,
}

pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) disk: Disk,
    /// What its clock is told to show, as libfaketime has it.
    pub(crate) clock: Option<&'static str>,
    pub(crate) process: Process,
    /// The most memory of its earlier lives.
    peak: u64,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

// === impl Cluster ===

impl Cluster {
    /// Starts everything, and waits until every one of the `peers` is a member.
    pub(crate) async fn start(lab: &Lab, peers: usize) -> anyhow::Result<Self> {
        let mut cluster = Self { nodes: Vec::new(), folder: lab.folder()? };
        let registry = cluster.registry(lab)?;
        cluster.add(lab, ORIGIN, Path::new("docker-registry"), registry)?;
        cluster
            .until("the registry listens", |nodes| nodes[REGISTRY].said().contains("listening on"))
            .await?;
        let address = cluster.address();
        let supernode = ["supernode", "--insecure-registry", &address, "--origin-allow", &address];
        cluster.add(lab, SUPERNODE, Path::new(LONGSHORE), words(&supernode))?;
        let has_token = |nodes: &[Node]| nodes[SEED].data().join("join-token").exists();
        let is_bound = |nodes: &[Node]| nodes[SEED].data().join("addresses.json").exists();
        cluster.until("the supernode is up", |nodes| has_token(nodes) && is_bound(nodes)).await?;
        let supernode = format!("{}:{QUIC_PORT}", cluster.nodes[SEED].host.address);
        let token = cluster.nodes[SEED].data().join("join-token").display().to_string();
        for number in 1..=peers {
            let arguments = [
                "peer",
                "--supernode",
                &supernode,
                "--insecure-registry",
                &address,
                "--join-token-file",
                &token,
            ];
            cluster.add(lab, &node(number), Path::new(LONGSHORE), words(&arguments))?;
        }
        for peer in &mut cluster.nodes[PEERS..] {
            peer.ready().await?;
        }
        Ok(cluster)
    }

    /// `IP:PORT` of the registry.
    pub(crate) fn address(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.nodes[REGISTRY].host.address)
    }

    /// The folder of the logs.
    pub(crate) fn logs(&self) -> &Path {
        self.folder.path()
    }

    /// Who does not run.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let ended =
            self.nodes.iter_mut().filter_map(|node| Some((node.process.ended()?, node.host.name.clone())));
        ended.map(|(status, name)| format!("{name} ended: {status}")).collect()
    }

    /// The most memory that each of the daemons had in one of its lives; the registry is none of ours.
    pub(crate) fn peaks(&mut self) -> Vec<(String, u64)> {
        let ours = self.nodes[SEED..].iter_mut();
        ours.map(|node| (node.host.name.clone(), node.peak.max(node.process.peak()))).collect()
    }

    /// Copies of `image` that have left the registry, by its access log.
    pub(crate) async fn copies(&self, image: &Image) -> f64 {
        time::sleep(LOG_LAG).await;
        let bytes: u64 =
            self.nodes[REGISTRY].said().lines().filter_map(|line| served(line, &image.repository)).sum();
        bytes as f64 / image.size() as f64
    }

    /// Has the supernode and the peers end, peers first.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.nodes[PEERS..].iter_mut().for_each(|peer| peer.process.signal(Signal::TERM));
        for peer in &mut self.nodes[PEERS..] {
            peer.process.end().await?;
        }
        self.nodes[SEED].process.signal(Signal::TERM);
        self.nodes[SEED].process.end().await
    }

    /// Whatever the stores call proven and is not. Only after [`Cluster::stop`].
    pub(crate) fn false_proofs(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for node in &self.nodes[SEED..] {
            let store = Store::open(&node.data(), StoreOptions { durable: true, ..StoreOptions::default() })
                .with_context(|| format!("the store of {}", node.host.name))?;
            for (task, _) in store.proven()? {
                let digest = store.get(task)?.map(|blob| blob.hash()).transpose()?;
                if digest.is_none_or(|digest| digest.hex() != task.hex()) {
                    found.push((node.host.name.clone(), task.hex()));
                }
            }
            store.close();
        }
        Ok(found)
    }

    /// Writes the registry's settings; its arguments.
    fn registry(&self, lab: &Lab) -> anyhow::Result<Vec<String>> {
        let (config, host) = (self.folder.path().join("registry.yml"), lab.network.host(ORIGIN)?);
        let settings = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}', maxthreads: 200}}}}\nhttp: {{addr: '{}:{REGISTRY_PORT}'}}\n",
            lab.shelf.path().display(),
            host.address
        );
        fs::write(&config, settings)?;
        Ok(words(&["serve", &config.display().to_string()]))
    }

    fn add(
        &mut self,
        lab: &Lab,
        name: &str,
        program: &Path,
        mut arguments: Vec<String>,
    ) -> anyhow::Result<()> {
        let (host, home) = (lab.network.host(name)?.clone(), self.folder.path());
        let disk = Disk::mount(home.join(format!("{name}.disk")))?;
        if name != ORIGIN {
            arguments.extend(words(&["--data-dir", &data(&disk).display().to_string()]));
        }
        let log = home.join(format!("{name}.log"));
        let process = Process::start(name, command(&host, program, &arguments, None), &log)?;
        let program = program.to_owned();
        self.nodes.push(Node { host, disk, clock: None, process, peak: 0, program, arguments, log });
        Ok(())
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&[Node]) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds(&self.nodes) {
            let ended = self.ended();
            if !ended.is_empty() || begun.elapsed() > START_LIMIT {
                bail!("not within {} s: {what} {ended:?}", START_LIMIT.as_secs());
            }
            time::sleep(LOOK).await;
        }
        Ok(())
    }
}

// === impl Node ===

impl Node {
    /// Starts it again, with the same data, by the clock that it has now.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.peak = self.peak.max(self.process.peak());
        let command = command(&self.host, &self.program, &self.arguments, self.clock);
        self.process = Process::start(&self.host.name, command, &self.log)?;
        Ok(())
    }

    /// Where a daemon of ours keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        data(&self.disk)
    }

    /// Waits until this peer calls itself ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let ask = async || {
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
            let begun = Instant::now();
            while begun.elapsed() < START_LIMIT {
                let answer = client.get(format!("{PEER_HTTP}/readyz")).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
                time::sleep(LOOK).await;
            }
            bail!("it is not ready after {} s", START_LIMIT.as_secs())
        };
        self.host.inside(ask).await.with_context(|| self.host.name.clone())
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

fn data(disk: &Disk) -> PathBuf {
    disk.path().join("data")
}

fn command(host: &Host, program: &Path, arguments: &[String], clock: Option<&str>) -> Command {
    let mut command = host.command(program);
    // Nothing of the machine's own settings but how much is logged.
    let settings = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in settings.filter(|name| name.starts_with("LONGSHORE_") && name != "LONGSHORE_LOG") {
        command.env_remove(name);
    }
    // How full this machine's disk happens to be is nobody's concern here.
    command.env("LONGSHORE_PEER_KEEP_FREE", "0").env("LONGSHORE_SUPERNODE_KEEP_FREE", "0");
    if let (Some(clock), Some(library)) = (clock, crate::deeds::faketime()) {
        // Time still passes as it does: only the calendar is wrong.
        command.env("LD_PRELOAD", library).env("FAKETIME", clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    command.args(arguments);
    command
}

/// Reads `127.0.0.1 - - [date] "METHOD PATH HTTP/1.1" STATUS BYTES "referrer" "agent"`.
fn served(line: &str, repository: &str) -> Option<u64> {
    let (_, rest) = line.split_once("] \"GET ")?;
    let (request, rest) = rest.split_once("\" ")?;
    let (status, rest) = rest.split_once(' ')?;
    let wanted = request.starts_with(&format!("/v2/{repository}/")) && matches!(status, "200" | "206");
    wanted.then(|| rest.split(' ').next()?.parse().ok())?
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
