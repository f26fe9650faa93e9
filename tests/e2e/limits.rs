//! Limits: rates that change under way, pieces at once, and a supernode that says when it is busy.

use std::path::Path;

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, World, sample};
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::{eventually, need};

/// So slow that the pulls of a test would take many minutes.
const CRAWL: &str = "16KiB/s";

fn write(path: &Path, settings: &str) {
    std::fs::write(path, format!("[peer]\n{settings}\n[supernode]\n{settings}\n")).unwrap();
}

/// One pull that crawls until the settings are read again, with the daemons' settings before and after.
async fn crawls_until_hangup(limit: &str) {
    let registry = Registry::start().await;
    let image = Image::single("team/app", 8 << 20, 1);
    registry.push(&image).await;
    let mut cluster = Cluster::start(0, World::registry("quay.test", &registry.url())).await;
    let file = cluster.root().join("longshore.toml");
    write(&file, &format!("{limit} = \"{CRAWL}\""));
    let mut peer = cluster.spawn_peer("slow", &["--config", file.to_str().unwrap()], None);
    peer.ready().await;
    let url = blob_url(&peer.at.proxy, "quay.test", "team/app", image.layer().digest);
    let pull = tokio::spawn(async move { client::get(&url).await });
    eventually("the first piece", async || (peer.received().await.network() > 0).then_some(())).await;
    write(&file, &format!("{limit} = \"nonsense\""));
    peer.process().signal(Signal::HUP);
    let kept = "the limits stay as they were";
    eventually("a word on nonsense", async || peer.process().said().contains(kept).then_some(())).await;
    assert!(!pull.is_finished(), "it crawls");
    write(&file, &format!("{limit} = \"none\""));
    peer.process().signal(Signal::HUP);
    pull.await.unwrap().is(image.layer().digest);
    assert!(cluster.supernode.process().ended().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_limit_is_read_again_under_way() {
    need!("docker-registry");
    crawls_until_hangup("download-limit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_the_limit_of_each_task() {
    need!("docker-registry");
    crawls_until_hangup("task-download-limit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_and_upload_limits_hold_the_seed_back_until_they_are_lifted() {
    need!("docker-registry");
    for limit in ["upload-limit", "task-upload-limit", "origin-limit", "task-origin-limit"] {
        let registry = Registry::start().await;
        let image = Image::single("team/app", 8 << 20, 2);
        registry.push(&image).await;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("longshore.toml");
        write(&file, &format!("{limit} = \"{CRAWL}\""));
        let world = World::registry("quay.test", &registry.url());
        let settings = format!("LONGSHORE_SUPERNODE_{}", limit.to_uppercase().replace('-', "_"));
        // The peer asks for itself what the supernode does not give: it must not.
        let peer_too = format!("LONGSHORE_PEER_{}", limit.to_uppercase().replace('-', "_"));
        let cluster = Cluster::start(1, world.set(&settings, CRAWL).set(&peer_too, CRAWL)).await;
        let url = blob_url(&cluster.peers[0].at.proxy, "quay.test", "team/app", image.layer().digest);
        let mut pull = tokio::spawn(async move { client::get(&url).await });
        let early = tokio::time::timeout(std::time::Duration::from_secs(3), &mut pull).await;
        assert!(early.is_err(), "{limit}: 8 MiB came through a limit that lets 48 KiB pass");
        pull.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supernode_with_more_joins_than_it_takes_says_so_and_every_pull_ends_right() {
    need!("docker-registry");
    let registry = Registry::start().await;
    let sizes: Vec<usize> = (0..24).map(|number| 20_480 + 1_024 * number).collect();
    let image = Image::of_sizes("team/app", &sizes, 3);
    registry.push(&image).await;
    let world = World::registry("quay.test", &registry.url()).set("LONGSHORE_SUPERNODE_MAX_JOINS", "1");
    let cluster = Cluster::start(3, world).await;
    let mut pulls = JoinSet::new();
    for proxy in cluster.proxies() {
        for layer in image.layers.clone() {
            let url = blob_url(&proxy, "quay.test", "team/app", layer.digest);
            pulls.spawn(async move { client::get(&url).await.is(layer.digest) });
        }
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
    let metrics = cluster.supernode.metrics().await;
    let shed = sample(&metrics, "longshore_turned_away_total", "reason=\"busy\"");
    assert!(shed > 0, "72 joins went through where one a second may: {metrics}");
    println!("{shed} joins were told to come again; all {} pulls are right", 3 * image.layers.len());
}
