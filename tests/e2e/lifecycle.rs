//! Daemons from start to end: ready, measured, asked, joined by token, and ended by SIGTERM; and the commands that
//! live for a moment.

use tempfile::TempDir;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, Node, World, longshore};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::process::succeed;
use crate::support::{eventually, machine};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_every_daemon_with_status_0() {
    let mut cluster = Cluster::start(2, World::default()).await;
    for peer in &mut cluster.peers {
        assert_eq!(peer.terminate().await.code(), Some(0));
    }
    assert_eq!(cluster.supernode.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_mid_pull_ends_every_daemon_with_status_0() {
    let _machine = machine().await;
    let origin = Origin::start().await;
    let image = Image::single("team/app", 32 << 20, 61);
    origin.add(&image);
    origin.hold_at(image.layer().size() / 2);
    let mut cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let url = blob_url(&cluster.peers[0].at.proxy, "quay.test", &image.repository, image.layer().digest);
    let pull = tokio::spawn(async move { client::get(&url).await });
    eventually("some pieces at the peer", async || {
        (cluster.peers[0].received().await.network() > 0).then_some(())
    })
    .await;
    assert_eq!(cluster.peers[0].terminate().await.code(), Some(0));
    assert_eq!(cluster.supernode.terminate().await.code(), Some(0));
    assert!(!pull.await.unwrap().looks_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_is_healthy_ready_and_measured() {
    let cluster = Cluster::start(1, World::default()).await;
    for node in [&cluster.supernode, &cluster.peers[0]] {
        for path in ["/healthz", "/readyz"] {
            assert!(client::get(&node.url(path)).await.status.is_success(), "{path}");
        }
        let metrics = node.metrics().await;
        let samples: Vec<&str> =
            metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(!samples.is_empty());
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(name.starts_with("longshore_"), "{sample}");
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let described = |name: &str| metrics.contains(&format!("# HELP {name} "));
            assert!(described(name) || described(family), "{name} has no help text");
            let value = sample.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{sample}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_speaks_to_people_and_to_programs() {
    let cluster = Cluster::start(1, World::default()).await;
    for node in [&cluster.supernode, &cluster.peers[0]] {
        let data = node.data.display().to_string();
        let people = succeed(longshore(cluster.root()).args(["status", "--data-dir", &data])).await;
        assert!(!people.trim().is_empty());
        let programs =
            succeed(longshore(cluster.root()).args(["status", "--data-dir", &data, "--json"])).await;
        let value: serde_json::Value = serde_json::from_str(&programs).expect("status --json is JSON");
        assert!(value.is_object(), "{programs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_token_lets_a_peer_in_and_a_revoked_one_does_not() {
    let cluster = Cluster::start(0, World::default()).await;
    let data = cluster.supernode.data.display().to_string();
    let token = |arguments: &[&str]| {
        let mut command = longshore(cluster.root());
        command.arg("token").args(arguments).args(["--data-dir", &data]);
        command
    };
    let created = succeed(&token(&["create"])).await;
    let text = created.split_whitespace().find(|word| word.starts_with("lsj1.")).expect("a token is printed");
    let (id, secret) = (text.split('.').nth(1).unwrap(), text.split('.').nth(2).unwrap());
    let file = cluster.root().join("new-token");
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let mut invited = cluster.spawn_peer_with("invited", &file, &[], None);
    invited.ready().await;

    let list = succeed(&token(&["list"])).await;
    assert!(list.contains(id), "{list}");
    assert!(!list.contains(secret), "a list shows no secrets");

    succeed(&token(&["revoke", id])).await;
    let mut late = cluster.spawn_peer_with("late", &file, &[], None);
    eventually("a refusal that names the token", async || {
        late.process().said().contains("token").then_some(())
    })
    .await;
    let enrolled = cluster.root().join("late").join("addresses.json").exists()
        && late.process().ended().is_none()
        && reachable(&cluster, "late").await;
    assert!(!enrolled, "a peer with a revoked token is ready");
}

async fn reachable(cluster: &Cluster, name: &str) -> bool {
    let file = cluster.root().join(name).join("addresses.json");
    let at: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let url = format!("http://{}/readyz", at["http"].as_str().unwrap());
    client::http().get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_on_one_data_directory_are_refused() {
    let cluster = Cluster::start(1, World::default()).await;
    let mut second = cluster.spawn_peer("second", &[], Some(&cluster.peers[0].data));
    assert_eq!(second.process().end().await.code(), Some(1));
    assert!(second.process().said().contains(&cluster.peers[0].data.display().to_string()));
    assert!(client::get(&cluster.peers[0].url("/healthz")).await.status.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_shows_one_copy_from_its_origin_and_ends_by_itself() {
    let _machine = machine().await;
    let home = TempDir::new().unwrap();
    let said = succeed(longshore(home.path()).arg("demo")).await;
    assert!(said.contains("1.00"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_is_a_whole_cluster_in_one_process() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let image = Image::single("team/app", 8 << 20, 62);
    origin.add(&image);
    let mut arguments = vec!["up".to_owned(), "--registry".to_owned(), format!("quay.test={}", origin.url())];
    let doors =
        ["--quic-listen", "--http-listen", "--peer-quic-listen", "--peer-http-listen", "--proxy-listen"];
    arguments.extend(doors.iter().flat_map(|door| [(*door).to_owned(), "127.0.0.1:0".to_owned()]));
    let mut up = Node::spawn("up", arguments, home.path(), None);
    up.ready().await;
    let advice = format!("http://{}", up.at.proxy);
    up.process().says(&advice).await;
    client::pull(up.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    let copies = origin.copies(&image, image.layer().digest);
    assert!((0.995..1.005).contains(&copies), "{copies:.3} copies left the origin");
    assert_eq!(up.terminate().await.code(), Some(0));
}
