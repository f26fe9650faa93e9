//! A member that cheats costs time, never a wrong byte: it is found out, reported and avoided.

use std::sync::Arc;

use common::telemetry::RejectReason;

use crate::cluster::{Cluster, close, geometry, pull_all, until, within};
use crate::evil::{Evil, Manner};
use crate::origin::Content;

const LENGTH: u64 = 16 * 1024 * 1024;
/// Pieces that may be asked of one neighbour before the first of them has come.
const IN_FLIGHT: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_garbage_is_found_out_and_not_asked_again() {
    within(async {
        let cluster = Cluster::start().await;
        let evil = Arc::new(Evil::join(&cluster, Manner::Garbage).await);
        let source = cluster.origin.source(Content { number: 1, length: LENGTH });
        evil.claim(&cluster, source.task(), geometry(LENGTH)).await;
        let peers = cluster.peers(4).await;
        for digest in pull_all(&peers, &source).await {
            assert_eq!(Some(digest.unwrap()), source.digest);
        }
        let asked = evil.asked();
        assert!(!asked.is_empty(), "nobody was lured");
        assert!(asked.values().all(|count| *count <= IN_FLIGHT), "asked again: {asked:?}");
        let rejected =
            |reason| peers.iter().map(move |peer| peer.engine().metrics().pieces_rejected.of(reason).get());
        assert!(rejected(RejectReason::Digest).sum::<u64>() > 0);
        until("the blame arrives", async || cluster.seen(evil.node()).await["blames"].as_u64() > Some(0))
            .await;

        // Two victims make an outcast, which gets no children for other tasks either.
        let second = cluster.origin.source(Content { number: 2, length: LENGTH });
        evil.claim(&cluster, second.task(), geometry(LENGTH)).await;
        for digest in pull_all(&peers, &second).await {
            assert_eq!(Some(digest.unwrap()), second.digest);
        }
        if asked.len() > 1 {
            assert_eq!(evil.asked(), asked, "an outcast is nobody's parent");
        }
        assert_eq!(cluster.origin.served(), 2 * LENGTH);
        close(cluster, peers).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_silent_in_the_middle_of_a_piece_holds_nobody_up() {
    within(async {
        let cluster = Cluster::start().await;
        let evil = Evil::join(&cluster, Manner::Silent).await;
        let source = cluster.origin.source(Content { number: 1, length: LENGTH });
        evil.claim(&cluster, source.task(), geometry(LENGTH)).await;
        let peers = cluster.peers(3).await;
        for digest in pull_all(&peers, &source).await {
            assert_eq!(Some(digest.unwrap()), source.digest);
        }
        assert!(!evil.asked().is_empty(), "nobody was lured");
        let helped = peers.iter().map(|peer| {
            let metrics = peer.engine().metrics();
            metrics.hedged_requests.get() + metrics.pieces_rejected.of(RejectReason::Timeout).get()
        });
        assert!(helped.sum::<u64>() > 0);
        assert_eq!(cluster.origin.served(), LENGTH);
        close(cluster, peers).await;
    })
    .await;
}
