//! A peer as a process: opens the data folder, becomes a member, and runs the engine with its doors: QUIC for
//! neighbours, HTTP for metrics and health, the Unix socket for local commands. The proxy is put in front of
//! [`Peer::engine`] by the binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::identity::{Admits, Identity, IdentityError, JoinProof};
use common::node::{Labels, Role};
use common::telemetry::{Metrics, TurnedAway};
use common::transport::{self, Inbound, Transport, TransportError, TransportOptions};
use common::wire::hello;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::content_store;
use crate::coordinator::directory::{Dns, Resolver};
use crate::coordinator::remote::{Remote, RemoteOptions, SupernodeView};
use crate::coordinator::session;
use crate::coordinator::standing::Standing;
use crate::engine::{Engine, EngineOptions};
use crate::errand::Errands;
use crate::exchange::reveal::Style;
use crate::limit::Rates;
use crate::origin::{OriginClient, OriginError, OriginOptions};
use crate::runtime::Runtime;
use crate::socket::ClientSocket;
use crate::store::{Limits, Store, StoreError, StoreOptions};
use crate::tasks::Tasks;
use crate::{health, housekeeping, local_api, socket};

/// Children served at once, per task.
const SLOTS: u16 = 8;
/// Open requests get so long to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);
/// Pulls wait while a start asks for a certificate; after this it asks nobody else, and the sessions go on trying. What was
/// asked already is waited for: an answer that nobody takes would use up a token.
const FIRST_ENROLMENT: Duration = Duration::from_secs(5);
/// Errands that wait to be begun: they are begun at once.
const ERRANDS: usize = 8;
/// The local API's socket in the data folder.
pub const SOCKET: &str = "longshore.sock";

/// How a peer is to be.
pub struct PeerOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// It is here for one fetch: nothing that it keeps outlives it, and nobody counts on it.
    pub passing: bool,
    /// `HOST:PORT` of supernodes.
    pub supernodes: Vec<String>,
    /// What lets us in the first time.
    pub proof: Option<Arc<dyn JoinProof>>,
    /// UDP address for neighbours.
    pub quic_listen: SocketAddr,
    /// TCP address for metrics and health; none for a temporary member.
    pub http_listen: Option<SocketAddr>,
    /// The socket through which other users of the machine fetch.
    pub client_socket: Option<ClientSocket>,
    /// Where neighbours reach us, if not where our packets come from.
    pub advertise: Option<SocketAddr>,
    /// Where we stand.
    pub labels: Labels,
    /// How origins are asked.
    pub origin: OriginOptions,
    /// Folders of whole blobs that are a container runtime's, and are offered from where they lie.
    pub content_store: Vec<PathBuf>,
    /// The container runtime that may be asked to pull.
    pub runtime: Runtime,
    /// How much to keep.
    pub limits: Limits,
    /// The limits to begin with.
    pub rates: Rates,
}

/// Why a peer cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data folder or its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys or certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The QUIC port, or the supernode turned us away.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The origin settings.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// What we would join with does not open this cluster.
    #[error("cannot join the cluster: {cause}; {way_out}")]
    Proof {
        /// What the supernode said, or what is wrong with it.
        cause: TransportError,
        /// What to do.
        way_out: &'static str,
    },
    /// Something that only one kind of daemon has.
    #[error(transparent)]
    Part(Box<dyn std::error::Error + Send + Sync>),
    /// A TCP port.
    #[error("cannot listen on {address}/tcp for {purpose}: {source}; choose another with {flag}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// What else a daemon needs, in its own words.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// The Unix socket.
    #[error("cannot make the socket {path}: {source}", path = path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running peer.
pub struct Peer {
    engine: Engine,
    transport: Transport,
    connected: watch::Receiver<bool>,
    supernodes: watch::Receiver<Vec<SupernodeView>>,
    quic: SocketAddr,
    http: Option<SocketAddr>,
    socket: PathBuf,
    tasks: Tasks,
}

/// Listens for HTTP; an error names the flag that chooses another port.
///
/// # Errors
/// When the port cannot be had.
pub async fn listen(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, purpose, flag, source })
}

// === impl PeerOptions ===

impl PeerOptions {
    /// A peer for this machine alone: on loopback, at a free port, without HTTP, supernodes and limits.
    pub fn local(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            passing: false,
            supernodes: Vec::new(),
            proof: None,
            quic_listen: (Ipv4Addr::LOCALHOST, 0).into(),
            http_listen: None,
            client_socket: None,
            advertise: None,
            labels: Labels::default(),
            origin: OriginOptions::default(),
            content_store: Vec::new(),
            runtime: Runtime::default(),
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }
}

// === impl Peer ===

impl Peer {
    /// Starts a peer on the present runtime. A supernode that does not answer, or cannot tell yet, is tried again in the
    /// background; a refusal is an error.
    ///
    /// # Errors
    /// When the folder, the ports, the settings or what it joins with cannot be used.
    pub async fn start(options: PeerOptions) -> Result<Self, DaemonError> {
        Self::start_with(options, Arc::new(Dns)).await
    }

    /// [`Peer::start`], with somebody else to say where supernodes are.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(options: PeerOptions, resolver: Arc<dyn Resolver>) -> Result<Self, DaemonError> {
        let PeerOptions { data_dir, supernodes, proof, labels, origin, .. } = options;
        let store_options = StoreOptions { limits: options.limits, durable: !options.passing };
        let metrics = Metrics::new();
        let counted = metrics.clone();
        let store_dir = data_dir.clone();
        let content_store = options.content_store;
        let none_foreign = content_store.is_empty();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open_counted(&store_dir, store_options, counted)?;
            // Nobody watches over what an earlier run adopted.
            if none_foreign {
                store.adopted()?.into_iter().try_for_each(|(task, _)| store.disown(task).map(drop))?;
            }
            Ok::<_, StoreError>(store)
        })
        .await;
        let store = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let identity_dir = data_dir.join("identity");
        let identity = Identity::open(&identity_dir)?;
        let standing = Standing::open(identity.clone(), &identity_dir)?;
        let mut hello = transport::hello(identity.node(), Role::Peer);
        hello.advertise = options.advertise;
        hello.labels = labels;
        hello.features = if options.passing { hello::PASSING } else { 0 };
        hello.slots = SLOTS;
        let transport = Transport::bind(TransportOptions {
            listen: options.quic_listen,
            identity: identity.clone(),
            admits: Admits::Members,
            hello,
        })?;
        let quic = transport.local_addr().unwrap_or(options.quic_listen);
        first_enrolment((&supernodes, &*resolver), proof.as_deref(), &identity).await?;
        let mark = mark(&identity, proof.as_deref());
        let remote =
            RemoteOptions { supernodes, resolver, identity, standing, proof, metrics: metrics.clone() };
        let (remote, driver) = Remote::new(remote);
        let origin = OriginClient::new(origin)?.with_mark(&mark);
        let (connected, supernodes) = (remote.connected(), remote.supernodes());
        let (errands, streams) = mpsc::channel(ERRANDS);
        let engine = Engine::start(EngineOptions {
            store,
            transport: Some(transport.clone()),
            coordinator: Arc::new(remote),
            origin,
            vault: None,
            metrics,
            style: Style::Peer,
            sessions: None,
            errands: Some(errands),
            rates: options.rates,
        });
        let mut peer = Self {
            engine,
            transport,
            connected,
            supernodes,
            quic,
            http: None,
            socket: data_dir.join(SOCKET),
            tasks: Tasks::default(),
        };
        peer.tasks.spawn(driver.run(peer.transport.clone(), peer.engine.clone()));
        peer.tasks.spawn(Errands::new(peer.engine.clone(), options.runtime).run(streams));
        peer.tasks.spawn(accept(peer.transport.clone(), peer.engine.clone()));
        peer.tasks.spawn(housekeeping::run(peer.engine.store().clone()));
        if !content_store.is_empty() {
            let store = peer.engine.store().clone();
            peer.tasks.spawn(content_store::watch(store, content_store));
        }
        if let Some(address) = options.http_listen {
            peer.open_doors(address).await?;
        }
        if let Some(clients) = options.client_socket {
            let listener = clients.bind().await?;
            peer.tasks.serve(listener, local_api::for_clients(peer.engine.clone()));
        }
        Ok(peer)
    }

    async fn open_doors(&mut self, address: SocketAddr) -> Result<(), DaemonError> {
        let listener = listen(address, "metrics and health", "--http-listen").await?;
        self.http = listener.local_addr().ok();
        let (engine, connected) = (self.engine.clone(), self.connected.clone());
        let ready = Arc::new(move || match *connected.borrow() {
            true => Ok(()),
            false => Err("no session with a supernode; pulls go to the origin".to_owned()),
        });
        let router = health::router(engine.metrics().clone(), Arc::new(move || engine.sample()), ready);
        self.tasks.serve(listener, router);
        let socket = socket::bind(&self.socket)?;
        self.tasks.serve(socket, local_api::router(self.engine.clone(), self.supernodes.clone()));
        Ok(())
    }

    /// The engine, for whatever stands in front of it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether there is a session with any supernode.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// The addresses of the supernodes, and how it is there.
    pub fn supernodes(&self) -> watch::Receiver<Vec<SupernodeView>> {
        self.supernodes.clone()
    }

    /// The UDP address that was bound.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// The HTTP address that was bound.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The local API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends open requests, then everything, and flushes the store.
    pub async fn close(self) {
        self.tasks.close(GRACE).await;
        self.engine.close().await;
        self.transport.close().await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What a cluster's nodes mark their questions with: a part of its CA's fingerprint, which is no secret.
fn mark(identity: &Identity, proof: Option<&dyn JoinProof>) -> String {
    let certificate = identity.certificate().map(|certificate| certificate.ca_fingerprint);
    let cluster = certificate.or_else(|| proof.map(JoinProof::cluster));
    cluster.map_or_else(|| identity.node().to_string(), |ca| ca.hex()[..12].to_owned())
}

/// A first certificate, while somebody watches the start: a refusal is an error now, silence is not.
async fn first_enrolment(
    (supernodes, resolver): (&[String], &dyn Resolver),
    proof: Option<&dyn JoinProof>,
    identity: &Identity,
) -> Result<(), DaemonError> {
    let Some(proof) = proof.filter(|proof| session::must_enrol(identity, Some(*proof), SystemTime::now()))
    else {
        return Ok(());
    };
    let enough = Instant::now() + FIRST_ENROLMENT;
    for name in supernodes {
        let looked_up = tokio::time::timeout_at(enough.into(), resolver.lookup(name.clone())).await;
        let Ok(Ok(addresses)) = looked_up else { continue };
        for address in addresses {
            if Instant::now() >= enough {
                return Ok(());
            }
            match transport::enrol(address, proof, identity).await {
                Ok(()) => {
                    tracing::info!(supernode = %address, node = %identity.node(), "enrolled");
                    return Ok(());
                }
                Err(cause @ (TransportError::ProofRefused { .. } | TransportError::OtherCluster { .. })) => {
                    return Err(DaemonError::Proof { cause, way_out: proof.way_out() });
                }
                // It may be there in a moment: the session tries again.
                Err(error) => tracing::warn!(supernode = %address, "not enrolled yet: {error}"),
            }
        }
    }
    Ok(())
}

async fn accept(transport: Transport, engine: Engine) {
    while let Some(inbound) = transport.accept().await {
        match inbound {
            Inbound::Member(connection) => engine.adopt(connection),
            Inbound::TurnedAway { remote, reason } => {
                engine.metrics().turned_away.of(TurnedAway::Identity).inc();
                tracing::warn!(%remote, "turned away: {reason}");
            }
            Inbound::Enrolling(enrolling) => {
                tracing::warn!(remote = %enrolling.remote(), "asked to enrol here, but this is no supernode");
            }
        }
    }
}
