//! Several supernodes of one cluster: their peers share the tasks out among them without being told how, and follow when
//! a name comes to mean others.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::identity::{self, JoinToken};
use common::node::NodeId;
use common::rendezvous;
use common::task::{Source, TaskId};
use common::telemetry::{LogFormat, init_logging};
use futures_util::future::{BoxFuture, join_all};
use peer::coordinator::directory::Resolver;
use peer::daemon::{Peer, PeerOptions};
use supernode::daemon::Supernode;
use tempfile::TempDir;

use crate::cluster::{
    loopback, open, peer_options, pull, pull_all, read, received, start_supernode, status, until, within,
};
use crate::origin::{Content, Origin};

const MIB: u64 = 1024 * 1024;
/// What all peers are told; the resolver says what it means.
const NAME: &str = "supernodes.test:7700";

/// Supernodes of one cluster, and a name for them.
struct Fleet {
    supernodes: Vec<Supernode>,
    origin: Origin,
    token: JoinToken,
    names: Names,
    dir: TempDir,
}

/// What [`NAME`] means at present.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

// === impl Names ===

impl Names {
    fn mean(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.0.lock().unwrap() = addresses.into_iter().collect();
    }
}

impl Resolver for Names {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        assert_eq!(name, NAME);
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(addresses) })
    }
}

// === impl Fleet ===

impl Fleet {
    /// So many supernodes, all of them named.
    async fn start(count: usize) -> Self {
        identity::install_crypto_provider();
        init_logging(LogFormat::Human, "off");
        let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
        let first = start_supernode(&dir.path().join("supernode-0"), &origin, loopback()).await;
        let token = JoinToken::read(first.token()).unwrap();
        let mut fleet = Self { supernodes: vec![first], origin, token, names: Names::default(), dir };
        while fleet.supernodes.len() < count {
            fleet.add().await;
        }
        fleet.names.mean(fleet.supernodes.iter().map(Supernode::quic));
        fleet
    }

    /// One more supernode of the same cluster, which nobody names yet.
    async fn add(&mut self) {
        let folder = |number: usize| self.dir.path().join(format!("supernode-{number}"));
        let (first, new) = (folder(0), folder(self.supernodes.len()));
        share_authority(&first, &new);
        self.supernodes.push(start_supernode(&new, &self.origin, loopback()).await);
    }

    /// A peer, once it has as many sessions as there are supernodes named.
    async fn peer(&self, name: &str) -> Peer {
        let options = peer_options(&self.dir.path().join(name), &self.origin, loopback());
        let supernodes = vec![NAME.to_owned()];
        let options = PeerOptions { supernodes, proof: Some(Arc::new(self.token.clone())), ..options };
        let peer = Peer::start_with(options, Arc::new(self.names.clone())).await.unwrap();
        let named = self.names.0.lock().unwrap().len();
        until("all sessions are there", async || sessions(&peer) == named).await;
        peer
    }

    async fn peers(&self, count: usize) -> Vec<Peer> {
        join_all((0..count).map(async |number| self.peer(&format!("peer-{number}")).await)).await
    }

    /// Content whose task is the supernode's, given those that are there.
    fn content_of(&self, owner: usize, length: u64, from: u64) -> Content {
        let nodes: Vec<_> = self.supernodes.iter().map(node).collect();
        let of = |number| Content { number, length };
        let first = |content| rendezvous::first(&self.origin.source(content).task().0, nodes.iter().copied());
        (from..).map(of).find(|content| first(*content) == Some(nodes[owner])).unwrap()
    }

    async fn close(self, peers: Vec<Peer>) {
        join_all(peers.into_iter().map(Peer::close)).await;
        join_all(self.supernodes.into_iter().map(Supernode::close)).await;
    }
}

/// What makes two supernodes ones of the same cluster.
fn share_authority(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("identity")).unwrap();
    for file in ["ca.pem", "ca.key", "tokens.json"] {
        std::fs::copy(from.join("identity").join(file), to.join("identity").join(file)).unwrap();
    }
}

fn node(supernode: &Supernode) -> NodeId {
    supernode.engine().node()
}

/// The sessions that a peer counts.
fn sessions(peer: &Peer) -> usize {
    peer.engine().metrics().supernode_connected.get() as usize
}

/// Members of a task's swarm at a supernode, and how many of them have all of it.
async fn swarm(supernode: &Supernode, task: TaskId) -> (u64, u64) {
    let status = status(supernode).await;
    let swarms = status["tasks"].as_array().unwrap();
    let swarm = swarms.iter().find(|swarm| swarm["task"] == task.hex());
    swarm.map_or((0, 0), |swarm| (swarm["members"].as_u64().unwrap(), swarm["complete"].as_u64().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_is_at_its_own_supernode_and_leaves_the_origin_once() {
    within(async {
        let fleet = Fleet::start(3).await;
        let peers = fleet.peers(3).await;
        for owner in 0..3 {
            let content = fleet.content_of(owner, 3 * MIB, 1);
            let (source, before) = (fleet.origin.source(content), fleet.origin.served());
            for digest in pull_all(&peers, &source).await {
                assert_eq!(digest.unwrap(), source.digest.unwrap());
            }
            assert_eq!(fleet.origin.served() - before, content.length);
            let task = source.task();
            until("all hold it", async || swarm(&fleet.supernodes[owner], task).await.1 == 3).await;
            for other in (0..3).filter(|other| *other != owner) {
                assert_eq!(swarm(&fleet.supernodes[other], task).await, (0, 0), "{other} knows it, too");
            }
        }
        fleet.close(peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_supernode_goes_in_mid_pull_its_tasks_go_on_at_the_next_one() {
    within(async {
        let mut fleet = Fleet::start(3).await;
        let peers = fleet.peers(3).await;
        let content = fleet.content_of(1, 24 * MIB, 1);
        let other = fleet.content_of(1, 2 * MIB, 1000);
        let held = fleet.origin.source(other);
        assert_eq!(pull(peers[0].engine(), held.clone()).await.unwrap(), held.digest.unwrap());
        fleet.origin.hold_from(10 * MIB);
        let source = fleet.origin.source(content);
        let opening = peers.iter().map(|peer| open(peer.engine(), source.clone()));
        let handles: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
        until("everybody has a part", async || handles.iter().all(|handle| handle.held() >= 8)).await;

        fleet.supernodes.remove(1).close().await;
        let next = |task: TaskId| {
            let first = rendezvous::first(&task.0, fleet.supernodes.iter().map(node));
            fleet.supernodes.iter().find(|supernode| Some(node(supernode)) == first).unwrap()
        };
        let task = source.task();
        until("the swarm is at the next one", async || swarm(next(task), task).await.0 >= 3).await;
        let old = held.task();
        until("what is held is known there, too", async || swarm(next(old), old).await.1 == 1).await;
        fleet.origin.release();
        for digest in join_all(handles.iter().map(read)).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        // What the lost one had vouched for is with the peers; some pieces may be asked for before that is known.
        let allowed = other.length + content.length * 5 / 4;
        assert!(fleet.origin.served() <= allowed, "{} bytes left the origin", fleet.origin.served());
        assert!(peers.iter().all(|peer| sessions(peer) == 2 && *peer.connected().borrow()));
        drop(handles);
        fleet.close(peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_supernode_vouched_for_wrongly_poisons_its_task_once() {
    within(async {
        let mut fleet = Fleet::start(2).await;
        let peers = fleet.peers(3).await;
        let source = fleet.origin.source(fleet.content_of(0, 24 * MIB, 1));
        fleet.origin.spoil(true);
        fleet.origin.hold_from(10 * MIB);
        let opening = peers.iter().map(|peer| open(peer.engine(), source.clone()));
        let handles: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
        until("everybody has a part", async || handles.iter().all(|handle| handle.held() >= 8)).await;

        // The next one is told what the first one vouched for, and finds out that it is not the content.
        fleet.supernodes.remove(0).close().await;
        fleet.origin.spoil(false);
        fleet.origin.release();
        assert!(join_all(handles.iter().map(read)).await.iter().all(Result::is_err));
        drop(handles);

        let mut pulls = 0;
        let right = loop {
            let digests = pull_all(&peers, &source).await;
            pulls += 1;
            let right = digests.iter().all(|digest| digest.as_ref().ok() == source.digest.as_ref());
            // One may come before the word that it was poisoned.
            if right || pulls == 3 {
                break right;
            }
        };
        assert!(right, "the origin is right by now");
        fleet.close(peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_to_mean_others_is_followed() {
    within(async {
        let mut fleet = Fleet::start(1).await;
        let peer = fleet.peer("peer").await;
        fleet.add().await;
        // By now both are there, but only the first one is named: all goes to it.
        let sources: Vec<Source> =
            (0..2).map(|owner| fleet.origin.source(fleet.content_of(owner, 2 * MIB, 1))).collect();
        for source in &sources {
            assert_eq!(pull(peer.engine(), source.clone()).await.unwrap(), source.digest.unwrap());
            let task = source.task();
            until("it is held", async || swarm(&fleet.supernodes[0], task).await.1 == 1).await;
        }

        fleet.names.mean(fleet.supernodes.iter().map(Supernode::quic));
        until("both have a session", async || sessions(&peer) == 2).await;
        let moved = sources[1].task();
        until("its own is told to the new one", async || swarm(&fleet.supernodes[1], moved).await.1 == 1)
            .await;
        until("and taken back", async || swarm(&fleet.supernodes[0], moved).await.1 == 0).await;
        assert_eq!(swarm(&fleet.supernodes[0], sources[0].task()).await.1, 1, "what did not move is there");
        let newer = fleet.origin.source(fleet.content_of(1, 2 * MIB, 1000));
        assert_eq!(pull(peer.engine(), newer.clone()).await.unwrap(), newer.digest.unwrap());
        until("a new task is at the new one", async || {
            swarm(&fleet.supernodes[1], newer.task()).await.1 == 1
        })
        .await;

        fleet.names.mean([fleet.supernodes[1].quic()]);
        fleet.supernodes.remove(0).close().await;
        let only = fleet.supernodes[0].quic();
        let named = || peer.supernodes().borrow().iter().map(|known| known.address).collect::<BTreeSet<_>>();
        until("the old one is let go", async || named() == [only].into()).await;
        assert_eq!(sessions(&peer), 1);
        fleet.close(vec![peer]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_addresses_of_one_supernode_are_one_session() {
    within(async {
        let mut fleet = Fleet::start(1).await;
        let everywhere = start_supernode_everywhere(&mut fleet).await;
        let port = everywhere.quic().port();
        let addresses = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|ip| SocketAddr::from((ip, port)));
        fleet.names.mean(addresses);
        let options = peer_options(&fleet.dir.path().join("peer"), &fleet.origin, loopback());
        let supernodes = vec![NAME.to_owned()];
        let options = PeerOptions { supernodes, proof: Some(Arc::new(fleet.token.clone())), ..options };
        let peer = Peer::start_with(options, Arc::new(fleet.names.clone())).await.unwrap();
        let known = |peer: &Peer| {
            let view = peer.supernodes().borrow().clone();
            view.into_iter().filter(|view| view.node == Some(node(&everywhere)) && view.connected).count()
        };
        until("both addresses are known as the same", async || known(&peer) == 2).await;
        until("it is there", async || status(&everywhere).await["sessions"] == 1).await;
        let source = fleet.origin.source(Content { number: 1, length: 2 * MIB });
        assert_eq!(pull(peer.engine(), source.clone()).await.unwrap(), source.digest.unwrap());
        assert_eq!(received(peer.engine().metrics()).origin, 0, "it came through the supernode");
        assert_eq!((sessions(&peer), &status(&everywhere).await["sessions"]), (1, &1.into()));
        fleet.supernodes.push(everywhere);
        fleet.close(vec![peer]).await;
    })
    .await;
}

/// A supernode that answers at every address of this machine.
async fn start_supernode_everywhere(fleet: &mut Fleet) -> Supernode {
    let new = fleet.dir.path().join("everywhere");
    share_authority(&fleet.dir.path().join("supernode-0"), &new);
    start_supernode(&new, &fleet.origin, ([0, 0, 0, 0], 0).into()).await
}
