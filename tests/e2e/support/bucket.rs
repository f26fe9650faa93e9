//! A real S3 server (`s3s-fs`, which keeps objects as plain files), and a gate before it that lets so many bytes pass and no
//! more, so that "in the middle of a transfer" is certain.

use std::net::TcpListener as StdListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::digest::Digest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::World;
use super::image::{Blob, Image};
use super::process::{Process, without_proxies};
use super::{eventually, files_below, program};

const BUCKET: &str = "cache";
const PREFIX: &str = "images/one";
const KEY: &str = "AKIDE2E";
/// The credentials' secret half; no log may hold it.
pub(crate) const SECRET: &str = "hunter2hunter2hunter2";

/// The server, with one bucket.
pub(crate) struct S3 {
    process: Option<Process>,
    pub(crate) address: String,
    root: TempDir,
}

/// A TCP way to a server that can be stopped at a byte.
pub(crate) struct Gate {
    pub(crate) address: String,
    /// Towards the server.
    pub(crate) up: Arc<Way>,
    /// From the server.
    pub(crate) down: Arc<Way>,
    _serving: AbortOnDropHandle<()>,
}

/// One direction through a [`Gate`].
pub(crate) struct Way {
    moved: AtomicU64,
    most: watch::Sender<u64>,
}

// === impl S3 ===

impl S3 {
    /// Starts a server with an empty bucket.
    pub(crate) async fn start() -> Self {
        let mut server = Self::absent();
        server.restart().await;
        server
    }

    /// A server that is to be started later, at an address that is its own already.
    pub(crate) fn absent() -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir_all(root.path().join("objects").join(BUCKET)).unwrap();
        let free = StdListener::bind("127.0.0.1:0").unwrap();
        Self { process: None, address: free.local_addr().unwrap().to_string(), root }
    }

    /// Starts it (again), with what it held.
    pub(crate) async fn restart(&mut self) {
        let port = self.address.rsplit(':').next().unwrap();
        let mut command = Command::new(program("s3s-fs").expect("asked for by need!"));
        command.args(["--host", "127.0.0.1", "--port", port, "--access-key", KEY, "--secret-key", SECRET]);
        without_proxies(command.arg(self.root.path().join("objects")));
        self.process = Some(Process::spawn("s3s-fs", &mut command, &self.root.path().join("s3s-fs.log")));
        eventually("the S3 server listening", async || TcpStream::connect(&self.address).await.ok()).await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().await;
        }
    }

    /// `world`, in which supernodes keep their cache in this bucket.
    pub(crate) fn behind(&self, world: World) -> World {
        self.behind_at(world, &self.address, SECRET)
    }

    /// The same, reached at `address` with `secret`.
    pub(crate) fn behind_at(&self, world: World, address: &str, secret: &str) -> World {
        let file = self.credentials(secret);
        world
            .set("LONGSHORE_SUPERNODE_CACHE_URL", &format!("s3://{BUCKET}/{PREFIX}"))
            .set("LONGSHORE_SUPERNODE_CACHE_ENDPOINT", &format!("http://{address}"))
            .set("LONGSHORE_SUPERNODE_CACHE_CREDENTIALS_FILE", &file.display().to_string())
    }

    /// A credentials file with this secret.
    pub(crate) fn credentials(&self, secret: &str) -> PathBuf {
        let file = self.root.path().join(format!("credentials-{}", Digest::of(secret.as_bytes()).hex()));
        let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Adds an object; its name for `get`.
    pub(crate) fn add(&self, key: &str, content: &[u8]) -> String {
        let file = self.objects().join(BUCKET).join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        format!("s3://{BUCKET}/{key}")
    }

    /// The file with a blob's content.
    pub(crate) fn object(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.objects().join(BUCKET).join(PREFIX).join("blobs").join(&hex[..2]).join(hex)
    }

    /// Whether the whole of a blob is said to be there.
    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.object(digest).with_extension("json").is_file()
    }

    /// Waits until the whole of an image is in the bucket, right to the byte.
    pub(crate) async fn holds(&self, image: &Image) {
        eventually("the whole image in the bucket", async || {
            let right = |blob: &Blob| {
                self.has(blob.digest)
                    && std::fs::read(self.object(blob.digest)).is_ok_and(|bytes| bytes == blob.bytes)
            };
            image.blobs().chain([&image.manifest]).all(right).then_some(())
        })
        .await;
    }

    /// Files of uploads that were neither completed nor aborted.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut files = files_below(&self.objects());
        files.retain(|file| file.to_string_lossy().contains("upload"));
        files
    }

    fn objects(&self) -> PathBuf {
        self.root.path().join("objects")
    }
}

// === impl Gate ===

impl Gate {
    /// An open gate before `server`.
    pub(crate) async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (up, down) = (Arc::new(Way::open()), Arc::new(Way::open()));
        let (server, ways) = (server.to_owned(), (up.clone(), down.clone()));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, (up, down)) = (server.clone(), ways.clone());
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(&server).await else { return };
                    let ((from, to), (back, out)) = (client.into_split(), server.into_split());
                    // either end's end is the other's
                    tokio::select! {
                        () = up.pass(from, out) => {}
                        () = down.pass(back, to) => {}
                    }
                });
            }
        });
        Self { address, up, down, _serving: AbortOnDropHandle::new(serving) }
    }
}

// === impl Way ===

impl Way {
    fn open() -> Self {
        Self { moved: AtomicU64::new(0), most: watch::Sender::new(u64::MAX) }
    }

    /// Lets so many bytes more pass, and then none.
    pub(crate) fn hold_after(&self, bytes: u64) {
        self.most.send_replace(self.moved.load(Ordering::SeqCst) + bytes);
    }

    /// Lets everything pass again.
    pub(crate) fn release(&self) {
        self.most.send_replace(u64::MAX);
    }

    /// Waits until bytes stand here.
    pub(crate) async fn holding(&self) {
        eventually("bytes that stand at the gate", async || {
            (self.moved.load(Ordering::SeqCst) > *self.most.borrow()).then_some(())
        })
        .await;
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (mut buffer, mut most) = (vec![0; 64 * 1024], self.most.subscribe());
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let moved = self.moved.fetch_add(length as u64, Ordering::SeqCst) + length as u64;
            let _ = most.wait_for(|most| moved <= *most).await;
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
}

/// Flips one byte in the middle of a file.
pub(crate) fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}
