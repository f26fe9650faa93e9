//! Serves what a neighbour asks on a connection: links go to the task's session, pieces come from the store. One
//! task of the runtime a connection; everything that it starts ends with it.

use std::time::Duration;

use common::piece::PieceIndex;
use common::task::TaskId;
use common::telemetry::{Recipient, hold};
use common::transport::{Connection, DATA_PRIORITY};
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::{Opening, PieceReply, Refusal};
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::LinkStream;
use crate::engine::Engine;

/// A neighbour says what it wants at once.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that cannot begin within this is refused, so that the child asks elsewhere.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// A child that takes nothing for so long has lost interest or its network.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// The supernode's side of a session's stream.
pub struct SessionStream {
    /// Who opened it.
    pub connection: Connection,
    /// Towards the peer.
    pub send: SendStream,
    /// From the peer.
    pub reader: FrameReader<RecvStream>,
}

/// Serves a connection until it is gone.
pub async fn connection(engine: Engine, connection: Connection) {
    let _counted = hold(&engine.metrics().connections);
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Ok((send, receive)) = accepted else { return };
                streams.spawn(stream(engine.clone(), connection.clone(), send, receive));
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn stream(engine: Engine, connection: Connection, send: SendStream, receive: RecvStream) {
    let mut reader = FrameReader::new(receive);
    let Ok(Ok(opening)) = timeout(OPENING_TIMEOUT, reader.expect::<Opening>()).await else {
        tracing::debug!(node = %connection.node(), "a stream without a proper opening");
        return;
    };
    match opening {
        Opening::Link { task, geometry } => {
            engine.incoming_link(task, geometry, LinkStream { connection, send, reader, ours: false }).await;
        }
        Opening::Piece { task, index } => {
            if let Err(error) = piece(&engine, send, task, index).await {
                tracing::debug!(node = %connection.node(), ?task, piece = index.0, "piece not sent: {error}");
            }
        }
        Opening::Session => engine.session(SessionStream { connection, send, reader }).await,
    }
}

async fn piece(
    engine: &Engine,
    mut send: SendStream,
    task: TaskId,
    index: PieceIndex,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _ = send.set_priority(DATA_PRIORITY);
    let blob = match engine.servable(task, index).await {
        Ok(blob) => blob,
        Err(refusal) => return refuse(send, refusal).await,
    };
    let range = blob.geometry().range(index);
    let Ok(Some(_slot)) = timeout(QUEUE_TIMEOUT, engine.upload_slot(range.len())).await else {
        return refuse(send, Refusal::Busy).await;
    };
    let bytes = tokio::task::spawn_blocking(move || blob.read(range)).await??;
    engine.upload_limit().pass(range.len()).await;
    let length = bytes.len() as u32;
    let sending = async {
        codec::send(&mut send, &PieceReply::Data { length }).await?;
        send.write_chunk(bytes).await?;
        send.finish()?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    timeout(SEND_TIMEOUT, sending).await??;
    engine.metrics().sent_bytes.of(Recipient::Peer).inc_by(range.len());
    Ok(())
}

async fn refuse(
    mut send: SendStream,
    refusal: Refusal,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    codec::send(&mut send, &PieceReply::Refused(refusal)).await?;
    send.finish()?;
    Ok(())
}
