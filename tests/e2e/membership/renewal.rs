//! Certificates and the CA change under load, and nobody notices.

use super::{Load, beside, ca_of, identity, never_lost_its_session, short_lived};
use crate::support::cluster::{Node, run};
use crate::support::{eventually, machine};

fn expiry(node: &Node) -> std::time::SystemTime {
    identity(node).certificate().unwrap().not_after
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pull_fails_while_certificates_are_renewed() {
    let _machine = machine().await;
    let (origin, cluster) = short_lived(2, "15s").await;
    let load = Load::start(origin, cluster.proxies());
    for node in [&cluster.supernode, &cluster.peers[0], &cluster.peers[1]] {
        for _ in 0..3 {
            let before = expiry(node);
            eventually("a renewal", async || (expiry(node) > before).then_some(())).await;
            load.more(1).await;
        }
    }
    load.more(2).await;
    assert!(load.end().await > 6);
    cluster.peers.iter().for_each(never_lost_its_session);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_cut_off_while_the_ca_changes() {
    let _machine = machine().await;
    let (origin, mut cluster) = short_lived(2, "120s").await;
    let load = Load::start(origin.clone(), cluster.proxies());
    load.more(2).await;
    let (old, old_token) = (ca_of(&cluster.supernode), std::fs::read(cluster.join_token()).unwrap());
    // The supernode's own file changes with the CA; nodes have copies.
    let copy = cluster.root().join("old-token");
    std::fs::write(&copy, &old_token).unwrap();
    let copy = copy.display().to_string();
    let mut away = cluster.spawn_peer_with("away", &copy, &[], None);
    away.ready().await;
    away.kill().await;

    let said = beside(&cluster, &["ca", "rotate"]).await;
    assert!(said.contains(&old.hex()) && said.contains("former"), "{said}");
    eventually("the supernode under the new CA", async || (ca_of(&cluster.supernode) != old).then_some(()))
        .await;
    let new = ca_of(&cluster.supernode);
    load.more(1).await;
    eventually("a join token of the new CA", async || {
        (std::fs::read(cluster.join_token()).unwrap() != old_token).then_some(())
    })
    .await;
    // One that was away comes back with the certificate and the token that it had.
    away.restart().await;
    assert_eq!(away.said().matches("enrolled").count(), 1, "it needed no other certificate");
    cluster.peers.push(away);
    let mut late = cluster.spawn_peer_with("late", &copy, &[], None);
    late.ready().await;
    eventually("a session", async || late.said().contains("session with the supernode").then_some(())).await;
    assert_eq!(late.said().matches("enrolled").count(), 1, "{}", late.said());
    for peer in &cluster.peers {
        eventually("every certificate from the new CA", async || (ca_of(peer) == new).then_some(())).await;
    }
    load.more(1).await;

    let data = cluster.supernode.data.display().to_string();
    let (code, said) = run(cluster.root(), &["ca", "finish", "--data-dir", &data]).await;
    assert!(code == Some(1) && said.contains("--force"), "{said}");
    let said = beside(&cluster, &["ca", "finish", "--force"]).await;
    assert!(said.contains(&new.hex()) && !said.contains("former"), "{said}");
    for peer in &cluster.peers {
        eventually("the former CA believed no more", async || {
            (identity(peer).authorities() == [new]).then_some(())
        })
        .await;
    }
    load.more(2).await;
    load.end().await;
    cluster.peers[..2].iter().for_each(never_lost_its_session);

    // A restart with the token of the former CA is no reason to enrol; a new node needs another token.
    late.kill().await;
    late.restart().await;
    let mut refused = cluster.spawn_peer_with("refused", &copy, &[], None);
    assert_eq!(refused.process().end().await.code(), Some(1));
    assert!(refused.said().contains("another cluster"), "{}", refused.said());
    cluster.spawn_peer("newcomer", &[], None).ready().await;
}
