//! What people ask of daemons that run.

use crate::support::client;
use crate::support::cluster::{Cluster, Node, World, run};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::Image;

const MIB: usize = 1 << 20;

/// `longshore log` at a daemon.
async fn log(node: &Node, wish: &[&str]) -> (Option<i32>, String) {
    let dir = node.data.display().to_string();
    run(&node.data, &[&["log", "--data-dir", &dir], wish].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_logs_is_changed_while_it_runs() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    for node in [&cluster.supernode, &cluster.peers[0]] {
        assert_eq!(log(node, &["info,hyper=off"]).await.0, Some(0));
        assert_eq!(log(node, &[]).await.1.trim(), "hyper=off,info");
        let (status, said) = log(node, &["peer=louder"]).await;
        assert!(status == Some(1) && said.contains("peer=louder"), "{said}");
    }
    let peer = &cluster.peers[0];
    let before = peer.said().matches("DEBUG").count();
    assert_eq!(log(peer, &["debug"]).await.0, Some(0));
    let image = Image::single("team/app", MIB, 410);
    origin.add(&image);
    client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image).await;
    eventually("more detail", async || (peer.said().matches("DEBUG").count() > before).then_some(())).await;
}
