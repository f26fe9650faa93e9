//! The HTTP servers of a daemon: its proxy, its metrics, its local API. Whoever connects gets so many connections,
//! so long for a request's headers, and at the daemon's end a moment to finish.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once; the others wait in the kernel.
const MAX_CONNECTIONS: usize = 2048;
/// A client that has not said what it wants by then does not want much.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests that run when the daemon stops get so long.
const GRACE: Duration = Duration::from_secs(5);
/// When the system has no descriptors left, trying again at once would only burn the processor.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Something that connections come from.
pub trait Listener: Send + Sync + 'static {
    /// A connection as it comes.
    type Raw: Send + 'static;
    /// One that can be spoken on.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Raw>> + Send;

    /// What is to be done before it can be spoken on, while others are let in.
    fn open(&self, raw: Self::Raw) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;
}

impl Listener for TcpListener {
    type Raw = tokio::net::TcpStream;
    type Stream = Self::Raw;

    async fn next(&self) -> io::Result<Self::Raw> {
        let (stream, _) = self.accept().await?;
        // Answers are written in whole chunks.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn open(&self, raw: Self::Raw) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static {
        std::future::ready(Ok(raw))
    }
}

impl Listener for UnixListener {
    type Raw = tokio::net::UnixStream;
    type Stream = Self::Raw;

    async fn next(&self) -> io::Result<Self::Raw> {
        Ok(self.accept().await?.0)
    }

    fn open(&self, raw: Self::Raw) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static {
        std::future::ready(Ok(raw))
    }
}

/// Serves until `stop`, then lets running requests end if they end soon.
pub async fn serve(listener: impl Listener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        let place = places.clone().acquire_owned();
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = async { Ok::<_, io::Error>((place.await, listener.next().await?)) } => accepted,
        };
        let Ok((place, raw)) = stream else {
            tokio::time::sleep(EXHAUSTED).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let (opening, watcher) = (listener.open(raw), graceful.watcher());
        connections.spawn(async move {
            // A client that hangs up or speaks no HTTP is its own affair.
            if let Ok(stream) = opening.await {
                let builder = builder();
                let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                let _ = watcher.watch(connection.into_owned()).await;
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

/// Serves one connection to its end.
pub async fn converse(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    // As above: how it ends is the client's affair.
    let _ = builder().serve_connection(TokioIo::new(stream), service).await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn requests_are_answered_and_running_ones_end_after_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, stop) = (Arc::new(tokio::sync::Notify::new()), CancellationToken::new());
        let (seen, go_on) = (begun.clone(), stop.clone());
        let slow = async move || {
            seen.notify_one();
            go_on.cancelled().await;
            "whole"
        };
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(slow)), stop.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        begun.notified().await;
        stop.cancel();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("whole"), "{answer}");
        server.await.unwrap();
    }
}
