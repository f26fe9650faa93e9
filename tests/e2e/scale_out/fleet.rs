//! Several supernodes of one cluster, as real processes, and peers that know all of them.

use std::net::UdpSocket;
use std::path::Path;

use common::node::NodeId;
use common::rendezvous;
use common::task::TaskId;
use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::cluster::{Node, World, gauge, words};
use crate::support::eventually;
use crate::support::image::Image;

pub(crate) const PEERS: usize = 6;

/// Supernodes that share a CA, and peers that know all of them.
pub(crate) struct Fleet {
    pub(crate) supernodes: Vec<Node>,
    pub(crate) peers: Vec<Node>,
    /// Where the supernode that is not there yet will be.
    pub(crate) reserved: String,
    world: World,
    root: TempDir,
}

// === impl Fleet ===

impl Fleet {
    /// Three supernodes and six peers, which are told of a fourth supernode that is not there.
    pub(crate) async fn start(world: World) -> Self {
        let reserved = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let root = TempDir::new().unwrap();
        let mut fleet = Self { supernodes: Vec::new(), peers: Vec::new(), reserved, world, root };
        for _ in 0..3 {
            fleet.add_supernode("127.0.0.1:0").await;
        }
        for number in 0..PEERS {
            let known = fleet.supernodes.iter().map(|supernode| &supernode.at.quic);
            let known: Vec<_> = known.chain([&fleet.reserved]).collect();
            let peer = fleet.spawn_peer(&format!("peer{number}"), &known);
            fleet.peers.push(peer);
        }
        for peer in &mut fleet.peers {
            peer.ready().await;
        }
        fleet.have_sessions(3).await;
        fleet
    }

    pub(crate) async fn add_supernode(&mut self, listen: &str) {
        let name = format!("supernode{}", self.supernodes.len());
        if let Some(first) = self.supernodes.first() {
            share_authority(&first.data, &self.root.path().join(&name));
        }
        let mut arguments = words(&["supernode", "--quic-listen", listen, "--http-listen", "127.0.0.1:0"]);
        arguments.extend(self.world.flags());
        let mut supernode = Node::spawn_set(&name, arguments, &self.world.settings, self.root.path(), None);
        supernode.ready().await;
        self.supernodes.push(supernode);
    }

    fn spawn_peer(&self, name: &str, supernodes: &[&String]) -> Node {
        let token = self.supernodes[0].data.join("join-token").display().to_string();
        let mut arguments = words(&["peer", "--join-token-file", &token]);
        for listen in ["--quic-listen", "--proxy-listen", "--http-listen"] {
            arguments.extend(words(&[listen, "127.0.0.1:0"]));
        }
        supernodes.iter().for_each(|address| arguments.extend(words(&["--supernode", address])));
        arguments.extend(self.world.flags());
        Node::spawn_set(name, arguments, &self.world.settings, self.root.path(), None)
    }

    /// A peer that comes last, and knows the last supernode only.
    pub(crate) async fn newcomer(&self) -> Node {
        let last = self.supernodes.last().unwrap();
        let mut peer = self.spawn_peer("newcomer", &[&last.at.quic]);
        peer.ready().await;
        peer
    }

    /// Who the supernodes are.
    pub(crate) async fn nodes(&self) -> Vec<NodeId> {
        join_all(self.supernodes.iter().map(node)).await
    }

    /// Waits until every peer has so many sessions.
    pub(crate) async fn have_sessions(&self, count: u64) {
        for peer in &self.peers {
            eventually("a session with each supernode", async || {
                (gauge(&peer.metrics().await, "longshore_supernode_connected") == count).then_some(())
            })
            .await;
        }
    }

    /// Every peer pulls the whole image in the same moment.
    pub(crate) async fn pull(&self, image: &Image) {
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
    pub(crate) async fn shares(&self, image: &Image) -> Vec<usize> {
        let nodes = self.nodes().await;
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

pub(crate) async fn node(supernode: &Node) -> NodeId {
    status(supernode).await["seed"]["node"].as_str().unwrap().parse().unwrap()
}

/// A number of a task's swarm at a supernode.
pub(crate) async fn swarm(supernode: &Node, task: TaskId, number: &str) -> u64 {
    let status = status(supernode).await;
    let swarms = status["tasks"].as_array().unwrap();
    let swarm = swarms.iter().find(|swarm| swarm["task"] == task.hex());
    swarm.map_or(0, |swarm| swarm[number].as_u64().unwrap())
}

pub(crate) async fn complete(supernode: &Node, task: TaskId) -> u64 {
    swarm(supernode, task, "complete").await
}
