//! Who may read what, with a registry that gives out tokens by repository. A client never gets through a peer what
//! the registry would not give it, before and after somebody else has filled every cache; and what the registry said
//! stays said for a while when it is gone.

mod naming;
mod outages;
mod storm;
mod strangers;

use std::sync::Arc;

use common::digest::Digest;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::client::{self, blob_url, manifest_url};
use crate::support::cluster::{Cluster, World, longshore};
use crate::support::image::{Image, MANIFEST, TAG};
use crate::support::need;
use crate::support::process::output;
use crate::support::registry::{Door, Registry, User};
use crate::support::tokens::{Rule, TokenServer};

const ALICE: User = User { name: "alice", password: "Al1ce-of-the-docks" };
const BOB: User = User { name: "bob", password: "B0b-of-the-crane" };
/// The registry with tokens.
const QUAY: &str = "quay.test";
/// The registry without a door.
const OPEN: &str = "open.test";

/// A registry with tokens, three images in it, and a cluster before it.
struct Port {
    tokens: Arc<TokenServer>,
    registry: Registry,
    alices: Image,
    bobs: Image,
    public: Image,
    cluster: Cluster,
    /// A registry without a door, and what is in it.
    open: Registry,
    free: Image,
}

/// What a client says of itself in `Authorization`.
type Word = Option<String>;

impl Port {
    async fn open(peers: usize, seed: u64, world: impl FnOnce(World) -> World) -> Self {
        let rules = [
            Rule { user: Some(ALICE), below: "team-a/" },
            Rule { user: Some(BOB), below: "team-b/" },
            Rule { user: None, below: "public/" },
        ];
        let tokens = Arc::new(TokenServer::start(&rules).await);
        let registry = Registry::with(Door::Token(tokens.clone()), None).await;
        let [alices, bobs, public] = [("team-a/app", 0), ("team-b/app", 1), ("public/app", 2)]
            .map(|(name, more)| Image::of_sizes(name, &[4 << 10, 300 << 10, 3 << 20], seed + 10 * more));
        for image in [&alices, &bobs, &public] {
            registry.push(image).await;
        }
        let open = Registry::start().await;
        let free = Image::single("team-b/app", 1 << 20, seed + 40);
        open.push(&free).await;
        let known = World::registry(QUAY, &registry.url()).and(OPEN, &open.url());
        let cluster = Cluster::start(peers, world(known)).await;
        Self { tokens, registry, alices, bobs, public, cluster, open, free }
    }

    /// What `user` shows the registry to read `repository`.
    async fn word(&self, user: Option<User>, repository: &str) -> Word {
        Some(format!("Bearer {}", self.tokens.token(user, repository).await))
    }

    fn proxy(&self, peer: usize) -> &str {
        &self.cluster.peers[peer].at.proxy
    }

    /// Every part of `image` through a peer, for a client with this word.
    async fn pulls(&self, peer: usize, image: &Image, word: &Word) {
        pull(self.proxy(peer), QUAY, image, word).await;
    }

    /// No part of `image` through a peer for a client with this word; what each was answered.
    async fn refused(&self, peer: usize, image: &Image, word: &Word) -> Vec<StatusCode> {
        let mut all = Vec::new();
        for (url, digest) in parts(self.proxy(peer), QUAY, image) {
            let answer = client::fetch(asking(Method::GET, &url, word)).await;
            assert!(!answer.status.is_success() && answer.digest != digest, "{url}: {answer:?}");
            let head = asking(Method::HEAD, &url, word).send().await.unwrap().status();
            assert!(!head.is_success(), "HEAD {url}: {head}");
            all.extend([answer.status, head]);
        }
        all
    }
}

/// Every part of `image` of a registry, for a client with this word.
async fn pull(proxy: &str, registry: &str, image: &Image, word: &Word) {
    for (url, digest) in parts(proxy, registry, image) {
        client::fetch(asking(Method::GET, &url, word)).await.is(digest);
    }
}

/// Manifest by tag and by digest, and every blob.
fn parts(proxy: &str, registry: &str, image: &Image) -> Vec<(String, Digest)> {
    let (name, manifest) = (&image.repository, image.manifest.digest);
    let references = [TAG.to_owned(), manifest.to_string()];
    let manifests =
        references.iter().map(|reference| (manifest_url(proxy, registry, name, reference), manifest));
    let blobs = image.blobs().map(|blob| (blob_url(proxy, registry, name, blob.digest), blob.digest));
    manifests.chain(blobs).collect()
}

fn asking(method: Method, url: &str, word: &Word) -> RequestBuilder {
    let request = client::http().request(method, url).header(header::ACCEPT, MANIFEST);
    match word {
        Some(word) => request.header(header::AUTHORIZATION, word),
        None => request,
    }
}

/// Every way in which alice may try to get what is bob's, and what the registry itself says to each.
async fn alice_tries(port: &Port, peer: usize, when: &str) {
    let proxy = port.proxy(peer);
    let hers = port.word(Some(ALICE), "team-a/app").await;
    // what she gets when she asks for bob's: a token that opens nothing
    let asked_for_his = port.word(Some(ALICE), "team-b/app").await;
    for digest in port.bobs.blobs().map(|blob| blob.digest).chain([port.bobs.manifest.digest]) {
        let ways = [
            ("her own repository", blob_url(proxy, QUAY, "team-a/app", digest), &hers, vec![404]),
            ("another of her repositories", blob_url(proxy, QUAY, "team-a/new", digest), &hers, vec![401]),
            ("the public's", blob_url(proxy, QUAY, "public/app", digest), &hers, vec![401]),
            ("his repository, her token", blob_url(proxy, QUAY, "team-b/app", digest), &hers, vec![401]),
            ("his, a token for it", blob_url(proxy, QUAY, "team-b/app", digest), &asked_for_his, vec![401]),
            ("his, no token", blob_url(proxy, QUAY, "team-b/app", digest), &None, vec![401]),
            ("another registry", blob_url(proxy, OPEN, "team-b/app", digest), &hers, vec![404]),
            ("no registry", blob_url(proxy, "nowhere.test", "team-b/app", digest), &hers, vec![502, 403]),
            ("no repository", format!("http://{proxy}/v2/blobs/{digest}?ns={QUAY}"), &hers, vec![400]),
            (
                "a manifest's path",
                manifest_url(proxy, QUAY, "team-a/app", &digest.to_string()),
                &hers,
                vec![404],
            ),
        ];
        for (way, url, word, statuses) in ways {
            for method in [Method::GET, Method::HEAD] {
                let answer = client::fetch(asking(method.clone(), &url, word)).await;
                let status = answer.status.as_u16();
                assert!(statuses.contains(&status), "{when}, through {way}: {method} {url}: {answer:?}");
                assert_ne!(answer.digest, digest, "{when}, through {way}: {method} {url}");
            }
        }
    }
    let statuses = port.refused(peer, &port.bobs, &hers).await;
    assert!(statuses.iter().all(|status| *status == 401), "{when}: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anothers_blobs_through_a_peer_cold_or_warm() {
    need!("docker-registry");
    let port = Port::open(2, 900, |world| world).await;
    alice_tries(&port, 0, "cold").await;
    let his = port.word(Some(BOB), "team-b/app").await;
    port.pulls(0, &port.bobs, &his).await;
    for peer in [0, 1] {
        alice_tries(&port, peer, "warm").await;
    }
    port.pulls(1, &port.bobs, &his).await;
    alice_tries(&port, 1, "warm on both").await;
    // what is hers and what is everybody's she gets, through the same peers
    port.pulls(1, &port.alices, &port.word(Some(ALICE), "team-a/app").await).await;
    port.pulls(0, &port.public, &port.word(Some(ALICE), "public/app").await).await;
    port.pulls(1, &port.public, &port.word(None, "public/app").await).await;
    for image in [&port.bobs, &port.alices, &port.public] {
        port.registry.served_once(image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_that_a_client_is_told_to_get_opens_the_repository() {
    need!("docker-registry");
    let port = Port::open(1, 950, |world| world).await;
    let url = manifest_url(port.proxy(0), QUAY, "team-a/app", TAG);
    let answer = asking(Method::GET, &url, &None).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let challenge = answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned();
    let realm = format!("Bearer realm=\"{}\"", port.tokens.realm());
    assert!(challenge.starts_with(&realm) && challenge.contains("repository:team-a/app:pull"), "{challenge}");
    let before = port.tokens.issued(Some(ALICE));
    port.pulls(0, &port.alices, &port.word(Some(ALICE), "team-a/app").await).await;
    assert_eq!(port.tokens.issued(Some(ALICE)), before + 1, "the peer asks for no tokens in a client's name");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_and_the_local_socket_give_nobody_anothers_blobs() {
    need!("docker-registry");
    let port = Port::open(1, 1000, |world| world).await;
    let his = port.word(Some(BOB), "team-b/app").await;
    let hers = port.word(Some(ALICE), "team-a/app").await;
    let layer = port.bobs.layers[2].digest;
    for when in ["cold", "warm"] {
        for repository in ["team-a/app", "team-b/app", "public/app"] {
            for word in [&hers, &None] {
                let said = get(&port, repository, layer, word).await.expect_err("it is bob's");
                assert!(
                    ["401", "404"].iter().any(|status| said.contains(status)),
                    "{when} {repository}: {said}"
                );
                let answer = by_socket(&port, repository, layer, word).await;
                let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
                assert!(["401", "404"].contains(&&*status), "{when} {repository}: {answer}");
            }
        }
        port.pulls(0, &port.bobs, &his).await;
    }
    assert_eq!(get(&port, "team-b/app", layer, &his).await.unwrap(), layer);
    assert!(by_socket(&port, "team-b/app", layer, &his).await.starts_with("HTTP/1.1 200"));
}

/// `longshore get` of a blob through the peer's socket: the digest of the file, or what it said.
async fn get(port: &Port, repository: &str, digest: Digest, word: &Word) -> Result<Digest, String> {
    let home = tempfile::TempDir::new().unwrap();
    let out = home.path().join("out");
    let mut command = longshore(home.path());
    command.arg("get").arg(format!("{}/v2/{repository}/blobs/{digest}", port.registry.url()));
    command.arg("-o").arg(&out).args(["--digest", &digest.to_string()]);
    command.arg("--data-dir").arg(&port.cluster.peers[0].data);
    if let Some(word) = word {
        command.args(["-H", &format!("Authorization: {word}")]);
    }
    let ended = output(&command).await;
    if ended.status.success() {
        return Ok(Digest::of(&std::fs::read(&out).unwrap()));
    }
    assert!(!out.exists(), "a file is left behind");
    Err(String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// What `get` asks the socket, written by hand: the head of the answer.
async fn by_socket(port: &Port, repository: &str, digest: Digest, word: &Word) -> String {
    let headers = word.as_ref().map_or(json!({}), |word| json!({"authorization": word}));
    let url = format!("{}/v2/{repository}/blobs/{digest}", port.registry.url());
    let body = json!({"url": url, "digest": digest.to_string(), "headers": {"headers": headers}}).to_string();
    let request = format!(
        "POST /v1/fetch HTTP/1.1\r\nhost: peer\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = UnixStream::connect(&port.cluster.peers[0].at.socket).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
