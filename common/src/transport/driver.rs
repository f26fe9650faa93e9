//! The thread that drives a UDP socket and its connections.
//!
//! quinn's endpoint and connection drivers are fastest on one thread of their own: packets are sent and received
//! there, while hashing and disk work run on the threads of the caller's runtime. The drivers are spawned by
//! whoever accepts or dials, so quinn is given a [`quinn::Runtime`] that always spawns here.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, TokioRuntime};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{TransportError, settings};

/// What the kernel is asked to hold, each way, between two wake-ups of the thread that drives a socket.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// The thread; it ends when the driver is dropped or stopped.
pub(super) struct Driver {
    handle: Handle,
    stop: CancellationToken,
}

#[derive(Debug)]
struct OnThread(Handle);

// === impl Driver ===

impl Driver {
    pub(super) fn start() -> Result<Self, TransportError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TransportError::Thread)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("quic".into())
            .spawn(move || runtime.block_on(stopped.cancelled()))
            .map_err(TransportError::Thread)?;
        Ok(Self { handle, stop })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn endpoint(
        &self,
        listen: SocketAddr,
        server: Option<quinn::ServerConfig>,
    ) -> Result<quinn::Endpoint, TransportError> {
        let failed = |source| TransportError::Bind { address: listen, source };
        let socket = udp_socket(listen).map_err(failed)?;
        let _context = self.handle.enter();
        let runtime = Arc::new(OnThread(self.handle.clone()));
        quinn::Endpoint::new(settings::endpoint_config(), server, socket, runtime).map_err(failed)
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A UDP socket as every node has it; public so that measurements can use the same.
///
/// # Errors
/// When the port cannot be had.
pub fn udp_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::DGRAM, None)?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    // The kernel counts its own bookkeeping in and says twice what may be used.
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
    if granted < SOCKET_BUFFER {
        tracing::warn!(
            granted,
            wanted = SOCKET_BUFFER,
            "UDP socket buffers are capped; raise net.core.rmem_max and net.core.wmem_max for full speed"
        );
    }
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

// === impl OnThread ===

impl quinn::Runtime for OnThread {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _context = self.0.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // Owned by the thread's runtime, which ends with the driver.
        self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _context = self.0.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }
}
