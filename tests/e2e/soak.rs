//! Hundreds of pulls by clients that behave as runtimes do and hang up as people do. No pull that is seen through may fail
//! or bring a wrong byte, and afterwards the daemons hold no more descriptors and hardly more memory than before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::digest::{Digest, Hasher};
use futures_util::StreamExt as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Method, StatusCode, header};
use tokio::task::JoinSet;

use crate::support::client::{self, blob_url, manifest_url};
use crate::support::cluster::{Cluster, Node, World};
use crate::support::image::{Image, MANIFEST, TAG};
use crate::support::registry::Registry;
use crate::support::{eventually, machine, need};

const IMAGES: u64 = 20;
const CLIENTS: usize = 8;
/// Pulls before the first look, between the looks, and before the last: five hundred in all.
const STAGES: [usize; 3] = [100, 300, 100];
/// Layers that a runtime pulls at a time.
const AT_ONCE: usize = 3;
/// One request in so many is hung up on.
const HANG_UP: u32 = 8;
/// Less than the images take, so that what was here has to come again.
const QUOTA: &str = "40MiB";
/// Descriptors that may be open more than before: connections to the registry and between the nodes that idle.
const SLACK: usize = 6;
/// What memory may have grown by beside a half: allocators keep what was freed.
const ROOM: u64 = 48 << 20;
/// Replays a run that failed.
const SEED: &str = "LONGSHORE_SOAK_SEED";

/// What all clients share.
struct Soak {
    images: Vec<Image>,
    proxies: Vec<String>,
    /// Pulls of the stage that have not begun.
    left: AtomicUsize,
    finished: AtomicUsize,
    hung_up: AtomicUsize,
}

/// Whether a client saw its request through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Endless,
    /// It hangs up after so many bytes of the body.
    Bytes(u64),
    /// It hangs up before it has an answer.
    Moment(Duration),
}

// === impl Soak ===

impl Soak {
    /// Pulls until the stage has no more.
    async fn client(self: Arc<Self>, number: usize, mut random: SmallRng) {
        let http = client::http();
        let proxy = &self.proxies[number % self.proxies.len()];
        while self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let image = &self.images[random.random_range(0..self.images.len())];
            let whole = self.pull(&http, proxy, image, &mut random).await;
            if whole { &self.finished } else { &self.hung_up }.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// One pull; whether the client saw it through.
    async fn pull(&self, http: &reqwest::Client, proxy: &str, image: &Image, random: &mut SmallRng) -> bool {
        let url = manifest_url(proxy, "quay.test", &image.repository, TAG);
        let head =
            http.head(&url).header(header::ACCEPT, MANIFEST).send().await.expect("an answer to a HEAD");
        assert_eq!(head.status(), StatusCode::OK, "HEAD {url}");
        let digest = head.headers()["docker-content-digest"].to_str().unwrap();
        assert_eq!(digest, image.manifest.digest.to_string(), "HEAD {url}");
        let manifest = manifest_url(proxy, "quay.test", &image.repository, digest);
        let config = blob_url(proxy, "quay.test", &image.repository, image.config.digest);
        for (url, digest) in [(manifest, image.manifest.digest), (config, image.config.digest)] {
            if !get(http, &url, digest, patience(random, 0)).await {
                return false;
            }
        }
        let layers = image.layers.iter().map(|layer| {
            let url = blob_url(proxy, "quay.test", &image.repository, layer.digest);
            let patience = patience(random, layer.size());
            async move { get(http, &url, layer.digest, patience).await }
        });
        let layers: Vec<_> = layers.collect();
        futures_util::stream::iter(layers).buffer_unordered(AT_ONCE).all(async |whole| whole).await
    }
}

/// How long a client waits for content of this length.
fn patience(random: &mut SmallRng, length: u64) -> Patience {
    match random.random_range(0..HANG_UP * 2) {
        0 => Patience::Bytes(random.random_range(0..=length)),
        1 => Patience::Moment(Duration::from_millis(random.random_range(0..20))),
        _ => Patience::Endless,
    }
}

/// Whether the request was seen through; then its answer was right.
async fn get(http: &reqwest::Client, url: &str, digest: Digest, patience: Patience) -> bool {
    let request = http.request(Method::GET, url).header(header::ACCEPT, MANIFEST).send();
    let answer = match patience {
        Patience::Moment(moment) => match tokio::time::timeout(moment, request).await {
            Ok(answer) => answer,
            Err(_) => return false,
        },
        _ => request.await,
    };
    let mut answer = answer.unwrap_or_else(|error| panic!("GET {url}: {error:?}"));
    assert_eq!(answer.status(), StatusCode::OK, "GET {url}");
    let (mut hasher, mut length) = (Hasher::new(), 0);
    while let Some(bytes) = answer.chunk().await.unwrap_or_else(|error| panic!("GET {url}: {error:?}")) {
        hasher.update(&bytes);
        length += bytes.len() as u64;
        if matches!(patience, Patience::Bytes(most) if length >= most) {
            return false;
        }
    }
    assert_eq!(hasher.finish(), digest, "GET {url}");
    true
}

/// How many descriptors a daemon has open.
fn descriptors(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count()
}

/// Bytes of memory that a daemon has in use.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line about memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn images(random: &mut SmallRng) -> Vec<Image> {
    let image = |number| {
        // multiples of tar's 512 bytes
        let sizes = [(); 3].map(|()| random.random_range(128..=4096) * 512);
        Image::of_sizes(&format!("team/app{number}"), &sizes, 5000 + number * 10)
    };
    (0..IMAGES).map(image).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_pulls_with_hang_ups_leave_nothing_behind() {
    need!("docker-registry");
    let _machine = machine().await;
    let seed =
        std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("this soak again: {SEED}={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let registry = Registry::start().await;
    let images = images(&mut random);
    for image in &images {
        registry.push(image).await;
    }
    let mut cluster = Cluster::start(1, World::registry("quay.test", &registry.url())).await;
    let mut small = cluster.spawn_peer("small", &["--quota", QUOTA], None);
    small.ready().await;
    cluster.peers.push(small);
    let proxies = cluster.proxies();
    let nodes: Vec<&Node> = cluster.peers.iter().chain([&cluster.supernode]).collect();

    // what is opened once and stays open is open before the first look
    for proxy in &proxies {
        client::pull(proxy.clone(), "quay.test".to_owned(), images[0].clone()).await;
    }
    let before: Vec<usize> = nodes.iter().map(|node| descriptors(node)).collect();
    let (left, finished, hung_up) = Default::default();
    let soak = Arc::new(Soak { images, proxies, left, finished, hung_up });
    let mut looks = Vec::new();
    for stage in STAGES {
        soak.left.store(stage, Ordering::SeqCst);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(soak.clone().client(number, SmallRng::seed_from_u64(random.random())));
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        looks.push(nodes.iter().map(|node| memory(node)).collect::<Vec<_>>());
    }
    let (finished, hung_up) = (soak.finished.load(Ordering::SeqCst), soak.hung_up.load(Ordering::SeqCst));
    println!("{finished} pulls seen through, {hung_up} hung up on");
    println!("descriptors before {before:?}; memory after each stage {looks:?}");
    assert!(finished > 100 && hung_up > 50, "a soak of both kinds");

    for (number, node) in nodes.iter().enumerate() {
        let (most, first, last) = (before[number] + SLACK, looks[0][number], looks[2][number]);
        assert!(last <= first + first / 2 + ROOM, "memory of node {number} grew: {looks:?}");
        eventually(&format!("at most {most} descriptors of node {number}"), async || {
            (descriptors(node) <= most).then_some(())
        })
        .await;
    }
}
