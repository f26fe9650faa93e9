//! The controller of ImagePreheats before a Kubernetes API that keeps a Lease, resources and a watch of them, and nothing else. What a
//! real one makes of it is `deploy/check --api-server`'s to find out.
#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as Of, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use common::identity::Authority;
use serde_json::{Value, json};
use supernode::controller::ControllerOptions;
use supernode::daemon::{Supernode, SupernodeOptions};
use supernode::kubernetes::{Access, Plan};
use tokio::sync::watch;

/// Far above what anything here takes.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Api {
    kept: Arc<Mutex<Kept>>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    version: u64,
    resources: BTreeMap<String, Value>,
    changes: Vec<(u64, Value)>,
    lease: Option<Value>,
    events: Vec<String>,
}

impl Api {
    /// Serves on loopback until the runtime ends.
    async fn start() -> (Self, reqwest::Url) {
        let api = Self { kept: Arc::default(), news: watch::channel(0).0 };
        let all = "/apis/longshore.dev/v1alpha1/imagepreheats";
        let status = "/apis/longshore.dev/v1alpha1/namespaces/{namespace}/imagepreheats/{name}/status";
        let leases = "/apis/coordination.k8s.io/v1/namespaces/longshore/leases";
        let router = Router::new()
            .route(all, get(list))
            .route(status, patch(write_status))
            .route(leases, post(write_lease))
            .route(&format!("{leases}/{{name}}"), get(read_lease).put(write_lease))
            .route("/apis/events.k8s.io/v1/namespaces/{namespace}/events", post(note_event))
            .with_state(api.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (api, url)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Makes or changes a resource, as `kubectl apply` does.
    fn apply(&self, name: &str, spec: Value) {
        let mut kept = self.kept();
        let before = kept.resources.get(name).cloned().unwrap_or_default();
        let generation = before["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
        let mut resource = json!({
            "apiVersion": "longshore.dev/v1alpha1", "kind": "ImagePreheat", "spec": spec,
            "metadata": { "name": name, "namespace": "team", "uid": format!("uid-of-{name}"), "generation": generation },
        });
        if before["status"].is_object() {
            resource["status"] = before["status"].clone();
        }
        kept.change("MODIFIED", name, Some(resource));
        self.news.send_replace(kept.version);
    }

    fn delete(&self, name: &str) {
        let mut kept = self.kept();
        kept.change("DELETED", name, None);
        self.news.send_replace(kept.version);
    }

    fn status(&self, name: &str) -> Value {
        self.kept().resources[name]["status"].clone()
    }

    /// Waits until the status is so.
    async fn until(&self, name: &str, so: impl Fn(&Value) -> bool) -> Value {
        wait(&format!("the status of {name}"), async || Some(self.status(name)).filter(&so)).await
    }
}

impl Kept {
    fn change(&mut self, kind: &str, name: &str, resource: Option<Value>) {
        self.version += 1;
        let gone = resource.is_none();
        let mut resource = resource.unwrap_or_else(|| self.resources[name].clone());
        resource["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.changes.push((self.version, json!({ "type": kind, "object": &resource })));
        match gone {
            true => drop(self.resources.remove(name)),
            false => drop(self.resources.insert(name.to_owned(), resource)),
        }
    }
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

async fn list(State(api): State<Api>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if query.get("watch").is_none_or(|watch| watch != "true") {
        let kept = api.kept();
        let items: Vec<&Value> = kept.resources.values().collect();
        let metadata = json!({ "resourceVersion": kept.version.to_string() });
        return Json(json!({
            "apiVersion": "longshore.dev/v1alpha1", "kind": "ImagePreheatList", "metadata": metadata, "items": items,
        }))
        .into_response();
    }
    let since: u64 = query["resourceVersion"].parse().unwrap();
    let lines = futures_util::stream::unfold((api, since), async |(api, since)| {
        let mut news = api.news.subscribe();
        news.wait_for(|version| *version > since).await.ok()?;
        let kept = api.kept();
        let new = kept.changes.iter().filter(|(version, _)| *version > since);
        let lines: String = new.map(|(_, change)| format!("{change}\n")).collect();
        let version = kept.version;
        drop(kept);
        Some((Ok::<_, std::io::Error>(lines), (api, version)))
    });
    Body::from_stream(lines).into_response()
}

async fn write_status(State(api): State<Api>, Of((_, name)): Of<(String, String)>, body: Bytes) -> Response {
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let mut kept = api.kept();
    let Some(mut resource) = kept.resources.get(&name).cloned() else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    assert_eq!(patch[0]["op"], "test");
    if patch[0]["value"] != resource["metadata"]["uid"] {
        return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    }
    resource["status"] = patch[1]["value"].clone();
    kept.change("MODIFIED", &name, Some(resource));
    api.news.send_replace(kept.version);
    Json(kept.resources[&name].clone()).into_response()
}

async fn read_lease(State(api): State<Api>) -> Response {
    match &api.kept().lease {
        Some(lease) => Json(lease).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn write_lease(State(api): State<Api>, body: Bytes) -> Response {
    let mut lease: Value = serde_json::from_slice(&body).unwrap();
    let mut kept = api.kept();
    let present = kept.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
    if present.unwrap_or_default() != lease["metadata"]["resourceVersion"] {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    kept.version += 1;
    lease["metadata"]["resourceVersion"] = kept.version.to_string().into();
    kept.lease = Some(lease.clone());
    Json(lease).into_response()
}

async fn note_event(State(api): State<Api>, body: Bytes) -> Response {
    let event: Value = serde_json::from_slice(&body).unwrap();
    api.kept().events.push(format!("{} {}", event["regarding"]["name"], event["reason"]).replace('"', ""));
    Json(event).into_response()
}

async fn wait<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONGEST, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn supernode(dir: &Path, api: &reqwest::Url) -> Supernode {
    std::fs::create_dir_all(dir).unwrap();
    // Any certificate: this API speaks plain HTTP.
    Authority::open(&dir.join("ca")).unwrap();
    std::fs::write(dir.join("token"), "a token").unwrap();
    let access = Access { api: api.clone(), ca_file: dir.join("ca/ca.pem"), token_file: dir.join("token") };
    let controller = ControllerOptions { access, namespace: "longshore".into() };
    let mut options = SupernodeOptions::local(dir.join("data"));
    options.kubernetes = Plan { controller: Some(controller), ..Plan::default() };
    Supernode::start(options).await.unwrap()
}

/// The jobs of the controller at a supernode.
async fn jobs(supernode: &Supernode) -> Vec<Value> {
    let url = format!("http://{}/api/v1/preheats", supernode.http());
    let all: Vec<Value> = reqwest::get(url).await.unwrap().json().await.unwrap();
    all.into_iter().filter(|job| job["spec"]["owner"].is_string()).collect()
}

fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_a_job_for_as_long_as_it_is_there() {
    provider();
    let dir = tempfile::tempdir().unwrap();
    let (api, url) = Api::start().await;
    // Nobody may be asked at loopback here, so no registry is needed for a failure.
    api.apply("early", json!({ "image": "127.0.0.1:9/app:1", "to": "cache" }));
    let supernode = supernode(dir.path(), &url).await;
    let failed = api.until("early", |status| status["state"] == "Failed").await;
    assert_eq!(failed["conditions"][0]["type"], "Failed");
    assert!(failed["message"].is_string() && failed["completionTime"].is_string(), "{failed}");

    let held = |image: &str| json!({ "image": image, "to": "cache", "paused": true });
    api.apply("held", held("127.0.0.1:9/app:1"));
    let first = api.until("held", |status| status["state"] == "Paused").await;
    api.apply("held", held("127.0.0.1:9/app:2"));
    let second = api.until("held", |status| status["observedGeneration"] == 2).await;
    assert!(second["job"].as_u64() > first["job"].as_u64(), "{second}");
    assert_eq!(jobs(&supernode).await.len(), 2, "the former job is gone");

    api.delete("held");
    wait("the job's end", async || (jobs(&supernode).await.len() == 1).then_some(())).await;
    let events = api.kept().events.clone();
    for event in ["early Started", "early Failed", "held Started"] {
        assert!(events.iter().any(|one| one == event), "{event}: {events:?}");
    }
    supernode.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_supernodes_one_works_and_the_other_takes_over() {
    provider();
    let dir = tempfile::tempdir().unwrap();
    let (api, url) = Api::start().await;
    let one = supernode(&dir.path().join("one"), &url).await;
    api.apply("a", json!({ "image": "127.0.0.1:9/app:1", "to": "cache", "paused": true }));
    let led = api.until("a", |status| status["state"] == "Paused").await;
    let two = supernode(&dir.path().join("two"), &url).await;
    api.apply("b", json!({ "image": "127.0.0.1:9/app:2", "to": "cache", "paused": true }));
    let also = api.until("b", |status| status["state"] == "Paused").await;
    assert_eq!(also["supernode"], led["supernode"]);
    assert_eq!((jobs(&one).await.len(), jobs(&two).await.len()), (2, 0));

    let holder = || api.kept().lease.as_ref().unwrap()["spec"]["holderIdentity"].clone();
    let held = holder();
    one.close().await;
    assert_ne!(holder(), held, "it is given back, and nobody waits for its end");
    let taken = api.until("a", |status| status["supernode"] != led["supernode"]).await;
    assert_eq!(
        (taken["state"].as_str(), taken["startTime"].clone()),
        (Some("Paused"), led["startTime"].clone())
    );
    wait("both jobs", async || (jobs(&two).await.len() == 2).then_some(())).await;

    // It was away and comes back: it follows, and its jobs of then are gone.
    let one = supernode(&dir.path().join("one"), &url).await;
    wait("no job", async || jobs(&one).await.is_empty().then_some(())).await;
    api.apply("c", json!({ "image": "127.0.0.1:9/app:3", "to": "cache", "paused": true }));
    let last = api.until("c", |status| status["state"] == "Paused").await;
    assert_eq!(last["supernode"], taken["supernode"]);
    one.close().await;
    two.close().await;
}
