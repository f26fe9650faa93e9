//! Many clients ask the same at once: the origin is asked a handful of times for each word that opens it, a tag that moves
//! is seen at once, and a manifest that is here is never fetched again.

use futures_util::future::join_all;
use reqwest::Method;

use super::{ALICE, OPEN, Port, Word, asking};
use crate::support::client::{self, manifest_url};
use crate::support::cluster::{Cluster, World};
use crate::support::image::{Image, TAG};
use crate::support::registry::{Access, Registry};
use crate::support::{eventually, need};

const PEERS: usize = 4;
const CLIENTS_A_PEER: usize = 50;
/// What the origin may be asked for each word, whatever the number of clients.
const HANDFUL: usize = 12;

/// What the registry was asked about manifests. Its log is behind by a moment, so a question of our own is waited for.
async fn asked(registry: &Registry, image: &Image) -> Vec<Access> {
    let mark = format!("/v2/{}/tags/list", image.repository);
    let marks = || registry.accesses().iter().filter(|access| access.path == mark).count();
    let before = marks();
    registry.request(Method::GET, &mark).send().await.unwrap();
    eventually("the registry's log", async || (marks() > before).then_some(())).await;
    let folder = format!("/v2/{}/manifests/", image.repository);
    let about = |access: &Access| access.path.starts_with(&folder) && access.method != "PUT";
    registry.accesses().into_iter().filter(about).collect()
}

/// All clients resolve the tag at once, each with one of the words in turn.
async fn storm(cluster: &Cluster, registry: &str, image: &Image, words: &[Word]) {
    let proxies = cluster.proxies();
    let clients = (0..PEERS * CLIENTS_A_PEER).map(|number| {
        let url = manifest_url(&proxies[number % PEERS], registry, &image.repository, TAG);
        let word = words[(number / PEERS) % words.len()].clone();
        async move { client::fetch(asking(Method::GET, &url, &word)).await }
    });
    for answer in join_all(clients).await {
        answer.is(image.manifest.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_that_resolve_a_tag_cost_the_origin_a_handful() {
    need!("docker-registry");
    let port = Port::open(PEERS, 1250, |world| world).await;
    storm(&port.cluster, OPEN, &port.free, &[None]).await;
    let cost = asked(&port.open, &port.free).await;
    println!("{} clients, nobody's word: {} questions", PEERS * CLIENTS_A_PEER, cost.len());
    assert!(cost.len() <= HANDFUL, "{} questions for one word: {cost:?}", cost.len());

    let words = [
        port.word(Some(ALICE), "team-a/app").await,
        port.word(Some(ALICE), "team-a/app").await,
        port.word(Some(ALICE), "team-a/app").await,
    ];
    storm(&port.cluster, super::QUAY, &port.alices, &words).await;
    let cost = asked(&port.registry, &port.alices).await;
    println!("{} clients, three words: {} questions", PEERS * CLIENTS_A_PEER, cost.len());
    assert!(cost.len() <= HANDFUL * words.len(), "{} questions for three words: {cost:?}", cost.len());
    let copies = port.registry.manifest_copies(&port.alices);
    assert!(copies < 1.005, "the manifest left the registry {copies:.2} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen_at_the_next_pull() {
    need!("docker-registry");
    let registry = Registry::start().await;
    let cluster = Cluster::start(PEERS, World::registry(OPEN, &registry.url())).await;
    for seed in 0..4 {
        let image = Image::single("team/app", 64 << 10, 1300 + seed);
        registry.push(&image).await;
        for proxy in cluster.proxies() {
            for method in [Method::HEAD, Method::GET] {
                let url = manifest_url(&proxy, OPEN, &image.repository, TAG);
                let answer = asking(method.clone(), &url, &None).send().await.unwrap();
                let said = answer.headers()["docker-content-digest"].to_str().unwrap().to_owned();
                assert_eq!(said, image.manifest.digest.to_string(), "{method} after move {seed}");
                let bytes = answer.bytes().await.unwrap();
                assert!(
                    method == Method::HEAD || bytes == image.manifest.bytes,
                    "the bytes after move {seed}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_here_is_asked_for_and_not_fetched() {
    need!("docker-registry");
    let port = Port::open(2, 1350, |world| world).await;
    let words = [port.word(Some(ALICE), "team-a/app").await, port.word(Some(ALICE), "team-a/app").await];
    let digest = port.alices.manifest.digest.to_string();
    for (peer, word) in [(0, &words[0]), (0, &words[1]), (1, &words[0]), (1, &words[1])] {
        let url = manifest_url(port.proxy(peer), super::QUAY, &port.alices.repository, &digest);
        client::fetch(asking(Method::GET, &url, word)).await.is(port.alices.manifest.digest);
    }
    let asked = asked(&port.registry, &port.alices).await;
    let fetched = asked.iter().filter(|access| access.method == "GET" && access.status == 200).count();
    assert_eq!(fetched, 1, "{asked:?}");
}
