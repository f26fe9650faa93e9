//! A peer that reads containerd's content store: what containerd has already feeds the swarm from where it lies, is
//! withdrawn when containerd collects it, and is kept once.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use common::digest::Digest;

use crate::support::cluster::{Cluster, Node, World, gauge, sample};
use crate::support::image::{Image, TAG};
use crate::support::registry::Registry;
use crate::support::runtimes::Containerd;
use crate::support::{client, eventually, files_below, need};

const MIB: usize = 1024 * 1024;

/// What an image is made of, the manifest among it.
fn digests(image: &Image) -> Vec<Digest> {
    image.blobs().map(|blob| blob.digest).chain([image.manifest.digest]).collect()
}

/// Everything by which a file could show that it was touched.
fn traces(files: &[PathBuf]) -> Vec<(PathBuf, u64, i64, i64, u32, Digest)> {
    let trace = |file: &PathBuf| {
        let (meta, bytes) = (std::fs::metadata(file).unwrap(), std::fs::read(file).unwrap());
        (file.clone(), meta.ino(), meta.mtime_nsec(), meta.ctime_nsec(), meta.mode(), Digest::of(&bytes))
    };
    let mut traces: Vec<_> = files.iter().map(trace).collect();
    traces.sort();
    traces
}

/// Waits until the peer reads so many blobs from the content store.
async fn adopts(peer: &Node, blobs: usize) {
    let what = format!("{blobs} adopted blobs");
    eventually(&what, async || {
        (gauge(&peer.metrics().await, "longshore_adopted_blobs") == blobs as u64).then_some(())
    })
    .await;
}

/// How many members the supernode believes to hold each part of the image whole.
async fn holders(cluster: &Cluster, image: &Image) -> Vec<u64> {
    let url = cluster.supernode.url("/api/v1/status");
    let status = client::http().get(url).send().await.unwrap().bytes().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let complete = |digest: &Digest| {
        let tasks = status["tasks"].as_array().into_iter().flatten();
        let task = tasks.into_iter().find(|task| task["task"] == digest.hex());
        task.and_then(|task| task["complete"].as_u64()).unwrap_or(0)
    };
    digests(image).iter().map(complete).collect()
}

async fn eventually_held_by(cluster: &Cluster, image: &Image, members: u64) {
    let what = format!("{members} holders of every part");
    eventually(&what, async || {
        holders(cluster, image).await.iter().all(|count| *count == members).then_some(())
    })
    .await;
}

fn own_copies(peer: &Node) -> Vec<PathBuf> {
    files_below(&peer.data.join("blobs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_had_before_feeds_the_swarm_and_is_withdrawn_when_it_is_collected() {
    need!("docker-registry", "containerd", "ctr", "root");
    let registry = Registry::start().await;
    let image = Image::of_sizes("library/app", &[24 * MIB, 3 * MIB, 512 * 1024], 7);
    registry.push(&image).await;
    let containerd = Containerd::start().await;
    let name = format!("library/app:{TAG}");
    containerd.pull("docker.io", &registry.url(), &name).await;
    let (files, parts) = (containerd.blobs(), digests(&image).len());
    assert_eq!(files.len(), parts);
    let before = traces(&files);

    let cluster = Cluster::start(0, World::registry("docker.io", &registry.url())).await;
    let home = containerd.home().display().to_string();
    let mut holder = cluster.spawn_peer("holder", &["--content-store", &home], None);
    let mut child = cluster.spawn_peer("child", &[], None);
    holder.ready().await;
    child.ready().await;
    adopts(&holder, parts).await;
    eventually_held_by(&cluster, &image, 1).await;

    client::pull(child.at.proxy.clone(), "docker.io".into(), image.clone()).await;
    let received = child.received().await;
    println!(
        "the child received {received:?}; the registry gave its layer {:.2} times",
        registry.copies(image.layer())
    );
    assert!(received.peer > 0, "the holder gave nothing: {received:?}");
    assert_eq!(holder.received().await.network(), 0, "the holder fetched what it has");

    // The node's own runtime is served from the same files.
    client::pull(holder.at.proxy.clone(), "docker.io".into(), image.clone()).await;
    assert_eq!(holder.received().await.network(), 0);
    assert!(sample(&holder.metrics().await, "longshore_received_bytes_total", "source=\"local\"") > 0);
    assert!(own_copies(&holder).is_empty(), "a second copy: {:?}", own_copies(&holder));
    assert_eq!(traces(&files), before, "containerd's files are as they were");

    eventually_held_by(&cluster, &image, 2).await;
    containerd.remove(&format!("docker.io/{name}")).await;
    eventually("containerd's collection", async || containerd.blobs().is_empty().then_some(())).await;
    adopts(&holder, 0).await;
    // What is left is the child's own.
    eventually_held_by(&cluster, &image, 1).await;
    assert!(own_copies(&holder).is_empty());
    let mut late = cluster.spawn_peer("late", &[], None);
    late.ready().await;
    client::pull(late.at.proxy.clone(), "docker.io".into(), image.clone()).await;
    client::pull(holder.at.proxy.clone(), "docker.io".into(), image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_pulls_through_its_peer_is_kept_once() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "root");
    let registry = Registry::start().await;
    let image = Image::runnable("library/app", "one copy is enough\n");
    registry.push(&image).await;
    let containerd = Containerd::start().await;
    let cluster = Cluster::start(0, World::registry("docker.io", &registry.url())).await;
    let home = containerd.home().display().to_string();
    let mut peer = cluster.spawn_peer("peer", &["--content-store", &home], None);
    peer.ready().await;
    let (mirror, name) = (format!("http://{}", peer.at.proxy), format!("library/app:{TAG}"));
    containerd.pull("docker.io", &mirror, &name).await;
    let parts = digests(&image).len();
    eventually("the peer's own copies", async || (own_copies(&peer).len() == parts).then_some(())).await;
    let before = traces(&containerd.blobs());

    // What is in the content store before the peer starts has come to stay.
    for _ in 0..2 {
        assert!(peer.terminate().await.success());
        peer.restart().await;
        adopts(&peer, parts).await;
        eventually("no copy of the peer's own", async || own_copies(&peer).is_empty().then_some(())).await;
        assert_eq!(gauge(&peer.metrics().await, "longshore_store_blob_bytes"), 0);
    }
    client::pull(peer.at.proxy.clone(), "docker.io".into(), image.clone()).await;
    assert_eq!(peer.received().await.network(), 0);
    assert_eq!(traces(&containerd.blobs()), before);
    assert_eq!(containerd.run(&format!("docker.io/{name}")).await, "one copy is enough\n");
    registry.served_once(&image).await;
}
