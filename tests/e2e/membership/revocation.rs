//! A member is turned out in the middle of a cluster at work.

use common::identity::Admits;
use common::node::{Contact, NodeId, Role};
use common::transport::{self, Transport, TransportOptions};

use super::{MIB, beside, identity};
use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, Node, World, run};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::{eventually, machine};

/// Dials a neighbour as the member whose data folder `who` has, which must not run.
async fn dial(who: &Node, target: &Node) -> Result<(), String> {
    let identity = identity(who);
    let hello = transport::hello(identity.node(), Role::Peer);
    let listen = ([127, 0, 0, 1], 0).into();
    let transport =
        Transport::bind(TransportOptions { listen, identity, admits: Admits::Members, hello }).unwrap();
    let contact = Contact { id: self::identity(target).node(), address: target.at.quic.parse().unwrap() };
    let dialled = transport.dial(&contact).await;
    transport.close().await;
    dialled.map(drop).map_err(|error| error.to_string())
}

async fn sessions(cluster: &Cluster) -> Vec<String> {
    let status = client::http().get(cluster.supernode.url("/api/v1/status")).send().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.bytes().await.unwrap()).unwrap();
    let ids =
        status["peers"].as_array().unwrap().iter().map(|peer| peer["node"].as_str().unwrap().to_owned());
    ids.collect()
}

async fn is_turned_out(node: &mut Node, id: NodeId) {
    node.process().says(&format!("node {id} was revoked")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off_everywhere_and_the_others_go_on() {
    let _machine = machine().await;
    let origin = Origin::start().await;
    let image = Image::single("team/app", 32 * MIB, 801);
    let (second, third) =
        (Image::single("team/second", 4 * MIB, 802), Image::single("team/third", 4 * MIB, 803));
    [&image, &second, &third].iter().for_each(|image| origin.add(image));
    origin.hold_at(image.layer().size() / 2);
    let mut cluster = Cluster::start(3, World::registry("quay.test", &origin.url())).await;
    let pull = |peer: &Node, image: &Image| {
        let url = blob_url(&peer.at.proxy, "quay.test", &image.repository, image.layer().digest);
        tokio::spawn(async move { client::get(&url).await })
    };
    let pulls: Vec<_> = cluster.peers.iter().map(|peer| pull(peer, &image)).collect();
    for peer in &cluster.peers {
        eventually("an eighth of the layer at each peer", async || {
            (peer.received().await.network() >= image.layer().size() / 8).then_some(())
        })
        .await;
    }
    let id = identity(&cluster.peers[1]).node();
    let said = beside(&cluster, &["node", "revoke", &id.to_string()]).await;
    assert!(said.contains("token"), "{said}");
    assert!(beside(&cluster, &["node", "list"]).await.contains(&id.to_string()));

    is_turned_out(&mut cluster.peers[1], id).await;
    eventually("its session's end", async || {
        (!sessions(&cluster).await.contains(&id.to_string())).then_some(())
    })
    .await;
    for peer in [0, 2] {
        cluster.peers[peer].process().says("the list of revoked nodes has changed").await;
    }
    let before = cluster.peers[1].received().await;
    origin.release();
    for (number, pull) in pulls.into_iter().enumerate() {
        let pulled = pull.await.unwrap();
        if number != 1 {
            pulled.is(image.layer().digest);
        }
    }
    for peer in [0, 2] {
        pull(&cluster.peers[peer], &second).await.unwrap().is(second.layer().digest);
    }
    // It is on its own: what it gets, it gets of the origin.
    pull(&cluster.peers[1], &second).await.unwrap().is(second.layer().digest);
    let after = cluster.peers[1].received().await;
    assert_eq!((after.seed, after.peer), (before.seed, before.peer), "{after:?}");
    assert!(after.origin >= before.origin + second.layer().size());

    a_restart_does_not_help(&mut cluster, id).await;

    // With the supernode gone, and after a restart of their own, the others still know.
    cluster.supernode.kill().await;
    cluster.peers[1].kill().await;
    cluster.peers[0].kill().await;
    cluster.peers[0].start_again();
    cluster.peers[0].bound().await;
    let refused = dial(&cluster.peers[1], &cluster.peers[0]).await.unwrap_err();
    assert!(refused.contains("was revoked"), "{refused}");

    cluster.supernode.restart().await;
    beside(&cluster, &["node", "allow", &id.to_string()]).await;
    cluster.peers[1].restart().await;
    eventually("peer 1 letting it in", async || dial_is_answered(&cluster).await.then_some(())).await;
    pull(&cluster.peers[1], &third).await.unwrap().is(third.layer().digest);
}

/// Whether the first peer's list no longer names anybody.
async fn dial_is_answered(cluster: &Cluster) -> bool {
    let kept = cluster.peers[0].data.join("identity/turned-out.json");
    std::fs::read_to_string(kept).is_ok_and(|text| !text.contains("seal"))
}

async fn a_restart_does_not_help(cluster: &mut Cluster, id: NodeId) {
    let supernode = cluster.supernode.at.quic.clone();
    cluster.peers[1].kill().await;
    let log = cluster.peers[1].said().len();
    cluster.peers[1].start_again();
    cluster.peers[1].bound().await;
    eventually("the reason in its log again", async || {
        cluster.peers[1].said()[log..].contains(&format!("node {id} was revoked")).then_some(())
    })
    .await;
    let data = cluster.peers[1].data.display().to_string();
    let (_, said) = run(cluster.root(), &["doctor", "--data-dir", &data, "--supernode", &supernode]).await;
    assert!(said.contains("was revoked") && said.contains("node allow"), "{said}");

    // Nor does a join token: no certificate is given out for it.
    cluster.peers[1].kill().await;
    let certificate = cluster.peers[1].data.join("identity/node.pem");
    let kept = std::fs::read(&certificate).unwrap();
    std::fs::remove_file(&certificate).unwrap();
    cluster.peers[1].start_again();
    assert_eq!(cluster.peers[1].process().end().await.code(), Some(1));
    assert!(!certificate.exists());
    std::fs::write(&certificate, kept).unwrap();
    cluster.peers[1].start_again();
    cluster.peers[1].bound().await;
}
