//! Origins that misbehave: cut bodies, wrong bytes, refusals. What can be mended is mended; what cannot is never
//! handed on as a finished blob.

use reqwest::StatusCode;

use crate::support::client::{self, blob_url, manifest_url};
use crate::support::cluster::{Cluster, World};
use crate::support::faulty::{Fault, Origin};
use crate::support::image::{Image, TAG};
use crate::support::{eventually, machine};

const MIB: usize = 1 << 20;

struct Case {
    origin: Origin,
    image: Image,
    cluster: Cluster,
    /// The layer's path at the origin.
    path: String,
}

async fn case(seed: u64) -> Case {
    let origin = Origin::start().await;
    let image = Image::single("team/app", 24 * MIB, seed);
    origin.add(&image);
    let cluster = Cluster::start(2, World::registry("quay.test", &origin.url())).await;
    let path = format!("/v2/{}/blobs/{}", image.repository, image.layer().digest);
    Case { origin, image, cluster, path }
}

// === impl Case ===

impl Case {
    fn url(&self, peer: usize) -> String {
        let proxy = &self.cluster.peers[peer].at.proxy;
        blob_url(proxy, "quay.test", &self.image.repository, self.image.layer().digest)
    }

    /// Both peers pull at once; no answer may look finished and be wrong. How many were finished.
    async fn pull_both(&self) -> usize {
        let urls = [self.url(0), self.url(1)];
        let (one, two) = tokio::join!(client::get(&urls[0]), client::get(&urls[1]));
        let mut finished = 0;
        for pulled in [one, two] {
            if pulled.looks_finished() {
                pulled.is(self.image.layer().digest);
                finished += 1;
            }
        }
        finished
    }

    /// Pulls until both peers have the layer.
    async fn heals(&self) {
        eventually("the layer at both peers once the origin is well", async || {
            (self.pull_both().await == 2).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_cut_by_the_origin_are_resumed() {
    let _machine = machine().await;
    let case = case(31).await;
    case.origin.fault(&case.path, Fault::Truncate(3 * MIB as u64), 2);
    assert_eq!(case.pull_both().await, 2);
    let copies = case.origin.copies(&case.image, case.image.layer().digest);
    assert!(copies < 1.25, "{copies:.2} copies: a cut body is to be resumed, not begun again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_without_ranges_that_cuts_bodies_never_finishes_a_wrong_blob() {
    let _machine = machine().await;
    let case = case(32).await;
    case.origin.ranges(false);
    case.origin.fault(&case.path, Fault::Truncate(3 * MIB as u64), usize::MAX);
    assert_eq!(case.pull_both().await, 0);
    case.origin.fault(&case.path, Fault::Truncate(0), 0);
    case.heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_blob_is_never_finished_and_not_remembered() {
    let _machine = machine().await;
    let case = case(33).await;
    for place in [0, 7 * MIB as u64, case.image.layer().size() - 1] {
        case.origin.fault(&case.path, Fault::Flip(place), usize::MAX);
        assert_eq!(case.pull_both().await, 0, "byte {place} is wrong at the origin");
    }
    case.origin.fault(&case.path, Fault::Flip(0), 0);
    case.heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_manifest_is_never_handed_on() {
    let case = case(34).await;
    let folder = format!("/v2/{}/manifests", case.image.repository);
    let digest = case.image.manifest.digest.to_string();
    case.origin.fault(&format!("{folder}/{digest}"), Fault::Flip(10), usize::MAX);
    let url = manifest_url(&case.cluster.peers[0].at.proxy, "quay.test", &case.image.repository, &digest);
    assert!(!client::get(&url).await.looks_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_busy_origin_are_waited_out() {
    let _machine = machine().await;
    for status in [429, 503] {
        let case = case(u64::from(status)).await;
        case.origin.fault(&case.path, Fault::Status(status), 2);
        assert_eq!(case.pull_both().await, 2, "after two answers of {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_refuses_for_good_is_quoted() {
    let case = case(35).await;
    case.origin.fault(&case.path, Fault::Status(503), usize::MAX);
    let pulled = client::get(&case.url(0)).await;
    assert!(pulled.status.is_server_error(), "{pulled:?}");
    assert!(case.origin.answers(&case.path) < 100, "the origin was hammered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_does_not_have_is_not_found_in_its_own_words() {
    let case = case(36).await;
    let proxy = &case.cluster.peers[0].at.proxy;
    let digest = common::digest::Digest::of(b"nobody has this");
    let urls = [
        blob_url(proxy, "quay.test", "team/app", digest),
        manifest_url(proxy, "quay.test", "team/app", "no-such-tag"),
        manifest_url(proxy, "quay.test", "nobody/nothing", TAG),
    ];
    for url in urls {
        let answer = client::http().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{url}");
        let body = answer.text().await.unwrap();
        assert!(body.contains("BLOB_UNKNOWN"), "{url}: {body}");
    }
}
