//! A Kubernetes API server as far as token reviews go, over TLS. A stand-in, since no Kubernetes can be had as a Debian
//! package: its questions and answers are those of a real one (`TokenReview` of `authentication.k8s.io/v1`), and so are the
//! words for tokens that are expired, for others or unknown. It issues tokens, too, of a real one's form and length.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::identity::Identity;
use serde_json::{Value, json};
use supernode::api::tls::{Certificate, TlsListener};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::tls::Ca;

/// What a Kubernetes cluster calls itself to its own pods.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// The server; it ends when it is dropped.
pub(crate) struct KubernetesApi {
    address: String,
    shared: Arc<Shared>,
    ca: Ca,
    home: TempDir,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

#[derive(Default)]
struct Shared {
    tokens: Mutex<HashMap<String, Issued>>,
    /// The bearer token of who may review.
    reviewer: Mutex<String>,
    /// Every token that was to be reviewed, in order.
    reviewed: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Issued {
    account: String,
    audience: String,
    expires: u64,
}

// === impl KubernetesApi ===

impl KubernetesApi {
    pub(crate) async fn start() -> Self {
        let home = TempDir::new().unwrap();
        let mut api = Self {
            address: "127.0.0.1:0".into(),
            shared: Arc::default(),
            ca: Ca::new(),
            home,
            running: None,
        };
        api.renew_reviewer();
        std::fs::write(api.reviewer_file(), api.shared.reviewer.lock().unwrap().as_bytes()).unwrap();
        api.begin().await;
        api
    }

    /// Begins, on the same port as before.
    pub(crate) async fn begin(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let leaf = self.ca.sign(&["127.0.0.1"], self.home.path());
        let certificate = Certificate::Files { chain: leaf.certificate, key: leaf.key };
        let listener = TlsListener::new(listener, certificate, &Identity::ephemeral().unwrap()).unwrap();
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let router = Router::new().route(path, routing::post(review)).with_state(self.shared.clone());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(peer::http::serve(listener, router, stop.clone()));
        self.running = Some((stop, serving));
    }

    /// Ends, as an outage does.
    pub(crate) async fn end(&mut self) {
        let (stop, serving) = self.running.take().expect("it runs");
        stop.cancel();
        serving.await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.ca.file()
    }

    /// The file with the token of who may review.
    pub(crate) fn reviewer_file(&self) -> PathBuf {
        self.home.path().join("reviewer")
    }

    /// From now on another token may review; gives it, and leaves the file as it is.
    pub(crate) fn renew_reviewer(&self) -> String {
        let claims = json!({"sub": "system:serviceaccount:longshore:supernode", "aud": [API_AUDIENCE]});
        let token = token(&claims);
        self.shared.reviewer.lock().unwrap().clone_from(&token);
        token
    }

    /// A token of `account` (`NAMESPACE:NAME`) for `audience` that is good for so many seconds.
    pub(crate) fn issue(&self, account: &str, audience: &str, seconds: i64) -> String {
        let expires = now().saturating_add_signed(seconds);
        let (namespace, name) = account.split_once(':').unwrap();
        let token = token(&json!({
            "aud": [audience], "exp": expires, "iat": expires - 3600, "nbf": expires - 3600, "iss": API_AUDIENCE,
            "jti": "7ee52be0-9045-4653-aa5e-0da57b8dccdc", "sub": format!("system:serviceaccount:{account}"),
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-7", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
                "pod": {"name": "longshore-peer-x7x2k", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
                "serviceaccount": {"name": name, "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
            },
        }));
        let issued = Issued { account: account.into(), audience: audience.into(), expires };
        self.shared.tokens.lock().unwrap().insert(token.clone(), issued);
        token
    }

    /// A token that nobody issued.
    pub(crate) fn forge(&self) -> String {
        token(&json!({"sub": "system:serviceaccount:longshore:peer", "aud": ["longshore"]}))
    }

    /// Writes a token into a file, as the kubelet does for a pod.
    pub(crate) fn project(&self, name: &str, token: &str) -> PathBuf {
        let file = self.home.path().join(name);
        std::fs::write(&file, token).unwrap();
        file
    }

    /// Every token that it was asked about.
    pub(crate) fn reviewed(&self) -> Vec<String> {
        self.shared.reviewed.lock().unwrap().clone()
    }
}

impl Drop for KubernetesApi {
    fn drop(&mut self) {
        if let Some((_, serving)) = &self.running {
            serving.abort();
        }
    }
}

/// A JSON Web Token with a signature of RSA-2048's length, which only the issuer's own table vouches for.
fn token(claims: &Value) -> String {
    let signature: Vec<u8> = (0..256).map(|_| rand::random()).collect();
    let header = json!({"alg": "RS256", "kid": "J1WxdcpF2yvV3KYwHd6bBdPZyXkNVnLgTmQ3oIyeHfE"});
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{}", part(&header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

async fn review(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(asked): Json<Value>) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown != Some(&format!("Bearer {}", shared.reviewer.lock().unwrap())) {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized"});
        return (StatusCode::UNAUTHORIZED, Json(status)).into_response();
    }
    let (kind, version) = (&asked["kind"], &asked["apiVersion"]);
    assert!(kind == "TokenReview" && version == "authentication.k8s.io/v1", "{asked}");
    let token = asked["spec"]["token"].as_str().expect("a token").to_owned();
    let audiences = asked["spec"]["audiences"].as_array().expect("audiences").clone();
    let issued = shared.tokens.lock().unwrap().get(&token).cloned();
    shared.reviewed.lock().unwrap().push(token);
    let status = match issued {
        None => json!({"user": {}, "error": "invalid bearer token"}),
        Some(issued) if issued.expires <= now() => {
            json!({"user": {}, "error": "[invalid bearer token, service account token has expired]"})
        }
        Some(issued) if !audiences.contains(&json!(issued.audience)) => {
            let (got, wanted) = (issued.audience, audiences);
            let error = format!("token audiences [{got:?}] is invalid for the target audiences {wanted:?}");
            json!({"user": {}, "error": format!("[invalid bearer token, {error}]")})
        }
        Some(issued) => json!({
            "authenticated": true,
            "user": {
                "username": format!("system:serviceaccount:{}", issued.account),
                "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "audiences": [issued.audience],
        }),
    };
    let answer = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {"creationTimestamp": null},
        "spec": asked["spec"], "status": status,
    });
    (StatusCode::CREATED, Json(answer)).into_response()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
