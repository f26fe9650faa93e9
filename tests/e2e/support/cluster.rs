//! A cluster of the real daemons on loopback: one supernode, any number of peers, each with its data directory,
//! its log, and ports that stay its own over a restart.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, output, without_proxies};
use super::{client, eventually};

/// The built binary.
pub(crate) const LONGSHORE: &str = env!("CARGO_BIN_EXE_longshore");

/// What a cluster is told about the world around it.
#[derive(Default, Clone)]
pub(crate) struct World {
    /// `NAME=URL`: where a registry's name is reached.
    registries: Vec<String>,
    /// `HOST:PORT` of registries that speak plain HTTP.
    insecure: Vec<String>,
    /// Origins outside registries that the supernode may fetch from.
    origins: Vec<String>,
    /// `NAME=FILE`: the CA of a registry.
    authorities: Vec<String>,
    /// Settings by their environment variables.
    pub(crate) settings: Vec<(String, String)>,
}

/// A supernode and its peers.
pub(crate) struct Cluster {
    pub(crate) supernode: Node,
    pub(crate) peers: Vec<Node>,
    world: World,
    root: TempDir,
}

/// One daemon.
pub(crate) struct Node {
    process: Process,
    name: String,
    /// The arguments with the ports that were taken, so that a restart takes the same.
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    pub(crate) data: PathBuf,
    log: PathBuf,
    pub(crate) at: Addresses,
}

/// What `<data-dir>/addresses.json` says.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Addresses {
    pid: u32,
    pub(crate) quic: String,
    pub(crate) http: String,
    pub(crate) proxy: String,
    pub(crate) socket: PathBuf,
}

/// Bytes that a peer has received, by where they came from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    pub(crate) origin: u64,
    pub(crate) seed: u64,
    pub(crate) peer: u64,
    pub(crate) cache: u64,
}

/// The command, with nothing of the machine's own settings but how much is logged, and `home` as its home.
pub(crate) fn longshore(home: &Path) -> Command {
    let mut command = Command::new(LONGSHORE);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LONGSHORE_"))
    {
        command.env_remove(name);
    }
    command.env("HOME", home).env("XDG_DATA_HOME", home).env("XDG_CONFIG_HOME", home).env_remove("RUST_LOG");
    // How full this machine's disk happens to be is nobody's concern here.
    command.env("LONGSHORE_PEER_KEEP_FREE", "0").env("LONGSHORE_SUPERNODE_KEEP_FREE", "0");
    without_proxies(&mut command);
    command
}

/// Runs the command in `home` to its end; its exit status and all that it said.
pub(crate) async fn run(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = output(longshore(home).args(arguments)).await;
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), said)
}

// === impl World ===

impl World {
    /// A world in which `name` is the registry at `url`.
    pub(crate) fn registry(name: &str, url: &str) -> Self {
        Self::default().and(name, url)
    }

    /// The same, and `name` is the registry at `url`.
    pub(crate) fn and(mut self, name: &str, url: &str) -> Self {
        self.registries.push(format!("{name}={url}"));
        self
    }

    /// The same, and the registry at `address`, named so, speaks plain HTTP.
    pub(crate) fn insecure(mut self, address: &str) -> Self {
        self.insecure.push(address.to_owned());
        self
    }

    /// The same, and the origin at `address` may be fetched from.
    pub(crate) fn allowing(mut self, address: &str) -> Self {
        self.origins.push(address.to_owned());
        self
    }

    /// The same, and the certificate of the registry `name` is signed by the CA in `file`.
    pub(crate) fn authority(mut self, name: &str, file: &Path) -> Self {
        self.authorities.push(format!("{name}={}", file.display()));
        self
    }

    /// The same, and what the CA in `file` has signed is trusted of every origin.
    pub(crate) fn trusting(self, file: &Path) -> Self {
        let file = file.display().to_string();
        self.set("LONGSHORE_PEER_CA_FILE", &file).set("LONGSHORE_SUPERNODE_CA_FILE", &file)
    }

    /// The same, with a setting by its environment variable.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The flags that both daemons take.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |name: &'static str| move |value: &String| [name.to_owned(), value.clone()];
        let registries = self.registries.iter().flat_map(flag("--registry"));
        let insecure = self.insecure.iter().flat_map(flag("--insecure-registry"));
        let authorities = self.authorities.iter().flat_map(flag("--registry-ca"));
        let origins = self.origins.iter().flat_map(flag("--origin-allow"));
        registries.chain(insecure).chain(authorities).chain(origins).collect()
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts a supernode and `peers` peers, and waits until all are ready.
    pub(crate) async fn start(peers: usize, world: World) -> Self {
        Self::start_on(None, peers, world).await
    }

    /// The same, with the supernode's data directory somewhere else.
    pub(crate) async fn start_on(data: Option<&Path>, peers: usize, world: World) -> Self {
        Self::start_in((TempDir::new().unwrap(), data), peers, world).await
    }

    /// Starts a second supernode of the same cluster, with a data folder and peers of its own.
    pub(crate) async fn beside(&self, peers: usize, world: World) -> Self {
        let root = TempDir::new().unwrap();
        let data = root.path().join("supernode");
        std::fs::create_dir_all(data.join("identity")).unwrap();
        for file in ["join-token", "identity/ca.pem", "identity/ca.key", "identity/tokens.json"] {
            std::fs::copy(self.supernode.data.join(file), data.join(file)).unwrap();
        }
        Self::start_in((root, None), peers, world).await
    }

    async fn start_in((root, data): (TempDir, Option<&Path>), peers: usize, world: World) -> Self {
        let mut arguments =
            words(&["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        arguments.extend(world.flags());
        let mut supernode = Node::spawn_set("supernode", arguments, &world.settings, root.path(), data);
        supernode.ready().await;
        let mut cluster = Self { supernode, peers: Vec::new(), world, root };
        for _ in 0..peers {
            let name = format!("peer{}", cluster.peers.len() + 1);
            let peer = cluster.spawn_peer(&name, &[], None);
            cluster.peers.push(peer);
        }
        for peer in &mut cluster.peers {
            peer.ready().await;
        }
        cluster
    }

    /// Starts a peer of this cluster and does not wait for it. It is the caller's.
    pub(crate) fn spawn_peer(&self, name: &str, more: &[&str], data: Option<&Path>) -> Node {
        let token = self.join_token().display().to_string();
        self.spawn_peer_with(name, &token, more, data)
    }

    /// [`Cluster::spawn_peer`] with another join token.
    pub(crate) fn spawn_peer_with(
        &self,
        name: &str,
        token: &str,
        more: &[&str],
        data: Option<&Path>,
    ) -> Node {
        let supernode = &self.supernode.at.quic;
        let mut arguments = words(&["peer", "--supernode", supernode, "--join-token-file", token]);
        for listen in ["--quic-listen", "--proxy-listen", "--http-listen"] {
            arguments.extend(words(&[listen, "127.0.0.1:0"]));
        }
        arguments.extend(self.world.flags());
        arguments.extend(words(more));
        Node::spawn_set(name, arguments, &self.world.settings, self.root.path(), data)
    }

    /// The file with the cluster's first join token.
    pub(crate) fn join_token(&self) -> PathBuf {
        self.supernode.data.join("join-token")
    }

    /// Where the daemons keep their data and logs.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The addresses of every peer's proxy.
    pub(crate) fn proxies(&self) -> Vec<String> {
        self.peers.iter().map(|peer| peer.at.proxy.clone()).collect()
    }
}

// === impl Node ===

impl Node {
    /// Starts a daemon whose data directory is `data`, or one below `root` named after it.
    pub(crate) fn spawn(name: &str, arguments: Vec<String>, root: &Path, data: Option<&Path>) -> Self {
        Self::spawn_set(name, arguments, &[], root, data)
    }

    /// The same, with settings by their environment variables.
    pub(crate) fn spawn_set(
        name: &str,
        mut arguments: Vec<String>,
        settings: &[(String, String)],
        root: &Path,
        data: Option<&Path>,
    ) -> Self {
        let data = data.map_or_else(|| root.join(name), Path::to_path_buf);
        let log = root.join(format!("{name}.log"));
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
        let process =
            Process::spawn(name, longshore(root).args(&arguments).envs(settings.iter().cloned()), &log);
        let (name, settings) = (name.to_owned(), settings.to_vec());
        Self { process, name, arguments, settings, data, log, at: Addresses::default() }
    }

    /// Waits until its ports are bound and it calls itself ready.
    pub(crate) async fn ready(&mut self) {
        self.bound().await;
        let (what, url) = (format!("{} being ready", self.name), self.url("/readyz"));
        eventually(&what, async || {
            assert!(self.process.ended().is_none(), "{} ended: {:?}", self.name, self.process.ended());
            let answer = client::http().get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Waits until its ports are bound.
    pub(crate) async fn bound(&mut self) {
        let (what, file) = (format!("addresses of {}", self.name), self.data.join("addresses.json"));
        self.at = eventually(&what, async || {
            assert!(self.process.ended().is_none(), "{} ended: {:?}", self.name, self.process.ended());
            let at: Addresses = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            // the file of the run before may still be there
            (at.pid == self.process.id()).then_some(at)
        })
        .await;
        let (at, mut flag) = (self.at.clone(), String::new());
        for argument in &mut self.arguments {
            match flag.as_str() {
                "--quic-listen" => argument.clone_from(&at.quic),
                "--proxy-listen" => argument.clone_from(&at.proxy),
                "--http-listen" => argument.clone_from(&at.http),
                _ => {}
            }
            flag.clone_from(argument);
        }
    }

    /// Starts it again after its end: same data directory, same ports.
    pub(crate) async fn restart(&mut self) {
        self.start_again();
        self.ready().await;
    }

    /// The same, and waits only until its ports are bound.
    pub(crate) async fn restart_unready(&mut self) {
        self.start_again();
        self.bound().await;
    }

    /// The same, without waiting for it.
    pub(crate) fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "{} still runs", self.name);
        let home = self.log.parent().expect("the log lies in the cluster's folder");
        let mut command = longshore(home);
        command.args(&self.arguments).envs(self.settings.iter().cloned());
        self.process = Process::spawn(&self.name, &mut command, &self.log);
    }

    /// All that it has said so far.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.end().await
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process itself.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// An address on its HTTP port.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at.http)
    }

    /// Its metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        let request = client::http().get(self.url("/metrics")).timeout(Duration::from_secs(30));
        request.send().await.expect("metrics").text().await.expect("metrics")
    }

    /// What it has received since it started.
    pub(crate) async fn received(&self) -> Received {
        let metrics = self.metrics().await;
        let of = |source| sample(&metrics, "longshore_received_bytes_total", &format!("source=\"{source}\""));
        Received { origin: of("origin"), seed: of("seed"), peer: of("peer"), cache: of("cache") }
    }
}

// === impl Received ===

impl Received {
    /// All that came over the network.
    pub(crate) fn network(self) -> u64 {
        self.origin + self.seed + self.peer
    }
}

/// The sample of `name`, which has no labels; 0 where there is none.
pub(crate) fn gauge(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    metrics.lines().find_map(value).unwrap_or_default()
}

/// The sum of all samples of `name` that carry `label`; 0 where there is none.
pub(crate) fn sample(metrics: &str, name: &str, label: &str) -> u64 {
    let value = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once('}')?;
        labels.contains(label).then(|| value.trim().parse::<f64>().ok()).flatten()
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters of bytes, far below 2^52"
    )]
    let sum = metrics.lines().filter_map(value).sum::<f64>() as u64;
    sum
}

/// Arguments.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
