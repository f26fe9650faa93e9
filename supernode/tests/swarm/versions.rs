//! Two releases in one cluster: neighbours agree on the older version, or say why not; and who speaks version 1 never hears
//! a word of version 2.

use common::digest::Digest;
use common::task::{Credentials, Source};
use common::telemetry::trace;
use common::transport::TransportError;
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::Opening;
use common::wire::hello::VERSION;
use common::wire::inquiry::Inquiry;
use common::wire::swarm::{Join, ToPeer, ToSupernode};
use futures_util::future::join_all;
use supernode::admission::Capacity;

use crate::cluster::{Cluster, close, pull, pull_all, received, within};
use crate::old::{self, Failure, Inquired, Old};
use crate::origin::Content;

const LENGTH: u64 = 16 * 1024 * 1024;

fn join(source: Source) -> ToSupernode {
    ToSupernode::Join(Join { source, credentials: Credentials::none(), held: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_version_1_pulls_gives_and_hears_nothing_that_came_later() {
    // What the others' pulls are part of is not its to know.
    let mut spans = trace::collect(0.0).unwrap();
    within(async {
        let cluster = Cluster::start().await;
        let mut old = Old::join(&cluster).await;
        let peers = cluster.peers(2).await;
        let source = cluster.origin.source(Content { number: 1, length: LENGTH });
        let (theirs, its) = tokio::join!(pull_all(&peers, &source), old.pull(&source));
        assert_eq!(Some(its), source.digest);
        for digest in theirs {
            assert_eq!(Some(digest.unwrap()), source.digest);
        }
        assert_eq!(cluster.origin.served(), LENGTH);
        let late = cluster.peer("late").await;
        cluster.origin.hold_from(0);
        assert_eq!(Some(pull(late.engine(), source.clone()).await.unwrap()), source.digest);
        assert!(received(late.engine().metrics()).origin == 0);
        assert!(old.given() > 0, "nobody took anything from it");
        close(cluster, peers.into_iter().chain([late]).collect()).await;
    })
    .await;
    let told: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok()).map(|span| span.name).collect();
    assert!(
        ["engine.link", "parent.link", "supernode.join"].iter().all(|name| told.contains(name)),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_supernode_says_so_to_version_1_in_its_own_words() {
    within(async {
        let cluster = Cluster::start_with(Capacity { joins: 4, ..Capacity::default() }).await;
        let mut old = Old::join(&cluster).await;
        cluster.origin.hold_from(0);
        let url = cluster.origin.url(Content { number: 1, length: LENGTH });
        for number in 0..20_u64 {
            old.say(&join(Source::of_digest(&url, Digest::of(&number.to_le_bytes())))).await;
        }
        loop {
            if let old::ToPeer::Failed { failure: Failure::Unavailable(why), .. } = old.hear().await
                && why.contains("busy")
            {
                break;
            }
        }
        let asking = (0..2_000).map(|number| inquire(&old, format!("{url}?{number}")));
        let put_off = join_all(asking).await.into_iter().filter(|put_off| *put_off).count();
        assert!(put_off > 0, "nobody limits it");
        close(cluster, Vec::new()).await;
    })
    .await;
}

/// Puts a question; whether it was put off.
async fn inquire(old: &Old, url: String) -> bool {
    let (mut send, receive) = old.supernode.open().await.unwrap();
    let inquiry = Inquiry { url, accept: None, credentials: Credentials::none(), words: false };
    codec::send(&mut send, &Opening::Inquiry(inquiry)).await.unwrap();
    let inquired = FrameReader::new(receive).expect::<Inquired>().await.expect("a word of version 1");
    matches!(inquired, Inquired::Unable(Failure::Unavailable(why)) if why.contains("busy"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_later_version_is_spoken_to_in_ours_or_refused_in_words() {
    within(async {
        let cluster = Cluster::start().await;
        let peer = cluster.peer("peer").await;
        let later =
            old::member(&cluster, |hello| (hello.version, hello.min_version) = (VERSION + 1, 2)).await;
        let supernode = later.dial_supernode(cluster.supernode.quic()).await.unwrap();
        assert_eq!(supernode.version(), VERSION);
        let (mut send, receive) = supernode.open().await.unwrap();
        codec::send(&mut send, &Opening::Session).await.unwrap();
        let source = cluster.origin.source(Content { number: 1, length: LENGTH });
        codec::send(&mut send, &join(source)).await.unwrap();
        let mut reader = FrameReader::new(receive);
        while !matches!(reader.expect::<ToPeer>().await.unwrap(), ToPeer::Sealed { .. }) {}

        let newer = (VERSION + 1, VERSION + 1);
        let apart = old::member(&cluster, |hello| (hello.version, hello.min_version) = newer).await;
        let contact = common::node::Contact { id: peer.engine().node(), address: peer.quic() };
        for refused in [
            apart.dial_supernode(cluster.supernode.quic()).await.unwrap_err(),
            apart.dial(&contact).await.unwrap_err(),
        ] {
            let TransportError::TurnedAway { reason, .. } = &refused else { panic!("{refused}") };
            assert!(reason.contains("no common protocol version") && reason.contains("upgrade"), "{reason}");
        }
        close(cluster, vec![peer]).await;
    })
    .await;
}
