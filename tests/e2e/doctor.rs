//! `longshore doctor` on a set-up that works, and on ones that do not.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Cluster, Node, World, run};
use crate::support::faulty::Origin;

/// What the command found: its exit code, and level and text of each check.
async fn doctor(home: &TempDir, arguments: &[&str]) -> (Option<i32>, Value) {
    // The machine's own runtimes are nobody's business here.
    let root = home.path().display().to_string();
    let root = if arguments.contains(&"--root") { vec![] } else { vec!["--root", &root] };
    let (code, said) = run(home.path(), &[&["doctor", "--json"], &root[..], arguments].concat()).await;
    let json = said.lines().find(|line| line.starts_with('{')).expect("a line of JSON");
    (code, serde_json::from_str(json).unwrap())
}

/// The findings of one check.
fn of<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap().iter();
    let found: Vec<&Value> = findings.filter(|finding| finding["check"] == check).collect();
    assert!(!found.is_empty(), "{check} was not looked at: {report}");
    found
}

fn are_all(report: &Value, check: &str, level: &str) {
    for finding in of(report, check) {
        assert_eq!(finding["level"], level, "{finding}");
        assert_eq!(finding["mend"].is_null(), level == "ok", "{finding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_running_node_in_order_and_a_stopped_one_not_running() {
    let home = TempDir::new().unwrap();
    let doors =
        ["--quic-listen", "--http-listen", "--peer-quic-listen", "--peer-http-listen", "--proxy-listen"];
    let registry = Origin::start().await;
    let mut arguments: Vec<String> = ["up", "--default-registry", "quay.test"].map(Into::into).into();
    arguments.extend(["--registry".to_owned(), format!("quay.test={}", registry.url())]);
    arguments.extend(doors.iter().flat_map(|door| [(*door).to_owned(), "127.0.0.1:0".to_owned()]));
    let mut up = Node::spawn("up", arguments, home.path(), None);
    up.ready().await;
    let data = up.data.display().to_string();
    let (code, report) = doctor(&home, &["--data-dir", &data]).await;
    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
    for check in [
        "settings",
        "data directory",
        "supernode",
        "peer",
        "proxy",
        "clock",
        "certificate",
        "way to the supernode",
    ] {
        are_all(&report, check, "ok");
    }
    let (code, people) = run(home.path(), &["doctor", "--data-dir", &data]).await;
    assert_eq!(code, Some(0));
    assert!(people.lines().any(|line| line.starts_with("ok    proxy: ")), "{people}");

    // Nobody says goodbye: the addresses stay, and nobody is there.
    up.process().kill().await;
    let (code, report) = doctor(&home, &["--data-dir", &data]).await;
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "{report}");
    for check in ["supernode", "peer", "proxy", "way to the supernode"] {
        are_all(&report, check, "fail");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_is_broken_and_makes_nothing() {
    let home = TempDir::new().unwrap();
    let taken = home.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let config = home.path().join("longshore.toml");
    std::fs::write(&config, "[peer]\nproxy-lisen = \"127.0.0.1:0\"\n").unwrap();
    let (taken, config) = (taken.display().to_string(), config.display().to_string());
    let (code, report) = doctor(&home, &["--data-dir", &taken, "--config", &config]).await;
    assert_eq!(code, Some(1), "{report}");
    are_all(&report, "data directory", "fail");
    are_all(&report, "settings", "fail");
    assert!(of(&report, "settings")[0]["what"].as_str().unwrap().contains("proxy-listen"), "{report}");

    let new = home.path().join("new");
    let (code, report) =
        doctor(&home, &["--data-dir", &new.display().to_string(), "--supernode", "nowhere.invalid:7700"])
            .await;
    assert_eq!(code, Some(1), "{report}");
    are_all(&report, "data directory", "warn");
    are_all(&report, "daemon", "warn");
    are_all(&report, "way to the supernode", "fail");
    assert!(!new.exists(), "a doctor only looks");
}

const CRI: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"";
const CONFIG: &str = "etc/containerd/config.toml";
const HUB: &str = "etc/containerd/certs.d/docker.io/hosts.toml";

/// A machine's files, broken in one way: the check that says so, how bad it is, and in which words.
struct Breakage {
    files: Vec<(&'static str, String)>,
    check: &'static str,
    level: &'static str,
    words: &'static str,
}

/// Ways in which a runtime does not get to the proxy at `proxy`.
fn breakages(proxy: &str) -> Vec<Breakage> {
    let hosts =
        |proxy: &str| (HUB, format!("[host.\"http://{proxy}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"));
    let path = format!("{CRI}.registry]\nconfig_path = \"/etc/containerd/certs.d\"\n");
    let two = path.replace("certs.d", "certs.d:/etc/docker/certs.d");
    let mirrors = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m\"]\n";
    let discard = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n";
    let broken = |files, check, level, words| Breakage { files, check, level, words };
    vec![
        broken(
            vec![(CONFIG, "version = 2\n".into()), hosts(proxy)],
            "containerd",
            "warn",
            "config_path is not set",
        ),
        broken(vec![(CONFIG, two), hosts(proxy)], "containerd", "warn", "several directories"),
        broken(
            vec![(CONFIG, format!("{path}{mirrors}")), hosts(proxy)],
            "containerd",
            "fail",
            "registry.mirrors",
        ),
        broken(vec![(CONFIG, format!("{CRI}]\n{mirrors}"))], "containerd", "warn", "excludes config_path"),
        broken(vec![(CONFIG, path.clone())], "containerd", "warn", "no hosts.toml"),
        broken(
            vec![(CONFIG, path.clone()), hosts("127.0.0.1:9")],
            "containerd",
            "warn",
            "127.0.0.1:9, and nobody listens",
        ),
        broken(
            vec![(CONFIG, format!("{path}{discard}")), hosts(proxy)],
            "containerd",
            "warn",
            "discard_unpacked_layers",
        ),
        broken(vec![(CONFIG, "version =".into())], "containerd", "fail", "is not TOML"),
        broken(vec![("etc/docker/daemon.json", "{}".into())], "docker", "warn", "registry-mirrors"),
        broken(vec![("etc/docker/daemon.json", "{,}".into())], "docker", "fail", "is not JSON"),
        broken(vec![("etc/containers/registries.conf", String::new())], "podman", "warn", "no [[registry]]"),
        broken(vec![("etc/crio/crio.conf", String::new())], "crio", "warn", "no [[registry]]"),
    ]
}

fn write(root: &Path, files: &[(&str, String)]) {
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_each_way_in_which_a_runtime_misses_the_proxy() {
    let home = TempDir::new().unwrap();
    let cluster = Cluster::start(1, World::default()).await;
    let peer = &cluster.peers[0];
    let data = peer.data.display().to_string();
    for broken in breakages(&peer.at.proxy) {
        let root = TempDir::new().unwrap();
        write(root.path(), &broken.files);
        let at = root.path().display().to_string();
        let (code, report) = doctor(&home, &["--data-dir", &data, "--root", &at]).await;
        let findings = of(&report, broken.check);
        let named = |finding: &&&Value| finding["what"].as_str().unwrap().contains(broken.words);
        let finding = findings.iter().find(named).unwrap_or_else(|| panic!("{:?}: {report}", broken.words));
        assert_eq!(
            (finding["level"].as_str(), finding["mend"].is_string()),
            (Some(broken.level), true),
            "{finding}"
        );
        assert_eq!(code, Some(i32::from(broken.level == "fail")), "{report}");
        let runtimes =
            ["containerd", "docker", "podman", "crio"].into_iter().filter(|name| *name != broken.check);
        for other in runtimes {
            let all = report["findings"].as_array().unwrap();
            assert!(!all.iter().any(|finding| finding["check"] == other), "{other} is not there: {report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_is_content_with_what_setup_did_and_misses_a_proxy_that_is_gone() {
    let home = TempDir::new().unwrap();
    let mut cluster = Cluster::start(1, World::default()).await;
    let data = cluster.peers[0].data.display().to_string();
    let proxy = format!("http://{}", cluster.peers[0].at.proxy);
    let root = TempDir::new().unwrap();
    let at = root.path().display().to_string();
    let runtimes = ["containerd", "docker", "podman", "crio"];
    write(root.path(), &[("etc/crio/crio.conf", String::new())]);
    for runtime in runtimes {
        let (code, said) = run(home.path(), &["setup", runtime, "--root", &at, "--proxy", &proxy]).await;
        assert_eq!(code, Some(0), "{said}");
    }
    let supernode = cluster.supernode.at.quic.clone();
    let (_, report) = doctor(&home, &["--data-dir", &data, "--root", &at, "--supernode", &supernode]).await;
    for runtime in runtimes {
        are_all(&report, runtime, "ok");
    }
    are_all(&report, "packet size", "ok");
    cluster.peers[0].kill().await;
    let (code, report) = doctor(&home, &["--data-dir", &data, "--root", &at]).await;
    assert_eq!(code, Some(1));
    for runtime in runtimes {
        are_all(&report, runtime, "fail");
        assert!(of(&report, runtime)[0]["what"].as_str().unwrap().contains("nobody listens"), "{report}");
    }

    // Whoever is about to start the peer wants to know what setup did, and nothing else.
    let before = ["--root", &at, "--proxy", &proxy, "--only", "runtimes", "--before-start"];
    let (code, report) = doctor(&home, &before).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["findings"].as_array().unwrap().len(), runtimes.len(), "{report}");
    for runtime in runtimes {
        are_all(&report, runtime, "ok");
    }
    write(root.path(), &[("etc/docker/daemon.json", "{,}".into())]);
    let (code, report) = doctor(&home, &before).await;
    assert_eq!(code, Some(1));
    are_all(&report, "docker", "fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_a_wrong_name_blocked_udp_and_a_token_of_another_cluster_apart() {
    let home = TempDir::new().unwrap();
    let (ours, theirs) =
        (Cluster::start(1, World::default()).await, Cluster::start(0, World::default()).await);
    let empty = home.path().join("empty").display().to_string();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let config = home.path().join("longshore.toml");
    let with_token = |token: &Path| {
        std::fs::write(&config, format!("[peer]\njoin-token-file = {:?}\n", token.display().to_string()))
            .unwrap();
    };
    let common = ["--root", root.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let look = async |more: &[&str]| doctor(&home, &[&common[..], more].concat()).await.1;
    let supernode = ours.supernode.at.quic.clone();
    let said = |report: &Value, check: &str| of(report, check)[0]["what"].as_str().unwrap().to_owned();

    with_token(&ours.join_token());
    // Before it has joined, a node sees with the token whether it could.
    let report = look(&["--data-dir", &empty, "--supernode", &supernode]).await;
    are_all(&report, "way to the supernode", "ok");
    are_all(&report, "join token", "ok");

    let report = look(&["--data-dir", &empty, "--supernode", "nowhere.invalid:7700"]).await;
    are_all(&report, "way to the supernode", "fail");
    assert!(
        said(&report, "way to the supernode").contains("nowhere.invalid:7700 has no address"),
        "{report}"
    );

    // The machine answers over TCP, and not over UDP.
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let blocked = format!("127.0.0.1:{}", tcp.local_addr().unwrap().port() - 1);
    let report = look(&["--data-dir", &empty, "--supernode", &blocked]).await;
    are_all(&report, "way to the supernode", "fail");
    assert!(said(&report, "way to the supernode").contains("UDP is blocked"), "{report}");

    with_token(&theirs.join_token());
    let report = look(&["--data-dir", &empty, "--supernode", &supernode]).await;
    are_all(&report, "way to the supernode", "fail");
    let peer = ours.peers[0].data.display().to_string();
    let report = look(&["--data-dir", &peer, "--supernode", &supernode]).await;
    are_all(&report, "join token", "fail");
    assert!(said(&report, "join token").contains("another cluster"), "{report}");
    are_all(&report, "way to the supernode", "ok");

    with_token(Path::new("/nowhere/join-token"));
    let report = look(&["--data-dir", &empty, "--supernode", &supernode]).await;
    are_all(&report, "join token", "fail");
}
