//! Real container runtimes in folders of their own: containerd with `ctr`, dockerd with `docker`, and skopeo.
//! Each is pointed at a mirror in its own way, pulls, says what digest it got, and runs what it pulled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, output, succeed, without_proxies};
use super::registry::User;
use super::{eventually, files_below};

/// Where a mirror's client goes when the mirror fails: nowhere, so that a pull that ends went through the mirror.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Plugins of containerd that need what a test machine may not have; none matters to a pull.
const DISABLED: [&str; 5] = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper",
];
/// The plugin through which Kubernetes uses containerd.
const CRI: &str = "io.containerd.grpc.v1.cri";

/// A containerd with its own root.
pub(crate) struct Containerd {
    process: Process,
    root: Root,
    /// Whose images it is about: `ctr`'s own, or Kubernetes'.
    namespace: &'static str,
}

/// A dockerd with its own root, no network, and its own containerd.
pub(crate) struct Dockerd {
    process: Process,
    root: Root,
}

/// A folder that a runtime has for itself. Mounts below it and processes that were started for it go with it.
struct Root(TempDir);

// === impl Containerd ===

impl Containerd {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with("default", &[&DISABLED[..], &[CRI]].concat(), |_| String::new()).await
    }

    /// Starts one that speaks CRI, and finds its mirrors where [`Containerd::mirror`] writes them.
    pub(crate) async fn with_cri() -> Self {
        Self::start_with("k8s.io", &DISABLED, |at| {
            let table = format!("plugins.\"{CRI}\"");
            format!(
                "[{table}]\ndisable_tcp_service = true\n[{table}.cni]\nconf_dir = \"{at}/cni\"\n\
                 [{table}.containerd]\nsnapshotter = \"native\"\n[{table}.registry]\nconfig_path = \"{at}/hosts\"\n"
            )
        })
        .await
    }

    async fn start_with(
        namespace: &'static str,
        disabled: &[&str],
        more: impl FnOnce(std::path::Display<'_>) -> String,
    ) -> Self {
        let root = Root::new();
        let at = root.path().display();
        let mut config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = {disabled:?}\n\
             [grpc]\naddress = \"{at}/c.sock\"\n[ttrpc]\naddress = \"{at}/t.sock\"\n"
        );
        config += &more(at);
        let file = root.path().join("config.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("containerd");
        without_proxies(command.arg("--config").arg(file));
        let log = root.path().join("containerd.log");
        let mut containerd =
            Self { process: Process::spawn("containerd", &mut command, &log), root, namespace };
        eventually("containerd answering", async || {
            assert!(
                containerd.process.ended().is_none(),
                "containerd ended: {:?}",
                containerd.process.ended()
            );
            output(&containerd.ctr(&["version"])).await.status.success().then_some(())
        })
        .await;
        containerd
    }

    /// Pulls `reference` of the registry named `registry`, for which `mirror` is the only host; what it got.
    pub(crate) async fn pull(&self, registry: &str, mirror: &str, reference: &str) -> Digest {
        let hosts = self.mirror(registry, &format!("[host.\"{mirror}\"]"));
        self.pull_with(&["--hosts-dir", &hosts], &format!("{registry}/{reference}"), without_proxies).await
    }

    /// Makes a host the only one for `registry`; `host` is its table's beginning. The folder for `--hosts-dir`.
    pub(crate) fn mirror(&self, registry: &str, host: &str) -> String {
        self.mirror_before(NOWHERE, registry, host)
    }

    /// The same, and `server` is where `registry` itself is.
    pub(crate) fn mirror_before(&self, server: &str, registry: &str, host: &str) -> String {
        let hosts = self.root.path().join("hosts");
        std::fs::create_dir_all(hosts.join(registry)).unwrap();
        let host = format!("server = \"{server}\"\n{host}\ncapabilities = [\"pull\", \"resolve\"]\n");
        std::fs::write(hosts.join(registry).join("hosts.toml"), host).unwrap();
        hosts.display().to_string()
    }

    /// Pulls `image` from the hosts that a directory names; what it got.
    pub(crate) async fn pull_by(&self, hosts: &Path, image: &str) -> Digest {
        self.pull_with(&["--hosts-dir", &hosts.display().to_string()], image, without_proxies).await
    }

    /// Pulls `image` with more arguments and the environment that `tell` sets; what it got.
    pub(crate) async fn pull_with(
        &self,
        more: &[&str],
        image: &str,
        tell: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Digest {
        let arguments = [&["images", "pull", "--snapshotter", "native"], more, &[image]].concat();
        succeed(tell(&mut self.ctr(&arguments))).await;
        self.digests();
        let list = succeed(&self.ctr(&["images", "list", &format!("name=={image}")])).await;
        digest_in(&list)
    }

    /// Runs the image once and gives what it printed.
    pub(crate) async fn run(&self, image: &str) -> String {
        succeed(&self.ctr(&["run", "--rm", "--snapshotter", "native", image, "e2e"])).await
    }

    /// The socket where it answers.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("c.sock")
    }

    /// Whether it has the image whole, and laid out for containers.
    pub(crate) async fn is_unpacked(&self, image: &str) -> bool {
        let check = self.ctr(&["images", "check", "--snapshotter", "native", &format!("name=={image}")]);
        let said = succeed(&check).await;
        let line = said.lines().find(|line| line.starts_with(image));
        line.is_some_and(|line| line.contains("complete") && line.trim_end().ends_with("true"))
    }

    /// How many lines of its log have all these words.
    pub(crate) fn lines(&self, words: &[&str]) -> usize {
        self.process.said().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Its root folder, as an administrator would name it.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("root")
    }

    /// The files of all whole blobs that it holds.
    pub(crate) fn blobs(&self) -> Vec<PathBuf> {
        files_below(&self.home().join("io.containerd.content.v1.content/blobs/sha256"))
    }

    /// Removes the image, and waits until what it alone needed is collected.
    pub(crate) async fn remove(&self, image: &str) {
        succeed(&self.ctr(&["images", "rm", "--sync", image])).await;
    }

    /// The digests of all whole blobs that it holds; each of them hashes to its own name.
    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        let blobs = self.blobs();
        assert!(!blobs.is_empty(), "containerd holds nothing");
        let digest_of = |blob: PathBuf| {
            let name = blob.file_name().unwrap().to_string_lossy().into_owned();
            let digest = Digest::of(&std::fs::read(&blob).unwrap());
            assert_eq!(digest.hex(), name);
            digest
        };
        blobs.into_iter().map(digest_of).collect()
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", self.namespace]).args(arguments);
        without_proxies(&mut command);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.stop();
    }
}

// === impl Dockerd ===

impl Dockerd {
    /// Starts one whose mirror for Docker Hub is `mirror`.
    pub(crate) async fn start(mirror: &str) -> Self {
        Self::start_with(json!({"registry-mirrors": [mirror]}), without_proxies).await
    }

    /// Starts one with more settings, and the environment that `tell` sets.
    pub(crate) async fn start_with(more: Value, tell: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let root = Root::new();
        let at = root.path().display();
        let mut settings = json!({
            "data-root": format!("{at}/data"), "exec-root": format!("{at}/exec"), "pidfile": format!("{at}/d.pid"),
            "hosts": [format!("unix://{at}/d.sock")], "deprecated-key-path": format!("{at}/key.json"),
            "bridge": "none", "iptables": false, "ip-forward": false, "ip-masq": false,
            "storage-driver": "vfs",
        });
        let more = more.as_object().expect("settings are an object").clone();
        settings.as_object_mut().expect("it was made as one").extend(more);
        let file = root.path().join("daemon.json");
        std::fs::write(&file, settings.to_string()).unwrap();
        std::fs::create_dir(root.path().join("cli")).unwrap();
        let mut command = Command::new("dockerd");
        tell(command.arg("--config-file").arg(file));
        let log = root.path().join("dockerd.log");
        let mut dockerd = Self { process: Process::spawn("dockerd", &mut command, &log), root };
        eventually("dockerd answering", async || {
            assert!(dockerd.process.ended().is_none(), "dockerd ended: {:?}", dockerd.process.ended());
            output(&dockerd.docker(&["version"])).await.status.success().then_some(())
        })
        .await;
        dockerd
    }

    /// Pulls an image of Docker Hub; what it got.
    pub(crate) async fn pull(&self, image: &str) -> Digest {
        succeed(&self.docker(&["pull", image])).await;
        digest_in(&succeed(&self.docker(&["image", "inspect", image, "--format", "{{.RepoDigests}}"])).await)
    }

    /// Keeps a user's name and password for the registry at `server`, as `docker login` does.
    pub(crate) fn log_in(&self, server: &str, user: User) {
        let settings = json!({"auths": {server: {"auth": STANDARD.encode(user.pair())}}});
        std::fs::write(self.root.path().join("cli/config.json"), settings.to_string()).unwrap();
    }

    /// Config and layers of the one image that it holds, by the digests under which they came.
    pub(crate) async fn blobs(&self, image: &str) -> BTreeSet<Digest> {
        let inspect = self.docker(&["image", "inspect", image, "--format", "{{.Id}}"]);
        let config = digest_in(&succeed(&inspect).await);
        let layers = self.root.path().join("data/image/vfs/distribution/v2metadata-by-diffid/sha256");
        let layers = files_below(&layers).into_iter().flat_map(|file| {
            let origins: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            origins.into_iter().map(|origin| origin["Digest"].as_str().unwrap().parse().unwrap())
        });
        layers.chain([config]).collect()
    }

    /// Runs the image once and gives what it printed.
    pub(crate) async fn run(&self, image: &str) -> String {
        succeed(&self.docker(&["run", "--rm", "--network", "none", image])).await
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.root.path().join("d.sock").display()));
        command.env("DOCKER_CONFIG", self.root.path().join("cli")).args(arguments);
        without_proxies(&mut command);
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // its own containerd ends with it only when it may say good-bye
        self.process.stop();
    }
}

/// Copies `image` (`HOST:PORT/REPOSITORY:TAG`, plain HTTP) into `to` by skopeo, checks every blob, and gives the
/// manifest's digest.
pub(crate) async fn skopeo(image: &str, to: &Path, credentials: Option<&str>) -> Digest {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    command.args(credentials.map(|user| format!("--src-creds={user}")));
    command.args([format!("docker://{image}"), format!("dir:{}", to.display())]);
    succeed(without_proxies(&mut command)).await;
    for file in files_below(to) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.len() == 64 {
            assert_eq!(Digest::of(&std::fs::read(&file).unwrap()).hex(), name);
        }
    }
    Digest::of(&std::fs::read(to.join("manifest.json")).unwrap())
}

// === impl Root ===

impl Root {
    fn new() -> Self {
        // a short path: a socket's name may have 107 bytes
        Self(TempDir::with_prefix("ls").unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Processes whose command line names this folder: shims and a daemon's own daemons.
    fn processes(&self) -> Vec<i32> {
        let folder = self.path().as_os_str().as_encoded_bytes();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        ids.filter(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|part| part == folder)
        })
        .collect()
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.path())).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for id in self.processes() {
            if let Some(id) = Pid::from_raw(id) {
                let _ = kill_process(id, Signal::KILL);
            }
        }
        for point in self.mounts().into_iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
    }
}

/// The first digest in a text.
fn digest_in(text: &str) -> Digest {
    let start = text.find("sha256:").unwrap_or_else(|| panic!("no digest in {text:?}"));
    text[start..].chars().take("sha256:".len() + 64).collect::<String>().parse().unwrap()
}
