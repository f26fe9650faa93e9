//! A member that keeps to no rule: a certificate of the cluster's own, a bare QUIC endpoint, and the wire's codec. What it says
//! is its own business; what it hears, it counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::identity::{self, Identity, JoinToken};
use common::node::{NodeId, Role};
use common::transport;
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::Opening;
use common::wire::hello::{Hello, Reply};
use common::wire::swarm::{Failure, ToPeer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, RecvStream, SendStream};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::support::LIMIT;

/// Whoever takes nothing for so long has stopped listening, which is its right.
const STUCK: Duration = Duration::from_secs(30);

/// Whom it attacks.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The name that its certificate has.
    pub(crate) name: String,
}

pub(crate) struct Villain {
    endpoint: quinn::Endpoint,
    identity: Identity,
}

/// How often it was told what.
pub(crate) type Told = BTreeMap<&'static str, usize>;

/// What is heard on a session, as it comes.
pub(crate) struct Hearing {
    told: watch::Receiver<Told>,
    _hearing: AbortOnDropHandle<()>,
}

// === impl Target ===

impl Target {
    pub(crate) fn supernode(address: &str) -> Self {
        Self { address: address.parse().unwrap(), name: identity::SUPERNODE_NAME.to_owned() }
    }

    pub(crate) fn peer(address: &str, node: NodeId) -> Self {
        Self { address: address.parse().unwrap(), name: identity::server_name(node) }
    }
}

// === impl Villain ===

impl Villain {
    /// Becomes a member as everybody does.
    pub(crate) async fn enrol(supernode: &Target, token: &JoinToken) -> Self {
        let identity = Identity::ephemeral().unwrap();
        transport::enrol(supernode.address, token, &identity).await.unwrap();
        Self { endpoint: bare(), identity }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.identity.node()
    }

    /// What an honest member would say first.
    pub(crate) fn hello(&self) -> Hello {
        Hello { slots: 8, ..transport::hello(self.node(), Role::Peer) }
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self, target: &Target) -> Connection {
        let tls = self.identity.client_config().unwrap();
        dial(&self.endpoint, tls, target).await.expect("a member is let in")
    }

    /// A connection after a proper hello.
    pub(crate) async fn meet(&self, target: &Target) -> Connection {
        let connection = self.connect(target).await;
        let reply = greet(&connection, &self.hello()).await;
        assert!(matches!(reply, Some(Reply::Welcome(_))), "{reply:?}");
        connection
    }

    /// A connection with a session on it, and what is heard on that.
    pub(crate) async fn session(&self, target: &Target) -> (Connection, SendStream, Hearing) {
        let connection = self.meet(target).await;
        let (mut send, receive) = connection.open_bi().await.unwrap();
        codec::send(&mut send, &Opening::Session).await.unwrap();
        (connection, send, Hearing::of(receive))
    }
}

// === impl Hearing ===

impl Hearing {
    fn of(receive: RecvStream) -> Self {
        let (sender, told) = watch::channel(Told::new());
        Self { told, _hearing: AbortOnDropHandle::new(tokio::spawn(hear(receive, sender))) }
    }

    /// Waits until it was told so much, for a while; what it was told by then.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Told) -> bool) -> Told {
        let _ = tokio::time::timeout(LIMIT, self.told.wait_for(enough)).await;
        self.told.borrow().clone()
    }

    /// Hears all of it.
    pub(crate) async fn end(mut self) -> Told {
        while self.told.changed().await.is_ok() {}
        self.told.borrow().clone()
    }
}

/// An endpoint on a free port.
pub(crate) fn bare() -> quinn::Endpoint {
    bare_at(Ipv4Addr::LOCALHOST)
}

/// The same, of another host as far as anybody can see.
pub(crate) fn bare_at(host: Ipv4Addr) -> quinn::Endpoint {
    quinn::Endpoint::client((IpAddr::from(host), 0).into()).unwrap()
}

pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    tls: rustls::ClientConfig,
    target: &Target,
) -> Result<Connection, quinn::ConnectionError> {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport::transport_config()));
    endpoint.connect_with(config, target.address, &target.name).unwrap().await
}

/// Says hello; nothing when there is no answer to it.
pub(crate) async fn greet(connection: &Connection, hello: &Hello) -> Option<Reply> {
    let (mut send, receive) = connection.open_bi().await.ok()?;
    codec::send(&mut send, hello).await.ok()?;
    FrameReader::new(receive).next().await.ok()?
}

/// Says it, unless nobody listens any more.
pub(crate) async fn say<T: Serialize>(send: &mut SendStream, message: &T) -> bool {
    write(send, &codec::encode(message).unwrap()).await
}

pub(crate) async fn write(send: &mut SendStream, bytes: &[u8]) -> bool {
    tokio::time::timeout(STUCK, send.write_all(bytes)).await.is_ok_and(|written| written.is_ok())
}

async fn hear(receive: RecvStream, told: watch::Sender<Told>) {
    let mut reader = FrameReader::new(receive);
    while let Ok(Some(message)) = reader.next::<ToPeer>().await {
        told.send_modify(|told| *told.entry(kind(&message)).or_default() += 1);
    }
}

fn kind(message: &ToPeer) -> &'static str {
    match message {
        ToPeer::Failed { failure: Failure::Busy { .. }, .. } => "busy",
        ToPeer::Failed { failure: Failure::Refused(_), .. } => "refused",
        ToPeer::Failed { .. } => "failed",
        ToPeer::RenewalRefused(_) => "renewal refused",
        ToPeer::Revoked(_) => "revoked",
        ToPeer::Authorities(_) => "authorities",
        _ => "other",
    }
}
