//! Join tokens that end: in words at the peer, and as `longshore token list` shows them.

use serde_json::Value;

use super::beside;
use crate::support::cluster::{Cluster, World};
use crate::support::eventually;

async fn list(cluster: &Cluster) -> Vec<Value> {
    serde_json::from_str(&beside(cluster, &["token", "list", "--json"]).await).unwrap()
}

/// The entry of the token whose note is this.
async fn entry(cluster: &Cluster, note: &str) -> Value {
    list(cluster).await.into_iter().find(|token| token["note"] == note).unwrap()
}

async fn create(cluster: &Cluster, note: &str, more: &[&str]) -> String {
    let token = beside(cluster, &[&["token", "create", "--note", note], more].concat()).await;
    let file = cluster.root().join(note);
    std::fs::write(&file, token).unwrap();
    file.display().to_string()
}

async fn is_refused(cluster: &Cluster, name: &str, token: &str, words: &str) {
    let mut peer = cluster.spawn_peer_with(name, token, &[], None);
    assert_eq!(peer.process().end().await.code(), Some(1), "{name}");
    assert!(peer.said().contains(words), "{}", peer.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_by_time_by_uses_and_by_word() {
    let cluster = Cluster::start(2, World::default()).await;
    let once = create(&cluster, "once", &["--uses", "1"]).await;
    let short = create(&cluster, "short", &["--expires", "1s"]).await;
    let day = create(&cluster, "day", &["--expires", "1d"]).await;

    cluster.spawn_peer_with("first", &once, &[], None).ready().await;
    is_refused(&cluster, "second", &once, "the join token is used up").await;
    let used = entry(&cluster, "once").await;
    assert_eq!((&used["state"], &used["used"], &used["uses"]), (&"used up".into(), &1.into(), &1.into()));

    eventually("the end of a second", async || {
        (entry(&cluster, "short").await["state"] == "expired").then_some(())
    })
    .await;
    is_refused(&cluster, "late", &short, "the join token has expired").await;

    cluster.spawn_peer_with("third", &day, &[], None).ready().await;
    let of_day = entry(&cluster, "day").await;
    assert!(of_day["expires"].as_u64().is_some() && of_day["state"] == "valid");
    beside(&cluster, &["token", "revoke", of_day["id"].as_str().unwrap()]).await;
    is_refused(&cluster, "fourth", &day, "the join token was revoked").await;

    eventually("the uses of the first token, which has no limit", async || {
        let first = list(&cluster).await.into_iter().next().unwrap();
        (first["used"] == 2 && first["uses"].is_null()).then_some(())
    })
    .await;
    let text = beside(&cluster, &["token", "list"]).await;
    assert!(text.contains("EXPIRES IN") && text.contains("never") && text.contains("over"), "{text}");
}
