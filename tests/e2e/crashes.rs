//! `kill -9` in the middle of a pull: of the supernode, of a parent, of the pulling peer, of the registry. "The middle" is certain: the origin stands still at a known byte until the deed is done.

use common::digest::{Digest, Hasher};
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::support::client::{self, Pulled, blob_url};
use crate::support::cluster::{Cluster, Node, World};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::{eventually, machine};

const MIB: usize = 1 << 20;
const SIZE: usize = 96 * MIB;
/// An origin that stands still in the middle of its one layer, and a cluster in front of it.
async fn held(peers: usize, seed: u64) -> (Origin, Image, Cluster) {
    let origin = Origin::start().await;
    let image = Image::single("team/app", SIZE, seed);
    origin.add(&image);
    origin.hold_at(image.layer().size() / 2);
    let cluster = Cluster::start(peers, World::registry("quay.test", &origin.url())).await;
    (origin, image, cluster)
}

/// Begins to pull the layer through `peer`.
fn pulling(peer: &Node, image: &Image) -> JoinHandle<Pulled> {
    let url = blob_url(&peer.at.proxy, "quay.test", &image.repository, image.layer().digest);
    tokio::spawn(async move { client::get(&url).await })
}

/// Waits until `peer` holds a quarter of the layer.
async fn amid(peer: &Node, image: &Image) -> u64 {
    eventually("a quarter of the layer at a peer", async || {
        let network = peer.received().await.network();
        (network >= image.layer().size() / 4).then_some(network)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_supernode_in_mid_pull_fails_no_pull() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(3, 21).await;
    let pulls: Vec<_> = cluster.peers.iter().map(|peer| pulling(peer, &image)).collect();
    for peer in &cluster.peers {
        amid(peer, &image).await;
    }
    cluster.supernode.kill().await;
    origin.release();
    for pull in pulls {
        pull.await.unwrap().is(image.layer().digest);
    }
    let copies = origin.copies(&image, image.layer().digest);
    assert!(copies <= 1.0 + 3.0, "{copies:.2} copies: more than one fetch for every node");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_supernode_pulls_go_on_and_a_restarted_one_learns_again_who_holds_what() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(1, 22).await;
    origin.release();
    cluster.supernode.kill().await;
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    cluster.supernode.restart().await;
    let mut newcomers = 0;
    eventually("a newcomer that gets pieces from the peer that was there before", async || {
        newcomers += 1;
        let mut newcomer = cluster.spawn_peer(&format!("newcomer{newcomers}"), &[], None);
        newcomer.ready().await;
        pulling(&newcomer, &image).await.unwrap().is(image.layer().digest);
        (newcomer.received().await.peer > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_are_cut_off_from_supernode_and_origin_finish_with_what_is_among_them() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(1, 27).await;
    origin.release();
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    let slow = ["--download-limit", "24MiB"];
    let mut others: Vec<Node> =
        (0..2).map(|n| cluster.spawn_peer(&format!("slow{n}"), &slow, None)).collect();
    for peer in &mut others {
        peer.ready().await;
    }
    let pulls: Vec<_> = others.iter().map(|peer| pulling(peer, &image)).collect();
    for peer in &others {
        amid(peer, &image).await;
    }
    cluster.supernode.kill().await;
    origin.hold_at(0);
    for pull in pulls {
        pull.await.unwrap().is(image.layer().digest);
    }
    let copies = origin.copies(&image, image.layer().digest);
    assert!(copies < 1.005, "{copies:.3} copies left the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_parent_in_mid_pull_fails_no_other_pull() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(4, 23).await;
    let mut pulls: Vec<_> = cluster.peers.iter().map(|peer| pulling(peer, &image)).collect();
    for peer in &cluster.peers {
        amid(peer, &image).await;
    }
    cluster.peers[0].kill().await;
    pulls.remove(0).abort();
    origin.release();
    for pull in pulls {
        pull.await.unwrap().is(image.layer().digest);
    }
    let copies = origin.copies(&image, image.layer().digest);
    assert!(copies < 1.005, "{copies:.3} copies left the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_falls_silent_in_mid_pull_delays_no_other_pull_for_good() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(3, 24).await;
    let mut pulls: Vec<_> = cluster.peers.iter().map(|peer| pulling(peer, &image)).collect();
    for peer in &cluster.peers {
        amid(peer, &image).await;
    }
    cluster.peers[0].process().signal(Signal::STOP);
    let silent = pulls.remove(0);
    origin.release();
    for pull in pulls {
        pull.await.unwrap().is(image.layer().digest);
    }
    // and the one that was asleep catches up
    cluster.peers[0].process().signal(Signal::CONT);
    silent.await.unwrap().is(image.layer().digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_goes_on_after_its_restart_with_what_it_held() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(1, 25).await;
    let size = image.layer().size();
    let pull = pulling(&cluster.peers[0], &image);
    // all that has left the origin has come to rest at the peer
    let held = eventually("nearly half of the layer at the peer", async || {
        let network = cluster.peers[0].received().await.network();
        (network >= size * 48 / 100).then_some(network)
    })
    .await;
    cluster.peers[0].kill().await;
    assert!(!pull.await.unwrap().looks_finished(), "a killed peer cannot finish an answer");
    origin.release();
    cluster.peers[0].restart().await;
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    let again = cluster.peers[0].received().await.network();
    assert!(held + again <= size * 11 / 10, "{held} bytes before the kill and {again} after it, of {size}");
    let copies = origin.copies(&image, image.layer().digest);
    assert!(copies < 1.005, "{copies:.3} copies left the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_blob_is_served_from_disk_after_kill_and_restart() {
    let _machine = machine().await;
    let (origin, image, mut cluster) = held(1, 26).await;
    origin.release();
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    cluster.peers[0].kill().await;
    cluster.peers[0].restart().await;
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    let again = cluster.peers[0].received().await.network();
    assert!(again <= image.layer().size() / 10, "{again} bytes of a finished blob were fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_mid_pull_harms_nobody() {
    let _machine = machine().await;
    let (origin, image, cluster) = held(2, 30).await;
    let url = blob_url(&cluster.peers[0].at.proxy, "quay.test", &image.repository, image.layer().digest);
    let mut leaving = client::http().get(&url).send().await.unwrap();
    let mut hasher = Hasher::new();
    hasher.update(&leaving.chunk().await.unwrap().expect("a first byte"));
    assert_ne!(hasher.finish(), Digest::of(b""));
    let staying = pulling(&cluster.peers[1], &image);
    drop(leaving);
    origin.release();
    staying.await.unwrap().is(image.layer().digest);
    pulling(&cluster.peers[0], &image).await.unwrap().is(image.layer().digest);
    let copies = origin.copies(&image, image.layer().digest);
    assert!(copies < 1.005, "{copies:.3} copies left the origin");
}
