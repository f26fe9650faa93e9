//! Messages on a byte stream: a little-endian `u32` length, then one bincode 2 value of exactly that length.
//! The one module that knows bincode, since that crate is unmaintained.
//!
//! # Invariants
//! - A frame longer than [`MAX_FRAME`] is refused before anything is allocated for it.
//! - A value that claims more than its frame holds, or leaves bytes over, is an error: never a huge allocation.
//! - [`FrameReader::next`] may be dropped at any await and called again; no byte is lost.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// The longest message: an inline blob of 128 KiB, or 8192 piece digests, fits with room.
pub const MAX_FRAME: usize = 512 * 1024;

const HEADER: usize = 4;
/// A message that has begun must be whole within this: the longest takes some 25 KiB a second, and who sends a byte now and
/// then keeps no buffer for ever.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a message could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The neighbour claims a frame above the limit.
    #[error("frame of {0} bytes is above the limit")]
    TooLong(usize),
    /// The bytes are no such message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The stream ended in the middle of a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// The neighbour began a message and does not go on.
    #[error("a message took longer than {} s", FRAME_TIMEOUT.as_secs())]
    Slow,
    /// The stream failed.
    #[error("stream: {0}")]
    Io(#[from] std::io::Error),
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// The frame of one message.
///
/// # Errors
/// When the message is longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; HEADER];
    bincode::serde::encode_into_std_write(message, &mut frame, bincode_config())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let length = frame.len() - HEADER;
    if length > MAX_FRAME {
        return Err(CodecError::TooLong(length));
    }
    frame[..HEADER].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Takes one message off the front of `buffer`; `None` when it is not whole yet.
///
/// # Errors
/// When the frame is too long, malformed, or has bytes left over.
pub fn decode<T: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<T>, CodecError> {
    decode_limited(buffer, MAX_FRAME)
}

fn decode_limited<T: DeserializeOwned>(buffer: &mut BytesMut, limit: usize) -> Result<Option<T>, CodecError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_le_bytes(*header) as usize;
    if length > limit {
        return Err(CodecError::TooLong(length));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    let frame = buffer.split_to(length);
    let (message, used) = bincode::serde::decode_from_slice(&frame, bincode_config())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if used != length {
        return Err(CodecError::Malformed(format!("{} bytes left over", length - used)));
    }
    Ok(Some(message))
}

/// Sends one message.
///
/// # Errors
/// When the message is too long or the stream fails.
pub async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), CodecError> {
    Ok(stream.write_all(&encode(message)?).await?)
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
    /// When the message that is not whole yet was first seen.
    begun: Option<Instant>,
    /// How long it may take from then on.
    patience: Duration,
}

// === impl FrameReader ===

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of the messages on `stream`.
    pub fn new(stream: R) -> Self {
        Self::limited(stream, MAX_FRAME)
    }

    /// A reader of messages from somebody who has no long ones to send.
    pub fn limited(stream: R, limit: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit: limit.min(MAX_FRAME),
            begun: None,
            patience: FRAME_TIMEOUT,
        }
    }

    /// Takes messages of another length from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_FRAME);
    }

    /// The next message; `None` when the stream ended between messages.
    ///
    /// # Errors
    /// When a frame is too long, malformed or too slow, or the stream fails or ends inside a message.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CodecError> {
        loop {
            if let Some(message) = decode_limited(&mut self.buffer, self.limit)? {
                self.begun = None;
                return Ok(Some(message));
            }
            self.buffer.reserve(1024);
            let read = if self.buffer.is_empty() {
                self.stream.read_buf(&mut self.buffer).await?
            } else {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                let reading = self.stream.read_buf(&mut self.buffer);
                timeout_at(begun + self.patience, reading).await.map_err(|_| CodecError::Slow)??
            };
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(CodecError::Truncated) };
            }
        }
    }

    /// The next message, where the neighbour owes one.
    ///
    /// # Errors
    /// As [`FrameReader::next`], and [`CodecError::Truncated`] when the stream ended instead.
    pub async fn expect<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        self.next().await?.ok_or(CodecError::Truncated)
    }

    /// The raw stream and the bytes of it that were read already, for what follows the messages unframed.
    pub fn into_parts(self) -> (R, bytes::Bytes) {
        (self.stream, self.buffer.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{enrol, exchange, hello, swarm};
    use proptest::prelude::*;

    fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, CodecError> {
        decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn a_claim_of_a_huge_value_is_refused() {
        // 253 marks a 64-bit length in bincode's variable-length integers.
        let mut frame = vec![9, 0, 0, 0, 253];
        frame.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(matches!(parse::<String>(&frame), Err(CodecError::Malformed(_))));
        assert!(matches!(parse::<String>(&[255, 255, 255, 255]), Err(CodecError::TooLong(_))));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        assert!(matches!(parse::<u8>(&[2, 0, 0, 0, 1, 1]), Err(CodecError::Malformed(_))));
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let sent: Vec<String> = vec!["a".into(), String::new(), "x".repeat(9000)];
        let bytes: Vec<u8> = sent.iter().flat_map(|text| encode(text).unwrap()).collect();
        let (mut near, far) = tokio::io::duplex(7);
        let writer = tokio::spawn(async move { near.write_all(&bytes).await.unwrap() });
        let mut reader = FrameReader::new(far);
        let mut got = Vec::new();
        while let Some(text) = reader.next::<String>().await.unwrap() {
            got.push(text);
        }
        writer.await.unwrap();
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn half_a_message_is_not_waited_for_for_ever_and_silence_between_messages_is() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far);
        reader.patience = Duration::from_millis(20);
        let idle = tokio::time::timeout(reader.patience * 5, reader.next::<String>()).await;
        assert!(idle.is_err(), "nothing has begun");
        let frame = encode(&"a".repeat(60_000)).unwrap();
        let dripping = tokio::spawn(async move {
            for byte in frame {
                let _ = near.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        // Given up and taken up again, as in a loop over several streams.
        let said = loop {
            if let Ok(said) = tokio::time::timeout(Duration::from_millis(3), reader.next::<String>()).await {
                break said;
            }
        };
        assert!(matches!(said, Err(CodecError::Slow)), "{said:?}");
        dripping.abort();
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
            frame.extend(&bytes);
            let _ = parse::<swarm::ToSupernode>(&frame);
            let _ = parse::<swarm::ToPeer>(&frame);
            let _ = parse::<exchange::Opening>(&frame);
            let _ = parse::<exchange::Link>(&frame);
            let _ = parse::<exchange::PieceReply>(&frame);
            let _ = parse::<hello::Hello>(&frame);
            let _ = parse::<enrol::Request>(&frame);
            let _ = parse::<String>(&bytes);
        }
    }
}
