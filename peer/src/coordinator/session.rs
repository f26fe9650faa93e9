//! One address of a supernode: dialled, enrolled at if there is no valid certificate, and kept up with back-off and jitter
//! for as long as the address is named. A session carries words between the supernode and [`super::driver`], and knows
//! nothing of tasks. One task of the runtime an address, owned by [`super::harbour`].
//!
//! # Invariants
//! - A node has one session, however many addresses it has: the supernode would end the older one.
//! - `Event::Down` follows each `Event::Up`, and comes before the next session with that node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::identity::{Identity, JoinProof};
use common::node::NodeId;
use common::telemetry::Metrics;
use common::transport::{self, CONTROL_PRIORITY, Connection, Transport, TransportError};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::Opening;
use common::wire::swarm::{ToPeer, ToSupernode};
use quinn::{RecvStream, SendStream};
use rand::Rng as _;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use super::NOTICES;
use super::remote::RemoteOptions;
use crate::engine::Engine;

/// A supernode that does not read for so long is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of the pause between attempts.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// What waits to be said: everything that may be joined at once, and what is held. A supernode that is further behind is
/// as good as lost.
const QUEUE: usize = 2 * NOTICES;
/// Another node may have taken over an address of a supernode that is known under another one.
const TWIN_CHECK: Duration = Duration::from_secs(30);

/// What all sessions of a node share.
pub(super) struct Shared {
    pub(super) options: Arc<RemoteOptions>,
    pub(super) transport: Transport,
    pub(super) engine: Engine,
    pub(super) events: mpsc::Sender<Event>,
    claims: Claims,
    /// One enrolment is enough, and a join token may have few uses.
    enrolling: Mutex<()>,
}

/// What became of an address.
pub(super) enum Event {
    /// There is a session; what is to be said goes into the queue.
    Up { address: SocketAddr, connection: Connection, queue: mpsc::Sender<ToSupernode> },
    /// The supernode said something.
    Heard { node: NodeId, message: ToPeer },
    /// The session is over.
    Down { address: SocketAddr, node: NodeId },
    /// Nobody is there, or not for us.
    Failed { address: SocketAddr },
    /// The supernode there has a session through another address.
    Twin { address: SocketAddr, node: NodeId },
}

/// The supernodes that have a session.
#[derive(Default)]
struct Claims(watch::Sender<BTreeSet<NodeId>>);

/// The one session of a node; it ends with this.
struct Claim<'a> {
    claims: &'a Claims,
    node: NodeId,
}

struct Session {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Why there is no session any more, for the log.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error(
        "no certificate, and nothing to join with: give --join-token-file, or --kubernetes-token-file in a pod"
    )]
    NoProof,
    #[error("the supernode does not read")]
    Deaf,
    #[error("the supernode closed the session")]
    Closed,
    #[error("supernode {0} has a session through another address")]
    Twin(NodeId),
}

// === impl Shared ===

impl Shared {
    /// What the sessions need; they tell `events`.
    pub(super) fn new(
        options: Arc<RemoteOptions>,
        (transport, engine): (Transport, Engine),
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { options, transport, engine, events, claims: Claims::default(), enrolling: Mutex::default() }
    }
}

// === impl Claims ===

impl Claims {
    /// The right to the session with a node, unless another address has it.
    fn claim(&self, node: NodeId) -> Option<Claim<'_>> {
        let free = self.0.send_if_modified(|claimed| claimed.insert(node));
        // Made only when it is ours: one that is dropped gives the place away.
        free.then(|| Claim { claims: self, node })
    }

    /// Waits until nobody has the session with a node.
    async fn free(&self, node: NodeId) {
        let _ = self.0.subscribe().wait_for(|claimed| !claimed.contains(&node)).await;
    }
}

// === impl Claim ===

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.0.send_modify(|claimed| {
            claimed.remove(&self.node);
        });
    }
}

// === impl Session ===

/// Keeps a session with the supernode at an address until the caller drops the future.
pub(super) async fn run(address: SocketAddr, shared: Arc<Shared>) {
    let session = Session { address, shared };
    let (mut backoff, mut said) = (MIN_BACKOFF, String::new());
    loop {
        let begun = Instant::now();
        let error = session.once().await;
        if let SessionError::Twin(node) = error {
            tracing::debug!(supernode = %address, "{error}");
            let _ = timeout(TWIN_CHECK, session.shared.claims.free(node)).await;
            continue;
        }
        if begun.elapsed() > MAX_BACKOFF {
            (backoff, said) = (MIN_BACKOFF, String::new());
        }
        let text = error.to_string();
        // The same reason again and again is one line in the log.
        if said != text {
            tracing::warn!(supernode = %address, "no session with the supernode: {text}; pulls go on without it");
            said = text;
        }
        let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

impl Session {
    /// One session, from the first packet to the last.
    async fn once(&self) -> SessionError {
        let (address, shared) = (self.address, &self.shared);
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => {
                self.tell(Event::Failed { address }).await;
                return error;
            }
        };
        let node = connection.node();
        let Some(_claim) = shared.claims.claim(node) else {
            connection.close("there is a session already");
            self.tell(Event::Twin { address, node }).await;
            return SessionError::Twin(node);
        };
        tracing::info!(supernode = %address, %node, "session with the supernode");
        shared.engine.adopt(connection.clone());
        let Err(error) = self.converse(&connection).await;
        connection.close("session over");
        self.tell(Event::Down { address, node }).await;
        error
    }

    async fn connect(&self) -> Result<Connection, SessionError> {
        let Shared { options, transport, enrolling, .. } = &*self.shared;
        let (identity, proof) = (&options.identity, options.proof.as_deref());
        if must_enrol(identity, proof, SystemTime::now()) {
            let _turn = enrolling.lock().await;
            // Another session may have done it meanwhile.
            if must_enrol(identity, proof, SystemTime::now()) {
                let proof = proof.ok_or(SessionError::NoProof)?;
                transport::enrol(self.address, proof, identity).await?;
                tracing::info!(supernode = %self.address, node = %identity.node(), "enrolled");
            }
        }
        transport.refresh()?;
        Ok(transport.dial_supernode(self.address).await?)
    }

    async fn converse(&self, connection: &Connection) -> Result<std::convert::Infallible, SessionError> {
        let (mut send, receive) = connection.open().await?;
        let _ = send.set_priority(CONTROL_PRIORITY);
        self.introduce(&mut send, connection).await?;
        let (queue, words) = mpsc::channel(QUEUE);
        self.tell(Event::Up { address: self.address, connection: connection.clone(), queue }).await;
        // Each way for itself: who is behind with reading can still be spoken to.
        tokio::select! {
            error = speak(send, words) => Err(error),
            error = self.listen(FrameReader::new(receive), connection.node()) => Err(error),
        }
    }

    /// What is said before everything else.
    async fn introduce(&self, send: &mut SendStream, connection: &Connection) -> Result<(), SessionError> {
        let greeting = self.shared.options.standing.greeting(connection.node(), connection.version());
        let words = async {
            codec::send(send, &Opening::Session).await?;
            match greeting {
                Some(greeting) => codec::send(send, &greeting).await,
                None => Ok(()),
            }
        };
        timeout(SEND_TIMEOUT, words).await.map_err(|_| SessionError::Deaf)??;
        Ok(())
    }

    async fn listen(&self, mut reader: FrameReader<RecvStream>, node: NodeId) -> SessionError {
        loop {
            match reader.next::<ToPeer>().await {
                Ok(Some(message)) => self.heard(node, message).await,
                Ok(None) => return SessionError::Closed,
                Err(error) => return error.into(),
            }
        }
    }

    /// Takes what is for the node itself; what is about tasks is handed on.
    async fn heard(&self, node: NodeId, message: ToPeer) {
        match message {
            ToPeer::Renewed(chain) => self.renewed(&chain),
            ToPeer::RenewalRefused(reason) => {
                tracing::warn!(supernode = %self.address, "the supernode does not renew our certificate: {reason}");
            }
            ToPeer::Revoked(_) | ToPeer::Authorities(_) => self.shared.options.standing.heard(node, message),
            message => self.tell(Event::Heard { node, message }).await,
        }
    }

    fn renewed(&self, chain: &[Vec<u8>]) {
        let RemoteOptions { identity, metrics, .. } = &*self.shared.options;
        match identity.install(chain) {
            Ok(()) => tracing::info!("certificate renewed"),
            Err(error) => tracing::warn!("the renewed certificate cannot be used: {error}"),
        }
        show_expiry(identity, metrics);
    }

    async fn tell(&self, event: Event) {
        // Nobody listens only when all of this is about to end.
        let _ = self.shared.events.send(event).await;
    }
}

/// Says what is in the queue, until the supernode does not take it, or whoever fills the queue lets go of it.
async fn speak(mut send: SendStream, mut words: mpsc::Receiver<ToSupernode>) -> SessionError {
    while let Some(message) = words.recv().await {
        match timeout(SEND_TIMEOUT, codec::send(&mut send, &message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return SessionError::Deaf,
        }
    }
    SessionError::Deaf
}

/// Whether there is no certificate that is good here: none, an expired one, or one of another cluster than the proof's.
pub fn must_enrol(identity: &Identity, proof: Option<&dyn JoinProof>, now: SystemTime) -> bool {
    let elsewhere = |proof: &dyn JoinProof| !identity.is_of_cluster(proof.cluster());
    !identity.is_valid(now) || proof.is_some_and(elsewhere)
}

/// Shows when the certificate ends.
pub(super) fn show_expiry(identity: &Identity, metrics: &Metrics) {
    let expiry = identity.certificate().map(|certificate| certificate.not_after);
    let seconds = expiry.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    metrics.certificate_expiry.set(seconds.map_or(0, |seconds| seconds.as_secs() as i64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_claimed_once_and_freed_by_its_owner_alone() {
        let (claims, node, other) = (Claims::default(), NodeId([1; 16]), NodeId([2; 16]));
        let owner = claims.claim(node).unwrap();
        assert!(claims.claim(node).is_none());
        assert!(claims.claim(node).is_none(), "whoever asks in vain frees nothing");
        assert!(claims.claim(other).is_some());
        drop(owner);
        claims.free(node).await;
        assert!(claims.claim(node).is_some());
    }
}
