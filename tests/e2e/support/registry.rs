//! A real registry (Debian's `docker-registry`) with its own store, and what its access log says that it served.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::digest::Digest;
use reqwest::{Method, StatusCode, header};
use tempfile::TempDir;

use super::image::{Blob, Image, TAG};
use super::process::{Process, succeed, without_proxies};
use super::{client, eventually};

/// What the registry says once it listens; the port follows.
const LISTENING: &str = "listening on 127.0.0.1:";

/// A user of a private registry.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
}

/// The registry process.
pub(crate) struct Registry {
    process: Process,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    user: Option<User>,
    log: PathBuf,
    _root: TempDir,
}

/// One line of the access log.
#[derive(Debug)]
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
        Self::with(TempDir::new().unwrap(), None).await
    }

    /// Starts an empty registry that only `user` may read and write.
    pub(crate) async fn private(user: User) -> Self {
        let root = TempDir::new().unwrap();
        // this program, like the registry, knows no other hash than bcrypt here
        let line = succeed(Command::new("htpasswd").args(["-Bbn", user.name, user.password])).await;
        std::fs::write(root.path().join("htpasswd"), line.trim()).unwrap();
        Self::with(root, Some(user)).await
    }

    async fn with(root: TempDir, user: Option<User>) -> Self {
        let home = root.path();
        let (config, log) = (home.join("config.yml"), home.join("registry.log"));
        std::fs::write(&config, settings(home, user.is_some())).unwrap();
        let mut command = Command::new("docker-registry");
        without_proxies(command.arg("serve").arg(&config));
        let mut process = Process::spawn("docker-registry", &mut command, &log);
        process.says(LISTENING).await;
        let said = process.said();
        let port: String =
            said.split(LISTENING).nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        Self { process, address: format!("127.0.0.1:{port}"), user, log, _root: root }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
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

    /// A request with the registry's own user, straight to it.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = client::http().request(method, format!("{}{path}", self.url()));
        match self.user {
            Some(user) => request.basic_auth(user.name, Some(user.password)),
            None => request,
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
        let served = |access: &Access| {
            access.method == "GET" && matches!(access.status, 200 | 206) && wanted(&access.path)
        };
        let bytes: u64 =
            self.accesses().iter().filter(|access| served(access)).map(|access| access.bytes).sum();
        #[allow(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
        let copies = bytes as f64 / size as f64;
        copies
    }

    /// Asserts that everything of `image` has left the registry 1.00 times. The registry writes a line of its
    /// log a moment after the answer's last byte, so the first copy is waited for.
    pub(crate) async fn served_once(&self, image: &Image) {
        let all = || {
            let blobs = image.blobs().map(|blob| (blob.digest, self.copies(blob)));
            let mut all: Vec<(Digest, f64)> = blobs.collect();
            all.push((image.manifest.digest, self.manifest_copies(image)));
            all
        };
        eventually("a whole copy of everything in the registry's access log", async || {
            all().iter().all(|(_, copies)| *copies > 0.995).then_some(())
        })
        .await;
        for (digest, copies) in all() {
            assert!(copies < 1.005, "{digest} left the registry {copies:.3} times:\n{}", self.listing());
        }
    }

    fn listing(&self) -> String {
        self.accesses().iter().fold(String::new(), |mut list, access| {
            let Access { method, path, status, bytes } = access;
            let _ = writeln!(list, "{method} {path} {status} {bytes}");
            list
        })
    }

    /// Ends the registry, as an outage does.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }
}

fn settings(home: &Path, private: bool) -> String {
    let home = home.display();
    let auth = if private {
        format!("auth: {{htpasswd: {{realm: e2e, path: {home}/htpasswd}}}}\n")
    } else {
        String::new()
    };
    format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
         storage: {{filesystem: {{rootdirectory: {home}/store}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n{auth}"
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
