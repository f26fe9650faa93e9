//! Serves what a neighbour asks on a connection: links go to the task's session, pieces come from the store. One
//! task of the runtime a connection; everything that it starts ends with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::piece::PieceIndex;
use common::task::TaskId;
use common::telemetry::trace::{Span, TraceContext};
use common::telemetry::{Recipient, TurnedAway, hold};
use common::transport::{CONTROL_PRIORITY, Connection, DATA_PRIORITY, FIRST_STREAMS};
use common::wire::codec::{self, CodecError, FrameReader, MAX_FRAME};
use common::wire::exchange::{Opening, PieceReply, Refusal};
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::Failure;
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::guests::Visit;
use super::link::LinkStream;
use crate::engine::Engine;
use crate::store::Blob;

/// An opening is short, and a message on a link is some runs of pieces.
const MAX_WORDS: usize = 64 * 1024;
/// A neighbour says what it wants at once.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that cannot begin within this is refused, so that the child asks elsewhere.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// A child that takes nothing for so long has lost interest or its network.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a piece that was read for nothing counts against whoever asked for it: a withdrawn request now and then is
/// not noticed, a flood of them is no faster than this lets it be.
const WASTE: Duration = Duration::from_millis(100);

/// Our side of the stream of a session, or of an errand.
pub struct SessionStream {
    /// Who opened it.
    pub connection: Connection,
    /// Towards who opened it.
    pub send: SendStream,
    /// From there.
    pub reader: FrameReader<RecvStream>,
}

/// Serves a connection until it is gone.
pub async fn connection(engine: Engine, connection: Connection) {
    let _counted = hold(&engine.metrics().connections);
    let visit = Arc::new(engine.guests().enter(&connection));
    let mut streams = JoinSet::new();
    let mut allowed = FIRST_STREAMS;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Ok((send, receive)) = accepted else { return };
                streams.spawn(stream(engine.clone(), visit.clone(), connection.clone(), (send, receive)));
                // Links last as long as the tasks: they must not use up what requests need.
                if streams.len() > allowed as usize / 2 {
                    allowed = connection.allow_streams(2 * allowed);
                }
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn stream(
    engine: Engine,
    visit: Arc<Visit>,
    connection: Connection,
    (send, receive): (SendStream, RecvStream),
) {
    let mut reader = FrameReader::limited(receive, MAX_WORDS);
    let ear = visit.ear().await;
    let Ok(Ok(opening)) = timeout(OPENING_TIMEOUT, reader.expect::<Opening>()).await else {
        engine.metrics().turned_away.of(TurnedAway::Malformed).inc();
        tracing::debug!(node = %connection.node(), "a stream without a proper opening");
        return;
    };
    match opening {
        Opening::Link { task, geometry } => {
            drop(ear);
            let (ours, span) = (false, Span::none());
            engine.incoming_link(task, geometry, LinkStream { connection, send, reader, ours, span }).await;
        }
        Opening::LinkTraced { task, geometry, trace } => {
            drop(ear);
            let (ours, span) = (false, serves(&engine, task, trace));
            engine.incoming_link(task, geometry, LinkStream { connection, send, reader, ours, span }).await;
        }
        Opening::Piece { task, index } => {
            let found = engine.servable(task, index).await;
            drop(ear);
            if let Err(error) = piece(&engine, &visit, send, (task, index), found).await {
                tracing::debug!(node = %connection.node(), ?task, piece = index.0, "piece not sent: {error}");
            }
        }
        Opening::Inquiry(inquiry) => {
            drop(ear);
            if let Err(error) = answer(&engine, &visit, &connection, send, inquiry).await {
                tracing::debug!(node = %connection.node(), "an answer was not taken: {error}");
            }
        }
        Opening::InquiryTraced(inquiry, trace) => {
            drop(ear);
            let mut span = Span::asked("supernode.inquiry", Some(trace));
            span.note("longshore.node", engine.node());
            if let Err(error) = answer(&engine, &visit, &connection, send, inquiry).await {
                span.fail();
                tracing::debug!(node = %connection.node(), "an answer was not taken: {error}");
            }
        }
        Opening::Session => {
            drop(ear);
            reader.set_limit(MAX_FRAME);
            engine.session(SessionStream { connection, send, reader }).await;
        }
        Opening::Errand => {
            drop(ear);
            engine.errand(SessionStream { connection, send, reader }).await;
        }
    }
}

/// That this node is the parent of another, in a pull that is traced.
fn serves(engine: &Engine, task: TaskId, trace: TraceContext) -> Span {
    let mut span = Span::asked("parent.link", Some(trace));
    span.note("longshore.task", task);
    span.note("longshore.node", engine.node());
    span
}

async fn answer(
    engine: &Engine,
    visit: &Visit,
    connection: &Connection,
    mut send: SendStream,
    inquiry: Inquiry,
) -> Result<(), CodecError> {
    let inquired = match visit.question().await {
        Ok(_asking) => engine.inquire_for_neighbour(inquiry).await,
        Err(wait) => {
            engine.metrics().turned_away.of(TurnedAway::Busy).inc();
            let retry_after_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            Inquired::Unable(Failure::Busy { retry_after_millis }.for_version(connection.version()))
        }
    };
    let _ = send.set_priority(CONTROL_PRIORITY);
    let sent = timeout(SEND_TIMEOUT, codec::send(&mut send, &inquired)).await;
    sent.unwrap_or_else(|elapsed| Err(CodecError::Io(elapsed.into())))?;
    let _ = send.finish();
    Ok(())
}

async fn piece(
    engine: &Engine,
    visit: &Visit,
    send: SendStream,
    (task, index): (TaskId, PieceIndex),
    found: Result<Blob, Refusal>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _ = send.set_priority(DATA_PRIORITY);
    let blob = match found {
        Ok(blob) => blob,
        Err(refusal) => return refuse(send, refusal).await,
    };
    let range = blob.geometry().range(index);
    let Ok(slot) = timeout(QUEUE_TIMEOUT, visit.slot(task, range.len())).await else {
        return refuse(send, Refusal::Busy).await;
    };
    let bytes = tokio::task::spawn_blocking(move || blob.read(range)).await??;
    let sent = timeout(SEND_TIMEOUT, body(send, bytes)).await;
    if !matches!(sent, Ok(Ok(()))) {
        // Who asks and does not take has the less room for a while.
        tokio::time::sleep(WASTE).await;
    }
    drop(slot);
    sent??;
    engine.metrics().sent_bytes.of(Recipient::Peer).inc_by(range.len());
    Ok(())
}

async fn body(send: SendStream, bytes: Bytes) -> Result<(), CodecError> {
    let mut body = Whole { stream: send, finished: false };
    let failed = |error: quinn::WriteError| CodecError::Io(error.into());
    codec::send(&mut body.stream, &PieceReply::Data { length: bytes.len() as u32 }).await?;
    body.stream.write_chunk(bytes).await.map_err(failed)?;
    body.finished = body.stream.finish().is_ok();
    Ok(())
}

/// A stream that ends whole or with a reset: left to itself, a dropped one ends like a whole one.
struct Whole {
    stream: SendStream,
    finished: bool,
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(quinn::VarInt::from_u32(0));
        }
    }
}

async fn refuse(
    mut send: SendStream,
    refusal: Refusal,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    codec::send(&mut send, &PieceReply::Refused(refusal)).await?;
    send.finish()?;
    Ok(())
}
