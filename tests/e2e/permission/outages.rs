//! The registry is gone: what everybody could read stays readable, what somebody could read stays so for the very same
//! words for a while, and nobody else gains anything by it.

use reqwest::Method;

use super::{ALICE, BOB, OPEN, Port, asking, parts, pull};
use crate::support::client;
use crate::support::cluster::World;
use crate::support::{eventually, need};

/// The settings that say how long a permission is good for while there is a registry to ask, and while there is none.
const LIFE: &str = "LONGSHORE_PEER_PERMISSION_LIFE";
const GRACE: &str = "LONGSHORE_PEER_PERMISSION_GRACE";

/// Ends both registries and the token server.
async fn outage(port: &mut Port) {
    port.registry.kill().await;
    port.open.kill().await;
    port.tokens.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_readable_stays_so_for_the_same_words_when_the_registry_is_gone() {
    need!("docker-registry");
    let mut port = Port::open(1, 1100, |world| world).await;
    let hers = port.word(Some(ALICE), "team-a/app").await;
    // as good as the first, while there is somebody to ask; nobody has shown it yet
    let her_next = port.word(Some(ALICE), "team-a/app").await;
    let his = port.word(Some(BOB), "team-a/app").await;
    let anonymous = port.word(None, "public/app").await;
    port.pulls(0, &port.alices, &hers).await;
    port.pulls(0, &port.public, &anonymous).await;
    pull(port.proxy(0), OPEN, &port.free, &None).await;
    outage(&mut port).await;

    pull(port.proxy(0), OPEN, &port.free, &None).await;
    port.pulls(0, &port.alices, &hers).await;
    for word in [&None, &his, &her_next, &anonymous] {
        port.refused(0, &port.alices, word).await;
    }
    for word in [&None, &hers] {
        // it was read with a token that anybody gets
        port.pulls(0, &port.public, word).await;
        // nobody has pulled it, so nobody is known to be allowed
        port.refused(0, &port.bobs, word).await;
    }
    // the blobs are here; what was said of one repository says nothing of another
    let layer = port.alices.layers[2].digest;
    for repository in ["team-b/app", "public/app", "team-a/new"] {
        let url = client::blob_url(port.proxy(0), "quay.test", repository, layer);
        let answer = client::fetch(asking(Method::GET, &url, &hers)).await;
        assert!(!answer.status.is_success() && answer.digest != layer, "{url}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_ends_with_its_grace_time() {
    need!("docker-registry");
    let mut port = Port::open(1, 1150, |world: World| world.set(LIFE, "1s").set(GRACE, "3s")).await;
    let hers = port.word(Some(ALICE), "team-a/app").await;
    port.pulls(0, &port.alices, &hers).await;
    pull(port.proxy(0), OPEN, &port.free, &None).await;
    outage(&mut port).await;
    for (url, _) in parts(port.proxy(0), "quay.test", &port.alices) {
        eventually("the end of the grace time", async || {
            let answer = client::fetch(asking(Method::GET, &url, &hers)).await;
            (!answer.status.is_success()).then_some(())
        })
        .await;
    }
    port.refused(0, &port.alices, &hers).await;
    pull(port.proxy(0), OPEN, &port.free, &None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grace_time_no_permission_outlives_the_registry() {
    need!("docker-registry");
    let mut port = Port::open(1, 1200, |world: World| world.set(LIFE, "0s").set(GRACE, "0s")).await;
    let hers = port.word(Some(ALICE), "team-a/app").await;
    port.pulls(0, &port.alices, &hers).await;
    outage(&mut port).await;
    port.refused(0, &port.alices, &hers).await;
}
