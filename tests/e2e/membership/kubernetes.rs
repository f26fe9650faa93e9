//! Pods join with their ServiceAccount's token, which the supernode has the Kubernetes API check. The API is a stand-in
//! ([`crate::support::kubernetes`]): no Debian package brings a Kubernetes, so what is not shown here is that a real API
//! server answers so. The daemons, TLS and the tokens' way are real.

use std::path::Path;

use super::{MIB, identity};
use crate::support::client;
use crate::support::cluster::{Cluster, Node, World, words};
use crate::support::faulty::Origin;
use crate::support::files_below;
use crate::support::image::Image;
use crate::support::kubernetes::{API_AUDIENCE, KubernetesApi};

const HOUR: i64 = 3600;

/// A world in which the peers' ServiceAccount may join.
fn admitting(api: &KubernetesApi, world: World) -> World {
    let path = |path: std::path::PathBuf| path.display().to_string();
    world
        .set("LONGSHORE_SUPERNODE_KUBERNETES_JOIN", "other/one,longshore/peer")
        .set("LONGSHORE_SUPERNODE_KUBERNETES_API", &api.url())
        .set("LONGSHORE_SUPERNODE_KUBERNETES_CA_FILE", &path(api.ca_file()))
        .set("LONGSHORE_SUPERNODE_KUBERNETES_TOKEN_FILE", &path(api.reviewer_file()))
}

/// A peer in a pod: it has a token file and its cluster's CA.
fn pod(name: &str, cluster: &Cluster, world: &World, token: &Path, ca: &Path) -> Node {
    let (token, ca) = (token.display().to_string(), ca.display().to_string());
    let mut arguments = words(&["peer", "--supernode", &cluster.supernode.at.quic]);
    arguments.extend(words(&["--kubernetes-token-file", &token, "--cluster-ca-file", &ca]));
    for listen in ["--quic-listen", "--proxy-listen", "--http-listen"] {
        arguments.extend(words(&[listen, "127.0.0.1:0"]));
    }
    arguments.extend(world.flags());
    Node::spawn(name, arguments, cluster.root(), None)
}

fn ca_file(cluster: &Cluster) -> std::path::PathBuf {
    cluster.supernode.data.join("identity/ca.pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_named_account_join_and_pull_and_no_others() {
    let (mut api, origin) = (KubernetesApi::start().await, Origin::start().await);
    let image = Image::single("team/app", MIB, 811);
    origin.add(&image);
    let world = admitting(&api, World::registry("quay.test", &origin.url()));
    // One with a join token, and one with a Kubernetes token.
    let mut cluster = Cluster::start(1, world.clone()).await;
    let ca = ca_file(&cluster);
    let right = api.issue("longshore:peer", "longshore", HOUR);
    let mut welcome = pod("welcome", &cluster, &world, &api.project("right", &right), &ca);
    welcome.ready().await;
    assert_eq!(api.reviewed(), [right.as_str()]);
    assert!(
        cluster.supernode.said().contains("ServiceAccount longshore/peer"),
        "{}",
        cluster.supernode.said()
    );
    for node in [&cluster.peers[0], &welcome] {
        client::pull(node.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
        assert_eq!(node.received().await.origin, 0, "it came through the swarm");
    }
    assert!(origin.copies(&image, image.layer().digest) < 1.01);

    let strangers = [
        ("account", api.issue("default:peer", "longshore", HOUR), "of ServiceAccount default/peer"),
        ("audience", api.issue("longshore:peer", API_AUDIENCE, HOUR), "is invalid for the target audiences"),
        ("expired", api.issue("longshore:peer", "longshore", -1), "service account token has expired"),
        ("forged", api.forge(), "invalid bearer token"),
    ];
    for (name, token, why) in &strangers {
        let mut refused = pod(name, &cluster, &world, &api.project(name, token), &ca);
        assert_eq!(refused.process().end().await.code(), Some(1), "{name}");
        let heard = refused.said();
        assert!(
            heard.contains("refuses the Kubernetes token") && heard.contains("does not let this pod join")
        );
        assert!(!heard.contains(why), "{name}: a stranger is not told why: {heard}");
        assert!(identity(&refused).certificate().is_none(), "{name}");
        cluster.supernode.process().says(why).await;
    }
    assert_eq!(api.reviewed().len(), 1 + strangers.len(), "each was asked about once");

    let mut pages = vec![cluster.supernode.metrics().await];
    pages.extend(
        files_below(cluster.root())
            .iter()
            .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()),
    );
    let reviewer = std::fs::read_to_string(api.reviewer_file()).unwrap();
    for secret in strangers.iter().map(|(_, token, _)| token).chain([&right, &reviewer]) {
        assert!(pages.iter().all(|page| !page.contains(secret.as_str())), "a token was written down");
    }
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_kubernetes_api_is_away_pods_wait_and_join_when_it_is_back() {
    let mut api = KubernetesApi::start().await;
    let world = admitting(&api, World::default());
    let mut cluster = Cluster::start(0, world.clone()).await;
    api.end().await;
    let old = api.issue("longshore:peer", "longshore", -1);
    let file = api.project("token", &old);
    let mut waiting = pod("waiting", &cluster, &world, &file, &ca_file(&cluster));
    waiting.bound().await;
    waiting.process().says("the Kubernetes API cannot be asked").await;
    cluster.supernode.process().says("pods that ask to join must wait").await;
    // Join tokens need no Kubernetes.
    cluster.spawn_peer("another", &[], None).ready().await;

    // Meanwhile the kubelet renews the pod's token; and the supernode's own, which reaches its file later.
    let new = api.issue("longshore:peer", "longshore", HOUR);
    api.project("token", &new);
    let own = api.renew_reviewer();
    api.begin().await;
    cluster.supernode.process().says("does not accept this supernode's own token").await;
    assert!(waiting.process().ended().is_none() && identity(&waiting).certificate().is_none());
    std::fs::write(api.reviewer_file(), own).unwrap();
    waiting.ready().await;
    assert_eq!(api.reviewed(), [new], "each try reads the token anew");
    assert!(cluster.supernode.said().contains("the Kubernetes API answers again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supernode_of_another_ca_never_sees_the_token() {
    let api = KubernetesApi::start().await;
    let world = admitting(&api, World::default());
    let (ours, theirs) = (Cluster::start(0, World::default()).await, Cluster::start(0, world.clone()).await);
    let token = api.project("token", &api.issue("longshore:peer", "longshore", HOUR));
    // It dials one cluster's supernode with another cluster's CA.
    let mut careful = pod("careful", &theirs, &world, &token, &ca_file(&ours));
    assert_eq!(careful.process().end().await.code(), Some(1));
    assert!(careful.said().contains("another cluster"), "{}", careful.said());
    assert!(api.reviewed().is_empty(), "the supernode has heard the token");
    assert!(!theirs.supernode.said().contains("enrolment"), "{}", theirs.supernode.said());
    // With that supernode's own CA the same token opens it.
    pod("member", &theirs, &world, &token, &ca_file(&theirs)).ready().await;
    assert_eq!(api.reviewed().len(), 1);

    // A supernode that asks no Kubernetes says so.
    let mut early = pod("early", &ours, &World::default(), &token, &ca_file(&ours));
    assert_eq!(early.process().end().await.code(), Some(1));
    assert!(early.said().contains("start it with --kubernetes-join"), "{}", early.said());
}
