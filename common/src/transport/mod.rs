//! The QUIC transport: one UDP port per node, one mutually authenticated connection between two nodes, streams for
//! everything. The daemons bind one [`Transport`]; the exchange and the sessions use its [`Connection`]s.
//!
//! # Invariants
//! - A [`Connection`] exists only for a neighbour whose certificate the cluster's CA signed, whose node id is that
//!   of its key, and who speaks a protocol version that we understand.
//! - A stranger gets as far as one enrolment request, on a supernode only, and is otherwise told why it is turned
//!   away and counted.

mod accept;
mod connection;
mod driver;
mod enrolment;
mod places;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::identity::{self, Admits, Identity, IdentityError};
use crate::node::{Contact, NodeId, Role};
use crate::wire::codec::CodecError;
use crate::wire::hello::{self, Hello};

pub use accept::{Enrolling, Inbound};
pub use connection::{CONTROL_PRIORITY, Connection, DATA_PRIORITY, LINK_PRIORITY};
pub use driver::{SOCKET_BUFFER, udp_socket};
pub use enrolment::{enrol, knock};
pub use places::source;
pub use settings::{FIRST_STREAMS, endpoint_config, transport_config};

use driver::Driver;

/// A neighbour on a healthy network answers a handshake in a few round trips.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a closing endpoint waits for its last packets to be heard.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a neighbour cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP port cannot be had.
    #[error("cannot listen on {address}/udp: {source}; choose another with --quic-listen")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that drives the socket cannot be started.
    #[error("cannot start the network thread: {0}")]
    Thread(std::io::Error),
    /// Keys or certificates are not in order.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody answers.
    #[error("{address} does not answer on UDP within {} s", DIAL_TIMEOUT.as_secs())]
    Silent {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The handshake or the connection failed.
    #[error("{address}: {reason}")]
    Failed {
        /// Who was dialled.
        address: SocketAddr,
        /// In words.
        reason: String,
    },
    /// We do not accept its certificate.
    #[error("{address} is not who it should be: {reason}")]
    Distrusted {
        /// Who was dialled.
        address: SocketAddr,
        /// In words.
        reason: String,
    },
    /// The supernode refuses what we joined with.
    #[error("{address} refuses the {proof}: {reason}")]
    ProofRefused {
        /// Who was dialled.
        address: SocketAddr,
        /// What was shown.
        proof: &'static str,
        /// Its words.
        reason: String,
    },
    /// The supernode cannot tell just now whether we may join.
    #[error("{address} cannot let this node join just now: {reason}")]
    PutOff {
        /// Who was dialled.
        address: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// The supernode is of another cluster than what we would join with.
    #[error("{address} is no supernode of the cluster that the {proof} is for ({reason})")]
    OtherCluster {
        /// Who was dialled.
        address: SocketAddr,
        /// What would have been shown.
        proof: &'static str,
        /// In words.
        reason: String,
    },
    /// The neighbour says that we are not welcome.
    #[error("turned away by {address}: {reason}")]
    TurnedAway {
        /// Who was dialled.
        address: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// What came was no proper message.
    #[error("{address}: {source}")]
    Codec {
        /// Who sent it.
        address: SocketAddr,
        /// What was wrong with it.
        source: CodecError,
    },
}

/// How a node's transport is to be.
pub struct TransportOptions {
    /// The UDP address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who we are.
    pub identity: Identity,
    /// Who may connect.
    pub admits: Admits,
    /// What we say of ourselves.
    pub hello: Hello,
}

/// A node's end of all its connections. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: quinn::Endpoint,
    driver: Driver,
    identity: Identity,
    admits: Admits,
    hello: Hello,
    /// The CAs that connections are accepted under; none before the node has a certificate.
    accepts_under: std::sync::Mutex<Vec<Digest>>,
    inbound: Mutex<mpsc::Receiver<Inbound>>,
    stop: CancellationToken,
}

// === impl Transport ===

impl Transport {
    /// Binds the port and begins to accept; without a certificate, once there is one (see
    /// [`Transport::refresh`]).
    ///
    /// # Errors
    /// When the port is taken.
    pub fn bind(options: TransportOptions) -> Result<Self, TransportError> {
        let TransportOptions { listen, identity, admits, hello } = options;
        let driver = Driver::start()?;
        let endpoint = driver.endpoint(listen, None)?;
        let stop = CancellationToken::new();
        let (sender, inbound) = mpsc::channel(64);
        let roll = identity.roll().clone();
        let acceptor = accept::Acceptor { endpoint: endpoint.clone(), hello: hello.clone(), roll, sender };
        driver.handle().spawn(stop.clone().run_until_cancelled_owned(acceptor.run()));
        let shared = Shared {
            endpoint,
            driver,
            identity,
            admits,
            hello,
            accepts_under: std::sync::Mutex::default(),
            inbound: Mutex::new(inbound),
            stop,
        };
        let transport = Self { shared: Arc::new(shared) };
        transport.refresh()?;
        let following = follow(Arc::downgrade(&transport.shared));
        transport
            .shared
            .driver
            .handle()
            .spawn(transport.shared.stop.clone().run_until_cancelled_owned(following));
        Ok(transport)
    }

    /// Accepts connections under the CAs that are believed now. Needs no call: it is done whenever other CAs are, but
    /// whoever has just enrolled may not want to wait for that.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn refresh(&self) -> Result<(), TransportError> {
        let shared = &self.shared;
        if shared.identity.certificate().is_none() {
            return Ok(());
        }
        let mut accepts_under =
            shared.accepts_under.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let authorities = shared.identity.authorities();
        if *accepts_under != authorities {
            let tls = shared.identity.server_config(shared.admits)?;
            let address = ([0, 0, 0, 0], 0).into();
            let listen = shared.endpoint.local_addr().unwrap_or(address);
            shared.endpoint.set_server_config(Some(settings::server(tls, listen)?));
            *accepts_under = authorities;
        }
        Ok(())
    }

    /// Who we are.
    pub fn node(&self) -> NodeId {
        self.shared.hello.node
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// The next who connects; `None` once the transport is closed. Meant for one caller.
    pub async fn accept(&self) -> Option<Inbound> {
        self.shared.inbound.lock().await.recv().await
    }

    /// Connects to a member, which must prove to be the node that `contact` names.
    ///
    /// # Errors
    /// When it does not answer, proves to be somebody else, or turns us away.
    pub async fn dial(&self, contact: &Contact) -> Result<Connection, TransportError> {
        let address = contact.address;
        let config = settings::client(self.shared.identity.client_config()?, address)?;
        self.connect(config, address, &identity::server_name(contact.id)).await
    }

    /// Connects to the supernode at `address`, which must prove to be one of this cluster. Its silence is noticed sooner
    /// than another neighbour's.
    ///
    /// # Errors
    /// When it does not answer, is no supernode of this cluster, or turns us away.
    pub async fn dial_supernode(&self, address: SocketAddr) -> Result<Connection, TransportError> {
        let config = settings::client_of_supernode(self.shared.identity.client_config()?, address)?;
        let connection = self.connect(config, address, identity::SUPERNODE_NAME).await?;
        if connection.hello().role != Role::Supernode {
            return Err(TransportError::Failed { address, reason: "it is no supernode".into() });
        }
        Ok(connection)
    }

    async fn connect(
        &self,
        config: quinn::ClientConfig,
        address: SocketAddr,
        name: &str,
    ) -> Result<Connection, TransportError> {
        let shared = &self.shared;
        let dialling = async {
            let quic = establish(&shared.endpoint, config, address, name).await?;
            Connection::greet(quic, &shared.hello, shared.identity.roll()).await
        };
        tokio::time::timeout(DIAL_TIMEOUT, dialling).await.map_err(|_| TransportError::Silent { address })?
    }

    /// Says goodbye to everybody and frees the port.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.endpoint.close(connection::BYE, b"shutting down");
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.shared.endpoint.wait_idle()).await;
        self.shared.driver.stop();
    }
}

/// Accepts under other CAs as soon as they are believed, until the transport is gone.
async fn follow(shared: std::sync::Weak<Shared>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.identity.changes()) else { return };
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = (Transport { shared }).refresh() {
            tracing::error!("connections are accepted as before: {error}");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn establish(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    name: &str,
) -> Result<quinn::Connection, TransportError> {
    let connecting = endpoint
        .connect_with(config, address, name)
        .map_err(|error| TransportError::Failed { address, reason: error.to_string() })?;
    connecting.await.map_err(|error| connection::explain(address, &error))
}

/// What a node says of itself, with this build's versions.
pub fn hello(node: NodeId, role: Role) -> Hello {
    Hello {
        version: hello::VERSION,
        min_version: hello::MIN_VERSION,
        node,
        role,
        features: 0,
        advertise: None,
        labels: Default::default(),
        slots: 0,
    }
}

#[cfg(test)]
mod tests;
