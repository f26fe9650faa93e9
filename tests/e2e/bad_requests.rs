//! Requests that no runtime sends, byte by byte at the proxy's port: names that climb, escapes that hide, digests of other
//! algorithms, headers without end, bodies where none belongs, framing that two readers would read differently, and
//! registries that are the node itself or the cloud's metadata. None of it reaches an origin, and the proxy goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use ring::digest::{SHA512, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::client;
use crate::support::cluster::{Cluster, World};
use crate::support::faulty::{Fault, Origin};
use crate::support::image::{Image, noise};

/// How long an answer is waited for. A server may as well wait for the rest of what it was told comes; the connection is
/// then dropped by this side, and counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(3);
/// Stands in what must never be read as a request.
const INNER: &str = "/v2/smuggled/app/manifests/e2e";
/// A repository of the trap.
const OUTER: &str = "/v2/outer/app/manifests/e2e?ns=trap.test";

/// A registry that has nothing and remembers every question.
struct Trap {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _server: AbortOnDropHandle<()>,
}

/// What came back on a connection, until its end or the end of patience.
#[derive(Debug)]
struct Heard(String);

/// A cluster whose default registry is the trap, with a good registry beside it.
struct Case {
    trap: Trap,
    origin: Origin,
    image: Image,
    cluster: Cluster,
}

// === impl Trap ===

impl Trap {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(remember).with_state(seen.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("the trap serves") });
        Self { url, seen, _server: AbortOnDropHandle::new(server) }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn remember(State(seen): State<Arc<Mutex<Vec<String>>>>, method: Method, uri: Uri) -> StatusCode {
    seen.lock().unwrap().push(format!("{method} {uri}"));
    StatusCode::NOT_FOUND
}

// === impl Heard ===

impl Heard {
    /// The statuses of all answers on the connection.
    fn statuses(&self) -> Vec<u16> {
        let lines = self.0.split("HTTP/1.").skip(1);
        lines.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
    }

    /// Whether all that was said is no: a status of these, or a connection that just ends.
    fn is_no(&self, statuses: &[u16]) -> bool {
        self.statuses().iter().all(|status| statuses.contains(status))
    }
}

// === impl Case ===

impl Case {
    async fn start(seed: u64) -> Self {
        let (trap, origin) = (Trap::start().await, Origin::start().await);
        let image = Image::single("team/app", 1 << 20, seed);
        origin.add(&image);
        let world = World::registry("trap.test", &trap.url)
            .and("good.test", &origin.url())
            .and("docker.io", &trap.url);
        Self { trap, origin, image, cluster: Cluster::start(1, world).await }
    }

    fn proxy(&self) -> &str {
        &self.cluster.peers[0].at.proxy
    }

    /// Sends bytes and hears the answer.
    async fn say(&self, bytes: &[u8]) -> Heard {
        let mut stream = TcpStream::connect(self.proxy()).await.unwrap();
        let mut heard = Vec::new();
        let talk = async {
            let _ = stream.write_all(bytes).await;
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut chunk).await {
                heard.extend_from_slice(&chunk[..length]);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, talk).await;
        Heard(String::from_utf8_lossy(&heard).into_owned())
    }

    /// Asks for a target as it stands, on a connection of its own.
    async fn get(&self, target: &str) -> Heard {
        self.say(format!("GET {target} HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n").as_bytes()).await
    }

    /// Nothing reached the trap, and a pull goes well.
    async fn goes_on(self) {
        assert!(self.trap.seen().is_empty(), "the origin was asked: {:?}", self.trap.seen());
        self.still_pulls().await;
    }

    async fn still_pulls(&self) {
        client::pull(self.proxy().to_owned(), "good.test".to_owned(), self.image.clone()).await;
        assert!(client::get(&self.cluster.peers[0].url("/healthz")).await.status.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_climb_and_escapes_that_hide_are_refused_and_never_forwarded() {
    let case = Case::start(70).await;
    let (sha256, short) = ("a".repeat(64), "a".repeat(63));
    let targets = [
        "/v2/../../etc/passwd".to_owned(),
        "/v2/../v2/team/app/manifests/e2e".to_owned(),
        "/v2/team/../app/manifests/e2e".to_owned(),
        "/v2/team/./app/manifests/e2e".to_owned(),
        "/v2/team/app/manifests/..".to_owned(),
        "/v2/team/app/blobs/..".to_owned(),
        "/v2/team/%2e%2e/app/manifests/e2e".to_owned(),
        "/v2/team/.%2e/app/tags/list".to_owned(),
        "/v2/team%2fapp/manifests/e2e".to_owned(),
        "/v2/team%252fapp/manifests/e2e".to_owned(),
        "/v2/team/app%00/manifests/e2e".to_owned(),
        "/v2/team/app/manifests/e2e%00".to_owned(),
        "/v2/team/app/manifests/e2e%0d%0ahost:%20x".to_owned(),
        "/v2/team\\..\\app/manifests/e2e".to_owned(),
        "/v2//team/app/manifests/e2e".to_owned(),
        "/v2/team//app/manifests/e2e".to_owned(),
        "/v2/team/app//manifests/e2e".to_owned(),
        "/v2/team/app/manifests//e2e".to_owned(),
        "//v2/team/app/manifests/e2e".to_owned(),
        "/%76%32/team/app/manifests/e2e".to_owned(),
        "/v2/TEAM/app/manifests/e2e".to_owned(),
        "/v2/team/app/tags/../manifests/e2e".to_owned(),
        format!("/v2/team/app/blobs/sha256:{short}"),
        format!("/v2/team/app/blobs/sha256:{}", sha256.to_uppercase()),
        format!("/v2/team/app/blobs/sha256:{sha256}%00"),
        format!("/v2/team/app/blobs/sha256:{sha256}/../x"),
        format!("/v2/team/app/blobs/md5:{}", "a".repeat(32)),
        format!("/v2/team/app/manifests/sha384:{}", "a".repeat(96)),
        format!("/v2/team/app/blobs/sha512:{sha256}"),
        "/v2/team/app/manifests/e2e?ns=".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test/../x".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test%2f..%2fx".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test%00".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test%0d%0a".to_owned(),
        "/v2/team/app/manifests/e2e?ns=user:word@trap.test".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test:0".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test:99999".to_owned(),
        "/v2/team/app/manifests/e2e?ns=trap.test&ns=good.test".to_owned(),
    ];
    for target in &targets {
        let heard = case.get(target).await;
        assert!(!heard.statuses().is_empty() && heard.is_no(&[400, 404]), "{target}: {heard:?}");
    }
    case.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_may_be_named_by_sha512_and_is_checked_by_it() {
    let case = Case::start(71).await;
    let content = noise(600 << 10, 72);
    let name =
        digest(&SHA512, &content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let path = format!("/v2/team/app/blobs/sha512:{name}");
    case.origin.put(&path, content.clone().into(), "application/octet-stream");
    let url = format!("http://{}{path}?ns=good.test", case.proxy());
    let pulled = client::get(&url).await;
    pulled.is(common::digest::Digest::of(&content));
    case.origin.fault(&path, Fault::Flip(1000), usize::MAX);
    assert!(!client::get(&url).await.looks_finished(), "other bytes under this name");
    case.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_are_the_node_itself_or_its_neighbourhood_are_refused() {
    let case = Case::start(73).await;
    let peer = &case.cluster.peers[0];
    let own = ["proxy", "http"].map(|port| if port == "proxy" { &peer.at.proxy } else { &peer.at.http });
    let mut names = vec![
        "169.254.169.254".to_owned(),
        "169.254.169.254:80".to_owned(),
        "[fe80::1]".to_owned(),
        "[fe80::1]:5000".to_owned(),
        "[::ffff:169.254.169.254]".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        "0.0.0.0".to_owned(),
        "[::]".to_owned(),
        "224.0.0.1".to_owned(),
        "255.255.255.255".to_owned(),
        "2852039166".to_owned(),
    ];
    for address in own {
        let port = address.rsplit(':').next().unwrap();
        let hosts =
            ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"];
        names.extend(hosts.map(|host| format!("{host}:{port}")));
    }
    for name in &names {
        for path in ["/v2/", "/v2/team/app/manifests/e2e", "/v2/team/app/tags/list"] {
            let heard = case.get(&format!("{path}?ns={name}")).await;
            assert_eq!(heard.statuses(), [403], "{path}?ns={name}: {heard:?}");
            assert!(heard.0.contains("DENIED"), "{path}?ns={name}: {heard:?}");
        }
    }
    case.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_header_chooses_no_registry() {
    let case = Case::start(74).await;
    for host in [case.proxy(), "169.254.169.254", "[fe80::1]", "good.test", "user@good.test", ""] {
        let path = format!("/v2/team/app/manifests/{}", case.image.manifest.digest);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let heard = case.say(request.as_bytes()).await;
        assert!(heard.is_no(&[404, 400]), "host {host:?}: {heard:?}");
    }
    assert!(case.trap.seen().iter().all(|seen| seen.contains("/v2/team/app/")), "{:?}", case.trap.seen());
    case.still_pulls().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_request_for_the_node_itself_or_its_neighbourhood_is_refused() {
    let case = Case::start(75).await;
    let peer = &case.cluster.peers[0];
    let (proxy, http) = (peer.at.proxy.clone(), peer.at.http.clone());
    let port = proxy.rsplit(':').next().unwrap();
    let targets = [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://169.254.169.254/v2/team/app/manifests/e2e".to_owned(),
        "http://[fe80::1]/v2/team/app/manifests/e2e".to_owned(),
        "http://[::ffff:169.254.169.254]/v2/".to_owned(),
        "http://0.0.0.0/v2/".to_owned(),
        format!("http://0.0.0.0:{port}/v2/team/app/manifests/e2e"),
        format!("http://{proxy}/v2/team/app/manifests/e2e"),
        format!("http://localhost:{port}/v2/team/app/manifests/e2e"),
        format!("http://{http}/metrics"),
    ];
    for target in &targets {
        let heard = case.get(target).await;
        let said = heard.statuses();
        assert!(said.len() == 1 && heard.is_no(&[400, 403, 404, 421, 508]), "GET {target}: {heard:?}");
    }
    let hosts =
        ["169.254.169.254:80", "[fe80::1]:443", "0.0.0.0:443", &format!("0.0.0.0:{port}"), &proxy, &http];
    for host in hosts {
        let bytes = format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let heard = case.say(bytes.as_bytes()).await;
        let said = heard.statuses();
        assert!(
            !said.is_empty() && heard.is_no(&[400, 403, 404, 405, 421, 508]),
            "CONNECT {host}: {heard:?}"
        );
    }
    case.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused() {
    let case = Case::start(76).await;
    let long = "a".repeat(64 << 10);
    let many = (0..500).map(|number| format!("x-{number}: 1\r\n")).collect::<String>();
    let heads = [
        format!("GET {OUTER} HTTP/1.1\r\nhost: peer\r\nx-long: {long}\r\n\r\n"),
        format!("GET {OUTER} HTTP/1.1\r\nhost: peer\r\n{long}: x\r\n\r\n"),
        format!("GET {OUTER} HTTP/1.1\r\nhost: peer\r\nauthorization: Bearer {long}\r\n\r\n"),
        format!("GET {OUTER} HTTP/1.1\r\nhost: peer\r\n{many}\r\n"),
        format!("GET {OUTER}&x={long} HTTP/1.1\r\nhost: peer\r\n\r\n"),
    ];
    for (number, head) in heads.iter().enumerate() {
        let heard = case.say(head.as_bytes()).await;
        assert!(heard.is_no(&[400, 414, 431]), "head {number}: {heard:?}");
    }
    case.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_no_get_or_head_is_refused() {
    let case = Case::start(77).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        let bytes = format!(
            "{method} {OUTER} HTTP/1.1\r\nhost: peer\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
        );
        let heard = case.say(bytes.as_bytes()).await;
        assert!(heard.is_no(&[405, 400]), "{method}: {heard:?}");
    }
    case.goes_on().await;
}

/// Requests whose end two readers may see in different places. Behind each stands what one of them would take for the
/// next request.
fn smuggling() -> Vec<(&'static str, String, bool)> {
    let inner = format!("GET {INNER}?ns=trap.test HTTP/1.1\r\nhost: peer\r\n\r\n");
    let with =
        |headers: &str, body: &str| format!("GET {OUTER} HTTP/1.1\r\nhost: peer\r\n{headers}\r\n\r\n{body}");
    let length = inner.len();
    vec![
        ("a body on GET", with(&format!("content-length: {length}"), &inner), false),
        (
            "a chunked body",
            with("transfer-encoding: chunked", &format!("{length:x}\r\n{inner}\r\n0\r\n\r\n")),
            false,
        ),
        (
            "both framings",
            with(
                &format!("content-length: {length}\r\ntransfer-encoding: chunked"),
                &format!("0\r\n\r\n{inner}"),
            ),
            false,
        ),
        ("two lengths", with(&format!("content-length: 0\r\ncontent-length: {length}"), &inner), true),
        ("a list of lengths", with(&format!("content-length: 0, {length}"), &inner), true),
        ("a signed length", with("content-length: +0", &inner), true),
        ("a negative length", with("content-length: -1", &inner), true),
        ("a length in hex", with("content-length: 0x0", &inner), true),
        ("a length without end", with(&format!("content-length: {}", "9".repeat(40)), &inner), true),
        ("a space before the colon", with(&format!("content-length : {length}"), &inner), true),
        ("a folded header", with(&format!("x-a: b\r\n content-length: {length}"), &inner), true),
        ("a folded framing", with("transfer-encoding:\r\n chunked", &format!("0\r\n\r\n{inner}")), true),
        ("a bare CR", with(&format!("x-a: b\rcontent-length: {length}"), &inner), true),
        ("a NUL", with(&format!("x-a: b\0\r\ncontent-length: {length}"), &inner), true),
        ("another coding", with("transfer-encoding: xchunked", &format!("0\r\n\r\n{inner}")), true),
        (
            "chunked, then another",
            with("transfer-encoding: chunked, identity", &format!("0\r\n\r\n{inner}")),
            true,
        ),
        ("a chunk of no number", with("transfer-encoding: chunked", &format!("zz\r\n{inner}")), false),
        ("a negative chunk", with("transfer-encoding: chunked", &format!("-1\r\n{inner}")), false),
        (
            "a chunk without end",
            with("transfer-encoding: chunked", &format!("fffffffffffffffff\r\n{inner}")),
            false,
        ),
        (
            "a chunk longer than said",
            with("transfer-encoding: chunked", &format!("1\r\n{inner}\r\n0\r\n\r\n")),
            false,
        ),
        ("a request line with spaces", format!("GET {OUTER} x HTTP/1.1\r\nhost: peer\r\n\r\n"), true),
        ("another protocol", format!("GET {OUTER} HTTP/9.9\r\nhost: peer\r\n\r\n"), true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_that_two_readers_would_read_differently_smuggles_nothing() {
    let case = Case::start(78).await;
    for (shape, bytes, refused) in smuggling() {
        let heard = case.say(bytes.as_bytes()).await;
        assert!(!refused || heard.is_no(&[400, 501, 505]), "{shape}: {heard:?}");
        let seen = case.trap.seen();
        let inner: Vec<&String> = seen.iter().filter(|seen| seen.contains("smuggled")).collect();
        assert!(inner.is_empty(), "{shape}: {inner:?} came through: {heard:?}");
    }
    case.still_pulls().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_end_in_lf_alone_are_one_request_or_none() {
    let case = Case::start(79).await;
    let path = format!("/v2/team/app/manifests/{}?ns=good.test", case.image.manifest.digest);
    let heard = case.say(format!("GET {path} HTTP/1.1\nhost: peer\nconnection: close\n\n").as_bytes()).await;
    assert!(heard.statuses().len() <= 1 && heard.is_no(&[200, 400]), "{heard:?}");
    case.goes_on().await;
}
