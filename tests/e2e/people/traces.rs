//! A pull as a collector of traces sees it: from the client's own span to the origin and to the parents.

use reqwest::header;

use crate::support::client::{self, blob_url, manifest_url};
use crate::support::cluster::{Cluster, World, sample};
use crate::support::collector::{Collector, Seen};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::{Image, MANIFEST, TAG};

const MIB: usize = 1 << 20;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";
const SECRET: &str = "Gr3en-Light-Buoy";

fn world(origin: &Origin, endpoint: &str) -> World {
    World::registry("quay.test", &origin.url()).set("LONGSHORE_OTLP_ENDPOINT", endpoint)
}

/// Fetches a URL as part of a trace.
async fn traced(url: &str, flags: &str) {
    let request = client::http().get(url).header(header::ACCEPT, MANIFEST);
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT}-{flags}")).bearer_auth(SECRET);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.bytes().await.unwrap();
}

/// The first span that lies so below the client's own: the names from there down.
fn at<'a>(spans: &'a [Seen], path: &[&str]) -> Option<&'a Seen> {
    let client = u64::from_str_radix(CLIENT, 16).unwrap().to_be_bytes();
    let mut outer = vec![client.to_vec()];
    let mut found = None;
    for name in path {
        let here = spans.iter().filter(|span| span.name == *name && outer.contains(&span.parent));
        let here: Vec<&Seen> = here.collect();
        found = here.first().copied();
        outer = here.iter().map(|span| span.id.clone()).collect();
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_one_trace_from_the_client_to_the_origin_and_to_the_parents() {
    let (origin, collector) = (Origin::start().await, Collector::start().await);
    let cluster = Cluster::start(2, world(&origin, &collector.endpoint)).await;
    let image = Image::single("team/app", 8 * MIB, 430);
    origin.add(&image);
    let layer = image.layer().digest;
    let url = |peer: usize| blob_url(&cluster.peers[peer].at.proxy, "quay.test", &image.repository, layer);
    traced(&manifest_url(&cluster.peers[0].at.proxy, "quay.test", &image.repository, TAG), "01").await;
    traced(&url(0), "01").await;
    // Its parents are the seed or the first peer, which have it whole.
    traced(&url(1), "01").await;

    // Beside the wait for its length, for it goes on after that.
    let download = ["proxy.request", "engine.download"];
    let waiting = ["proxy.request", "engine.open"];
    let link = [&download[..], &["engine.link", "parent.link"]].concat();
    let join = [&download[..], &["supernode.join"]].concat();
    let fetched = [&join[..], &["engine.download", "origin.fetch"]].concat();
    let permission = ["proxy.request", "proxy.permission", "supernode.inquiry"];
    let spans = eventually("spans of all that took part", async || {
        let spans = collector.spans();
        let paths = [&download[..], &waiting, &link, &join, &fetched, &permission];
        // What is inside another may be sent before it.
        let whole = orphans(&spans).iter().all(|span| span.name == "proxy.request");
        (whole && paths.iter().all(|path| at(&spans, path).is_some())).then_some(spans)
    })
    .await;
    assert!(spans.iter().all(|span| span.trace == TRACE), "one trace: {spans:#?}");
    for span in &spans {
        assert!(span.begun > 0 && span.ended >= span.begun && !span.failed, "{span:?}");
        assert_eq!(
            (span.word("service.name"), span.word("service.version")),
            ("longshore", env!("CARGO_PKG_VERSION"))
        );
        if let Some(outer) = spans.iter().find(|outer| outer.id == span.parent) {
            assert!(outer.begun <= span.begun, "{} begins before {}", span.name, outer.name);
        }
    }
    let there = at(&spans, &join).unwrap();
    let here = spans.iter().find(|span| span.id == there.parent).unwrap();
    assert_ne!(here.word("process.pid"), there.word("process.pid"), "two nodes");
    assert_eq!(here.word("longshore.task"), there.word("longshore.task"));
    let blob =
        spans.iter().find(|span| span.name == "proxy.request" && span.word("longshore.kind") == "blob");
    let blob = blob.unwrap();
    assert_eq!(blob.word("http.response.status_code"), "200");
    assert_eq!(blob.word("url.path"), format!("/v2/{}/blobs/{layer}", image.repository));

    let raw = collector.raw();
    let stands = |secret: &str| raw.windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(stands("proxy.request") && !stands(SECRET), "no credential leaves with a trace");
    assert!(collector.header("content-type").iter().all(|is| is == "application/x-protobuf"));
    let sent = sample(&cluster.peers[0].metrics().await, "longshore_trace_spans_total", "result=\"sent\"");
    assert!(sent > 0);
}

/// Those whose parent is not here. When all have come, that is nobody but the requests, whose parent is the client's own.
fn orphans(spans: &[Seen]) -> Vec<&Seen> {
    spans.iter().filter(|span| !spans.iter().any(|outer| outer.id == span.parent)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_does_not_want_traced_is_not_and_else_a_share_is() {
    let (origin, collector) = (Origin::start().await, Collector::start().await);
    let all = world(&origin, &collector.endpoint).set("LONGSHORE_PEER_OTLP_SAMPLE", "100%");
    let cluster = Cluster::start(1, all).await;
    let image = Image::single("team/app", MIB, 431);
    origin.add(&image);
    let proxy = cluster.peers[0].at.proxy.clone();
    traced(&manifest_url(&proxy, "quay.test", &image.repository, TAG), "00").await;
    client::pull(proxy, "quay.test".to_owned(), image).await;
    let spans = eventually("the client's manifest and blobs", async || {
        let spans = collector.spans();
        (spans.iter().filter(|span| span.name == "proxy.request").count() >= 3).then_some(spans)
    })
    .await;
    assert!(spans.iter().all(|span| span.trace != TRACE), "it said that it is not to be");
    let requests = spans.iter().filter(|span| span.name == "proxy.request");
    assert!(requests.clone().all(|span| span.parent.is_empty()), "each begins a trace of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_its_spans_and_nothing_else() {
    let origin = Origin::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut cluster = Cluster::start(1, world(&origin, &format!("http://{closed}"))).await;
    let image = Image::single("team/app", MIB, 432);
    origin.add(&image);
    let proxy = cluster.peers[0].at.proxy.clone();
    for blob in image.blobs() {
        traced(&blob_url(&proxy, "quay.test", &image.repository, blob.digest), "01").await;
    }
    let peer = &cluster.peers[0];
    eventually("drops that are counted", async || {
        let metrics = peer.metrics().await;
        (sample(&metrics, "longshore_trace_spans_total", "result=\"dropped\"") > 0).then_some(())
    })
    .await;
    assert_eq!(peer.said().matches("traces are lost").count(), 1, "said once");
    client::pull(proxy, "quay.test".to_owned(), image).await;
    assert!(cluster.peers[0].terminate().await.success(), "it ends as ever");
}
