//! Tokens that run out while a job works.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::{REGISTRY, begin, job_that_is};
use crate::support::cluster::{Cluster, World};
use crate::support::image::{Image, TAG};

const LOGIN: &str = "Authorization: Basic eDp5";

/// A registry and its token service; each token is good until a layer is asked for with it.
struct Shop {
    address: String,
    image: Image,
    state: Mutex<Till>,
}

#[derive(Default)]
struct Till {
    issued: usize,
    /// The token that is good, by its number; 0 is none.
    good: usize,
    /// Tokens that are issued at all.
    most: usize,
    /// Tokens that have run out at a layer.
    expired: usize,
}

async fn shop(image: &Image, most: usize) -> (Arc<Shop>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = Mutex::new(Till { most, ..Till::default() });
    let shop = Arc::new(Shop { address, image: image.clone(), state });
    let app = axum::Router::new().fallback(answer).with_state(shop.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("the registry serves") });
    (shop, AbortOnDropHandle::new(server))
}

async fn answer(State(shop): State<Arc<Shop>>, uri: Uri, headers: HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut till = shop.state.lock().unwrap();
    if uri.path() == "/token" {
        if shown != LOGIN.trim_start_matches("Authorization: ") || till.issued == till.most {
            return (StatusCode::FORBIDDEN, "no more tokens for you").into_response();
        }
        till.issued += 1;
        till.good = till.issued;
        return axum::Json(json!({"token": format!("t{}", till.issued)})).into_response();
    }
    let mut good = till.good > 0 && shown == format!("Bearer t{}", till.good);
    let layer = shop.image.layer().digest.to_string();
    if good && uri.path().ends_with(&layer) && till.expired == 0 {
        (till.good, till.expired, good) = (0, 1, false);
    }
    if !good {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"shop\"", shop.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], "{}").into_response();
    }
    drop(till);
    let image = &shop.image;
    let wanted = uri.path().rsplit('/').next().unwrap_or_default();
    let all = image.blobs().chain([&image.manifest]);
    let found = match wanted {
        TAG => Some(&image.manifest),
        _ => all.into_iter().find(|blob| blob.digest.to_string() == wanted),
    };
    let Some(blob) = found else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        (header::CONTENT_TYPE, blob.media_type.to_owned()),
        (header::HeaderName::from_static("docker-content-digest"), blob.digest.to_string()),
    ];
    (headers, blob.bytes.clone()).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_runs_out_is_had_anew_and_where_there_is_none_the_job_says_so() {
    let image = Image::single("team/app", 2 << 20, 9900);
    for (most, state) in [(usize::MAX, "succeeded"), (1, "failed")] {
        let (shop, _server) = shop(&image, most).await;
        let cluster = Cluster::start(1, World::registry(REGISTRY, &format!("http://{}", shop.address))).await;
        let name = format!("{REGISTRY}/{}:{TAG}", image.repository);
        let id = begin(&cluster, &[&name, "--to", "cache", "-H", LOGIN, "--retries", "1"]).await;
        let job = job_that_is(&cluster, id, state).await;
        assert_eq!(job["nodes"][0]["attempts"], 2, "{job:#}");
        let till = shop.state.lock().unwrap();
        assert_eq!((till.issued, till.expired), (if state == "succeeded" { 2 } else { 1 }, 1));
        if state == "failed" {
            let why = job["message"].as_str().unwrap();
            assert!(why.contains("401"), "{job:#}");
        }
        drop(till);
        let said = cluster.supernode.said() + &cluster.peers[0].said();
        assert!(!said.contains("eDp5") && !said.contains("Bearer t1"), "a token is shown");
    }
}
