//! The listening side: takes incoming connections, each under a time limit, and hands on members and those who
//! want to enrol. Whoever is neither is told why, and reported so that the daemon can log and count it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{self, Connection};
use super::places::{Place, Places};
use crate::identity::Roll;
use crate::wire::codec::{self, CodecError, FrameReader};
use crate::wire::{enrol, hello};

/// From the first packet to the end of the hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once; beyond that, dialers must prove their address first, which costs us nothing.
const MAX_HANDSHAKES: usize = 256;
/// With those who wait for a certificate; who finds no place is refused, and comes again if it is honest. A place costs some
/// tens of kilobytes for as long as the time limit at most.
const MAX_PLACES: usize = 1024;
/// What a stranger may say: a token and a certificate request.
const MAX_WORDS: usize = 8 * 1024;

/// Who connected.
pub enum Inbound {
    /// A member.
    Member(Connection),
    /// A stranger that wants to join.
    Enrolling(Enrolling),
    /// Nobody that we let in; the dialler was told the same.
    TurnedAway {
        /// Where it dialled from.
        remote: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// A stranger who waits for an answer to its enrolment request.
pub struct Enrolling {
    quic: quinn::Connection,
    send: quinn::SendStream,
    request: enrol::Request,
    /// It is as unknown as it was before.
    place: Arc<Place>,
}

// === impl Enrolling ===

impl Enrolling {
    /// Where it dialled from.
    pub fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// What it asks for.
    pub fn request(&self) -> &enrol::Request {
        &self.request
    }

    /// Answers, and waits until the answer has been heard or the stranger is gone; not for long.
    ///
    /// # Errors
    /// When the stream fails first.
    pub async fn answer(mut self, reply: &enrol::Reply) -> Result<(), CodecError> {
        let answering = async {
            codec::send(&mut self.send, reply).await?;
            let _ = self.send.finish();
            self.quic.closed().await;
            Ok(())
        };
        // Dropping the connection afterwards closes it, heard or not.
        tokio::time::timeout(HANDSHAKE_TIMEOUT, answering).await.unwrap_or(Ok(()))
    }

    /// Waits until the stranger is gone, or its place is somebody else's.
    pub async fn gone(&self) {
        tokio::select! {
            _ = self.quic.closed() => {}
            () = self.place.lost() => {}
        }
    }

    /// Tells the stranger to come again. Not an answer: before there were proofs that others must check, an answer was
    /// a certificate or the end.
    pub fn put_off(self, reason: &str) {
        connection::put_off(&self.quic, reason);
    }
}

pub(super) struct Acceptor {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) hello: hello::Hello,
    pub(super) roll: Roll,
    pub(super) sender: mpsc::Sender<Inbound>,
}

// === impl Acceptor ===

impl Acceptor {
    /// Runs until the endpoint closes.
    pub(super) async fn run(self) {
        let (mut handshakes, places) = (JoinSet::new(), Places::new(MAX_PLACES));
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { return };
                    if places.taken() >= MAX_HANDSHAKES && incoming.may_retry() {
                        let _ = incoming.retry();
                        continue;
                    }
                    let Some(place) = places.take(incoming.remote_address().ip()).map(Arc::new) else {
                        incoming.refuse();
                        continue;
                    };
                    let (ours, roll, sender) = (self.hello.clone(), self.roll.clone(), self.sender.clone());
                    handshakes.spawn(async move {
                        let inbound = tokio::select! {
                            inbound = handshake(incoming, &ours, &roll, &place) => inbound,
                            // Its network holds more places than another's who needs one.
                            () = place.lost() => return,
                        };
                        let _ = sender.send(inbound).await;
                    });
                }
                Some(_) = handshakes.join_next() => {}
            }
        }
    }
}

async fn handshake(
    incoming: quinn::Incoming,
    ours: &hello::Hello,
    roll: &Roll,
    place: &Arc<Place>,
) -> Inbound {
    let remote = incoming.remote_address();
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, admit(incoming, ours, roll, place)).await {
        Ok(Ok(inbound)) => inbound,
        Ok(Err(reason)) => Inbound::TurnedAway { remote, reason },
        Err(_) => Inbound::TurnedAway { remote, reason: "the handshake took too long".into() },
    }
}

async fn admit(
    incoming: quinn::Incoming,
    ours: &hello::Hello,
    roll: &Roll,
    place: &Arc<Place>,
) -> Result<Inbound, String> {
    let quic = incoming.await.map_err(|error| error.to_string())?;
    if protocol(&quic).as_deref() == Some(enrol::ALPN) {
        let (send, receive) = quic.accept_bi().await.map_err(|error| error.to_string())?;
        let request = FrameReader::limited(receive, MAX_WORDS).expect().await;
        let request = request.map_err(|error: CodecError| error.to_string())?;
        return Ok(Inbound::Enrolling(Enrolling { quic, send, request, place: place.clone() }));
    }
    if let Err(reason) = connection::certificate(&quic) {
        connection::refuse(&quic, &reason);
        return Err(reason);
    }
    Connection::welcome(quic, ours, roll).await.map(Inbound::Member).map_err(|error| error.to_string())
}

fn protocol(quic: &quinn::Connection) -> Option<Vec<u8>> {
    let data = quic.handshake_data()?;
    data.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}
