//! The measuring tools themselves, without Longshore: what they count and what they break must be right, or every
//! other test here proves nothing.

use reqwest::{Method, StatusCode, header};
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::{Image, TAG, noise};
use crate::support::registry::{Registry, User};
use crate::support::{eventually, machine, need};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn support_counts_every_copy_that_leaves_the_registry() {
    need!("docker-registry");
    let _machine = machine().await;
    let registry = Registry::start().await;
    let image = Image::single("team/big", 64 * MIB, 1);
    registry.push(&image).await;
    assert!(registry.copies(image.layer()) < 0.001, "a push is no copy");
    let mut pulls = JoinSet::new();
    for _ in 0..3 {
        pulls.spawn(client::pull(registry.address.clone(), "any".to_owned(), image.clone()));
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
    eventually("three copies of everything in the access log", async || {
        let blobs = image.blobs().map(|blob| registry.copies(blob));
        let all: Vec<f64> = blobs.chain([registry.manifest_copies(&image)]).collect();
        all.iter().all(|copies| (2.995..3.005).contains(copies)).then_some(())
    })
    .await;
    let path = format!("/v2/{}/blobs/{}", image.repository, image.layer().digest);
    let half =
        registry.request(Method::GET, &path).header(header::RANGE, format!("bytes=0-{}", 32 * MIB - 1));
    assert_eq!(client::fetch(half).await.length, 32 * MIB as u64);
    eventually("half a copy more", async || {
        (3.495..3.505).contains(&registry.copies(image.layer())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_keeps_a_private_registry_private() {
    need!("docker-registry", "htpasswd");
    let registry = Registry::private(User { name: "owner", password: "owner's" }).await;
    let image = Image::single("team/private", MIB, 2);
    registry.push(&image).await;
    let path = format!("/v2/{}/manifests/{TAG}", image.repository);
    let stranger = client::get(&format!("{}{path}", registry.url())).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    let owner = registry.request(Method::GET, &path).header(header::ACCEPT, image.manifest.media_type);
    client::fetch(owner).await.is(image.manifest.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn support_holds_cuts_flips_and_refuses_as_told() {
    let origin = Origin::start().await;
    let image = Image::single("team/app", 4 * MIB, 3);
    let layer = image.layer().clone();
    origin.add(&image);
    client::pull(origin.address.clone(), "any".to_owned(), image.clone()).await;
    let path = format!("/v2/{}/blobs/{}", image.repository, layer.digest);
    let url = format!("{}{path}", origin.url());

    origin.fault(&path, Fault::Truncate(MIB as u64), 1);
    let cut = client::get(&url).await;
    assert!(!cut.finished && cut.length <= MIB as u64, "{cut:?}");
    client::get(&url).await.is(layer.digest);

    origin.fault(&path, Fault::Flip(2 * MIB as u64), 1);
    let wrong = client::get(&url).await;
    assert!(wrong.looks_finished() && wrong.length == layer.size() && wrong.digest != layer.digest);

    origin.fault(&path, Fault::Status(503), 1);
    assert_eq!(client::get(&url).await.status, StatusCode::SERVICE_UNAVAILABLE);

    let before = origin.left();
    origin.hold_at(before + MIB as u64);
    let pull = tokio::spawn(async move { client::get(&url).await });
    eventually("the origin standing still", async || (origin.left() == before + MIB as u64).then_some(()))
        .await;
    assert!(!pull.is_finished());
    origin.release();
    pull.await.unwrap().is(layer.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn support_serves_ranges_unless_told_otherwise() {
    let origin = Origin::start().await;
    let content = noise(3 * MIB, 4);
    let url = origin.add_file("file", content.clone());
    let ask = |range: &str| client::http().get(&url).header(header::RANGE, range.to_owned()).send();
    let answer = ask("bytes=1000-1999").await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.headers()[header::CONTENT_RANGE], format!("bytes 1000-1999/{}", content.len()));
    assert!(answer.bytes().await.unwrap() == content[1000..2000]);
    let tail = ask("bytes=-10").await.unwrap();
    assert!(tail.bytes().await.unwrap() == content[content.len() - 10..]);
    assert_eq!(ask("bytes=9999999-").await.unwrap().status(), StatusCode::RANGE_NOT_SATISFIABLE);
    origin.ranges(false);
    assert_eq!(ask("bytes=1000-1999").await.unwrap().status(), StatusCode::OK);
}
