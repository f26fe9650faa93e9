//! What the machine does without QUIC: the same bytes over one TCP connection, with the same TLS library, suite and
//! certificates. Nothing is hashed, read or written.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use common::identity::{self, Admits};
use common::piece::PieceIndex;
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::child::{Task, say, wait_for_end, wait_for_word};
use crate::lab;

/// Bytes given and taken at once.
const BUFFER: usize = 256 * 1024;

pub(crate) fn serve(task: &Task) {
    let (geometry, identity) = (task.lab.geometry, task.lab.identity("parent"));
    let tls = Arc::new(identity.server_config(Admits::Members).unwrap());
    let listener = TcpListener::bind(task.local).unwrap();
    say(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
        let bytes = lab::piece(geometry, PieceIndex(0));
        stream.read_exact(&mut [0]).unwrap();
        for index in (0..geometry.pieces()).map(PieceIndex) {
            for part in bytes[..geometry.range(index).len() as usize].chunks(BUFFER) {
                stream.write_all(part).unwrap();
            }
        }
        stream.flush().unwrap();
    });
    wait_for_end();
}

pub(crate) fn receive(task: &Task) {
    let name = identity::server_name(task.lab.identity("parent").node());
    let tls = Arc::new(task.lab.identity("child").client_config().unwrap());
    let connection = ClientConnection::new(tls, name.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(&task.other).unwrap());
    stream.conn.complete_io(&mut stream.sock).unwrap();
    say("ready");
    wait_for_word();
    stream.write_all(&[1]).unwrap();
    let (mut buffer, mut left) = (vec![0; BUFFER], task.lab.geometry.length());
    while left > 0 {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended early");
        left -= read as u64;
    }
    say("done");
    wait_for_end();
}
