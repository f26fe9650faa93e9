//! Several supernodes, real processes: each has its share of the blobs, one that is killed in mid-pull is replaced by the
//! others, one that comes later takes a share, and without any of them pulls still work. What it prints is how long the
//! moves took.

mod fleet;
mod takeover;

use std::time::Instant;

use common::rendezvous;
use common::task::TaskId;
use tokio::task::JoinSet;

use crate::support::client::{self, blob_url};
use crate::support::cluster::World;
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::{eventually, machine, need};

use fleet::{Fleet, PEERS, swarm};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_supernode_has_its_share_of_the_blobs_and_one_that_comes_later_gets_one() {
    need!("docker-registry");
    let _machine = machine().await;
    let registry = Registry::start().await;
    let mut fleet = Fleet::start(World::registry("quay.test", &registry.url())).await;
    let image = Image::of_sizes("team/shared", &[2 * MIB; 16], 80);
    registry.push(&image).await;
    fleet.pull(&image).await;
    registry.served_once(&image).await;
    let shares = fleet.shares(&image).await;
    println!("layers at each of three supernodes: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0), "a supernode without a share: {shares:?}");

    let begun = Instant::now();
    let reserved = fleet.reserved.clone();
    fleet.add_supernode(&reserved).await;
    fleet.have_sessions(4).await;
    println!("a new supernode was found by all after {:.1} s", begun.elapsed().as_secs_f64());
    let newer = Image::of_sizes("team/newer", &[2 * MIB; 16], 90);
    registry.push(&newer).await;
    fleet.pull(&newer).await;
    registry.served_once(&newer).await;
    let shares = fleet.shares(&newer).await;
    println!("layers at each of four supernodes: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0), "a supernode without a share: {shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_supernode_in_mid_pull_moves_its_tasks_and_killing_all_fails_no_pull() {
    let _machine = machine().await;
    let origin = Origin::start().await;
    let image = Image::single("team/app", 96 * MIB, 81);
    let layer = image.layer().clone();
    origin.add(&image);
    origin.hold_at(layer.size() / 2);
    let mut fleet = Fleet::start(World::registry("quay.test", &origin.url())).await;
    let mut pulls = JoinSet::new();
    for peer in &fleet.peers {
        let url = blob_url(&peer.at.proxy, "quay.test", &image.repository, layer.digest);
        pulls.spawn(async move { client::get(&url).await });
    }
    for peer in &fleet.peers {
        eventually("a quarter of the layer at a peer", async || {
            (peer.received().await.network() >= layer.size() / 4).then_some(())
        })
        .await;
    }
    let task = TaskId::of_digest(layer.digest);
    let nodes = fleet.nodes().await;
    let order = rendezvous::order(&task.0, nodes.iter().copied());
    let place = |rank: usize| nodes.iter().position(|node| *node == order[rank]).unwrap();
    let (owner, next) = (place(0), place(1));
    assert_eq!(swarm(&fleet.supernodes[owner], task, "members").await, PEERS as u64);

    fleet.supernodes[owner].kill().await;
    let killed = Instant::now();
    eventually("the whole swarm at the next supernode", async || {
        (swarm(&fleet.supernodes[next], task, "members").await >= PEERS as u64).then_some(())
    })
    .await;
    println!("all peers moved to the next supernode within {:.1} s", killed.elapsed().as_secs_f64());
    origin.release();
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap().is(layer.digest);
    }
    let mut asked = 0;
    for peer in &fleet.peers {
        asked += peer.received().await.origin;
    }
    let (copies, asked) = (origin.copies(&image, layer.digest), asked as f64 / layer.size() as f64);
    println!(
        "copies that left the origin: {copies:.2}, of them {asked:.2} to peers that asked it themselves"
    );

    for supernode in &mut fleet.supernodes {
        if supernode.process().ended().is_none() {
            supernode.kill().await;
        }
    }
    let alone = Image::of_sizes("team/alone", &[2 * MIB, MIB], 85);
    origin.add(&alone);
    fleet.pull(&alone).await;
    fleet.have_sessions(0).await;
}
