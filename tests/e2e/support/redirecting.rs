//! A registry that keeps its blobs elsewhere, as the big ones do: a GET of a blob that the registry grants is answered
//! by 307 to a store on another host, with a signature in the query. The store refuses whoever brings an `Authorization` as well, as
//! object stores do, and whoever brings no signature.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use common::digest::Digest;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::client;
use super::faulty::range_of;
use super::registry::{Access, Registry};

/// What stands for a signature: the store knows it, and so does whoever was redirected.
const SIGNATURE: &str = "X-Signature=5d41402abc4b2a76b9719d911017c592";

/// The registry's front and the store; they end when this is dropped.
pub(crate) struct Redirecting {
    /// `127.0.0.1:PORT` of the front.
    pub(crate) address: String,
    /// `127.0.0.2:PORT` of the store: another host, not just another port.
    pub(crate) store: String,
    shared: Arc<Shared>,
    _servers: [AbortOnDropHandle<()>; 2],
}

struct Shared {
    registry: Arc<Registry>,
    store: String,
    /// The blobs that left the store.
    log: Mutex<Vec<Access>>,
    /// Requests that the store refused.
    refused: Mutex<usize>,
}

// === impl Redirecting ===

impl Redirecting {
    /// Puts a front before `registry`.
    pub(crate) async fn before(registry: Arc<Registry>) -> Self {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let [address, store_address] =
            [&front, &store].map(|listener| listener.local_addr().unwrap().to_string());
        let shared = Arc::new(Shared {
            registry,
            store: store_address.clone(),
            log: Mutex::default(),
            refused: Mutex::default(),
        });
        let fronts = Router::new().fallback(pass_or_redirect).with_state(shared.clone());
        let stores = Router::new().route("/store/{digest}", routing::get(stored)).with_state(shared.clone());
        let serve = |listener, app| {
            AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
        };
        let servers = [serve(front, fronts), serve(store, stores)];
        Self { address, store: store_address, shared, _servers: servers }
    }

    /// Where the front listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that left the store, and all that left the registry behind the front.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        let mut all = self.shared.registry.accesses();
        all.extend(self.shared.log.lock().unwrap().iter().cloned());
        all
    }

    /// How many requests the store refused.
    pub(crate) fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }
}

async fn pass_or_redirect(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method == Method::GET
        && let Some((_, digest)) = uri.path().split_once("/blobs/")
        && shared.pass(Method::HEAD, &uri, &headers).await.status().is_success()
    {
        let there = format!("http://{}/store/{digest}?X-Expires=300&{SIGNATURE}", shared.store);
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, there)]).into_response();
    }
    let answer = shared.pass(method, &uri, &headers).await;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}

// === impl Shared ===

impl Shared {
    /// Asks the registry behind the front what a client asks.
    async fn pass(&self, method: Method, uri: &Uri, headers: &HeaderMap) -> reqwest::Response {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = client::http().request(method, format!("{}{path}", self.registry.url()));
        for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
            request = request.header(name, value);
        }
        request.send().await.expect("the registry behind the front answers")
    }
}

async fn stored(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let refuse = |status, why: &'static str| {
        *shared.refused.lock().unwrap() += 1;
        (status, why).into_response()
    };
    if headers.contains_key(header::AUTHORIZATION) {
        return refuse(StatusCode::BAD_REQUEST, "only one way to prove who you are may be used");
    }
    if !uri.query().is_some_and(|query| query.split('&').any(|pair| pair == SIGNATURE)) {
        return refuse(StatusCode::FORBIDDEN, "no signature");
    }
    let blob = uri.path().rsplit('/').next().and_then(|text| text.parse::<Digest>().ok());
    let Some(bytes) = blob.and_then(|digest| std::fs::read(shared.registry.data_of(digest)).ok()) else {
        return refuse(StatusCode::NOT_FOUND, "no such blob");
    };
    let (size, bytes) = (bytes.len(), Bytes::from(bytes));
    let range = headers.get(header::RANGE).map(|range| range_of(range.to_str().unwrap_or_default(), size));
    let (status, (start, end)) = match range {
        None => (StatusCode::OK, (0, size)),
        Some(Some(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(None) => return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "no such part"),
    };
    let path = format!("/blobs/{}", blob.expect("it was found"));
    let access =
        Access { method: "GET".to_owned(), path, status: status.as_u16(), bytes: (end - start) as u64 };
    shared.log.lock().unwrap().push(access);
    let mut answer = Response::builder().status(status).header(header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
    }
    answer.body(Body::from(bytes.slice(start..end))).expect("a valid answer")
}

impl Registry {
    /// The file in which the registry keeps a blob.
    fn data_of(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.store().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(&hex).join("data")
    }
}
