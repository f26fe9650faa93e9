//! A mirror over a real engine, asked over HTTP as a runtime asks it, with a registry in this process behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::digest::Digest;
use common::telemetry::Metrics;
use http::Method;
use peer::coordinator::Nobody;
use peer::engine::{Engine, EngineOptions};
use peer::exchange::reveal::Style;
use peer::limit::Rates;
use peer::origin::{OriginClient, OriginOptions};
use peer::store::{Limits, Store, StoreOptions};
use proxy::{Proxy, ProxyOptions};
use tokio_util::sync::CancellationToken;

use crate::fake::{Manners, Origin};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A mirror of one registry, and what a client needs to ask it.
pub(crate) struct Lab {
    pub(crate) origin: Origin,
    /// The registry `other.test`.
    pub(crate) other: Origin,
    pub(crate) engine: Engine,
    pub(crate) mirror: String,
    pub(crate) client: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with_quota(None).await
    }

    pub(crate) async fn with_quota(quota: Option<u64>) -> Self {
        Self::with(quota, ProxyOptions::default()).await
    }

    pub(crate) async fn with(quota: Option<u64>, options: ProxyOptions) -> Self {
        let origin = Origin::start().await;
        let dir = tempfile::tempdir().unwrap();
        let other = Origin::start().await;
        let engine = engine(dir.path(), [&origin.url, &other.url], quota);
        let options = ProxyOptions { intercept_dir: dir.path().join("intercept"), ..options };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mirror = format!("http://{}", listener.local_addr().unwrap());
        let app = Proxy::new(engine.clone(), options).unwrap().router();
        tokio::spawn(peer::http::serve(listener, app, CancellationToken::new()));
        Self { origin, other, engine, mirror, client: reqwest::Client::new(), dir }
    }

    /// The CA of opened connections, PEM.
    pub(crate) fn ca(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("intercept/ca.pem")).unwrap()
    }

    /// A blob at the origin, of `length` bytes that differ from other blobs'.
    pub(crate) fn blob(&self, name: &str, length: usize, manners: Manners) -> (String, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + at / 251 + name.len()) as u8).collect();
        let path = format!("/v2/{name}/blobs/{}", Digest::of(&bytes));
        self.origin.put(&path, bytes.clone(), manners);
        (path, bytes)
    }

    /// A manifest at the origin under a tag and its digest.
    pub(crate) fn manifest(&self, tag: &str, says_digest: bool) -> (String, String, Vec<u8>) {
        let bytes = format!("{{\"schemaVersion\":2,\"tag\":{tag:?}}}").into_bytes();
        let digest = Digest::of(&bytes).to_string();
        let mut headers = vec![("content-type", MANIFEST_TYPE.to_owned())];
        if says_digest {
            headers.push(("docker-content-digest", digest.clone()));
        }
        let manners = Manners { headers, ..Manners::default() };
        let (by_tag, by_digest) =
            (format!("/v2/library/x/manifests/{tag}"), format!("/v2/library/x/manifests/{digest}"));
        for path in [&by_tag, &by_digest] {
            self.origin.put(path, bytes.clone(), manners.clone());
        }
        (by_tag, by_digest, bytes)
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Response {
        let mut request = self.client.request(method, format!("{}{path}", self.mirror));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        self.ask(Method::GET, path, headers).await
    }

    pub(crate) fn gets(&self, path: &str) -> usize {
        self.origin.asked(Method::GET, path).len()
    }
}

/// An engine of its own, without a swarm, that may keep so many bytes.
fn engine(dir: &Path, [registry, other]: [&str; 2], quota: Option<u64>) -> Engine {
    // Whichever test comes first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registries = BTreeMap::from([
        ("docker.io".to_owned(), registry.to_owned()),
        ("quay.test".to_owned(), registry.to_owned()),
        ("other.test".to_owned(), other.to_owned()),
        ("gone.example".to_owned(), "http://127.0.0.1:9".to_owned()),
    ]);
    let origin =
        OriginClient::new(OriginOptions { registries, ..OriginOptions::default() }).unwrap().with_mark("lab");
    Engine::start(EngineOptions {
        store: Store::open(
            dir,
            StoreOptions { limits: quota.map(Limits::quota).unwrap_or_default(), durable: false },
        )
        .unwrap(),
        transport: None,
        coordinator: Arc::new(Nobody),
        origin,
        vault: None,
        metrics: Metrics::new(),
        style: Style::Peer,
        sessions: None,
        errands: None,
        rates: Rates::default(),
    })
}

pub(crate) fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub(crate) async fn error_code(response: reqwest::Response) -> String {
    assert_eq!(header(&response, "content-type"), "application/json");
    let json: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    json["errors"][0]["code"].as_str().unwrap().to_owned()
}
