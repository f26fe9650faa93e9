//! Ten thousand events of a registry at once: all are answered and counted, what fits is preheated, and the supernode stays small.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::notifications::{asking, counted, got, memory, supernode};
use crate::support::cluster::{Node, gauge};
use crate::support::faulty::Origin;
use crate::support::image::{Image, MANIFEST, TAG};
use crate::support::{eventually, machine};

/// More than may wait at once; every fifth event is no push of one, and each is pushed some time.
const IMAGES: usize = 1_251;
const EVENTS: usize = 10_000;
/// Events of one body.
const BODY: usize = 500;
/// How much a storm may cost: thousands of images are fetched, and a thousand jobs kept.
const MOST: u64 = 112 << 20;
/// How much another one may, of the same images.
const MORE: u64 = 32 << 20;

/// Bytes of a process that are in memory.
fn resident(node: &Node) -> u64 {
    memory(node, "VmRSS")
}

/// The event of a push, or of a blob, as distribution tells it.
fn event(origin: &Origin, image: &Image, number: usize) -> Value {
    let (kind, tag) =
        if number % 5 == 4 { ("application/octet-stream", Value::Null) } else { (MANIFEST, json!(TAG)) };
    let digest = image.manifest.digest.to_string();
    let url = format!("{}/v2/{}/manifests/{digest}", origin.url(), image.repository);
    json!({"id": number.to_string(), "timestamp": "2026-11-22T19:00:00.1Z", "action": "push", "target":
        {"mediaType": kind, "size": 708, "digest": digest, "length": 708, "repository": image.repository, "url": url,
        "tag": tag}, "request": {"addr": "192.168.64.11:42961", "method": "PUT"}, "actor": {}, "source": {}})
}

/// Posts all events; gives how often there was no room.
async fn storm(node: &Node, origin: &Origin, images: &[Image]) -> u64 {
    let mut full = 0;
    let all: Vec<Value> = (0..EVENTS).map(|number| event(origin, &images[number % IMAGES], number)).collect();
    for events in all.chunks(BODY) {
        // What there is no room for comes again, as registries do it.
        loop {
            let post = asking(node, Method::POST, "/registry/notifications");
            let answer = post.json(&json!({"events": events})).send().await.unwrap();
            match answer.status() {
                StatusCode::OK | StatusCode::ACCEPTED => break,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => full += 1,
                other => panic!("{other}: {}", answer.text().await.unwrap()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    full
}

/// Waits until nothing waits any more.
async fn calm(node: &Node) {
    eventually("all pushes begun", async || {
        (counted(node, "begun").await == counted(node, "queued").await).then_some(())
    })
    .await;
    eventually("the end of all jobs", async || {
        let jobs = got(node, "/api/v1/preheats").await;
        jobs.as_array().unwrap().iter().all(|job| job["state"] == "succeeded").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_are_answered_counted_and_cost_little() {
    let _machine = machine().await;
    let (origin, root) = (Origin::start().await, TempDir::new().unwrap());
    let rule = format!("{}/**:{TAG}=cache", origin.address);
    let flags = ["--insecure-registry", origin.address.as_str(), "--preheat-rule", rule.as_str()];
    let mut node = supernode(root.path(), 0, &flags);
    node.ready().await;
    let images: Vec<Image> = (0..IMAGES)
        .map(|number| Image::single(&format!("team/app{number}"), 4096, 100_000 + number as u64))
        .collect();
    images.iter().for_each(|image| origin.add(image));
    let before = resident(&node);
    let full = storm(&node, &origin, &images).await;
    // Nothing is stuck: all that waited is begun, nothing is lost, and every image has come, once.
    calm(&node).await;
    let queued = counted(&node, "queued").await;
    let (known, ignored) = (counted(&node, "known").await, counted(&node, "ignored").await);
    println!("queued {queued}, known {known}, ignored {ignored}, full {full}");
    assert!(queued as usize >= IMAGES && ignored as usize >= EVENTS / 5);
    assert!((queued + known + ignored) as usize >= EVENTS);
    assert_eq!(counted(&node, "full").await, full);
    assert_eq!([counted(&node, "lost").await, counted(&node, "nameless").await], [0, 0]);
    eventually("all images in the cache", async || {
        let path = |image: &Image| format!("/v2/{}/blobs/{}", image.repository, image.layer().digest);
        images.iter().all(|image| origin.answers(&path(image)) > 0).then_some(())
    })
    .await;
    assert!(images.iter().all(|image| origin.copies(image, image.layer().digest) < 1.001));
    // The next one finds all of it there: what the first has cost is what there is to cost.
    let once = resident(&node);
    storm(&node, &origin, &images).await;
    calm(&node).await;
    let twice = resident(&node);
    let active = gauge(&node.metrics().await, "longshore_downloads_active");
    println!(
        "{} MiB before, {} after a storm, {} after another; {active} sessions",
        before >> 20,
        once >> 20,
        twice >> 20
    );
    assert!(active < 300, "{active} sessions for what is there: thousands were looked for");
    assert!(once.saturating_sub(before) < MOST, "it grew by {} bytes", once - before);
    assert!(twice.saturating_sub(once) < MORE, "and by {} bytes more", twice - once);
    assert!(images.iter().all(|image| origin.copies(image, image.layer().digest) < 1.001));
}
