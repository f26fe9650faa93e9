//! Many nodes pull at once from cold: the registry serves each byte once, most bytes travel between peers, and a
//! client has its first byte long before the blob is complete.

use common::digest::{Digest, Hasher};
use tokio::task::JoinSet;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, Received, World};
use crate::support::faulty::Origin;
use crate::support::image::{Image, TAG};
use crate::support::registry::Registry;
use crate::support::{eventually, machine, need};

const MIB: usize = 1 << 20;

/// Every peer of the cluster pulls the whole image in the same moment.
async fn all_at_once(cluster: &Cluster, image: &Image) {
    let mut pulls = JoinSet::new();
    for proxy in cluster.proxies() {
        pulls.spawn(client::pull(proxy, "quay.test".to_owned(), image.clone()));
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
}

async fn burst(peers: usize, size: usize) -> (Registry, Image, Cluster) {
    let registry = Registry::start().await;
    let image = Image::single("team/big", size, peers as u64);
    registry.push(&image).await;
    let cluster = Cluster::start(peers, World::registry("quay.test", &registry.url())).await;
    all_at_once(&cluster, &image).await;
    registry.served_once(&image).await;
    (registry, image, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn four_cold_peers_take_one_copy_from_the_registry_and_most_of_it_from_each_other() {
    need!("docker-registry");
    let _machine = machine().await;
    let (_registry, image, cluster) = burst(4, 256 * MIB).await;
    let mut all = Received::default();
    for peer in &cluster.peers {
        let received = peer.received().await;
        assert!(received.network() >= image.layer().size(), "{received:?} does not add up to the layer");
        all.origin += received.origin;
        all.seed += received.seed;
        all.peer += received.peer;
    }
    assert_eq!(all.origin, 0, "peers went to the origin themselves: {all:?}");
    assert!(all.peer * 100 >= all.network() * 60, "less than 60 % came from peers: {all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cold_peers_take_one_copy_from_the_registry() {
    need!("docker-registry");
    let _machine = machine().await;
    burst(2, 64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_cold_peers_take_one_copy_from_the_registry() {
    need!("docker-registry");
    let _machine = machine().await;
    burst(12, 64 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_wave_takes_nothing_from_the_registry() {
    need!("docker-registry");
    let _machine = machine().await;
    let (registry, image, cluster) = burst(3, 8 * MIB).await;
    let mut late = cluster.spawn_peer("late", &[], None);
    late.ready().await;
    client::pull(late.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    registry.served_once(&image).await;
    assert_eq!(late.received().await.origin, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_asked_eight_times_at_once_downloads_once() {
    need!("docker-registry");
    let _machine = machine().await;
    let registry = Registry::start().await;
    let image = Image::single("team/popular", 32 * MIB, 8);
    registry.push(&image).await;
    let cluster = Cluster::start(1, World::registry("quay.test", &registry.url())).await;
    let url = blob_url(&cluster.peers[0].at.proxy, "quay.test", &image.repository, image.layer().digest);
    let mut pulls = JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        pulls.spawn(async move { client::get(&url).await });
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap().is(image.layer().digest);
    }
    let received = cluster.peers[0].received().await;
    assert!(received.network() < image.layer().size() * 11 / 10, "{received:?}: fetched more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_arrives_before_a_tenth_of_the_blob_has_left_the_origin() {
    let _machine = machine().await;
    let origin = Origin::start().await;
    let image = Image::single("team/big", 256 * MIB, 10);
    let tenth = image.layer().size() / 10;
    origin.add(&image);
    origin.hold_at(tenth);
    let cluster = Cluster::start(2, World::registry("quay.test", &origin.url())).await;
    let mut readers = JoinSet::new();
    for proxy in cluster.proxies() {
        let url = blob_url(&proxy, "quay.test", &image.repository, image.layer().digest);
        readers.spawn(async move {
            let mut answer = client::http().get(url).send().await.unwrap();
            let first = answer.chunk().await.unwrap().expect("a first byte");
            (answer, first)
        });
    }
    // The origin stands still below a tenth until every client has its first byte.
    let mut answers = Vec::new();
    while let Some(reader) = readers.join_next().await {
        answers.push(reader.unwrap());
    }
    assert!(origin.left() <= tenth);
    origin.release();
    for (mut answer, first) in answers {
        let mut hasher = Hasher::new();
        hasher.update(&first);
        while let Some(bytes) = answer.chunk().await.unwrap() {
            hasher.update(&bytes);
        }
        assert_eq!(hasher.finish(), image.layer().digest);
    }
    once(&origin, &image, image.layer().digest);
}

fn once(origin: &Origin, image: &Image, digest: Digest) {
    let copies = origin.copies(image, digest);
    assert!((0.995..1.005).contains(&copies), "{copies:.3} copies left the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_after_the_one_that_is_asked_for_are_fetched_ahead_and_those_before_it_are_not() {
    let _machine = machine().await;
    let origin = Origin::start().await;
    let image = Image::of_sizes("team/layers", &[MIB / 2; 8], 70);
    origin.add(&image);
    let cluster = Cluster::start(2, World::registry("quay.test", &origin.url())).await;
    let copies = |layer: usize| origin.copies(&image, image.layers[layer].digest);
    for peer in &cluster.peers {
        let proxy = &peer.at.proxy;
        let layer =
            |layer: usize| blob_url(proxy, "quay.test", &image.repository, image.layers[layer].digest);
        client::get(&client::manifest_url(proxy, "quay.test", &image.repository, TAG)).await;
        // Who reads parts may want no more.
        client::fetch(client::http().get(layer(1)).header("range", "bytes=0-99")).await;
        client::get(&layer(4)).await.is(image.layers[4].digest);
    }
    eventually("one copy of each layer that comes next", async || {
        (5..8).all(|layer| copies(layer) >= 1.0).then_some(())
    })
    .await;
    assert!([0, 2, 3].iter().all(|layer| copies(*layer) == 0.0), "what lies before it was not asked for");
    for peer in &cluster.peers {
        client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    }
    assert!((0..8).all(|layer| copies(layer) < 1.005), "no layer left the origin twice");
}
