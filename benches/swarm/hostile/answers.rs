//! What the hostile member answers on streams that others open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use common::piece::PieceIndex;
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::{Link, Opening, PieceReply, Refusal};
use quinn::{RecvStream, SendStream};
use tokio::time::sleep;

use super::{DRIP, Kind, Villain};

// === impl Villain ===

impl Villain {
    /// Answers a stream, or does not.
    pub(super) async fn answer(self: Arc<Self>, mut send: SendStream, receive: RecvStream) {
        let mut reader = FrameReader::new(receive);
        match reader.expect::<Opening>().await {
            Ok(Opening::Link { .. } | Opening::LinkTraced { .. }) => {
                let _ = codec::send(&mut send, &Link::Accepted).await;
                let (receive, _) = reader.into_parts();
                self.link(send, receive).await;
            }
            Ok(Opening::Piece { index, .. }) => {
                let _ = self.piece(send, index).await;
            }
            Ok(Opening::Session | Opening::Errand | Opening::Inquiry(_) | Opening::InquiryTraced(..))
            | Err(_) => {}
        }
    }

    async fn piece(&self, mut send: SendStream, index: PieceIndex) -> Result<(), CodecError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let length = self.geometry.range(index).len() as u32;
        match self.kind {
            Kind::Liar if number.is_multiple_of(2) => {
                codec::send(&mut send, &PieceReply::Refused(Refusal::UnknownPiece)).await?;
            }
            Kind::Liar => {
                codec::send(&mut send, &PieceReply::Data { length }).await?;
                let wrong = Bytes::from(vec![0; length as usize]);
                send.write_chunk(wrong).await.map_err(std::io::Error::from)?;
            }
            Kind::Slow => {
                codec::send(&mut send, &PieceReply::Data { length }).await?;
                for _ in 0..length {
                    send.write_all(&[0]).await.map_err(std::io::Error::from)?;
                    sleep(DRIP).await;
                }
            }
            Kind::Silent => {
                let _ = send.stopped().await;
            }
            Kind::Flood => codec::send(&mut send, &PieceReply::Refused(Refusal::Busy)).await?,
        }
        let _ = send.finish();
        Ok(())
    }
}
