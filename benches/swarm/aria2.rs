//! The same work done by BitTorrent, as Debian's aria2 speaks it: a seeder on the supernode's host, a tracker on the
//! registry's, and a client on every node that is up and waiting before the clock starts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::time;

use crate::client::{Clock, Times, plain};
use crate::net::Host;
use crate::options::Options;
use crate::process::Process;
use crate::running::Setting;
use crate::{torrent, tracker};

pub(crate) const PROGRAM: &str = "aria2c";
const RPC: &str = "http://127.0.0.1:6800/jsonrpc";
const START_LIMIT: Duration = Duration::from_mins(1);
/// How often a client is asked how far it is, near both ends of its download and between them: seldom enough not to
/// weigh on the machine, often enough for the times.
const LOOK: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_millis(250);
const NEARLY: f64 = 0.9;

/// Settings for a burst among many neighbours: no limit of peers, no other ways to find them, frequent announcements,
/// and everybody goes on seeding. How many it uploads to at a time cannot be set. Fewer peers, a longer interval and no
/// cache before the disk did worse.
const SETTINGS: [&str; 20] = [
    "--no-conf",
    "--console-log-level=warn",
    "--summary-interval=0",
    "--show-console-readout=false",
    "--enable-rpc",
    "--rpc-listen-port=6800",
    "--listen-port=6881",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--enable-peer-exchange=true",
    "--bt-max-peers=0",
    "--bt-request-peer-speed-limit=1000M",
    "--bt-tracker-interval=1",
    "--max-overall-upload-limit=0",
    "--seed-ratio=0.0",
    "--seed-time=600",
    "--file-allocation=none",
    "--allow-overwrite=true",
    "--bt-min-crypto-level=plain",
];

/// Everything but the registry.
pub(crate) struct Swarm {
    pub(crate) seeder: Process,
    pub(crate) clients: Vec<Process>,
    _tracker: Process,
}

// === impl Swarm ===

impl Swarm {
    pub(crate) async fn start(setting: &Setting<'_>) -> anyhow::Result<Self> {
        let Setting { options, content, supernode, nodes, folder, logs, .. } = setting;
        let (tracker, announce) = tracker::start(setting.registry, logs).await?;
        let (file, seed) = (folder.join("content.torrent"), folder.join("seeder"));
        torrent::write(content, options.aria2_piece, &announce, &file)?;
        let files = seed.join(torrent::NAME);
        fs::create_dir_all(&files)?;
        for blob in &content.blobs {
            fs::hard_link(content.file(blob.digest), files.join(blob.digest.hex()))?;
        }
        let mut command = client(supernode, options, &seed);
        command.arg("--bt-seed-unverified=true").arg(&file);
        let seeder = Process::start("seeder", command, logs)?;
        let mut swarm = Self { seeder, clients: Vec::new(), _tracker: tracker };
        answers(supernode, &mut swarm.seeder).await?;
        for node in nodes {
            let mut command = client(node, options, &folder.join(&node.name));
            command.arg("--pause=true").arg(&file);
            swarm.clients.push(Process::start(&node.name, command, logs)?);
        }
        for (node, client) in nodes.iter().zip(&mut swarm.clients) {
            answers(node, client).await?;
        }
        Ok(swarm)
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.seeder).chain(&self.clients)
    }
}

/// Lets the client on `host` go, and watches it until it has everything.
pub(crate) async fn download(host: Host, clock: Clock) -> anyhow::Result<Times> {
    let name = host.name.clone();
    let run = async move || {
        let client = plain()?;
        clock.turn().await;
        let begun = clock.now();
        call(&client, "aria2.unpauseAll", json!([])).await?;
        let mut first_byte = None;
        loop {
            let keys = json!([["completedLength", "totalLength", "seeder"]]);
            let active = call(&client, "aria2.tellActive", keys).await?;
            let of =
                |key: &str| active[0][key].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            let part = of("completedLength") / of("totalLength").max(1.0);
            let now = clock.now();
            if part > 0.0 {
                first_byte.get_or_insert(now - begun);
            }
            if active[0]["seeder"] == "true" {
                return Ok(Times { begun, first_byte: first_byte.unwrap_or(now - begun), finish: now });
            }
            ensure!(now - begun < clock.limit.as_secs_f64(), "it has {:.0} % of everything", part * 100.0);
            time::sleep(if part > 0.0 && part < NEARLY { GLANCE } else { LOOK }).await;
        }
    };
    host.inside(run).await.with_context(|| format!("{name} failed"))
}

fn client(host: &Host, options: &Options, folder: &Path) -> Command {
    let mut command = host.command(PROGRAM);
    command.args(SETTINGS).args(&options.aria2_setting).arg("--dir").arg(folder);
    command
}

async fn call(client: &reqwest::Client, method: &str, parameters: Value) -> anyhow::Result<Value> {
    let request = json!({"jsonrpc": "2.0", "id": "swarm", "method": method, "params": parameters});
    let mut answer: Value = client.post(RPC).json(&request).send().await?.json().await?;
    if !answer["error"].is_null() {
        bail!("{method}: {}", answer["error"]);
    }
    Ok(answer["result"].take())
}

/// Waits until the client on `host` takes orders.
async fn answers(host: &Host, process: &mut Process) -> anyhow::Result<()> {
    let ask = async || {
        let (client, begun) = (plain()?, Instant::now());
        while call(&client, "aria2.getVersion", json!([])).await.is_err() {
            ensure!(begun.elapsed() < START_LIMIT, "it does not answer");
            time::sleep(LOOK).await;
        }
        Ok(())
    };
    let answered = host.inside(ask).await;
    if answered.is_err() || process.ended().is_some() {
        bail!("{PROGRAM} on {} does not start\n{}", host.name, process.tail());
    }
    Ok(())
}
