//! One connection to a neighbour that is known to be a member: the hello on it, and its streams.

use std::net::SocketAddr;
use std::time::SystemTime;

use quinn::{RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;

use super::{TransportError, settings};
use crate::identity::{self, PeerCertificate, Roll};
use crate::node::NodeId;
use crate::wire::codec::{self, FrameReader};
use crate::wire::hello::{self, Hello, Reply};

/// Session messages go before everything.
pub const CONTROL_PRIORITY: i32 = 20;
/// Piece sets go before pieces.
pub const LINK_PRIORITY: i32 = 10;
/// Pieces.
pub const DATA_PRIORITY: i32 = 0;

/// A hello is some labels long.
const MAX_HELLO: usize = 8 * 1024;

pub(super) const BYE: VarInt = VarInt::from_u32(0);
const REFUSED: VarInt = VarInt::from_u32(1);
const LATER: VarInt = VarInt::from_u32(2);

/// A live connection to a member. Cheap to clone; all clones are one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    quic: quinn::Connection,
    hello: Hello,
    version: u16,
    roll: Roll,
}

// === impl Connection ===

impl Connection {
    /// The dialler's side of the hello.
    pub(super) async fn greet(
        quic: quinn::Connection,
        ours: &Hello,
        roll: &Roll,
    ) -> Result<Self, TransportError> {
        let address = quic.remote_address();
        let broken = |source| match quic.close_reason() {
            Some(error) => explain(address, &error),
            None => TransportError::Codec { address, source },
        };
        let (mut send, receive) = quic.open_bi().await.map_err(|error| explain(address, &error))?;
        codec::send(&mut send, ours).await.map_err(broken)?;
        let reply = FrameReader::limited(receive, MAX_HELLO).expect::<Reply>().await.map_err(broken)?;
        match reply {
            Reply::Welcome(theirs) => Self::agree(quic, ours, theirs, roll),
            Reply::Refused(reason) => Err(TransportError::TurnedAway { address, reason }),
        }
    }

    /// The listener's side of the hello. A refusal is said to the dialler before it is returned.
    pub(super) async fn welcome(
        quic: quinn::Connection,
        ours: &Hello,
        roll: &Roll,
    ) -> Result<Self, TransportError> {
        let address = quic.remote_address();
        let broken = |source| TransportError::Codec { address, source };
        let (mut send, receive) = quic.accept_bi().await.map_err(|error| explain(address, &error))?;
        let theirs = FrameReader::limited(receive, MAX_HELLO).expect::<Hello>().await.map_err(broken)?;
        match Self::agree(quic, ours, theirs, roll) {
            Ok(connection) => {
                codec::send(&mut send, &Reply::Welcome(ours.clone())).await.map_err(broken)?;
                settings::open_up(&connection.quic);
                Ok(connection)
            }
            Err(error) => {
                let reason = match &error {
                    TransportError::Failed { reason, .. } => reason.clone(),
                    other => other.to_string(),
                };
                codec::send(&mut send, &Reply::Refused(reason)).await.map_err(broken)?;
                // The dialler closes once it has read the refusal; dropping the stream early could lose it.
                let _ = send.finish();
                let _ = send.stopped().await;
                Err(error)
            }
        }
    }

    fn agree(
        quic: quinn::Connection,
        ours: &Hello,
        theirs: Hello,
        roll: &Roll,
    ) -> Result<Self, TransportError> {
        let address = quic.remote_address();
        let failed = |reason: String| TransportError::Failed { address, reason };
        let certificate = certificate(&quic).map_err(failed)?;
        if certificate.node != theirs.node || certificate.role != theirs.role {
            return Err(failed(format!("{} calls itself {}", certificate.node, theirs.node)));
        }
        let version = hello::agree((ours.min_version, ours.version), (theirs.min_version, theirs.version))
            .map_err(failed)?;
        roll.admits(theirs.node, SystemTime::now()).map_err(failed)?;
        Ok(Self { quic, hello: theirs, version, roll: roll.clone() })
    }

    /// Who is at the other end: proven by its certificate.
    pub fn node(&self) -> NodeId {
        self.hello.node
    }

    /// What it says of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The protocol version that both speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Its address as seen here.
    pub fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Whether both are hands on one connection.
    pub fn is(&self, other: &Self) -> bool {
        self.quic.stable_id() == other.quic.stable_id()
    }

    /// Whether it is still up.
    pub fn is_open(&self) -> bool {
        self.quic.close_reason().is_none()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), TransportError> {
        self.quic.open_bi().await.map_err(|error| explain(self.remote_address(), &error))
    }

    /// The next stream that the neighbour opens. Somebody always waits here, so this is also where the connection of a
    /// neighbour that is turned out meanwhile ends.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), TransportError> {
        tokio::select! {
            accepted = self.quic.accept_bi() => {
                accepted.map_err(|error| explain(self.remote_address(), &error))
            }
            words = self.roll.turned_out(self.node()) => {
                tracing::info!(node = %self.node(), "connection ended: {words}");
                refuse(&self.quic, &words);
                Err(TransportError::Failed { address: self.remote_address(), reason: words })
            }
        }
    }

    /// Lets the neighbour have so many streams open at once, within a limit; gives how many it may have now. Never fewer
    /// than it may have already.
    pub fn allow_streams(&self, count: u32) -> u32 {
        let count = count.min(settings::MAX_STREAMS);
        self.quic.set_max_concurrent_bi_streams(VarInt::from_u32(count));
        count
    }

    /// Waits until the connection is gone and says why.
    pub async fn closed(&self) -> TransportError {
        explain(self.remote_address(), &self.quic.closed().await)
    }

    /// Ends it, with a word for the neighbour's log.
    pub fn close(&self, reason: &str) {
        self.quic.close(BYE, reason.as_bytes());
    }

    /// How long a packet takes there and back.
    pub fn rtt(&self) -> std::time::Duration {
        self.quic.rtt()
    }
}

/// Turns a dialler away, in words that its log will show.
pub(super) fn refuse(quic: &quinn::Connection, reason: &str) {
    quic.close(REFUSED, reason.as_bytes());
}

/// Tells a stranger to come again, in words that its log will show.
pub(super) fn put_off(quic: &quinn::Connection, reason: &str) {
    quic.close(LATER, reason.as_bytes());
}

/// The neighbour's certificate, which TLS has verified already.
pub(super) fn certificate(quic: &quinn::Connection) -> Result<PeerCertificate, String> {
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("no member certificate: join the cluster with a token (--join-token-file)")?;
    identity::read_peer_certificate(&chain).map_err(|error| error.to_string())
}

/// A connection's end in words.
pub(super) fn explain(address: SocketAddr, error: &quinn::ConnectionError) -> TransportError {
    use quinn::ConnectionError as E;
    match error {
        E::ApplicationClosed(close) if close.error_code == REFUSED => TransportError::TurnedAway {
            address,
            reason: String::from_utf8_lossy(&close.reason).chars().take(300).collect(),
        },
        E::ApplicationClosed(close) if close.error_code == LATER => TransportError::PutOff {
            address,
            reason: String::from_utf8_lossy(&close.reason).chars().take(300).collect(),
        },
        E::ApplicationClosed(close) => TransportError::Failed {
            address,
            reason: format!(
                "closed: {}",
                String::from_utf8_lossy(&close.reason).chars().take(300).collect::<String>()
            ),
        },
        // A TLS alert from the other side: it does not accept our certificate.
        E::ConnectionClosed(close) if (0x100..0x200).contains(&u64::from(close.error_code)) => {
            TransportError::TurnedAway { address, reason: close.to_string() }
        }
        E::TimedOut => TransportError::Silent { address },
        // Our own TLS does not accept what it shows: QUIC's error codes 0x100 to 0x1ff are TLS alerts (RFC 9001, 4.8).
        E::TransportError(fault) if (0x100..0x200).contains(&u64::from(fault.code)) => {
            TransportError::Distrusted { address, reason: fault.reason.clone() }
        }
        other => TransportError::Failed { address, reason: other.to_string() },
    }
}
