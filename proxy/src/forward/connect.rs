//! `CONNECT host:port`: a connection to a host on the intercept list is opened, with a certificate of this node's own CA, and
//! what comes on it is served like a mirror's requests; every other one is tunnelled, byte for byte. Called by
//! [`crate::mirror`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use peer::origin::guard::Pattern;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Leaves;
use super::pipe::both_ways;
use crate::error::{Refusal, Subject};
use crate::mirror::Mirror;

/// Tunnels and opened connections at a time: each holds two sockets.
const MAX_TUNNELS: usize = 512;
/// A client that was told 200 begins at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte either way for so long a tunnel is forgotten.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// The port that need not be said.
const HTTPS: u16 = 443;

/// The hosts whose HTTPS is opened, and what is shown there.
pub(crate) struct Intercept {
    hosts: Vec<Pattern>,
    leaves: Option<Leaves>,
    places: Arc<Semaphore>,
}

type Opened = TlsStream<TokioIo<Upgraded>>;

// === impl Intercept ===

impl Intercept {
    pub(crate) fn new(hosts: Vec<Pattern>, leaves: Option<Leaves>) -> Self {
        Self { hosts, leaves, places: Arc::new(Semaphore::new(MAX_TUNNELS)) }
    }

    fn leaves_for(&self, host: &str, port: u16) -> Option<&Leaves> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        self.leaves.as_ref().filter(|_| self.hosts.iter().any(|pattern| pattern.matches(&host, port)))
    }
}

/// Answers a CONNECT, and goes on with the connection in a task of the engine's.
pub(crate) async fn connect(mirror: &Arc<Mirror>, mut request: Request) -> Result<Response, Refusal> {
    let not_host = || Refusal::Registry("CONNECT wants HOST:PORT".to_owned());
    let authority = request.uri().authority().cloned().ok_or_else(not_host)?;
    let port = authority.port_u16().filter(|_| !authority.as_str().contains('@')).ok_or_else(not_host)?;
    let host = Some(authority.host().to_owned()).filter(|host| !host.is_empty()).ok_or_else(not_host)?;
    let place = mirror.intercept.places.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let engine = mirror.engine.clone();
    if mirror.intercept.leaves_for(&host, port).is_some() {
        // The name is checked here, while the client can still be told.
        let name = registry_name(&host, port);
        engine.origin().registries().base_url(&name).map_err(|_| not_host())?;
        engine.spawn(open(mirror.clone(), upgrade, (host, port), place));
    } else {
        let stream = engine.origin().connect(authority.as_str()).await;
        let stream = stream.map_err(|error| Refusal::of_origin(error, &host, Subject::Registry))?;
        engine.spawn(tunnel(upgrade, stream, place));
    }
    Ok(Response::new(Body::empty()))
}

/// How a registry at this address is called.
fn registry_name(host: &str, port: u16) -> String {
    if port == HTTPS { host.to_owned() } else { format!("{host}:{port}") }
}

async fn tunnel(upgrade: OnUpgrade, stream: TcpStream, place: OwnedSemaphorePermit) {
    let Ok(client) = upgrade.await else { return };
    // Whoever hangs up, and why, is between the two.
    if let Err(error) = both_ways(TokioIo::new(client), stream, IDLE).await {
        tracing::debug!(%error, "a tunnel ended");
    }
    drop(place);
}

async fn open(
    mirror: Arc<Mirror>,
    upgrade: OnUpgrade,
    (host, port): (String, u16),
    place: OwnedSemaphorePermit,
) {
    let Ok(client) = upgrade.await else { return };
    match timeout(HANDSHAKE_TIMEOUT, accept(&mirror, TokioIo::new(client), &host, port)).await {
        Ok(Ok(stream)) => {
            let router = mirror.clone().router_for(registry_name(&host, port));
            peer::http::converse(stream, router).await;
        }
        Ok(Err(error)) => {
            tracing::info!(host, %error, "a client does not take this node's certificate: give it the CA's");
        }
        Err(_) => tracing::debug!(host, "a client asked for a connection and did not begin"),
    }
    drop(place);
}

async fn accept(
    mirror: &Mirror,
    client: TokioIo<Upgraded>,
    host: &str,
    port: u16,
) -> Result<Opened, Box<dyn std::error::Error + Send + Sync>> {
    let leaves = mirror.intercept.leaves_for(host, port).ok_or("it is not on the list")?;
    Ok(TlsAcceptor::from(leaves.config_for(host)?).accept(client).await?)
}
