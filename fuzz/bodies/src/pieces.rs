//! A whole stream of a neighbour, as bytes that come in parts: what it opens, what it says on a link or a session, what it
//! answers to a request for a piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use common::piece::Geometry;
use common::wire::codec::FrameReader;
use common::wire::errand::{Errand, Report};
use common::wire::exchange::{Link, Opening, PieceReply};
use common::wire::swarm::{ToPeer, ToSupernode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// What an honest node reads of a link before it is taken for endless.
const MAX_MESSAGES: usize = 10_000;
/// Larger sets of pieces cost a fuzzer its time and find nothing more.
const MAX_PIECES: u32 = 100_000;

/// Bytes that arrive so many at a time.
struct Parts<'a> {
    left: &'a [u8],
    at_once: usize,
}

// === impl Parts ===

impl AsyncRead for Parts<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.at_once.min(self.left.len()).min(buffer.remaining());
        let (now, later) = self.left.split_at(count);
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

/// Takes the first byte for how the others are cut, and those for what a neighbour sends on a stream.
pub fn pieces(data: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().build().expect("a runtime on this thread");
    }
    let Some((cut, stream)) = data.split_first() else { return };
    let at_once = usize::from(*cut).max(1) * 8;
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            opened(Parts { left: stream, at_once }).await;
            answered(Parts { left: stream, at_once }, stream.len()).await;
            told(Parts { left: stream, at_once }).await;
            reported(Parts { left: stream, at_once }).await;
        });
    });
}

/// The stream as the side that listens reads it.
async fn opened(stream: Parts<'_>) {
    let mut reader = FrameReader::limited(stream, 64 * 1024);
    match reader.expect::<Opening>().await {
        Ok(Opening::Link { geometry, .. } | Opening::LinkTraced { geometry, .. }) => {
            link(reader, geometry).await
        }
        Ok(Opening::Errand) => drop(reader.next::<Errand>().await),
        Ok(Opening::Session) => while let Ok(Some(_)) = reader.next::<ToSupernode>().await {},
        Ok(Opening::Piece { .. } | Opening::Inquiry(_) | Opening::InquiryTraced(..)) | Err(_) => {}
    }
}

async fn link(mut reader: FrameReader<Parts<'_>>, geometry: Geometry) {
    let mut said = Vec::new();
    while let Ok(Some(message)) = reader.next::<Link>().await
        && said.len() < MAX_MESSAGES
    {
        said.push(message);
    }
    peer::exchange::fuzz::link(geometry.pieces().min(MAX_PIECES), said.into_iter());
}

/// The stream as somebody who asked for a piece reads it: whatever is behind the header comes raw, and none of it is lost.
async fn answered(stream: Parts<'_>, sent: usize) {
    let mut reader = FrameReader::new(stream);
    let Ok(PieceReply::Data { .. }) = reader.expect().await else { return };
    let (stream, first) = reader.into_parts();
    assert!(first.len() + stream.left.len() < sent, "more than was sent");
}

/// The stream as a peer hears its supernode.
async fn told(stream: Parts<'_>) {
    let mut reader = FrameReader::new(stream);
    while let Ok(Some(_)) = reader.next::<ToPeer>().await {}
}

/// The stream as a supernode hears how an errand goes.
async fn reported(stream: Parts<'_>) {
    let mut reader = FrameReader::new(stream);
    while let Ok(Some(_)) = reader.next::<Report>().await {}
}
