//! Harbor's part, played with its own bodies before real daemons: a private registry, whose token comes with the order.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::MIB;
use super::notifications::{asking, got, holds, supernode};
use crate::support::cluster::Node;
use crate::support::image::{Image, TAG};
use crate::support::registry::{Door, Registry};
use crate::support::tokens::TokenServer;
use crate::support::{eventually, need};

/// Orders as Harbor does, and asks until it is over.
async fn ordered(
    node: &Node,
    (create, show): (&str, &str),
    order: &Value,
    ended: fn(&Value) -> bool,
) -> Value {
    let answer = asking(node, Method::POST, create).json(order).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let begun: Value = answer.json().await.unwrap();
    let id = begun["id"]
        .as_u64()
        .map(|id| id.to_string())
        .unwrap_or_else(|| begun["ID"].as_str().unwrap().to_owned());
    eventually("the end of a job", async || {
        let job = got(node, &format!("{show}/{id}")).await;
        ended(&job).then_some(job)
    })
    .await
}

/// Whether a text is anywhere below a folder.
fn mentions(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => mentions(&path, text),
            false => std::fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_harbor_orders_is_brought_with_the_token_that_it_sends() {
    need!("docker-registry");
    let tokens = Arc::new(TokenServer::start(&[]).await);
    let registry = Registry::with(Door::Token(tokens.clone()), None).await;
    let root = TempDir::new().unwrap();
    let mut node = supernode(root.path(), 0, &["--insecure-registry", &registry.address]);
    node.ready().await;

    let (first, second) =
        (Image::single("library/one", 2 * MIB, 9400), Image::single("library/two", MIB, 9500));
    for image in [&first, &second] {
        registry.push(image).await;
    }
    let url = |image: &Image| format!("{}/v2/{}/manifests/{TAG}", registry.url(), image.repository);
    let bearer = |image: &Image| format!("Bearer {}", tokens.master(&image.repository));
    let (new, old) = (("/oapi/v1/jobs", "/oapi/v1/jobs"), ("/preheats", "/preheats"));

    let order = |image: &Image, authorization: &str| {
        json!({"type": "preheat", "args": {"type": "image", "url": url(image), "tag": "", "filtered_query_params": "",
            "headers": {"Authorization": authorization}, "scope": "", "concurrent_count": 0, "timeout": 0},
            "scheduler_cluster_ids": null})
    };
    let over = |job: &Value| job["state"] != "PENDING";
    let failed = ordered(&node, new, &order(&first, "Bearer of.no.value"), over).await;
    assert_eq!(failed["state"], "FAILURE", "{failed:#}");
    assert!(!failed["result"]["job_states"][0]["error"].as_str().unwrap().is_empty(), "{failed:#}");
    let token = bearer(&first);
    let done = ordered(&node, new, &order(&first, &token), over).await;
    assert_eq!(done["state"], "SUCCESS", "{done:#}");
    let tasks = &done["result"]["job_states"][0]["results"][0];
    assert_eq!(tasks["success_tasks"][0]["url"], url(&first), "{tasks:#}");
    assert_eq!(tasks["failure_tasks"], json!([]));

    let order = json!({"type": "image", "url": url(&second), "headers": {"Authorization": bearer(&second)},
        "image": second.repository, "tag": TAG, "digest": second.manifest.digest.to_string()});
    let over = |job: &Value| !["WAITING", "RUNNING"].contains(&job["Status"].as_str().unwrap());
    let done = ordered(&node, old, &order, over).await;
    assert_eq!((&done["Status"], &done["errorMsg"]), (&json!("SUCCESS"), &json!("")), "{done:#}");
    assert!(done["finishTime"].is_string(), "{done:#}");

    for image in [&first, &second] {
        holds(&node, &registry, image).await;
    }
    let secret = token.split('.').next_back().unwrap();
    assert!(!node.said().contains(secret) && !mentions(root.path(), secret), "the token stays");
}
