//! A real registry (Debian's `docker-registry`) with its own store, and what its access log says that it served. Its
//! door is open, or asks for a password or a token; it speaks plain HTTP, or TLS with a certificate of a test's CA.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::digest::Digest;
use reqwest::{Method, StatusCode, header};
use tempfile::TempDir;

use super::image::{Blob, Image, TAG};
use super::process::{Process, succeed, without_proxies};
use super::tls::{Ca, Leaf};
use super::tokens::{ISSUER, SERVICE, TokenServer};
use super::{client, eventually};

/// What the registry says once it listens; the port follows.
const LISTENING: &str = "listening on 127.0.0.1:";

/// A user of a private registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
}

impl User {
    /// `name:password`, as clients are told it.
    pub(crate) fn pair(self) -> String {
        format!("{}:{}", self.name, self.password)
    }

    /// The same, as HTTP's basic authorization has it.
    pub(crate) fn basic(self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.pair())
    }
}

/// Who may come in.
#[derive(Clone)]
pub(crate) enum Door {
    /// Everybody, to read and to write.
    Open,
    /// One user with a password.
    Basic(User),
    /// Whoever has a token of this server.
    Token(Arc<TokenServer>),
}

/// The registry process.
pub(crate) struct Registry {
    process: Process,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    scheme: &'static str,
    door: Door,
    client: reqwest::Client,
    log: PathBuf,
    root: TempDir,
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

// === impl Registry ===

impl Registry {
    /// Starts an empty registry that everybody may read and write.
    pub(crate) async fn start() -> Self {
        Self::with(Door::Open, None).await
    }

    /// Starts an empty registry that only `user` may read and write.
    pub(crate) async fn private(user: User) -> Self {
        Self::with(Door::Basic(user), None).await
    }

    /// Starts an empty registry with this door, which speaks TLS where there is a CA to sign its certificate.
    pub(crate) async fn with(door: Door, ca: Option<&Ca>) -> Self {
        Self::with_settings(door, ca, "").await
    }

    /// Starts an empty open registry that tells of everything at this URL, with this token.
    pub(crate) async fn telling(url: &str, token: &str) -> Self {
        let told = format!(
            "notifications: {{endpoints: [{{name: e2e, url: '{url}', headers: {{Authorization: ['Bearer {token}']}}, \
             timeout: 5s, threshold: 3, backoff: 300ms}}]}}\n"
        );
        Self::with_settings(Door::Open, None, &told).await
    }

    async fn with_settings(door: Door, ca: Option<&Ca>, more: &str) -> Self {
        let root = TempDir::new().unwrap();
        let home = root.path();
        if let Door::Basic(user) = door {
            // this program, like the registry, knows no other hash than bcrypt here
            let line = succeed(Command::new("htpasswd").args(["-Bbn", user.name, user.password])).await;
            std::fs::write(home.join("htpasswd"), line.trim()).unwrap();
        }
        let leaf = ca.map(|ca| ca.sign(&["127.0.0.1", "localhost"], home));
        let (config, log) = (home.join("config.yml"), home.join("registry.log"));
        std::fs::write(&config, settings(home, &door, leaf.as_ref()) + more).unwrap();
        let mut command = Command::new("docker-registry");
        without_proxies(command.arg("serve").arg(&config));
        let mut process = Process::spawn("docker-registry", &mut command, &log);
        process.says(LISTENING).await;
        let said = process.said();
        let port: String =
            said.split(LISTENING).nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        let client = ca.map_or_else(client::http, client::https);
        let (address, scheme) = (format!("127.0.0.1:{port}"), if ca.is_some() { "https" } else { "http" });
        Self { process, address, scheme, door, client, log, root }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The folder of its storage driver.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// Uploads every part of `image` under [`TAG`], as any client does.
    pub(crate) async fn push(&self, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(&image.repository, blob).await;
        }
        let path = format!("/v2/{}/manifests/{TAG}", image.repository);
        let answer = self
            .request(Method::PUT, &path)
            .header(header::CONTENT_TYPE, image.manifest.media_type)
            .body(image.manifest.bytes.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "manifest of {}", image.repository);
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) {
        let begun =
            self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()[header::LOCATION].to_str().unwrap();
        let path = location.strip_prefix(&self.url()).unwrap_or(location);
        let digest = format!("{path}&digest={}", blob.digest);
        let put = self.request(Method::PUT, &digest).body(blob.bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "blob {}", blob.digest);
    }

    /// A request that the registry grants, straight to it.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url()));
        match &self.door {
            Door::Open => request,
            Door::Basic(user) => request.basic_auth(user.name, Some(user.password)),
            Door::Token(tokens) => request.bearer_auth(tokens.master(repository_of(path))),
        }
    }

    /// All that was asked of it so far.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().filter_map(access).collect()
    }

    /// How many copies of the blob have left the registry: bytes sent over its size.
    pub(crate) fn copies(&self, blob: &Blob) -> f64 {
        self.sent(blob.size(), |path| path.contains("/blobs/") && path.ends_with(&blob.digest.to_string()))
    }

    /// How many copies of the image's manifest have left the registry, by tag and by digest together.
    pub(crate) fn manifest_copies(&self, image: &Image) -> f64 {
        let folder = format!("/v2/{}/manifests/", image.repository);
        self.sent(image.manifest.size(), |path| path.starts_with(&folder))
    }

    fn sent(&self, size: u64, wanted: impl Fn(&str) -> bool) -> f64 {
        copies(&self.accesses(), size, wanted)
    }

    /// Asserts that everything of `image` has left the registry 1.00 times.
    pub(crate) async fn served_once(&self, image: &Image) {
        served_once(image, || self.accesses()).await;
    }

    /// Ends the registry, as an outage does.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }
}

/// Asserts that everything of `image` has left the origin that `accesses` is the log of 1.00 times. A registry writes
/// a line of its log a moment after the answer's last byte, so the first copy is waited for.
pub(crate) async fn served_once(image: &Image, accesses: impl Fn() -> Vec<Access>) {
    let folder = format!("/v2/{}/manifests/", image.repository);
    let all = || {
        let log = accesses();
        let blobs = image.blobs().map(|blob| {
            let name = blob.digest.to_string();
            let copies = copies(&log, blob.size(), |path| path.contains("/blobs/") && path.ends_with(&name));
            (blob.digest, copies)
        });
        let mut all: Vec<(Digest, f64)> = blobs.collect();
        let manifest = &image.manifest;
        all.push((manifest.digest, copies(&log, manifest.size(), |path| path.starts_with(&folder))));
        all
    };
    eventually("a whole copy of everything in the registry's access log", async || {
        all().iter().all(|(_, copies)| *copies > 0.995).then_some(())
    })
    .await;
    for (digest, copies) in all() {
        assert!(copies < 1.005, "{digest} left the registry {copies:.3} times:\n{}", listing(&accesses()));
    }
}

/// Bytes that were sent for GETs of wanted paths, over `size`.
fn copies(log: &[Access], size: u64, wanted: impl Fn(&str) -> bool) -> f64 {
    let served = |access: &&Access| {
        access.method == "GET" && matches!(access.status, 200 | 206) && wanted(&access.path)
    };
    let bytes: u64 = log.iter().filter(served).map(|access| access.bytes).sum();
    #[allow(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
    let copies = bytes as f64 / size as f64;
    copies
}

fn listing(log: &[Access]) -> String {
    log.iter().fold(String::new(), |mut list, access| {
        let Access { method, path, status, bytes } = access;
        let _ = writeln!(list, "{method} {path} {status} {bytes}");
        list
    })
}

/// The repository that a path of the registry is about.
fn repository_of(path: &str) -> &str {
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    ["/manifests/", "/blobs/", "/tags/"]
        .iter()
        .find_map(|part| rest.split_once(part))
        .map_or("", |(name, _)| name)
}

fn settings(home: &Path, door: &Door, leaf: Option<&Leaf>) -> String {
    let home = home.display();
    let auth = match door {
        Door::Open => String::new(),
        Door::Basic(_) => format!("auth: {{htpasswd: {{realm: e2e, path: {home}/htpasswd}}}}\n"),
        Door::Token(tokens) => format!(
            "auth: {{token: {{realm: '{}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
            tokens.realm(),
            tokens.bundle().display()
        ),
    };
    let tls = leaf.map_or_else(String::new, |leaf| {
        format!(", tls: {{certificate: {}, key: {}}}", leaf.certificate.display(), leaf.key.display())
    });
    format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage: {{filesystem: {{rootdirectory: {home}/store}}}}\nhttp: {{addr: '127.0.0.1:0'{tls}}}\n\
         validation: {{manifests: {{urls: {{allow: ['^https://']}}}}}}\n{auth}"
    )
}

/// Reads `127.0.0.1 - - [date] "METHOD PATH HTTP/1.1" STATUS BYTES "referrer" "agent"`.
fn access(line: &str) -> Option<Access> {
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let (mut request, mut rest) = (request.split(' '), rest.split(' '));
    let method = request.next()?.to_owned();
    let path = request.next()?.split('?').next()?.to_owned();
    Some(Access { method, path, status: rest.next()?.parse().ok()?, bytes: rest.next()?.parse().ok()? })
}
