//! Several supernodes, real processes: each has its share of the blobs, one that is killed in mid-pull is replaced by the
//! others, one that comes later takes a share, and without any of them pulls still work. What it prints is how long the
//! moves took.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Instant;

use common::node::NodeId;
use common::rendezvous;
use common::task::TaskId;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Node, World, gauge, words};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::{eventually, machine, need};

const MIB: usize = 1 << 20;
const PEERS: usize = 6;

/// Supernodes that share a CA, and peers that know all of them.
struct Fleet {
    supernodes: Vec<Node>,
    peers: Vec<Node>,
    /// Where the supernode that is not there yet will be.
    reserved: String,
    world: World,
    root: TempDir,
}

// === impl Fleet ===

impl Fleet {
    /// Three supernodes and six peers, which are told of a fourth supernode that is not there.
    async fn start(world: World) -> Self {
        let reserved = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let root = TempDir::new().unwrap();
        let mut fleet = Self { supernodes: Vec::new(), peers: Vec::new(), reserved, world, root };
        for _ in 0..3 {
            fleet.add_supernode("127.0.0.1:0").await;
        }
        for number in 0..PEERS {
            fleet.spawn_peer(number);
        }
        for peer in &mut fleet.peers {
            peer.ready().await;
        }
        fleet.have_sessions(3).await;
        fleet
    }

    async fn add_supernode(&mut self, listen: &str) {
        let name = format!("supernode{}", self.supernodes.len());
        if let Some(first) = self.supernodes.first() {
            share_authority(&first.data, &self.root.path().join(&name));
        }
        let mut arguments = words(&["supernode", "--quic-listen", listen, "--http-listen", "127.0.0.1:0"]);
        arguments.extend(self.world.flags());
        let mut supernode = Node::spawn(&name, arguments, self.root.path(), None);
        supernode.ready().await;
        self.supernodes.push(supernode);
    }

    fn spawn_peer(&mut self, number: usize) {
        let token = self.supernodes[0].data.join("join-token").display().to_string();
        let mut arguments = words(&["peer", "--join-token-file", &token]);
        for listen in ["--quic-listen", "--proxy-listen", "--http-listen"] {
            arguments.extend(words(&[listen, "127.0.0.1:0"]));
        }
        let addresses = self.supernodes.iter().map(|supernode| &supernode.at.quic).chain([&self.reserved]);
        addresses.for_each(|address| arguments.extend(words(&["--supernode", address])));
        arguments.extend(self.world.flags());
        self.peers.push(Node::spawn(&format!("peer{number}"), arguments, self.root.path(), None));
    }

    /// Waits until every peer has so many sessions.
    async fn have_sessions(&self, count: u64) {
        for peer in &self.peers {
            eventually("a session with each supernode", async || {
                (gauge(&peer.metrics().await, "longshore_supernode_connected") == count).then_some(())
            })
            .await;
        }
    }

    /// Every peer pulls the whole image in the same moment.
    async fn pull(&self, image: &Image) {
        let mut pulls = JoinSet::new();
        for peer in &self.peers {
            pulls.spawn(client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image.clone()));
        }
        while let Some(pull) = pulls.join_next().await {
            pull.unwrap();
        }
    }

    /// Waits until each layer is known to be held by all peers at the one supernode that it belongs to; gives how many
    /// layers each supernode has.
    async fn shares(&self, image: &Image) -> Vec<usize> {
        let mut nodes = Vec::new();
        for supernode in &self.supernodes {
            nodes.push(node(supernode).await);
        }
        let mut shares = vec![0; nodes.len()];
        for layer in &image.layers {
            let task = TaskId::of_digest(layer.digest);
            let owner = rendezvous::first(&task.0, nodes.iter().copied()).unwrap();
            let owner = nodes.iter().position(|node| *node == owner).unwrap();
            shares[owner] += 1;
            eventually("a layer that its supernode knows at every peer", async || {
                (complete(&self.supernodes[owner], task).await == PEERS as u64).then_some(())
            })
            .await;
            for other in (0..nodes.len()).filter(|other| *other != owner) {
                assert_eq!(complete(&self.supernodes[other], task).await, 0, "{task} is at {other}, too");
            }
        }
        shares
    }
}

/// What makes a supernode one of the same cluster.
fn share_authority(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("identity")).unwrap();
    for file in ["ca.pem", "ca.key", "tokens.json"] {
        std::fs::copy(from.join("identity").join(file), to.join("identity").join(file)).unwrap();
    }
}

async fn status(supernode: &Node) -> Value {
    let answer = client::http().get(supernode.url("/api/v1/status")).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn node(supernode: &Node) -> NodeId {
    status(supernode).await["seed"]["node"].as_str().unwrap().parse().unwrap()
}

/// A number of a task's swarm at a supernode.
async fn swarm(supernode: &Node, task: TaskId, number: &str) -> u64 {
    let status = status(supernode).await;
    let swarms = status["tasks"].as_array().unwrap();
    let swarm = swarms.iter().find(|swarm| swarm["task"] == task.hex());
    swarm.map_or(0, |swarm| swarm[number].as_u64().unwrap())
}

async fn complete(supernode: &Node, task: TaskId) -> u64 {
    swarm(supernode, task, "complete").await
}

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
    let mut nodes = Vec::new();
    for supernode in &fleet.supernodes {
        nodes.push(node(supernode).await);
    }
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
