//! The zones of nodes before a Kubernetes API that lists and watches nodes, and nothing else. With a real one
//! `deploy/check --cluster` tries it.
#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use common::identity::Authority;
use common::node::Labels;
use serde_json::{Value, json};
use supernode::kubernetes::{Access, Zones};
use tokio::sync::watch;

/// Far above what anything here takes.
const LONGEST: Duration = Duration::from_secs(60);

/// Lines of a watch, in the order in which they are told; none: the API says no.
type Told = Option<Vec<Value>>;

fn node(name: &str, zone: &str, version: u64) -> Value {
    let labels = json!({ "topology.kubernetes.io/zone": zone });
    let metadata = json!({ "name": name, "labels": labels, "resourceVersion": version.to_string() });
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata })
}

async fn nodes(
    State(told): State<watch::Receiver<Told>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Some(changes) = told.borrow().clone() else { return StatusCode::FORBIDDEN.into_response() };
    assert_eq!(query["labelSelector"], "topology.kubernetes.io/zone", "no other nodes are asked for");
    assert!(headers["accept"].to_str().unwrap().contains("PartialObjectMetadata"), "nor what else they are");
    if query.get("watch").is_none_or(|watch| watch != "true") {
        let metadata = json!({ "resourceVersion": "1" });
        let items = [node("node-1", "a", 1), node("node-2", "b", 1)];
        let kind = "PartialObjectMetadataList";
        let list =
            json!({ "apiVersion": "meta.k8s.io/v1", "kind": kind, "metadata": metadata, "items": items });
        return Json(list).into_response();
    }
    drop(changes);
    let lines = futures_util::stream::unfold((told, 0), async |(mut told, heard)| {
        let count = |told: &Told| told.as_ref().map_or(0, Vec::len);
        told.wait_for(|told| count(told) > heard).await.ok()?;
        let all = told.borrow().clone().unwrap();
        let lines: String = all[heard..].iter().map(|line| format!("{line}\n")).collect();
        Some((Ok::<_, std::io::Error>(lines), (told, all.len())))
    });
    Body::from_stream(lines).into_response()
}

async fn becomes(zones: &Zones, host: &str, zone: &str) {
    let labels = || Labels { host: host.into(), ..Labels::default() };
    let waiting = async {
        while zones.complete(labels()).await.zone != zone {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(LONGEST, waiting).await;
    assert!(waited.is_ok(), "{host} is not in {zone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_follow_the_nodes() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (tell, told) = watch::channel(None);
    let router = Router::new().route("/api/v1/nodes", get(nodes)).with_state(told);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    // Any certificate: this API speaks plain HTTP.
    Authority::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("token"), "a token").unwrap();
    let access = Access { api, ca_file: dir.path().join("ca.pem"), token_file: dir.path().join("token") };
    let nowhere = Access { token_file: dir.path().join("none"), ..access.clone() };
    let refused = Zones::open(nowhere).map(drop).unwrap_err().to_string();
    assert!(refused.contains("--kubernetes-token-file"), "{refused}");

    let (zones, watching) = Zones::open(access).unwrap();
    tokio::spawn(watching);
    becomes(&zones, "node-1", "").await;
    tell.send(Some(vec![])).unwrap();
    becomes(&zones, "node-1", "a").await;
    becomes(&zones, "node-2", "b").await;
    becomes(&zones, "node-3", "").await;
    let line = |kind: &str, node: Value| json!({ "type": kind, "object": node });
    let changes = [
        line("ADDED", node("node-3", "c", 2)),
        line("MODIFIED", node("node-1", "b", 3)),
        line("DELETED", node("node-2", "b", 4)),
    ];
    for change in changes {
        tell.send_modify(|told| told.as_mut().unwrap().push(change));
    }
    becomes(&zones, "node-3", "c").await;
    becomes(&zones, "node-1", "b").await;
    becomes(&zones, "node-2", "").await;
}
