//! Parts of the receive path, one after the other: pieces taken from an engine as it serves them and thrown away, and
//! the same with every piece verified by the code that downloads use. What the whole engine adds to that is choosing,
//! writing and claiming.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use common::node::Contact;
use common::piece::PieceIndex;
use common::transport::{Connection, DATA_PRIORITY};
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::{Opening, PieceReply};
use peer::exchange::fetch::{self, Wanted};
use tokio::task::JoinSet;

use crate::child::{Task, say, wait_for_end, wait_for_word};
use crate::engine;

/// Pieces asked for at once, as many as a download with one parent has in flight.
const IN_FLIGHT: usize = 6;
/// Packets taken at once, as downloads do.
const PARTS: usize = 32;

/// Takes everything and looks at nothing, or verifies it.
pub(crate) fn receive(task: &Task, verify: bool) {
    engine::runtime().block_on(async {
        let lab = &task.lab;
        let parent = Contact { id: lab.identity("parent").node(), address: task.other.parse().unwrap() };
        let transport = engine::bind(task, "child");
        let connection = transport.dial(&parent).await.unwrap();
        let (geometry, digests, id) = (lab.geometry, Arc::new(lab.digests()), lab.task());
        let next = Arc::new(AtomicU32::new(0));
        say("ready");
        tokio::task::spawn_blocking(wait_for_word).await.unwrap();
        let mut getting = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (connection, next, digests) = (connection.clone(), next.clone(), digests.clone());
            getting.spawn(async move {
                loop {
                    let index = PieceIndex(next.fetch_add(1, Ordering::Relaxed));
                    let Some(digest) = digests.get(index.0 as usize).copied() else { return };
                    let length = geometry.range(index).len();
                    let wanted = Wanted { task: id, index, length, digest };
                    if verify {
                        drop(fetch::piece(&connection, wanted).await.unwrap());
                    } else {
                        take(&connection, wanted).await;
                    }
                }
            });
        }
        getting.join_all().await;
        say("done");
        tokio::task::spawn_blocking(wait_for_end).await.unwrap();
        transport.close().await;
    });
}

async fn take(connection: &Connection, wanted: Wanted) {
    let (mut send, receive) = connection.open().await.unwrap();
    send.set_priority(DATA_PRIORITY).unwrap();
    codec::send(&mut send, &Opening::Piece { task: wanted.task, index: wanted.index }).await.unwrap();
    send.finish().unwrap();
    let mut reader = FrameReader::new(receive);
    let reply = reader.expect::<PieceReply>().await.unwrap();
    assert!(matches!(reply, PieceReply::Data { length } if u64::from(length) == wanted.length));
    let (mut stream, first) = reader.into_parts();
    let mut left = wanted.length - first.len() as u64;
    let mut parts = [const { Bytes::new() }; PARTS];
    while left > 0 {
        let count = stream.read_chunks(&mut parts).await.unwrap().expect("the piece ended early");
        left -= parts[..count].iter().map(|part| part.len() as u64).sum::<u64>();
    }
}
