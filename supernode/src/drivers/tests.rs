//! The routes over real HTTP, with the bodies that Harbor and registries send, before an engine that does nothing but
//! remember.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use common::telemetry::Notified;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use time::macros::datetime;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::preheat::job::{Contents, NodeState, NodeView, Target};

/// What a job does at once in a fake engine.
type Fate = fn(View) -> View;

#[derive(Default)]
struct Seen {
    made: Vec<(Spec, Credentials)>,
    views: BTreeMap<JobId, View>,
    fates: Vec<Fate>,
    refuse: Option<Refused>,
    removed: usize,
}

#[derive(Clone, Default)]
struct Engine(Arc<Mutex<Seen>>);

struct Desk {
    engine: Engine,
    metrics: Metrics,
    url: String,
    _server: AbortOnDropHandle<()>,
    _worker: AbortOnDropHandle<()>,
}

impl Engine {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }
}

impl Jobs for Engine {
    async fn create(&self, spec: Spec, credentials: Credentials) -> Result<View, Refused> {
        spec.check()?;
        let mut seen = self.seen();
        if let Some(refused) = seen.refuse.clone() {
            return Err(refused);
        }
        seen.made.push((spec.clone(), credentials));
        let id = JobId(seen.made.len() as u64);
        let mut view = pending(id, spec);
        if !seen.fates.is_empty() {
            view = seen.fates.remove(0)(view);
        }
        seen.views.insert(id, view.clone());
        Ok(view)
    }

    async fn show(&self, id: JobId) -> Result<View, Refused> {
        self.seen().views.get(&id).cloned().ok_or(Refused::Unknown(id))
    }

    async fn remove(&self, id: JobId) -> Result<(), Refused> {
        let mut seen = self.seen();
        seen.removed += 1;
        seen.views.remove(&id).map(|_| ()).ok_or(Refused::Unknown(id))
    }
}

fn pending(id: JobId, spec: Spec) -> View {
    View {
        id,
        spec,
        state: State::Pending,
        message: None,
        created_at: datetime!(2026-11-22 19:00:00 UTC),
        updated_at: datetime!(2026-11-22 19:00:01 UTC),
        finished_at: None,
        contents: None,
        desired: 0,
        active: 0,
        succeeded: 0,
        failed: 0,
        failed_nodes: Vec::new(),
        parts: Vec::new(),
        nodes: Vec::new(),
    }
}

impl Desk {
    async fn open(rules: &[&str]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
        let registries = Registries::new(
            &BTreeMap::new(),
            &["plain.example:5000".to_owned(), "127.0.0.1:5000".to_owned()],
        );
        let (engine, metrics) = (Engine::default(), Metrics::new());
        let rules = Rules::read(&rules).unwrap();
        let drivers = Drivers::new(engine.clone(), rules, registries.unwrap(), metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let worker = AbortOnDropHandle::new(tokio::spawn(drivers.clone().run()));
        let app = router(drivers);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { engine, metrics, url, _server: AbortOnDropHandle::new(server), _worker: worker }
    }

    async fn ask(&self, method: Method, path: &str, kind: &str, body: String) -> (StatusCode, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request =
            client.request(method, format!("{}{path}", self.url)).header(header::CONTENT_TYPE, kind);
        let answer = request.body(body).send().await.unwrap();
        let (status, retry) = (answer.status(), answer.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(status == StatusCode::SERVICE_UNAVAILABLE, retry, "{path}");
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> (StatusCode, Value) {
        self.ask(Method::POST, path, "application/json", body.into()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, "application/json", String::new()).await
    }

    fn made(&self) -> Vec<Spec> {
        self.engine.seen().made.iter().map(|(spec, _)| spec.clone()).collect()
    }

    fn counted(&self, result: Notified) -> u64 {
        self.metrics.notifications.of(result).get()
    }
}

/// As Harbor sends it: each field, whether there is something to say or not.
const ORDER: &str = r#"{"type":"preheat","args":{"type":"image","url":"https://h.example/v2/p/r/manifests/tag","tag":"",
    "filtered_query_params":"","headers":{"Authorization":"Bearer a.registrys.token"},"scope":"","concurrent_count":0,
    "timeout":0},"scheduler_cluster_ids":null}"#;

#[tokio::test]
async fn harbors_order_is_a_job_and_says_how_it_is() {
    let desk = Desk::open(&[]).await;
    for path in ["/healthy", "/_ping"] {
        assert_eq!(desk.get(path).await.0, StatusCode::OK, "{path}");
    }
    let (status, begun) = desk.post("/oapi/v1/jobs", ORDER).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    assert_eq!((&begun["id"], &begun["state"]), (&json!(1), &json!("PENDING")));
    assert_eq!(begun["created_at"], "2026-11-22T19:00:00Z");
    assert_eq!(begun["updated_at"], "2026-11-22T19:00:01Z");
    assert!(!begun.to_string().contains("a.registrys.token"));
    {
        let seen = desk.engine.seen();
        let (spec, credentials) = &seen.made[0];
        assert_eq!(*spec, Spec::image("h.example/p/r:tag", Target::Cache), "nothing said is what is usual");
        assert_eq!(*credentials, Credentials::authorization("Bearer a.registrys.token"));
    }

    let node = |number: u8, state, reason: Option<&str>| NodeView {
        node: format!("{number:02x}").repeat(16),
        name: if number == 3 { String::new() } else { format!("node-{number}") },
        state,
        attempts: 1,
        bytes: 10,
        parts_done: 0,
        under_way: Vec::new(),
        reason: reason.map(str::to_owned),
    };
    let nodes = vec![
        node(1, NodeState::Succeeded, None),
        node(2, NodeState::Failed, Some("its disk is full")),
        node(3, NodeState::Succeeded, None),
        node(4, NodeState::Active, None),
    ];
    let change = |state, message: Option<&str>| {
        let mut seen = desk.engine.seen();
        let view = seen.views.get_mut(&JobId(1)).unwrap();
        (view.state, view.message, view.nodes) = (state, message.map(str::to_owned), nodes.clone());
    };
    for (state, said) in [
        (State::Running, "PENDING"),
        (State::Paused, "PENDING"),
        (State::Succeeded, "SUCCESS"),
        (State::Cancelled, "FAILURE"),
        (State::Failed, "FAILURE"),
    ] {
        change(state, (state == State::Failed).then_some("its disk is full"));
        let (status, job) = desk.get("/oapi/v1/jobs/1").await;
        assert_eq!((status, &job["state"]), (StatusCode::OK, &json!(said)), "{state:?}");
        let error = job["result"]["job_states"][0]["error"].as_str().unwrap();
        assert_eq!(error.is_empty(), said != "FAILURE", "{state:?}: {error}");
    }
    let results = desk.get("/oapi/v1/jobs/1").await.1["result"]["job_states"][0].clone();
    assert_eq!(results["error"], "its disk is full");
    let url = "https://h.example/v2/p/r/manifests/tag";
    let third = "03".repeat(16);
    assert_eq!(
        results["results"],
        json!([{
            "scheduler_cluster_id": 1,
            "success_tasks": [{"url": url, "hostname": "node-1", "ip": ""}, {"url": url, "hostname": third, "ip": ""}],
            "failure_tasks": [{"url": url, "hostname": "node-2", "ip": "", "description": "its disk is full"}],
        }])
    );
}

#[tokio::test]
async fn what_harbor_can_say_is_understood() {
    let desk = Desk::open(&[]).await;
    let order = |args: Value| json!({"type": "preheat", "args": args}).to_string();
    let url = "https://h.example/v2/p/r/manifests/1";
    for (scope, to) in [
        (json!(null), Target::Cache),
        (json!("single_peer"), Target::Cache),
        (json!("single_seed_peer"), Target::Cache),
        (json!("all_seed_peers"), Target::Cache),
        (json!("all_peers"), Target::Peers),
    ] {
        let (status, said) =
            desk.post("/oapi/v1/jobs", order(json!({"type": "image", "url": url, "scope": scope}))).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        assert_eq!(desk.made().pop().unwrap().to, to, "{scope}");
    }
    let full = json!({"type": "image", "url": "http://plain.example:5000/v2/r/manifests/1", "scope": "all_peers",
        "headers": null, "concurrent_count": 5, "timeout": 90_500_000_000_u64, "platform": "linux/arm64"});
    let (status, said) = desk.post("/oapi/v1/jobs", order(full)).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let spec = desk.made().pop().unwrap();
    assert_eq!(spec.image.as_deref(), Some("plain.example:5000/r:1"));
    assert_eq!((spec.parallelism, spec.timeout_seconds), (5, 91));
    assert_eq!((spec.active_deadline_seconds, spec.platforms), (Some(91), vec!["linux/arm64".to_owned()]));
    assert!(desk.engine.seen().made.last().unwrap().1.is_empty());
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_nothing_is_made() {
    let desk = Desk::open(&[]).await;
    let url = "https://h.example/v2/p/r/manifests/1";
    let args = |args: Value| json!({"type": "preheat", "args": args});
    for (body, status, word) in [
        (json!({}), 422, "no type"),
        (json!({"type": null, "args": {}}), 422, "no type"),
        (json!({"type": "sync_peers"}), 422, "sync_peers"),
        (json!({"type": "preheat", "args": null}), 422, "no args"),
        (args(json!({"type": "file", "url": url})), 422, "only image"),
        (args(json!({"type": "", "url": url})), 422, "expected image"),
        (args(json!({"type": "image"})), 422, "names no image"),
        (
            args(json!({"type": "image", "url": "https://u:hidden@h.example/v2/r/manifests/1"})),
            422,
            "password",
        ),
        (
            args(json!({"type": "image", "url": "http://h.example/v2/r/manifests/1"})),
            422,
            "--insecure-registry h.example",
        ),
        (args(json!({"type": "image", "url": url, "scope": "everywhere"})), 422, "everywhere"),
        (args(json!({"type": "image", "url": url, "concurrent_count": -1})), 422, "out of range"),
        (args(json!({"type": "image", "url": url, "timeout": -1})), 422, "negative"),
        (args(json!({"type": "image", "url": url, "timeout": i64::MAX})), 422, "timeout_seconds"),
        (args(json!({"type": "image", "url": url, "platform": "linux"})), 422, "no platform"),
        (
            args(json!({"type": "image", "url": url, "headers": {"authorization": "hidden\n"}})),
            422,
            "Authorization",
        ),
        (args(json!({"type": "image", "url": url, "headers": "hidden"})), 400, "shape"),
        (args(json!({"type": "image", "url": url, "timeout": 1.5})), 400, "shape"),
        (json!([]), 400, "shape"),
    ] {
        let (said, answer) = desk.post("/oapi/v1/jobs", body.to_string()).await;
        let error = answer["error"].as_str().unwrap();
        assert_eq!(said.as_u16(), status, "{body}: {error}");
        assert!(error.contains(word) && !error.contains("hidden"), "{body}: {error}");
    }
    for (body, word) in [("", "too early"), ("{\"type\":", "too early"), ("preheat", "not JSON")] {
        let (said, answer) = desk.post("/oapi/v1/jobs", body).await;
        assert_eq!(said, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
    }
    for path in ["/oapi/v1/jobs", "/preheats", "/registry/notifications"] {
        let rules = Desk::open(&["*/**=cache"]).await;
        let kinds = ["text/plain", "application/x-www-form-urlencoded", "", "application/+jsonp"];
        for kind in kinds {
            let (said, answer) = rules.ask(Method::POST, path, kind, ORDER.to_owned()).await;
            assert_eq!(said, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {kind} {answer}");
        }
        let huge = " ".repeat(1024 * 1024 + 1);
        let (said, answer) = rules.post(path, huge).await;
        assert_eq!(said, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(answer["error"].as_str().unwrap().contains("larger than"), "{answer}");
    }
    for path in ["/oapi/v1/jobs/7", "/preheats/7"] {
        let (said, answer) = desk.get(path).await;
        assert_eq!(said, StatusCode::NOT_FOUND);
        assert!(answer["error"].as_str().unwrap().contains("no preheat job 7"), "{answer}");
    }
    assert!(desk.made().is_empty());
    desk.engine.seen().refuse = Some(Refused::Crowded(9));
    assert_eq!(desk.post("/oapi/v1/jobs", ORDER).await.0, StatusCode::SERVICE_UNAVAILABLE);
    desk.engine.seen().refuse = Some(Refused::Broken("the disk".into()));
    assert_eq!(desk.post("/oapi/v1/jobs", ORDER).await.0, StatusCode::INTERNAL_SERVER_ERROR);
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn harbor_before_2_12_is_understood() {
    let desk = Desk::open(&[]).await;
    let order = |digest: &str| {
        format!(
            r#"{{"type":"image","url":"https://h.example/v2/library/app/manifests/1.0","headers":{{"Authorization":"Bearer t"}},
            "image":"library/app","tag":"1.0","digest":"{digest}"}}"#
        )
    };
    assert_eq!(desk.post("/preheats", order("")).await, (StatusCode::OK, json!({"ID": "1"})));
    assert_eq!(desk.post("/preheats", order(DIGEST)).await, (StatusCode::OK, json!({"ID": "2"})));
    let images: Vec<_> = desk.made().into_iter().filter_map(|spec| spec.image).collect();
    assert_eq!(
        images,
        ["h.example/library/app:1.0".to_owned(), format!("h.example/library/app:1.0@{DIGEST}")]
    );
    assert_eq!(desk.engine.seen().made[0].1, Credentials::authorization("Bearer t"));
    for (bad, word) in
        [(order("md5:0"), "digest"), (order("").replace("\"image\",", "\"file\","), "only the type image")]
    {
        let (status, said) = desk.post("/preheats", bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(said["error"].as_str().unwrap().contains(word), "{said}");
    }

    let (status, waiting) = desk.get("/preheats/1").await;
    let expected =
        json!({"ID": "1", "startTime": "2026-11-22T19:00:00Z", "errorMsg": "", "Status": "WAITING"});
    assert_eq!((status, waiting), (StatusCode::OK, expected));
    for (state, said) in [
        (State::Paused, "WAITING"),
        (State::Running, "RUNNING"),
        (State::Succeeded, "SUCCESS"),
        (State::Failed, "FAILED"),
        (State::Cancelled, "FAILED"),
    ] {
        {
            let mut seen = desk.engine.seen();
            let view = seen.views.get_mut(&JobId(1)).unwrap();
            view.state = state;
            view.finished_at = state.is_over().then_some(datetime!(2026-11-22 19:05:00 UTC));
        }
        let job = desk.get("/preheats/1").await.1;
        assert_eq!(job["Status"], said);
        assert_eq!(job["errorMsg"] != "", said == "FAILED", "{job}");
        assert_eq!(job.get("finishTime").is_some(), state.is_over(), "{job}");
    }
}

fn pushed(repository: &str, tag: &str) -> Value {
    json!({"action": "push", "target": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST,
        "repository": repository, "url": format!("http://127.0.0.1:5000/v2/{repository}/manifests/{DIGEST}"), "tag": tag}})
}

/// What registries send.
const KIND: &str = "application/vnd.docker.distribution.events.v1+json";

impl Desk {
    async fn notify(&self, events: &[Value]) -> (StatusCode, Value) {
        self.ask(Method::POST, "/registry/notifications", KIND, json!({"events": events}).to_string()).await
    }

    /// Waits until the worker has done so much.
    async fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        for _ in 0..600 {
            if done(&self.engine.seen()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{what} is not seen");
    }
}

#[tokio::test]
async fn pushes_that_a_rule_fits_become_jobs() {
    let desk = Desk::open(&["127.0.0.1:5000/team/**:v*=peers,zone=eu-1a"]).await;
    assert_eq!(desk.get("/health").await.0, StatusCode::OK);
    desk.engine.seen().fates = vec![|view| View { contents: Some(Contents::default()), ..view }];
    let pull = json!({"action": "pull", "target": pushed("team/app", "v1")["target"]});
    let events =
        [pull, pushed("team/app", "v1"), pushed("other/app", "v1"), pushed("Team", "v1"), json!(null)];
    let (status, done) = desk.notify(&events).await;
    let expected = json!({"queued": 1, "known": 0, "ignored": 2, "unmatched": 1, "nameless": 1});
    assert_eq!((status, done), (StatusCode::ACCEPTED, expected));
    desk.until("a job", |seen| seen.made.len() == 1).await;
    let spec = desk.made().pop().unwrap();
    assert_eq!(spec.image, Some(format!("127.0.0.1:5000/team/app:v1@{DIGEST}")));
    assert_eq!((spec.to, spec.nodes.zones), (Target::Peers, vec!["eu-1a".to_owned()]));
    let begun = || desk.counted(Notified::Begun) == 1;
    desk.until("a job that has begun", |_| begun()).await;
    let counted = [Notified::Queued, Notified::Ignored, Notified::Unmatched, Notified::Nameless]
        .map(|it| desk.counted(it));
    assert_eq!(counted, [1, 2, 1, 1]);
    assert_eq!(desk.notify(&[]).await.0, StatusCode::OK);
    assert_eq!(
        desk.notify(&[pushed("other/app", "v1")]).await.0,
        StatusCode::OK,
        "a registry tells of everything"
    );
}

#[tokio::test]
async fn a_push_that_cannot_be_read_yet_is_tried_again() {
    let desk = Desk::open(&["*/**=cache"]).await;
    desk.engine.seen().fates =
        vec![|view| View { state: State::Failed, message: Some("404".into()), ..view }, |view| View {
            contents: Some(Contents::default()),
            ..view
        }];
    assert_eq!(desk.notify(&[pushed("team/app", "v1")]).await.0, StatusCode::ACCEPTED);
    desk.until("a second job", |seen| seen.made.len() == 2 && seen.removed == 1).await;
    desk.until("a job that has begun", |_| desk.counted(Notified::Begun) == 1).await;
    assert_eq!(desk.counted(Notified::Lost), 0);
}

#[tokio::test]
async fn a_storm_is_answered_and_held_to_what_fits() {
    let desk = Desk::open(&["*/**=cache"]).await;
    desk.engine.seen().refuse = Some(Refused::Crowded(1));
    let most = events::MAX_EVENTS;
    let one = vec![pushed("team/app", "v1"); most];
    let (status, done) = desk.notify(&one).await;
    let known = json!(most - 1);
    assert_eq!((status, &done["queued"], &done["known"]), (StatusCode::ACCEPTED, &json!(1), &known));
    let many: Vec<_> = (0..2 * most).map(|number| pushed(&format!("team/app{number}"), "v1")).collect();
    assert_eq!(desk.notify(&many[..most]).await.0, StatusCode::ACCEPTED, "the largest body has room");
    assert_eq!(desk.notify(&many[most..]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(desk.counted(Notified::Queued), backlog::MOST as u64);
    assert_eq!(desk.notify(&one[..1]).await.0, StatusCode::OK, "what waits already is no harm");
    assert_eq!(desk.notify(&many[2 * most - 1..]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, said) = desk.notify(&many[..=most]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(said["error"].as_str().unwrap().contains("more than 1000 events"), "{said}");
    // Another webhook's body, and one without a rule that could fit.
    let (status, said) = desk.post("/registry/notifications", r#"{"type":"PUSH_ARTIFACT"}"#).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{said}");
    let bare = Desk::open(&[]).await;
    for (status, said) in [bare.get("/health").await, bare.notify(&one[..1]).await] {
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(said["error"].as_str().unwrap().contains("--preheat-rule"), "{said}");
    }
}

#[tokio::test]
async fn harbors_wish_that_nothing_comes_of_is_an_error() {
    let desk = Desk::open(&["harbor.example/library/**=cache"]).await;
    let wish = |repository: &str| {
        format!(
            r#"{{"Events":[{{"Id":"x","TimeStamp":"2026-11-22T19:00:00Z","Action":"push","Target":{{"MediaType":
            "application/vnd.docker.distribution.manifest.v2+json","Digest":"{DIGEST}","Repository":"{repository}","Url":
            "https://harbor.example/v2/{repository}/manifests/1.0","Tag":"1.0"}},"Request":null,"Actor":null}}]}}"#
        )
    };
    assert_eq!(desk.post("/registry/notifications", wish("library/app")).await.0, StatusCode::ACCEPTED);
    let (status, said) = desk.post("/registry/notifications", wish("private/app")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(said["error"].as_str().unwrap().contains("no --preheat-rule fits"), "{said}");
    desk.until("a job", |seen| seen.made.len() == 1).await;
}
