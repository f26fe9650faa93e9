//! The way of somebody who is no member yet to a supernode: from a port of its own, for one request. Peers come here at their
//! start and from their sessions; the other end is [`super::accept`].
//!
//! # Invariants
//! - Nothing is said before the supernode has shown a certificate of the proof's cluster.

use std::net::SocketAddr;
use std::time::Duration;

use super::driver::Driver;
use super::{CLOSE_TIMEOUT, DIAL_TIMEOUT, TransportError, connection, establish, settings};
use crate::identity::{self, Identity, JoinProof};
use crate::wire::codec::{self, FrameReader};
use crate::wire::enrol;

/// A stranger's proof may have to be checked elsewhere, and many may ask at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the supernode at `address` for a certificate, from a port of its own. It is shown the proof only after it has
/// shown a certificate of the proof's cluster.
///
/// # Errors
/// When it does not answer, is not of that cluster, refuses the proof or cannot check it.
pub async fn enrol(
    address: SocketAddr,
    proof: &dyn JoinProof,
    identity: &Identity,
) -> Result<(), TransportError> {
    let request = proof.request(identity.csr()?)?;
    let visit = Visit::begin(address, proof).await?;
    let reply = visit.ask(&request).await;
    visit.end().await;
    match reply? {
        enrol::Reply::Issued(chain) => Ok(identity.join(&chain, proof.cluster())?),
        enrol::Reply::Refused(reason) => {
            Err(TransportError::ProofRefused { address, proof: proof.name(), reason })
        }
    }
}

/// Finds out whether a supernode of the cluster that a proof is for answers at `address`, and asks it for nothing: a
/// token keeps its uses.
///
/// # Errors
/// When it does not answer, or is not of that cluster.
pub async fn knock(address: SocketAddr, proof: &dyn JoinProof) -> Result<(), TransportError> {
    Visit::begin(address, proof).await?.end().await;
    Ok(())
}

/// A stranger's connection to a supernode, from a port of its own.
struct Visit {
    quic: quinn::Connection,
    endpoint: quinn::Endpoint,
    _driver: Driver,
}

// === impl Visit ===

impl Visit {
    /// Dials; what answers is of the proof's cluster.
    async fn begin(address: SocketAddr, proof: &dyn JoinProof) -> Result<Self, TransportError> {
        let driver = Driver::start()?;
        let any: SocketAddr =
            if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let endpoint = driver.endpoint(any, None)?;
        let config = settings::client(identity::enrolment_client_config(proof.cluster())?, address)?;
        let dialling = establish(&endpoint, config, address, identity::SUPERNODE_NAME);
        let met = tokio::time::timeout(DIAL_TIMEOUT, dialling).await;
        let error = match met.unwrap_or(Err(TransportError::Silent { address })) {
            Ok(quic) => return Ok(Self { quic, endpoint, _driver: driver }),
            Err(TransportError::Distrusted { address, reason }) => {
                TransportError::OtherCluster { address, proof: proof.name(), reason }
            }
            Err(error) => error,
        };
        say_bye(&endpoint).await;
        Err(error)
    }

    /// One request, one answer.
    async fn ask(&self, request: &enrol::Request) -> Result<enrol::Reply, TransportError> {
        let (quic, address) = (&self.quic, self.quic.remote_address());
        let asking = async {
            let failed = |error: quinn::ConnectionError| connection::explain(address, &error);
            let (mut send, receive) = quic.open_bi().await.map_err(failed)?;
            let broken = |source| match quic.close_reason() {
                Some(error) => connection::explain(address, &error),
                None => TransportError::Codec { address, source },
            };
            codec::send(&mut send, request).await.map_err(broken)?;
            FrameReader::new(receive).expect::<enrol::Reply>().await.map_err(broken)
        };
        let seconds = ANSWER_TIMEOUT.as_secs();
        tokio::time::timeout(ANSWER_TIMEOUT, asking).await.unwrap_or_else(|_| {
            let reason = format!("no answer to the request to join within {seconds} s");
            Err(TransportError::Failed { address, reason })
        })
    }

    async fn end(self) {
        say_bye(&self.endpoint).await;
    }
}

/// Closes an endpoint once its last words are heard: the other end's log is to say why a handshake ended.
async fn say_bye(endpoint: &quinn::Endpoint) {
    endpoint.close(connection::BYE, b"that was all");
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
}
