//! QUIC's numbers, each with its reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::TransportError;

/// quinn sends batches of ten segments with GSO, and 10 × MTU beyond 64 KiB stalls without an error.
const MAX_MTU: u16 = 6500;
/// One piece, the longest that a stream carries.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Near the socket's buffer: far beyond it packets are lost, far below it the pipe runs dry.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Streams that a neighbour may have open at first: a session, and links and requests of some layers. quinn keeps two
/// tables with a place for each of them, used or not, so idle connections are given few (see
/// [`Connection::allow_streams`](super::Connection::allow_streams)).
pub const FIRST_STREAMS: u32 = 48;
/// And at most: links of all layers of some images, and piece requests, side by side.
pub(super) const MAX_STREAMS: u32 = 1024;
/// What a stranger may have under way before it is known to be a member: one stream of few words.
const STRANGER_WINDOW: u32 = 64 * 1024;
const STRANGER_STREAMS: u32 = 1;
/// A dead neighbour is noticed by silence within this; pieces are asked elsewhere long before.
const IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A supernode that is lost without a word is to be noticed within five seconds, and its tasks moved to another. QUIC
/// takes the smaller time of both ends, so it is enough that the peer wants it so.
const SUPERNODE_IDLE: Duration = Duration::from_secs(4);
const SUPERNODE_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The settings of a node's UDP port; public for the same reason as [`transport_config`].
pub fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MAX_MTU).expect("invariant: above QUIC's minimum of 1200");
    config
}

/// The settings of every connection between nodes; public so that measurements can use the same.
pub fn transport_config() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    watch(&mut config, IDLE, KEEP_ALIVE);
    config
}

/// After how much silence the other end counts as gone, and how often it is spoken to lest there be silence.
fn watch(config: &mut TransportConfig, idle: Duration, keep_alive: Duration) {
    let idle = IdleTimeout::from(VarInt::from_u32(idle.as_millis() as u32));
    config.max_idle_timeout(Some(idle)).keep_alive_interval(Some(keep_alive));
}

pub(super) fn server(
    tls: rustls::ServerConfig,
    listen: SocketAddr,
) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| TransportError::Failed { address: listen, reason: error.to_string() })?;
    let mut transport = transport_config();
    transport
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS));
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport)).max_incoming(1024);
    Ok(config)
}

/// Gives a dialler that proved to be a member what members have.
pub(super) fn open_up(quic: &quinn::Connection) {
    quic.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    quic.set_max_concurrent_bi_streams(VarInt::from_u32(FIRST_STREAMS));
}

pub(super) fn client(
    tls: rustls::ClientConfig,
    address: SocketAddr,
) -> Result<quinn::ClientConfig, TransportError> {
    client_with(tls, address, transport_config())
}

/// As [`client`], towards a supernode.
pub(super) fn client_of_supernode(
    tls: rustls::ClientConfig,
    address: SocketAddr,
) -> Result<quinn::ClientConfig, TransportError> {
    let mut transport = transport_config();
    watch(&mut transport, SUPERNODE_IDLE, SUPERNODE_KEEP_ALIVE);
    client_with(tls, address, transport)
}

fn client_with(
    tls: rustls::ClientConfig,
    address: SocketAddr,
    transport: TransportConfig,
) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| TransportError::Failed { address, reason: error.to_string() })?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
