//! A supernode, an origin, and peers on demand, all on free ports of the loopback with folders of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::digest::{Digest, Hasher};
use common::identity::{self, JoinProof, JoinToken};
use common::node::NodeId;
use common::piece::{ByteRange, Geometry};
use common::task::{Credentials, Source, TaskId};
use common::telemetry::trace::TraceContext;
use common::telemetry::{ByteSource, LogFormat, Metrics, init_logging};
use common::wire::swarm::Priority;
use futures_util::{StreamExt as _, TryStreamExt as _};
use peer::daemon::{DaemonError, Peer, PeerOptions};
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::handle::Handle;
use peer::origin::OriginOptions;
use serde_json::Value;
use supernode::admission::Capacity;
use supernode::daemon::{Supernode, SupernodeOptions};
use tempfile::TempDir;

use crate::origin::Origin;

/// Far beyond what any test needs on a busy machine: it turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// What every pull is part of: nothing, unless a test collects spans.
const TRACED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) struct Cluster {
    pub(crate) supernode: Supernode,
    pub(crate) origin: Origin,
    pub(crate) token: JoinToken,
    pub(crate) dir: TempDir,
}

/// Bytes that a node received, by where from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) origin: u64,
    pub(crate) seed: u64,
    pub(crate) peer: u64,
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Origins on loopback must be named.
pub(crate) fn origins(origin: &Origin) -> OriginOptions {
    OriginOptions { allow: vec![origin.host()], ..OriginOptions::default() }
}

/// A peer's options that every test shares.
pub(crate) fn peer_options(dir: &Path, origin: &Origin, supernode: SocketAddr) -> PeerOptions {
    let options = PeerOptions::local(dir.to_owned());
    PeerOptions { supernodes: vec![supernode.to_string()], origin: origins(origin), ..options }
}

pub(crate) async fn start_supernode(data_dir: &Path, origin: &Origin, quic_listen: SocketAddr) -> Supernode {
    Supernode::start(supernode_options(data_dir, origin, quic_listen)).await.unwrap()
}

fn supernode_options(data_dir: &Path, origin: &Origin, quic_listen: SocketAddr) -> SupernodeOptions {
    let options = SupernodeOptions::local(data_dir.to_owned());
    SupernodeOptions { quic_listen, origin: origins(origin), ..options }
}

// === impl Cluster ===

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(Capacity::default()).await
    }

    pub(crate) async fn start_with(capacity: Capacity) -> Self {
        identity::install_crypto_provider();
        init_logging(LogFormat::Human, "off");
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start().await;
        let options = supernode_options(&dir.path().join("supernode"), &origin, loopback());
        let supernode = Supernode::start(SupernodeOptions { capacity, ..options }).await.unwrap();
        let token = JoinToken::read(supernode.token()).unwrap();
        Self { supernode, origin, token, dir }
    }

    /// Closes the supernode and starts it again on its port and folder.
    pub(crate) async fn restart_supernode(self) -> Self {
        let Self { supernode, origin, token, dir } = self;
        let address = supernode.quic();
        supernode.close().await;
        let supernode = start_supernode(&dir.path().join("supernode"), &origin, address).await;
        Self { supernode, origin, token, dir }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A peer with its data in the folder `name`, once it has a session.
    pub(crate) async fn peer(&self, name: &str) -> Peer {
        let peer = self.try_peer(name, Some(self.token.clone())).await.unwrap();
        peer.connected().wait_for(|connected| *connected).await.unwrap();
        peer
    }

    pub(crate) async fn try_peer(&self, name: &str, token: Option<JoinToken>) -> Result<Peer, DaemonError> {
        let options = peer_options(&self.folder(name), &self.origin, self.supernode.quic());
        let proof = token.map(|token| Arc::new(token) as Arc<dyn JoinProof>);
        Peer::start(PeerOptions { proof, ..options }).await
    }

    pub(crate) async fn peers(&self, count: usize) -> Vec<Peer> {
        let mut peers = Vec::new();
        for number in 0..count {
            peers.push(self.peer(&format!("peer-{number}")).await);
        }
        peers
    }

    /// What the supernode says of itself.
    pub(crate) async fn status(&self) -> Value {
        status(&self.supernode).await
    }

    /// What the supernode knows of a peer; nothing when it is not connected.
    pub(crate) async fn seen(&self, node: NodeId) -> Value {
        let status = self.status().await;
        let peers = status["peers"].as_array().unwrap();
        peers.iter().find(|peer| peer["node"] == node.to_string()).cloned().unwrap_or(Value::Null)
    }
}

/// What a supernode says of itself.
pub(crate) async fn status(supernode: &Supernode) -> Value {
    let url = format!("http://{}/api/v1/status", supernode.http());
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// Runs a test's body within [`LIMIT`].
pub(crate) async fn within<T>(body: impl Future<Output = T>) -> T {
    // The body is a large future, and a test has one of it.
    tokio::time::timeout(LIMIT, Box::pin(body)).await.expect("the test hangs")
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("it never came to this: {what}"));
}

pub(crate) async fn open(engine: &Engine, source: Source) -> Result<Handle, FetchError> {
    let (credentials, priority) = (Credentials::none(), Priority::Pull);
    let trace = TraceContext::read(TRACED);
    engine.open(Request { source, credentials, priority, trace }).await
}

/// The digest of what a client reads of the whole.
pub(crate) async fn read(handle: &Handle) -> Result<Digest, FetchError> {
    let mut hasher = Hasher::new();
    let mut bytes = std::pin::pin!(handle.read(ByteRange::new(0, handle.length())));
    while let Some(chunk) = bytes.next().await {
        hasher.update(&chunk?);
    }
    Ok(hasher.finish())
}

/// Bytes of a range, as a client reads them.
pub(crate) async fn read_range(handle: &Handle, start: u64, end: u64) -> Result<Vec<u8>, FetchError> {
    let chunks = handle.read(ByteRange::new(start, end));
    chunks
        .try_fold(Vec::new(), |mut bytes, chunk| async move {
            bytes.extend_from_slice(&chunk);
            Ok(bytes)
        })
        .await
}

/// Opens a task and reads it all.
pub(crate) async fn pull(engine: &Engine, source: Source) -> Result<Digest, FetchError> {
    read(&open(engine, source).await?).await
}

/// All peers pull at once.
pub(crate) async fn pull_all(peers: &[Peer], source: &Source) -> Vec<Result<Digest, FetchError>> {
    let pulls = peers.iter().map(|peer| pull(peer.engine(), source.clone()));
    futures_util::future::join_all(pulls).await
}

/// What the store holds of a task: pieces, and whether it is proven. Nothing when it does not know it.
pub(crate) fn stored(engine: &Engine, task: TaskId) -> Option<(u32, bool)> {
    let entries = engine.store().list().unwrap();
    entries.iter().find(|entry| entry.task == task).map(|entry| (entry.held, entry.proven))
}

pub(crate) fn received(metrics: &Metrics) -> Received {
    let of = |source| metrics.received_bytes.of(source).get();
    Received { origin: of(ByteSource::Origin), seed: of(ByteSource::Seed), peer: of(ByteSource::Peer) }
}

pub(crate) fn geometry(length: u64) -> Geometry {
    Geometry::of(length).unwrap()
}

// === impl Received ===

impl Received {
    pub(crate) fn total(&self) -> u64 {
        self.origin + self.seed + self.peer
    }
}

pub(crate) async fn close(cluster: Cluster, peers: Vec<Peer>) {
    futures_util::future::join_all(peers.into_iter().map(Peer::close)).await;
    cluster.supernode.close().await;
}
