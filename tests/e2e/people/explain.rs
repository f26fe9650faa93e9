//! `longshore explain`, and the line that a pull leaves in the log: whatever is slowed on purpose is what is named.

use std::time::Duration;

use common::task::TaskId;
use serde_json::Value;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, Node, World, run};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::{Image, TAG};

const MIB: usize = 1 << 20;

/// `longshore explain` at a daemon.
async fn explain(node: &Node, more: &[&str]) -> (Option<i32>, String) {
    let dir = node.data.display().to_string();
    run(&node.data, &[&["explain", "--data-dir", &dir], more].concat()).await
}

/// The explanation of a pull that is over.
async fn explained(node: &Node, what: &str) -> Value {
    eventually("a pull that is over", async || {
        let (status, said) = explain(node, &[what, "--json"]).await;
        assert_eq!(status, Some(0), "{said}");
        let explained: Value = serde_json::from_str(&said).unwrap();
        (explained["state"] != "running").then_some(explained)
    })
    .await
}

/// The line that a pull of this task has left.
async fn logged(node: &Node, task: &str) -> String {
    eventually("a line in the log", async || {
        node.said().lines().find(|line| line.contains(task) && line.contains("outcome")).map(str::to_owned)
    })
    .await
}

async fn id(node: &Node) -> String {
    let dir = node.data.display().to_string();
    let (_, status) = run(&node.data, &["status", "--json", "--data-dir", &dir]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    status["node"].as_str().or(status["seed"]["node"].as_str()).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slowed_parent_is_named() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let mut slow = cluster.spawn_peer("slow", &["--upload-limit", "64KiB/s"], None);
    let mut asking = cluster.spawn_peer("asking", &[], None);
    slow.ready().await;
    asking.ready().await;
    let (slow_id, peer) = (id(&slow).await, format!("waiting for peer {}", id(&slow).await));
    // On a busy machine something else may be slower than the parent now and then: some pulls, of which one tells.
    for seed in 420..430 {
        let image = Image::single("team/app", 16 * MIB, seed);
        origin.add(&image);
        for proxy in [&cluster.peers[0].at.proxy, &slow.at.proxy, &asking.at.proxy] {
            client::pull(proxy.clone(), "quay.test".to_owned(), image.clone()).await;
        }
        let task = TaskId::of_digest(image.layer().digest).hex();
        let seen = explained(&asking, &task[..12]).await;
        let from = seen["sources"].as_array().unwrap().iter();
        let given: u64 = from.filter_map(|source| source["bytes"].as_u64()).sum();
        assert_eq!(given, 16 * MIB as u64, "{seen:#}");
        let sentence = seen["sentence"].as_str().unwrap();
        let (status, page) = explain(&asking, &[&task]).await;
        assert!(status == Some(0) && page.trim_end().ends_with(sentence), "{page}");
        println!("{page}");
        if sentence.contains(&peer) {
            return;
        }
    }
    panic!("the slow parent {slow_id} was never named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_origin_is_named_by_the_peer_and_by_the_supernode() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let image = Image::single("team/app", 8 * MIB, 421);
    origin.add(&image);
    let peer = &cluster.peers[0];
    origin.hold_at(0);
    let pull = tokio::spawn(client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image.clone()));
    let task = TaskId::of_digest(image.layer().digest).hex();
    // While it hangs it is told already.
    eventually("a pull that hangs", async || {
        let (_, said) = explain(peer, &[&task]).await;
        said.contains("It goes on. So far most of the time").then_some(())
    })
    .await;
    for mib in 1..=8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        origin.hold_at((mib * MIB) as u64);
    }
    origin.release();
    pull.await.unwrap();
    let seen = explained(peer, "quay.test/team/app:e2e").await;
    assert!(seen["sentence"].as_str().unwrap().contains("from the origin yet"), "{seen:#}");
    let seen = explained(&cluster.supernode, &task).await;
    assert!(seen["sentence"].as_str().unwrap().contains("waiting for the origin, which sent at"), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_is_told_so() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let image = Image::single("team/app", 48 * MIB, 422);
    origin.add(&image);
    let peer = &cluster.peers[0];
    let digest = image.layer().digest;
    let url = blob_url(&peer.at.proxy, "quay.test", "team/app", digest);
    let mut answer = client::http().get(url).send().await.unwrap();
    let task = TaskId::of_digest(digest).hex();
    answer.chunk().await.unwrap();
    // Not a byte more is taken until all of it is on the node, and then some.
    eventually("the download", async || (peer.received().await.network() >= 48 * MIB as u64).then_some(()))
        .await;
    eventually("the client's share", async || {
        let (_, said) = explain(peer, &[&task, "--json"]).await;
        let seen: Value = serde_json::from_str(&said).ok()?;
        seen["sentence"].as_str()?.contains("the client, which was slow").then_some(())
    })
    .await;
    while answer.chunk().await.unwrap().is_some() {}
    let seen = explained(peer, &task).await;
    assert!(seen["sentence"].as_str().unwrap().contains("the client, which was slow"), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_explained_by_its_name_and_what_is_unknown_gets_a_list() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let peer = &cluster.peers[0];
    let (status, said) = explain(peer, &["quay.test/team/app:e2e"]).await;
    assert!(status == Some(1) && said.contains("pull it first"), "{said}");
    let (status, said) = explain(peer, &[]).await;
    assert!(status == Some(0) && said.contains("nothing was pulled"), "{said}");
    let image = Image::of_sizes("team/app", &[MIB, 3 * MIB], 423);
    origin.add(&image);
    client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    let name = format!("quay.test/team/app:{TAG}");
    let seen = explained(peer, &name).await;
    let tasks: Vec<_> = seen["parts"].as_array().unwrap().iter().map(|part| part["task"].clone()).collect();
    assert_eq!(tasks.len(), 4, "manifest, config, two layers: {seen:#}");
    let shares: f64 =
        seen["waits"].as_array().unwrap().iter().filter_map(|wait| wait["seconds"].as_f64()).sum();
    let seconds = seen["seconds"].as_f64().unwrap();
    assert!(shares <= seconds * 1.01 && shares >= seconds * 0.9, "{seen:#}");
    // Again, from the store.
    client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    let (_, list) = explain(peer, &[]).await;
    assert!(list.contains(&name) && list.contains("store"), "{list}");
    for unknown in ["quay.test/team/other:1", "abc", "00000000", "https://ann:s3cret@x/?sig=s3cret"] {
        let (status, said) = explain(peer, &[unknown]).await;
        assert!(status == Some(1) && said.contains("is remembered here") && said.contains(&name), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let line = logged(peer, &TaskId::of_digest(image.layer().digest).hex()).await;
    for part in ["INFO", "quay.test/team/app", "bytes=1048576", "seconds=", "first_byte=", "outcome=\"ok\""] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_leaves_one_line_that_says_why_in_json_too() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry("quay.test", &origin.url())).await;
    let mut peer = cluster.spawn_peer("json", &["--log-format", "json"], None);
    peer.ready().await;
    let image = Image::single("team/app", 2 * MIB, 424);
    origin.add(&image);
    let digest = image.layer().digest;
    let path = format!("/v2/team/app/blobs/{digest}");
    origin.fault(&path, crate::support::faulty::Fault::Flip(MIB as u64), usize::MAX);
    let got = client::get(&blob_url(&peer.at.proxy, "quay.test", "team/app", digest)).await;
    assert!(!got.looks_finished());
    let line = logged(&peer, &TaskId::of_digest(digest).hex()).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["outcome"], &line["level"]), (&"failed".into(), &"WARN".into()), "{line}");
    assert!(line["error"].as_str().unwrap().contains("digest"), "{line}");
}
