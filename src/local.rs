//! Speaks to the local daemons over their Unix sockets, whose file mode says who may.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use peer::local_api::ApiError;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::cli::At;

/// A status or an error is a page, not a download.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What a daemon is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Peer,
    Supernode,
}

/// A daemon on this machine.
pub struct Daemon {
    kind: Kind,
    socket: PathBuf,
    /// The connection by which it was found.
    stream: Option<UnixStream>,
}

/// A daemon's answer that is no success: its status, and what it says.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Refused {}

/// The sockets at which a peer may be found, given a data folder.
pub fn sockets(dir: Option<&Path>) -> [PathBuf; 2] {
    let dir = dir.map_or_else(common::config::data_dir_default, Path::to_owned);
    // `longshore up` keeps its peer one folder below.
    [dir.join(peer::daemon::SOCKET), dir.join("peer").join(peer::daemon::SOCKET)]
}

/// Where a local peer is looked for.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// The peer's data folder.
    pub data_dir: Option<PathBuf>,
    /// Its socket for clients.
    pub socket: Option<PathBuf>,
}

impl Door {
    /// A connection to the first peer that answers; `None` when none is there. Where nobody says which, the peer's own socket
    /// goes before the one for clients.
    ///
    /// # Errors
    /// When a peer is there, and this user may not speak to it.
    pub async fn connect(&self) -> anyhow::Result<Option<UnixStream>> {
        if let Some(socket) = &self.socket {
            return match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Some(stream)),
                Err(error) => bail!("nobody answers at the socket {}: {error}", socket.display()),
            };
        }
        let own = first(Kind::Peer.name(), sockets(self.data_dir.as_deref())).await;
        if self.data_dir.is_none()
            && !matches!(own, Ok(Some(_)))
            && let Ok(stream) = UnixStream::connect(peer::socket::FOR_CLIENTS).await
        {
            return Ok(Some(stream));
        }
        Ok(own?.map(|(_, stream)| stream))
    }
}

/// The daemon that runs in a data folder, of the first kind that does.
///
/// # Errors
/// When none runs there, or this user may not speak to it.
pub async fn daemon(at: &At, kinds: &[Kind]) -> anyhow::Result<Daemon> {
    let dir = at.data_dir.clone().unwrap_or_else(common::config::data_dir_default);
    for &kind in kinds {
        let sockets = match kind {
            Kind::Peer => sockets(Some(&dir)),
            Kind::Supernode => {
                let name = supernode::daemon::SOCKET;
                [dir.join(name), dir.join("supernode").join(name)]
            }
        };
        if let Some((socket, stream)) = first(kind.name(), sockets).await? {
            return Ok(Daemon { kind, socket, stream: Some(stream) });
        }
    }
    bail!(
        "no daemon runs in {}: start one with `longshore up`, or name its folder with --data-dir",
        dir.display()
    )
}

/// A connection to the first socket at which somebody answers.
async fn first(who: &str, sockets: [PathBuf; 2]) -> anyhow::Result<Option<(PathBuf, UnixStream)>> {
    for socket in sockets {
        match UnixStream::connect(&socket).await {
            Ok(stream) => return Ok(Some((socket, stream))),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!(
                    "the {who}'s socket {} is not open to this user: run as the {who}'s user",
                    socket.display()
                )
            }
            // Nobody there, or left over from a killed daemon.
            Err(_) => {}
        }
    }
    Ok(None)
}

/// One request over a fresh connection.
pub async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<Response<Incoming>> {
    ask_with(stream, method, path, &[], body).await
}

/// The same, with headers.
async fn ask_with(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: Vec<u8>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body, or when that is dropped.
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "longshore")
        .header("content-type", "application/json");
    for &(name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let text = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow!(error))?
        .to_bytes();
    let said = match serde_json::from_slice::<ApiError>(&text) {
        Ok(error) => error.error,
        Err(_) => format!("the daemon answered {status}"),
    };
    Err(Refused { status: status.as_u16(), said }.into())
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Supernode => "supernode",
        }
    }

    /// What its paths begin with.
    fn root(self) -> &'static str {
        match self {
            Self::Peer => "/v1",
            Self::Supernode => "/api/v1",
        }
    }
}

// === impl Daemon ===

impl Daemon {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One request, each on a connection of its own; its answer, if it is a good one.
    ///
    /// # Errors
    /// What the daemon says, or that it is gone.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        self.ask_with(method, path, &[], body).await
    }

    /// The JSON that it answers any request with.
    ///
    /// # Errors
    /// As [`Daemon::ask`].
    pub async fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let response = self.ask_with(method, path, headers, body).await?;
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }

    async fn ask_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&self.socket).await?,
        };
        ask_with(stream, method, &format!("{}{path}", self.kind.root()), headers, body).await
    }

    /// The JSON that it answers a GET with.
    ///
    /// # Errors
    /// As [`Daemon::ask`].
    pub async fn json(&mut self, path: &str) -> anyhow::Result<serde_json::Value> {
        self.send(Method::GET, path, &[], Vec::new()).await
    }
}
