//! A real registry tells a supernode of what was pushed to it, and the supernode has it before anybody asks.

use std::net::TcpListener;
use std::path::Path;

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::MIB;
use crate::support::client;
use crate::support::cluster::{Node, sample};
use crate::support::image::{Image, TAG};
use crate::support::registry::Registry;
use crate::support::{eventually, need};

const TOKEN: &str = "a-token-for-whoever-preheats";

/// A port that was free a moment ago: the registry must know it before the supernode has it.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A supernode that wants its token on this port.
pub(super) fn supernode(root: &Path, port: u16, more: &[&str]) -> Node {
    let token = root.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let http = format!("127.0.0.1:{port}");
    let own = ["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", &http, "--api-token-file"];
    let token = token.to_str().unwrap();
    let own = own.iter().chain([&token]).chain(more);
    Node::spawn("supernode", own.map(|word| (*word).to_owned()).collect(), root, None)
}

/// A figure of a process's memory, in bytes, as the kernel calls it.
pub(super) fn memory(node: &Node, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A request with the token.
pub(super) fn asking(node: &Node, method: Method, path: &str) -> RequestBuilder {
    client::http().request(method, node.url(path)).bearer_auth(TOKEN)
}

/// What a GET with the token answers.
pub(super) async fn got(node: &Node, path: &str) -> Value {
    let answer = asking(node, Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

pub(super) async fn counted(node: &Node, result: &str) -> u64 {
    sample(&node.metrics().await, "longshore_notifications_total", &format!("result=\"{result}\""))
}

/// Waits until the registry has told of a push of this image, and it is in the supernode's cache.
async fn cached(node: &Node, registry: &Registry, image: &Image) {
    let name = format!("{}/{}:{TAG}@{}", registry.address, image.repository, image.manifest.digest);
    let job = eventually("a job that has succeeded", async || {
        let jobs = got(node, "/api/v1/preheats").await;
        let job = jobs.as_array().unwrap().iter().find(|job| job["spec"]["image"] == name)?.clone();
        assert_ne!(job["state"], "failed", "{job:#}");
        (job["state"] == "succeeded").then_some(job)
    })
    .await;
    assert_eq!(job["spec"]["to"], "cache");
    holds(node, registry, image).await;
}

/// Waits until the supernode has proven all of the image, and asserts that it left the registry once.
pub(super) async fn holds(node: &Node, registry: &Registry, image: &Image) {
    let wanted: Vec<String> = image.blobs().chain([&image.manifest]).map(|blob| blob.digest.hex()).collect();
    eventually("a whole image in the supernode's store", async || {
        let tasks = got(node, "/api/v1/tasks").await;
        let proven = |id: &String| {
            let tasks = tasks.as_array().unwrap();
            tasks.iter().any(|task| task["task"] == **id && task["proven"] == true)
        };
        wanted.iter().all(proven).then_some(())
    })
    .await;
    registry.served_once(image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_to_a_registry_is_in_the_cache_before_anybody_asks() {
    need!("docker-registry");
    let (root, port) = (TempDir::new().unwrap(), free());
    let url = format!("http://127.0.0.1:{port}/registry/notifications");
    let registry = Registry::telling(&url, TOKEN).await;
    // Pushed while the supernode is away: the registry tells of it later.
    let early = Image::single("team/early", 3 * MIB, 9100);
    registry.push(&early).await;
    let rule = format!("{}/team/**:{TAG}=cache", registry.address);
    let flags = ["--insecure-registry", registry.address.as_str(), "--preheat-rule", rule.as_str()];
    let mut node = supernode(root.path(), port, &flags);
    node.ready().await;
    cached(&node, &registry, &early).await;

    let unwanted = Image::single("other/app", MIB, 9200);
    registry.push(&unwanted).await;
    let image = Image::of_sizes("team/deep/app", &[2 * MIB, MIB], 9300);
    registry.push(&image).await;
    cached(&node, &registry, &image).await;
    eventually("all events counted", async || {
        let counts = [
            counted(&node, "queued").await,
            counted(&node, "unmatched").await,
            counted(&node, "begun").await,
        ];
        (counts == [2, 1, 2]).then_some(())
    })
    .await;
    assert!(counted(&node, "ignored").await >= 8, "blobs, and what the supernode itself pulled");
    assert_eq!([counted(&node, "nameless").await, counted(&node, "lost").await], [0, 0]);
    assert!(registry.copies(unwanted.layer()) < 0.001);
    assert!(!node.said().contains(TOKEN));
}

/// Bodies as large as may be, and of what costs a reader most.
fn hostile() -> Vec<String> {
    let most = (1 << 20) - 100;
    let full = |one: &str| vec![one; most / (one.len() + 1)].join(",");
    let nested = format!("{}{}", "[".repeat(most / 2), "]".repeat(most / 2));
    let entry = |inner: &str| format!(r#"{{"events":[{inner}]}}"#);
    let keys: Vec<String> = (0..most / 12).map(|number| format!("\"{number:06}\":0")).collect();
    let many = format!(r#"{{"action":"push","target":{{"url":"x","tag":"{}"}}}}"#, "y".repeat(980));
    vec![
        entry(&format!("[{}]", full("1"))),
        entry(&format!("[{}]", full("{}"))),
        entry(&nested),
        entry(&format!(r#"{{"x":{nested}}}"#)),
        entry(&format!("{{{}}}", keys.join(","))),
        entry(&format!(r#"{{"target":{{"url":"{}"}}}}"#, "x".repeat(most - 50))),
        entry(&vec![format!("[{}]", vec!["1"; 500].join(",")); 1000].join(",")),
        entry(&vec![many; 1000].join(",")),
        entry(&full("1")),
    ]
}

/// How much all of them may cost: four are read at a time.
const COST: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_notifications_cost_little_more_than_themselves() {
    let root = TempDir::new().unwrap();
    let mut node = supernode(root.path(), 0, &["--preheat-rule", "*/**=cache"]);
    node.ready().await;
    let post = |body: String| {
        let kind = [(header::CONTENT_TYPE.as_str(), "application/json")];
        let post = asking(&node, Method::POST, "/registry/notifications").header(kind[0].0, kind[0].1);
        async { post.body(body).send().await.unwrap().status() }
    };
    assert_eq!(post(r#"{"events":[]}"#.to_owned()).await, StatusCode::OK);
    let before = memory(&node, "VmHWM");
    for body in hostile() {
        let (most, shape) = (body.len() <= 1 << 20, body[..30].to_owned());
        assert!(most && body.len() > 512 * 1024, "{shape}: {}", body.len());
        let answers = futures_util::future::join_all((0..8).map(|_| post(body.clone()))).await;
        let expected = [StatusCode::OK, StatusCode::PAYLOAD_TOO_LARGE];
        assert!(answers.iter().all(|status| expected.contains(status)), "{shape}: {answers:?}");
    }
    let cost = memory(&node, "VmHWM").saturating_sub(before);
    println!("{} KiB at most, on top of {}", cost >> 10, before >> 10);
    assert!(cost < COST, "{cost} bytes");
    let large = format!(r#"{{"events":[{}]}}"#, " ".repeat(1 << 20));
    assert_eq!(post(large).await, StatusCode::PAYLOAD_TOO_LARGE);
    let full = format!(r#"{{"events":[{}]}}"#, vec!["1"; 1000].join(","));
    assert_eq!(post(full).await, StatusCode::OK, "a thousand are fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_preheated() {
    let root = TempDir::new().unwrap();
    let mut node = supernode(root.path(), 0, &["--preheat-rule", "*/**=cache"]);
    node.ready().await;
    let http = client::http();
    let order =
        json!({"type": "preheat", "args": {"type": "image", "url": "https://h.example/v2/a/manifests/1"}});
    for (path, body) in [
        ("/oapi/v1/jobs", order.clone()),
        ("/preheats", order["args"].clone()),
        ("/registry/notifications", json!({"events": []})),
    ] {
        let post = |shown: Option<(&str, &str)>| {
            let post = http.post(node.url(path)).json(&body);
            let post = shown.into_iter().fold(post, |post, (name, value)| post.header(name, value));
            async { post.send().await.unwrap().status() }
        };
        assert_eq!(post(None).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(post(Some(("authorization", "Bearer guess"))).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(post(Some(("x-longshore-token", "guess"))).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(post(Some(("x-longshore-token", TOKEN))).await, StatusCode::OK, "{path}");
        let from_a_page = http.post(node.url(path)).basic_auth("x", Some(TOKEN)).json(&body);
        let from_a_page = from_a_page.header(header::ORIGIN, "http://evil.example").send().await.unwrap();
        assert_eq!(from_a_page.status(), StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/healthy", "/_ping", "/health"] {
        let test = async |request: RequestBuilder| request.send().await.unwrap().status();
        assert_eq!(test(http.get(node.url(path))).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(
            test(http.get(node.url(path)).basic_auth("harbor", Some(TOKEN))).await,
            StatusCode::OK,
            "{path}"
        );
    }
    assert!(node.terminate().await.success());

    // On loopback without a token the port is for those who look.
    let root = TempDir::new().unwrap();
    let words = ["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let mut node = Node::spawn("supernode", words.map(str::to_owned).to_vec(), root.path(), None);
    node.ready().await;
    let refused = http.post(node.url("/oapi/v1/jobs")).json(&order).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.text().await.unwrap().contains("--api-token-file"));
    assert_eq!(http.get(node.url("/oapi/v1/jobs/1")).send().await.unwrap().status(), StatusCode::FORBIDDEN);
}
