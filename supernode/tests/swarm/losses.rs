//! A pull never fails because of Longshore: supernodes go, or never were, and peers restart.

use futures_util::future::join_all;
use peer::daemon::Peer;

use crate::cluster::{
    Cluster, close, open, peer_options, pull, pull_all, read, received, stored, until, within,
};
use crate::origin::{Content, Origin};

const MIB: u64 = 1024 * 1024;
/// The piece length of everything that is pulled here.
const PIECE: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn pulls_end_right_when_the_supernode_goes_in_the_middle() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(3).await;
        let content = Content { number: 1, length: 24 * MIB };
        cluster.origin.hold_from(10 * MIB);
        let source = cluster.origin.source(content);
        let opening = peers.iter().map(|peer| open(peer.engine(), source.clone()));
        let handles: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
        until("everybody has a part", async || handles.iter().all(|handle| handle.held() >= 8)).await;

        let Cluster { supernode, origin, dir: _dir, .. } = cluster;
        supernode.close().await;
        let before = origin.served();
        origin.release();
        for digest in join_all(handles.iter().map(read)).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        assert!(
            origin.served() - before <= 3 * (content.length - 8 * PIECE),
            "what was here was fetched again"
        );
        let from_origin = |peer: &Peer| received(peer.engine().metrics()).origin;
        assert!(peers.iter().map(from_origin).sum::<u64>() > 0, "nobody needed the origin");
        drop(handles);
        join_all(peers.into_iter().map(Peer::close)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_end_right_when_there_never_was_a_supernode() {
    within(async {
        common::identity::install_crypto_provider();
        let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start().await);
        // Bound, so that nobody else gets it, and deaf.
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = peer_options(dir.path(), &origin, deaf.local_addr().unwrap());
        let peer = Peer::start(options).await.unwrap();
        let content = Content { number: 1, length: 5 * MIB + 1 };
        let source = origin.source(content);
        // Two clients at once are one download.
        let pulls = [pull(peer.engine(), source.clone()), pull(peer.engine(), source.clone())];
        for digest in join_all(pulls).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        assert_eq!(origin.served(), content.length);
        assert_eq!(received(peer.engine().metrics()).origin, content.length);
        assert!(!*peer.connected().borrow());
        peer.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_goes_on_where_it_was() {
    within(async {
        let cluster = Cluster::start().await;
        let peer = cluster.peer("restarting").await;
        let content = Content { number: 1, length: 24 * MIB };
        cluster.origin.hold_from(12 * MIB);
        let source = cluster.origin.source(content);
        let handle = open(peer.engine(), source.clone()).await.unwrap();
        until("a part is here", async || handle.held() >= 16).await;
        drop(handle);
        let engine = peer.engine().clone();
        peer.close().await;
        let (held, proven) = stored(&engine, source.task()).unwrap();
        assert!(held >= 16 && !proven);
        drop(engine);

        let peer = cluster.peer("restarting").await;
        cluster.origin.release();
        assert_eq!(pull(peer.engine(), source.clone()).await.unwrap(), source.digest.unwrap());
        let fetched = received(peer.engine().metrics()).total();
        // Less, where bytes were written that could not be claimed any more.
        assert!(fetched <= content.length - u64::from(held) * PIECE, "what it had was fetched again");
        assert_eq!(cluster.origin.served(), content.length);
        close(cluster, vec![peer]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_supernode_finds_its_peers_and_their_copies_again() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(2).await;
        let source = cluster.origin.source(Content { number: 1, length: 6 * MIB });
        for digest in pull_all(&peers[..1], &source).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        let node = peers[0].engine().node();
        let cluster = cluster.restart_supernode().await;
        until("the holder is known", async || cluster.seen(node).await["tasks"] == 1).await;
        for digest in pull_all(&peers, &source).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        assert_eq!(cluster.origin.served(), 6 * MIB, "the supernode's own copy outlived it, too");
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_holds_no_more_is_said_to_the_supernode() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(2).await;
        let content = Content { number: 1, length: 4 * MIB };
        let source = cluster.origin.source(content);
        let task = source.task();
        let holders = async || {
            let status = cluster.status().await;
            let tasks = status["tasks"].as_array().unwrap().clone();
            let swarm = tasks.into_iter().find(|swarm| swarm["task"] == task.hex());
            swarm.and_then(|swarm| swarm["complete"].as_u64()).unwrap_or(0)
        };
        for digest in pull_all(&peers, &source).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        until("both are known to hold it", async || holders().await == 2).await;

        // Evicted, while its session is still there for neighbours.
        peers[0].engine().store().remove(task).unwrap();
        until("one is known to hold it", async || holders().await == 1).await;
        peers[1].engine().store().remove(task).unwrap();
        until("nobody is known to hold it", async || holders().await == 0).await;

        // It comes back, and is told again.
        let again = cluster.peer("late").await;
        assert_eq!(pull(again.engine(), source.clone()).await.unwrap(), source.digest.unwrap());
        until("the newcomer is known to hold it", async || holders().await == 1).await;
        close(cluster, peers.into_iter().chain([again]).collect()).await;
    })
    .await;
}
