//! One piece from one parent: asked on a stream of its own, hashed as it arrives, compared. Dropping the future
//! takes the request back.

use std::time::Duration;

use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::piece::PieceIndex;
use common::task::TaskId;
use common::transport::{Connection, DATA_PRIORITY};
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::{Opening, PieceReply, Refusal};
use tokio::time::{Instant, timeout, timeout_at};

/// A parent that sends nothing for so long is taken for dead; others have been asked before.
const SILENCE: Duration = Duration::from_millis(1900);

/// What must come within [`SILENCE`], if so much is left: a parent that dribbles is as good as silent.
const MURMUR: usize = 16 * 1024;
/// However it comes, a piece must be here after this, or at this many bytes a second if that is longer.
const SLOWEST: Duration = Duration::from_secs(10);
const SLOWEST_RATE: u64 = 128 * 1024;

/// Datagrams' worth of bytes taken at once: each look costs a lock and a timer.
const PARTS: usize = 32;

/// What is asked for, and how the answer is known.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of which task.
    pub task: TaskId,
    /// Which piece.
    pub index: PieceIndex,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Why a parent did not give a piece.
#[derive(Debug, thiserror::Error)]
pub enum FetchFault {
    /// It says no.
    #[error("it refuses: {0}")]
    Refused(Refusal),
    /// It sends nothing, or the connection broke.
    #[error("it fell silent")]
    Silent,
    /// It sent something that is no answer.
    #[error("it sent nonsense: {0}")]
    Nonsense(String),
    /// It sent a piece of another length or digest.
    #[error("it sent wrong bytes")]
    WrongBytes,
}

/// Asks for the piece.
///
/// # Errors
/// When the parent refuses, falls silent, or sends anything but the piece.
pub async fn piece(connection: &Connection, wanted: Wanted) -> Result<Vec<Bytes>, FetchFault> {
    let patience = SLOWEST.max(Duration::from_secs(wanted.length / SLOWEST_RATE));
    timeout(patience, whole(connection, wanted)).await.map_err(|_| FetchFault::Silent)?
}

async fn whole(connection: &Connection, wanted: Wanted) -> Result<Vec<Bytes>, FetchFault> {
    let silent = |_| FetchFault::Silent;
    let (mut send, receive) =
        timeout(SILENCE, connection.open()).await.map_err(silent)?.map_err(|_| FetchFault::Silent)?;
    let _ = send.set_priority(DATA_PRIORITY);
    let opening = Opening::Piece { task: wanted.task, index: wanted.index };
    codec::send(&mut send, &opening).await.map_err(|_| FetchFault::Silent)?;
    let _ = send.finish();
    let mut reader = FrameReader::new(receive);
    let reply = timeout(SILENCE, reader.expect::<PieceReply>()).await.map_err(silent)?.map_err(nonsense)?;
    match reply {
        PieceReply::Refused(refusal) => return Err(FetchFault::Refused(refusal)),
        PieceReply::Data { length } if u64::from(length) != wanted.length => {
            return Err(FetchFault::WrongBytes);
        }
        PieceReply::Data { .. } => {}
    }
    let (mut stream, first) = reader.into_parts();
    let mut body = Body::new(wanted.length);
    body.take(first)?;
    let mut parts = [const { Bytes::new() }; PARTS];
    let (mut heard, mut murmur) = (0, Instant::now() + SILENCE);
    while body.left > 0 {
        let read = timeout_at(murmur, stream.read_chunks(&mut parts)).await.map_err(silent)?;
        // A body that ends early was cut, by a node that stops or a network that broke: no forgery.
        let count = read.map_err(|_| FetchFault::Silent)?.ok_or(FetchFault::Silent)?;
        heard += parts[..count].iter().map(Bytes::len).sum::<usize>();
        if heard >= MURMUR {
            (heard, murmur) = (0, Instant::now() + SILENCE);
        }
        parts[..count].iter_mut().try_for_each(|part| body.take(std::mem::take(part)))?;
    }
    if body.hasher.finish() != wanted.digest {
        return Err(FetchFault::WrongBytes);
    }
    Ok(body.chunks)
}

fn nonsense(error: codec::CodecError) -> FetchFault {
    match error {
        codec::CodecError::Io(_) | codec::CodecError::Truncated => FetchFault::Silent,
        other => FetchFault::Nonsense(other.to_string()),
    }
}

struct Body {
    chunks: Vec<Bytes>,
    hasher: Hasher,
    left: u64,
}

// === impl Body ===

impl Body {
    fn new(length: u64) -> Self {
        Self { chunks: Vec::with_capacity((length / 6000) as usize + 1), hasher: Hasher::new(), left: length }
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), FetchFault> {
        let length = chunk.len() as u64;
        self.left = self.left.checked_sub(length).ok_or(FetchFault::WrongBytes)?;
        self.hasher.update(&chunk);
        if length > 0 {
            self.chunks.push(chunk);
        }
        Ok(())
    }
}
