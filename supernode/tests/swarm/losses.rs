//! A pull never fails because of Longshore: supernodes go, or never were, and peers restart.

use futures_util::future::join_all;
use peer::daemon::Peer;

use crate::cluster::{Cluster, close, open, peer_options, pull, pull_all, read, received, stored, until, within};
use crate::origin::Content;

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn pulls_end_right_when_the_supernode_goes_in_the_middle() {
    within(async {
        let Cluster { supernode, origin, token, dir } = Cluster::start().await.take_apart();
        let cluster = Cluster::put_together(supernode, origin, token, dir);
        let peers = cluster.peers(3).await;
        let content = Content { number: 1, length: 24 * MIB };
        cluster.origin.hold_from(10 * MIB);
        let source = cluster.origin.source(content);
        let opening = peers.iter().map(|peer| open(peer.engine(), source.clone()));
        let handles: Vec<_> = join_all(opening).await.into_iter().map(Result::unwrap).collect();
        until("everybody has a part", async || handles.iter().all(|handle| handle.held() >= 8)).await;
        let Cluster { supernode, origin, .. } = cluster;
        supernode.close().await;
        let before = origin.served();
        origin.release();
        for digest in join_all(handles.iter().map(read)).await {
            assert_eq!(digest.unwrap(), source.digest.unwrap());
        }
        let held_by_all = 8 * 256 * 1024;
        assert!(origin.served() - before <= 3 * (content.length - held_by_all), "what was here was fetched again");
        assert!(peers.iter().any(|peer| received(peer.engine().metrics()).origin > 0));
        drop(handles);
        join_all(peers.into_iter().map(Peer::close)).await;
    })
    .await;
}
