//! A private repository stays private: a cache hit is no permission, and no secret is ever written down.

use common::digest::Digest;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use tempfile::TempDir;

use crate::support::client::{self, blob_url, manifest_url};
use crate::support::cluster::{Cluster, World, longshore};
use crate::support::image::{Image, MANIFEST, TAG};
use crate::support::process::{output, succeed};
use crate::support::registry::{Registry, User};
use crate::support::runtimes::skopeo;
use crate::support::{files_below, need};

const OWNER: User = User { name: "harbourmaster", password: "Gr3en-Light!Buoy" };
/// What `Authorization: Basic` says of the owner.
const OWNER_BASIC: &str = "aGFyYm91cm1hc3RlcjpHcjNlbi1MaWdodCFCdW95";

struct Quay {
    registry: Registry,
    image: Image,
    cluster: Cluster,
}

async fn quay(seed: u64) -> Quay {
    let registry = Registry::private(OWNER).await;
    let image = Image::single("secret/plans", 3 << 20, seed);
    registry.push(&image).await;
    let cluster = Cluster::start(2, World::registry("quay.test", &registry.url())).await;
    Quay { registry, image, cluster }
}

// === impl Quay ===

impl Quay {
    fn urls(&self, peer: usize) -> [(String, Digest); 4] {
        let proxy = &self.cluster.peers[peer].at.proxy;
        let (repository, manifest) = (&self.image.repository, self.image.manifest.digest);
        let blob = |digest| (blob_url(proxy, "quay.test", repository, digest), digest);
        [
            (manifest_url(proxy, "quay.test", repository, TAG), manifest),
            (manifest_url(proxy, "quay.test", repository, &manifest.to_string()), manifest),
            blob(self.image.config.digest),
            blob(self.image.layer().digest),
        ]
    }

    async fn owner_pulls(&self, peer: usize) {
        for (url, digest) in self.urls(peer) {
            client::fetch(asking(Method::GET, &url).basic_auth(OWNER.name, Some(OWNER.password)))
                .await
                .is(digest);
        }
    }

    /// Every way in is answered as the registry itself answers a stranger.
    async fn turns_away(&self, peer: usize, who: &str, stranger: impl Fn(RequestBuilder) -> RequestBuilder) {
        for (url, _) in self.urls(peer) {
            for method in [Method::GET, Method::HEAD] {
                let answer = stranger(asking(method.clone(), &url)).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{who}: {method} {url}");
                let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
                let challenge = challenge.unwrap_or_else(|| panic!("no challenge: {who}: {method} {url}"));
                assert_eq!(challenge, "Basic realm=\"e2e\"", "{who}: {method} {url}");
            }
        }
    }
}

fn asking(method: Method, url: &str) -> RequestBuilder {
    client::http().request(method, url).header(header::ACCEPT, MANIFEST)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away_before_and_after_the_owner_has_filled_the_cache() {
    need!("docker-registry", "htpasswd");
    let quay = quay(41).await;
    let anonymous = |request: RequestBuilder| request;
    let guesser = |request: RequestBuilder| request.basic_auth(OWNER.name, Some("guess"));
    let other = |request: RequestBuilder| request.basic_auth("somebody", Some(OWNER.password));
    quay.turns_away(0, "nobody, cold", anonymous).await;
    quay.turns_away(0, "guesser, cold", guesser).await;
    quay.owner_pulls(0).await;
    for peer in [0, 1] {
        quay.turns_away(peer, "nobody, warm", anonymous).await;
        quay.turns_away(peer, "guesser, warm", guesser).await;
        quay.turns_away(peer, "another user, warm", other).await;
    }
    quay.owner_pulls(1).await;
    quay.turns_away(1, "nobody, warm on both", anonymous).await;
    quay.registry.served_once(&quay.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_to_be_had_through_a_repository_or_registry_that_lacks_it() {
    need!("docker-registry", "htpasswd");
    let quay = quay(42).await;
    let open = Registry::start().await;
    open.push(&Image::single("open/house", 1 << 20, 43)).await;
    let world = World::registry("quay.test", &quay.registry.url()).and("open.test", &open.url());
    let quay = Quay { cluster: Cluster::start(1, world).await, ..quay };
    quay.owner_pulls(0).await;
    let proxy = &quay.cluster.peers[0].at.proxy;
    for digest in [quay.image.layer().digest, quay.image.config.digest] {
        let url = blob_url(proxy, "open.test", "open/house", digest);
        let answer = asking(Method::GET, &url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "a private blob through an open repository");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_a_private_image_with_its_credentials_only() {
    need!("docker-registry", "htpasswd", "skopeo");
    let quay = quay(44).await;
    let mut peer = quay.cluster.spawn_peer("quayside", &["--default-registry", "quay.test"], None);
    peer.ready().await;
    let image = format!("{}/{}:{TAG}", peer.at.proxy, quay.image.repository);
    let to = TempDir::new().unwrap();
    let credentials = format!("{}:{}", OWNER.name, OWNER.password);
    assert_eq!(skopeo(&image, to.path(), Some(&credentials)).await, quay.image.manifest.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_written_to_a_log_a_metric_or_the_disk() {
    need!("docker-registry", "htpasswd");
    let mut quay = quay(45).await;
    for peer in [0, 1] {
        quay.owner_pulls(peer).await;
    }
    // errors are where secrets like to slip out
    quay.turns_away(0, "guesser", |request| request.basic_auth(OWNER.name, Some("Wr0ng-Light!Buoy"))).await;
    let token = std::fs::read_to_string(quay.cluster.join_token()).unwrap();
    let join_secret = token.trim().split('.').nth(2).expect("lsj1.ID.SECRET.CA").to_owned();
    let mut pages = Vec::new();
    for node in quay.cluster.peers.iter().chain([&quay.cluster.supernode]) {
        pages.push((node.url("/metrics"), node.metrics().await.into_bytes()));
    }
    quay.registry.kill().await;
    quay.owner_pulls_fail_or_not().await;
    for peer in &mut quay.cluster.peers {
        peer.terminate().await;
    }
    quay.cluster.supernode.terminate().await;
    let given = [quay.cluster.join_token()];
    for file in files_below(quay.cluster.root()).into_iter().filter(|file| !given.contains(file)) {
        let content = std::fs::read(&file).unwrap();
        pages.push((file.display().to_string(), content));
    }
    assert!(pages.len() > 6, "logs and data were looked at");
    for secret in [OWNER.password, OWNER_BASIC, "Wr0ng-Light!Buoy", &join_secret] {
        for (place, content) in &pages {
            let found = content.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "the secret {secret:?} stands in {place}");
        }
    }
}

#[cfg(feature = "otlp")]
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_with_a_trace() {
    use crate::support::collector::Collector;
    use crate::support::eventually;
    use crate::support::faulty::Origin;

    need!("docker-registry", "htpasswd");
    let (collector, origin) = (Collector::start().await, Origin::start().await);
    let quay = quay(46).await;
    let world = World::registry("quay.test", &quay.registry.url())
        .allowing(&origin.address)
        .set("LONGSHORE_OTLP_ENDPOINT", &collector.endpoint)
        .set("LONGSHORE_PEER_OTLP_SAMPLE", "100%");
    let mut quay = Quay { cluster: Cluster::start(2, world).await, ..quay };
    quay.owner_pulls(0).await;
    quay.owner_pulls(1).await;
    quay.turns_away(0, "guesser", |request| request.basic_auth(OWNER.name, Some("Wr0ng-Light!Buoy"))).await;
    // As an HTTP proxy's client sends what is signed by its query.
    let signed = format!("{}?X-Signature=5igned-Buoy", origin.add_file("signed", vec![7; 1 << 20]));
    let proxy = reqwest::Proxy::all(format!("http://{}", quay.cluster.peers[0].at.proxy)).unwrap();
    let client = reqwest::Client::builder().proxy(proxy).build().unwrap();
    assert!(client.get(&signed).send().await.unwrap().status().is_success());
    quay.registry.kill().await;
    quay.owner_pulls_fail_or_not().await;
    eventually("the pulls, the strangers, and what was handed on", async || {
        let spans = collector.spans();
        let passed = |kind: &str| spans.iter().any(|span| span.word("longshore.kind") == kind);
        let refused = spans.iter().any(|span| span.word("http.response.status_code") == "401");
        (passed("blob") && passed("passed") && refused).then_some(())
    })
    .await;
    for peer in &mut quay.cluster.peers {
        assert!(peer.terminate().await.success());
    }
    quay.cluster.supernode.terminate().await;
    let raw = collector.raw();
    for secret in [OWNER.password, OWNER_BASIC, "Wr0ng-Light!Buoy", "5igned-Buoy", "X-Signature"] {
        let found = raw.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "the secret {secret:?} leaves with a trace");
    }
}

impl Quay {
    /// Asks while the registry is gone: whatever the answer, the failure on the way passes through every log.
    async fn owner_pulls_fail_or_not(&self) {
        for (url, _) in self.urls(0) {
            let _ =
                client::fetch(asking(Method::GET, &url).basic_auth(OWNER.name, Some(OWNER.password))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_blob_is_not_to_be_had_by_get_without_the_owners_credentials() {
    need!("docker-registry", "htpasswd");
    let quay = quay(36).await;
    quay.owner_pulls(0).await;
    let layer = quay.image.layer().digest;
    let url = format!("{}/v2/{}/blobs/{layer}", quay.registry.url(), quay.image.repository);
    let (data, to) = (quay.cluster.peers[0].data.display().to_string(), quay.cluster.root().join("loot"));
    let to = to.display().to_string();
    let digest = layer.to_string();
    let get = |more: &[&str]| {
        let mut command = longshore(quay.cluster.root());
        command.args(["get", &url, "-o", &to, "--digest", &digest, "--data-dir", &data]).args(more);
        command
    };
    let stranger = output(&get(&[])).await;
    assert_eq!(stranger.status.code(), Some(4), "{stranger:?}");
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("401"), "{stranger:?}");
    assert!(!std::path::Path::new(&to).exists());
    let header = format!("Authorization: Basic {OWNER_BASIC}");
    succeed(&get(&["-H", &header])).await;
    assert_eq!(Digest::of(&std::fs::read(&to).unwrap()), layer);
}
