//! Pulls that nothing disturbs: the origin serves each byte once, and most bytes come from other peers.

use common::digest::Digest;
use common::task::Source;
use common::telemetry::ByteSource;
use peer::error::FetchError;

use crate::cluster::{
    Cluster, close, open, pull, pull_all, read, read_range, received, stored, until, within,
};
use crate::origin::Content;

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_takes_each_byte_from_the_origin_once_and_most_from_other_peers() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(4).await;
        let content = Content { number: 1, length: 48 * MIB + 12_345 };
        let source = cluster.origin.source(content);
        for digest in pull_all(&peers, &source).await {
            assert_eq!(Some(digest.unwrap()), source.digest);
        }
        assert_eq!(cluster.origin.served(), content.length, "the origin serves each byte once");
        let (mut from_peers, mut total) = (0, 0);
        for peer in &peers {
            let received = received(peer.engine().metrics());
            assert_eq!(received.total(), content.length, "each byte counts once: {received:?}");
            assert_eq!(received.origin, 0);
            from_peers += received.peer;
            total += received.total();
        }
        assert!(from_peers * 10 >= total * 6, "{from_peers} of {total} bytes from peers");
        for peer in &peers {
            until("it is marked as proven", async || {
                stored(peer.engine(), source.task()).is_some_and(|it| it.1)
            })
            .await;
        }
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_empty_tasks_come_at_once_and_cost_the_origin_once() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(3).await;
        for (number, length) in [(1, 0), (2, 1), (3, 128 * 1024), (4, 128 * 1024 + 1), (5, 256 * 1024)] {
            let before = cluster.origin.served();
            let source = cluster.origin.source(Content { number, length });
            for digest in pull_all(&peers, &source).await {
                assert_eq!(Some(digest.unwrap()), source.digest, "{length} bytes");
            }
            assert_eq!(cluster.origin.served() - before, length);
        }
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_peer_costs_the_origin_nothing_and_a_second_pull_nobody() {
    within(async {
        let cluster = Cluster::start().await;
        let mut peers = cluster.peers(1).await;
        let content = Content { number: 1, length: 6 * MIB };
        let source = cluster.origin.source(content);
        pull(peers[0].engine(), source.clone()).await.unwrap();
        peers.push(cluster.peer("late").await);
        let late = peers[1].engine();
        assert_eq!(pull(late, source.clone()).await.unwrap(), source.digest.unwrap());
        let once = received(late.metrics());
        assert_eq!(pull(late, source.clone()).await.unwrap(), source.digest.unwrap());
        assert_eq!(received(late.metrics()), once, "nothing came twice");
        assert_eq!(late.metrics().received_bytes.of(ByteSource::Local).get(), content.length);
        assert_eq!(cluster.origin.served(), content.length);
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_in_the_middle_is_read_as_soon_as_its_pieces_are_there() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(2).await;
        let content = Content { number: 1, length: 24 * MIB };
        // The task cannot end before the range is read.
        cluster.origin.hold_from(20 * MIB);
        let source = cluster.origin.source(content);
        let handle = open(peers[0].engine(), source.clone()).await.unwrap();
        let (start, end) = (7 * MIB + 17, 9 * MIB + 5);
        assert_eq!(read_range(&handle, start, end).await.unwrap(), content.bytes(start, end));
        assert!(handle.held() < handle.geometry().pieces());
        cluster.origin.release();
        assert_eq!(read(&handle).await.unwrap(), source.digest.unwrap());
        assert_eq!(cluster.origin.served(), content.length);
        drop(handle);
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_without_a_digest_goes_through_the_swarm() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(3).await;
        let content = Content { number: 1, length: 9 * MIB + 1 };
        let source =
            Source { url: cluster.origin.url(content), digest: None, tag: "nightly".into(), accept: None };
        for digest in pull_all(&peers, &source).await {
            assert_eq!(digest.unwrap(), content.digest());
        }
        assert_eq!(cluster.origin.served(), content.length);
        let from_peers: u64 = peers.iter().map(|peer| received(peer.engine().metrics()).peer).sum();
        assert!(from_peers > 0);
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origins_refusal_reaches_every_peer_as_it_came() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(3).await;
        for result in pull_all(&peers, &cluster.origin.private()).await {
            let Err(FetchError::Origin(failure)) = result else { panic!("{result:?}") };
            assert_eq!((failure.status, &failure.body[..]), (401, &b"{\"errors\":[]}"[..]));
            assert!(failure.headers.contains(&("www-authenticate".into(), "Bearer realm=\"x\"".into())));
        }
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_with_another_digest_is_nobodys() {
    within(async {
        let cluster = Cluster::start().await;
        let peers = cluster.peers(3).await;
        for (number, length) in [(1, 12 * MIB), (2, 4_000)] {
            let url = cluster.origin.url(Content { number, length });
            let source = Source::of_digest(url, Digest::of(b"what was promised"));
            let task = source.task();
            for result in pull_all(&peers, &source).await {
                assert!(matches!(result, Err(FetchError::Poisoned { .. })), "{length} bytes: {result:?}");
            }
            let engines = peers.iter().map(|peer| peer.engine()).chain([cluster.supernode.engine()]);
            for engine in engines {
                until("nothing of it is kept", async || stored(engine, task).is_none()).await;
            }
        }
        close(cluster, peers).await;
    })
    .await;
}
