//! `longshore setup`, over starting points as they are met on real machines: what it changes means what it should, to
//! the runtimes themselves where they are installed, and an undo leaves every byte as it was.

mod starts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::cluster::{Cluster, World, longshore, run};
use crate::support::image::{Image, TAG};
use crate::support::process::{Process, output, succeed};
use crate::support::registry::Registry;
use crate::support::runtimes::Containerd;
use crate::support::{eventually, need, program};
use starts::{CONTAINERD, CONTAINERS, DOCKER, Start};

const PROXY: &str = "http://127.0.0.1:7711";

/// Everything below a directory: paths, kinds, modes, contents, where links lead.
fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode();
            let what = if metadata.is_symlink() {
                format!("link to {:?}", fs::read_link(&path).unwrap())
            } else if metadata.is_dir() {
                folders.push(path.clone());
                format!("directory {mode:o}")
            } else {
                format!("file {mode:o} {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            seen.insert(path.strip_prefix(root).unwrap().display().to_string(), what);
        }
    }
    seen
}

/// A tree of files: path and text, or where a link leads.
fn grown(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, &path).unwrap(),
            None => {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            }
        }
    }
    root
}

async fn setup(root: &Path, runtime: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let home = TempDir::new().unwrap();
    let root = root.display().to_string();
    run(home.path(), &[&["setup", runtime, "--root", &root], arguments].concat()).await
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A TOML file as what it means.
fn toml_of(root: &Path, path: &str) -> toml::Table {
    read(root, path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The hosts of a `hosts.toml`, in the order of the file, by its headers alone.
fn hosts(root: &Path, path: &str) -> Vec<String> {
    let text = read(root, path);
    let headers = text.lines().filter_map(|line| line.trim().strip_prefix("[host.")?.strip_suffix(']'));
    let mut hosts: Vec<String> = headers
        .filter(|name| !name.ends_with("header"))
        .map(|name| name.trim_matches(['"', '\'']).into())
        .collect();
    hosts.dedup();
    hosts
}

/// From a start there and back: what is between is looked at by `check`.
async fn there_and_back(start: &Start, runtime: &str, more: &[&str], check: impl AsyncFn(&Path)) {
    println!("start: {runtime}: {}", start.name);
    let home = grown(start.files);
    let root = home.path();
    let before = snapshot(root);
    let arguments = [start.arguments, more].concat();

    let (code, diff) = setup(root, runtime, &[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!(code, Some(0), "{diff}");
    assert!(diff.contains("\n@@ ") && diff.contains("127.0.0.1:7711"), "{diff}");
    assert_eq!(snapshot(root), before, "a dry run writes nothing");

    let (code, said) = setup(root, runtime, &arguments).await;
    assert_eq!(code, Some(0), "{said}");
    let after = snapshot(root);
    assert_ne!(after, before, "{said}");
    for (path, what) in &before {
        assert_eq!(
            after[path].split(' ').take(2).collect::<Vec<_>>(),
            what.split(' ').take(2).collect::<Vec<_>>()
        );
    }
    check(root).await;

    let (code, said) = setup(root, runtime, &arguments).await;
    assert_eq!((code, said.contains("nothing to change")), (Some(0), true), "{said}");
    assert_eq!(snapshot(root), after, "a second time changes nothing");

    let (code, said) = setup(root, runtime, &["--undo"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(snapshot(root), before, "{}", start.name);
    let (code, said) = setup(root, runtime, &["--undo"]).await;
    assert_eq!((code, said.contains("nothing to undo")), (Some(0), true), "{said}");
    assert_eq!(snapshot(root), before);
}

/// What containerd itself makes of its settings; the releases that read version 3 are not those of most test machines.
async fn containerd_reads(root: &Path, start: &Start, expected: &str) {
    let config = root.join("etc/containerd/config.toml");
    if program("containerd").is_none() || !config.exists() {
        return;
    }
    let version =
        toml_of(root, "etc/containerd/config.toml").get("version").and_then(toml::Value::as_integer);
    if version.is_some_and(|version| version > 2) || start.config != "etc/containerd/config.toml" {
        return;
    }
    let mut dump = Command::new("containerd");
    let dumped = succeed(dump.arg("--config").arg(config).args(["config", "dump"])).await;
    let line = format!("config_path = \"{expected}\"");
    assert!(dumped.contains(&line), "{}: {dumped}", start.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_of_containerd_goes_there_and_back_from_every_start() {
    for start in CONTAINERD {
        there_and_back(
            start,
            "containerd",
            &["--registry", "docker.io", "--registry", "host:5000"],
            async |root| {
                let dir = start.config_path.trim_start_matches('/');
                for registry in ["docker.io", start.host_dir] {
                    let path = format!("{dir}/{registry}/hosts.toml");
                    assert_eq!(hosts(root, &path)[0], PROXY, "{}: {}", start.name, read(root, &path));
                    let host = &toml_of(root, &path)["host"][PROXY];
                    assert_eq!(host["capabilities"], toml::Value::from(vec!["pull", "resolve"]));
                }
                for (path, text) in start.hosts {
                    assert_eq!(read(root, path), *text, "{}", start.name);
                }
                if !start.config.is_empty() {
                    let config = toml_of(root, start.config);
                    let registry = &config["plugins"][start.plugin]["registry"];
                    assert_eq!(registry["config_path"].as_str(), Some(start.config_path), "{}", start.name);
                    assert!(
                        registry.get("mirrors").is_none_or(|mirrors| mirrors.as_table().unwrap().is_empty())
                    );
                    containerd_reads(root, start, start.config_path).await;
                }
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_of_containerd_keeps_what_its_own_default_settings_say() {
    need!("containerd");
    let root = TempDir::new().unwrap();
    let default = succeed(Command::new("containerd").args(["config", "default"])).await;
    fs::create_dir_all(root.path().join("etc/containerd")).unwrap();
    let file = root.path().join("etc/containerd/config.toml");
    fs::write(&file, &default).unwrap();
    assert_eq!(setup(root.path(), "containerd", &[]).await.0, Some(0));
    let before = "config_path = \"\"";
    assert!(default.contains(before), "{default}");
    let expected = default.replace(before, "config_path = \"/etc/containerd/certs.d\"");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(setup(root.path(), "containerd", &["--undo"]).await.0, Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), default);
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_of_docker_goes_there_and_back_from_every_start() {
    for start in DOCKER {
        there_and_back(start, "docker", &[], async |root| {
            let text = read(root, "etc/docker/daemon.json");
            let after: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
            assert_eq!(after["registry-mirrors"][0], PROXY, "{text}");
            for line in start.keeps {
                assert!(text.contains(line), "{}: {line:?} is not in {text}", start.name);
            }
            if program("dockerd").is_some() {
                let said = dockerd_says(root).await;
                assert!(!said.contains(DOCKERD_REFUSES), "{}: {said}", start.name);
            }
        })
        .await;
    }
}

/// How dockerd's complaint about its settings begins.
const DOCKERD_REFUSES: &str = "unable to configure the Docker daemon with file";

/// What a dockerd says that reads the settings and has no place to go on.
async fn dockerd_says(root: &Path) -> String {
    let mut dockerd = Command::new("dockerd");
    dockerd.arg("--config-file").arg(root.join("etc/docker/daemon.json"));
    let said = output(dockerd.args([
        "--data-root",
        "/dev/null/no",
        "--exec-root",
        "/dev/null/no",
        "--pidfile",
        "/dev/null/no",
    ]))
    .await;
    assert!(!said.status.success());
    String::from_utf8_lossy(&said.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn support_hears_dockerd_complain_about_bad_settings() {
    need!("dockerd");
    let root = grown(&[("etc/docker/daemon.json", "{\"registry-mirrors\": \"x\"}")]);
    let said = dockerd_says(root.path()).await;
    assert!(said.contains(DOCKERD_REFUSES), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_of_podman_and_crio_goes_there_and_back_from_every_start() {
    for (start, runtime) in CONTAINERS.iter().zip(["podman", "crio"].iter().cycle()) {
        there_and_back(start, runtime, &["--registry", "docker.io", "--registry", "ghcr.io"], async |root| {
            let text = read(root, "etc/containers/registries.conf.d/50-longshore.conf");
            let file: toml::Table = text.parse().unwrap();
            for (registry, location) in [("docker.io", start.location), ("ghcr.io", "ghcr.io")] {
                let entries = file["registry"].as_array().unwrap();
                let entry = entries
                    .iter()
                    .find(|entry| entry.get("prefix").and_then(toml::Value::as_str) == Some(registry))
                    .unwrap();
                let mirror = &entry["mirror"][0];
                assert_eq!(
                    mirror["location"].as_str(),
                    Some(&*format!("127.0.0.1:7711/{location}")),
                    "{text}"
                );
                assert_eq!(mirror["insecure"].as_bool(), Some(true));
                assert_eq!(entry["location"].as_str(), Some(location));
            }
            for line in start.keeps {
                assert!(text.contains(line), "{}: {line:?} is not in {text}", start.name);
            }
            if program("podman").is_some() {
                podman_reads(root, start).await;
            }
        })
        .await;
    }
}

/// What podman itself makes of the files.
async fn podman_reads(root: &Path, start: &Start) {
    let scratch = TempDir::new().unwrap();
    // As a user's own settings they are read from below the home directory.
    fs::create_dir(scratch.path().join(".config")).unwrap();
    symlink(root.join("etc/containers"), scratch.path().join(".config/containers")).unwrap();
    let mut podman = Command::new("podman");
    podman.env("HOME", scratch.path()).env_remove("XDG_CONFIG_HOME");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    podman.args(["--root", &at("root"), "--runroot", &at("run"), "--storage-driver", "vfs"]);
    podman.args(["info", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&succeed(&podman).await).unwrap();
    let mirror = &info["registries"]["docker.io"]["Mirrors"][0]["Location"];
    assert_eq!(mirror.as_str(), Some(&*format!("127.0.0.1:7711/{}", start.location)), "{info}");
}

/// A runtime, the files of its machine, and words of why they are left alone.
type Refusal<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn setup_refuses_in_words_what_it_could_break() {
    const CRI: &str = "[plugins.\"io.containerd.grpc.v1.cri\".registry";
    let mirrors = format!("version = 2\n{CRI}.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n");
    let tls = format!("version = 2\n{CRI}.configs.\"m.example\".tls]\ninsecure_skip_verify = true\n");
    let several = format!("version = 2\n{CRI}]\nconfig_path = \"/etc/a:/etc/b\"\n");
    let config = "etc/containerd/config.toml";
    let cases: &[Refusal<'_>] = &[
        ("containerd", &[(config, &mirrors)], &["registry.mirrors (for docker.io)", "--replace-mirrors"]),
        ("containerd", &[(config, &tls)], &["registry.configs.\"m.example\".tls", "hosts.toml"]),
        (
            "containerd",
            &[(config, &several), ("etc/a/x.y/ca.crt", ""), ("etc/b/z.y/ca.crt", "")],
            &["move z.y"],
        ),
        ("containerd", &[(config, "version = \n")], &["is not TOML"]),
        (
            "containerd",
            &[("etc/containerd/certs.d/docker.io/hosts.toml", "[host\n")],
            &["hosts.toml", "is not TOML"],
        ),
        ("docker", &[("etc/docker/daemon.json", "{ // no\n}")], &["is not JSON"]),
        ("docker", &[("etc/docker/daemon.json", "{\"registry-mirrors\": \"x\"}")], &["not a list"]),
        (
            "podman",
            &[("etc/containers/registries.conf", "[registries.search]\nregistries = ['docker.io']\n")],
            &["version 1"],
        ),
        (
            "crio",
            &[("etc/containers/registries.conf.d/99-x.conf", "[[registry]]\nlocation = 'docker.io'\n")],
            &["rename"],
        ),
    ];
    for (runtime, files, words) in cases {
        let root = grown(files);
        let before = snapshot(root.path());
        let (code, said) = setup(root.path(), runtime, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said}"));
        assert_eq!(snapshot(root.path()), before);
    }
    let root = TempDir::new().unwrap();
    for arguments in
        [&["--registry", "ghcr.io"][..], &["--registry", "x/y"], &["--proxy", "7711"], &["--force"]]
    {
        let (code, said) = setup(root.path(), "docker", arguments).await;
        assert_eq!(code, Some(2), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_extends_and_its_undo_guards_what_others_wrote() {
    let root = grown(CONTAINERD[1].files);
    let root = root.path();
    let before = snapshot(root);
    for registry in ["docker.io", "ghcr.io", "registry.k8s.io"] {
        assert_eq!(setup(root, "containerd", &["--registry", registry]).await.0, Some(0));
    }
    let (code, said) = setup(root, "containerd", &["--proxy", "http://127.0.0.1:9"]).await;
    assert_eq!((code, said.contains("--undo first")), (Some(1), true), "{said}");

    let hosts = root.join("etc/containerd/certs.d/ghcr.io/hosts.toml");
    let ours = fs::read_to_string(&hosts).unwrap();
    let theirs = format!("# mine\n{ours}");
    fs::write(&hosts, &theirs).unwrap();
    let set = snapshot(root);
    let (code, said) = setup(root, "containerd", &["--undo"]).await;
    assert_eq!((code, said.contains("ghcr.io/hosts.toml")), (Some(1), true), "{said}");
    assert_eq!(snapshot(root), set, "a refused undo changes nothing");
    // Another setup builds on what somebody wrote, and does not make it its own.
    fs::write(&hosts, "# mine\n").unwrap();
    assert_eq!(setup(root, "containerd", &["--registry", "ghcr.io"]).await.0, Some(0));
    assert!(fs::read_to_string(&hosts).unwrap().starts_with("# mine\n"));
    assert_eq!(setup(root, "containerd", &["--undo"]).await.0, Some(1));
    // Somebody's own file in a directory that setup made stays, and so does the directory.
    fs::write(root.join("etc/containerd/certs.d/note"), "x").unwrap();
    assert_eq!(setup(root, "containerd", &["--undo", "--force"]).await.0, Some(0));
    fs::remove_file(root.join("etc/containerd/certs.d/note")).unwrap();
    fs::remove_dir(root.join("etc/containerd/certs.d")).unwrap();
    assert_eq!(snapshot(root), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_that_is_killed_is_undone_or_finished_by_the_next_run() {
    let start = &CONTAINERD[1];
    let registries: Vec<String> =
        (0..6).flat_map(|n| ["--registry".to_owned(), format!("r{n}.example")]).collect();
    let home = TempDir::new().unwrap();
    let mut halves = 0;
    for round in 0..60_u32 {
        let root = grown(start.files);
        let before = snapshot(root.path());
        let mut command = longshore(home.path());
        command.args(["setup", "containerd", "--root"]).arg(root.path()).args(&registries);
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_micros(u64::from(round) * 500)).await;
        let _ = child.kill();
        let whole = child.wait().unwrap().success();
        halves += u32::from(!whole && snapshot(root.path()) != before);
        if round % 2 == 0 {
            let again: Vec<&str> = registries.iter().map(String::as_str).collect();
            assert_eq!(setup(root.path(), "containerd", &again).await.0, Some(0));
            for n in 0..6 {
                let path = format!("etc/containerd/certs.d/r{n}.example/hosts.toml");
                assert_eq!(hosts(root.path(), &path), [PROXY]);
            }
        }
        let (code, said) = setup(root.path(), "containerd", &["--undo"]).await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(snapshot(root.path()), before, "round {round}");
    }
    println!("{halves} of 60 runs were killed half way");
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_lets_containerd_pull_through_the_peer() {
    need!("docker-registry", "busybox", "containerd", "ctr", "root");
    let registry = Registry::start().await;
    let image = Image::runnable("library/app", "ahoy\n");
    registry.push(&image).await;
    // A name that only the peer can make something of: a pull that ends went through it.
    let cluster = Cluster::start(1, World::registry("quay.test", &registry.url())).await;
    let root = TempDir::new().unwrap();
    let proxy = format!("http://{}", cluster.peers[0].at.proxy);
    let (code, said) =
        setup(root.path(), "containerd", &["--registry", "quay.test", "--proxy", &proxy]).await;
    assert_eq!(code, Some(0), "{said}");
    let containerd = Containerd::start().await;
    let hosts = root.path().join("etc/containerd/certs.d");
    let got = containerd.pull_by(&hosts, &format!("quay.test/library/app:{TAG}")).await;
    assert_eq!(got, image.manifest.digest);
    registry.served_once(&image).await;
}

/// What a containerd with these settings says until all its plugins are loaded, its CRI plugin among them.
async fn containerd_says(root: &Path, log: &str) -> String {
    let socket = root.join("c.sock");
    let _ = fs::remove_file(&socket);
    let mut command = Command::new("containerd");
    command.arg("--config").arg(root.join("etc/containerd/config.toml"));
    let mut containerd = Process::spawn("containerd", &mut command, &root.join(log));
    eventually("containerd answering", async || {
        assert!(containerd.ended().is_none(), "containerd ended");
        let mut ctr = Command::new("ctr");
        output(ctr.arg("--address").arg(&socket).arg("version")).await.status.success().then_some(())
    })
    .await;
    containerd.stop();
    containerd.said()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_replaces_mirror_tables_so_that_the_cri_plugin_starts() {
    need!("containerd", "ctr", "runc", "root");
    // a short path: a socket's name may have 107 bytes
    let root = TempDir::with_prefix("ls").unwrap();
    let at = root.path().display();
    let off = ["internal.v1.opt", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.zfs"];
    let off = off.map(|name| format!("\"io.containerd.{name}\"")).join(", ");
    let settings = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [{off}]\n\
         [grpc]\naddress = \"{at}/c.sock\"\n[ttrpc]\naddress = \"{at}/t.sock\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n"
    );
    let path =
        "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    fs::create_dir_all(root.path().join("etc/containerd")).unwrap();
    let file = root.path().join("etc/containerd/config.toml");
    fs::write(&file, format!("{settings}{path}")).unwrap();
    let refusal = "`mirrors` cannot be set when `config_path` is provided";
    let said = containerd_says(root.path(), "before.log").await;
    assert!(said.contains(refusal), "both together exclude each other: {said}");
    let (code, said) = setup(root.path(), "containerd", &["--replace-mirrors"]).await;
    assert_eq!(code, Some(0), "{said}");
    let said = containerd_says(root.path(), "after.log").await;
    assert!(said.contains("grpc.v1.cri") && !said.contains(refusal), "{said}");
}
