//! The limit: quinn alone, with the settings of the transport between nodes, one stream a piece and a few pieces in
//! flight. Nothing is hashed, read or written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use common::identity::{self, Admits};
use common::piece::PieceIndex;
use common::transport;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TokioRuntime};
use tokio::task::JoinSet;

use crate::child::{Task, say, wait_for_end, wait_for_word};
use crate::lab;

/// Pieces asked for at once.
const IN_FLIGHT: usize = 4;

pub(crate) fn serve(task: &Task) {
    // Every piece is sent from the same memory.
    let bytes = lab::piece(task.lab.geometry, PieceIndex(0));
    let local = task.local;
    let identity = task.lab.identity("parent");
    let tls = identity.server_config(Admits::Members).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport::transport_config()));
    std::thread::spawn(move || {
        runtime().block_on(async {
            let endpoint = endpoint(local, Some(config));
            say(endpoint.local_addr().unwrap());
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let mut sending = JoinSet::new();
            while let Ok((send, receive)) = connection.accept_bi().await {
                sending.spawn(send_piece(send, receive, bytes.clone()));
            }
        });
    });
    wait_for_end();
}

async fn send_piece(mut send: SendStream, mut receive: RecvStream, bytes: Bytes) {
    let length = receive.read_to_end(8).await.unwrap();
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    send.write_chunk(bytes.slice(..length)).await.unwrap();
    send.finish().unwrap();
}

pub(crate) fn receive(task: &Task) {
    let name = identity::server_name(task.lab.identity("parent").node());
    let tls = task.lab.identity("child").client_config().unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport::transport_config()));
    let (geometry, next) = (task.lab.geometry, Arc::new(AtomicU32::new(0)));
    runtime().block_on(async {
        let endpoint = endpoint(task.local, None);
        let connection =
            endpoint.connect_with(config, task.other.parse().unwrap(), &name).unwrap().await.unwrap();
        say("ready");
        wait_for_word();
        let mut getting = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (connection, next) = (connection.clone(), next.clone());
            getting.spawn(async move {
                loop {
                    let index = PieceIndex(next.fetch_add(1, Ordering::Relaxed));
                    if index.0 >= geometry.pieces() {
                        return;
                    }
                    get_piece(&connection, geometry.range(index).len()).await;
                }
            });
        }
        getting.join_all().await;
        say("done");
        wait_for_end();
    });
}

async fn get_piece(connection: &Connection, length: u64) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&length.to_le_bytes()).await.unwrap();
    send.finish().unwrap();
    let mut got = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.unwrap() {
        got += chunk.bytes.len() as u64;
    }
    assert_eq!(got, length);
}

/// One thread, which is what quinn likes best.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn endpoint(local: SocketAddr, server: Option<ServerConfig>) -> Endpoint {
    let socket = transport::udp_socket(local).unwrap();
    Endpoint::new(transport::endpoint_config(), server, socket, Arc::new(TokioRuntime)).unwrap()
}
