//! The digest of the whole, where no supernode vouches for it: hashes the blob in order, close behind the pieces
//! as they arrive, so that little is left to do when the last one is there.

use std::sync::Arc;

use common::digest::{Digest, Hasher};
use common::piece::{ByteRange, PieceIndex};

use super::shared::{Phase, Shared};
use crate::error::FetchError;

/// Pieces hashed in one go on a blocking thread: few enough that memory stays small.
const BATCH: u32 = 4;

/// Reads the task from its start and returns the digest of the whole. Ends when the task fails.
///
/// # Errors
/// When the store cannot be read, or the task fails.
pub async fn digest(shared: Arc<Shared>) -> Result<Digest, FetchError> {
    let (Some(blob), Some(geometry)) = (shared.blob(), shared.geometry()) else {
        return Err(FetchError::Closing);
    };
    let mut changes = shared.changes();
    let mut hasher = Hasher::new();
    let mut next = 0;
    while next < geometry.pieces() {
        let ready = shared.ready(PieceIndex(next), BATCH);
        if ready == 0 {
            if let Phase::Failed(error) = shared.phase() {
                return Err(error);
            }
            changes.changed().await.map_err(|_| FetchError::Closing)?;
            continue;
        }
        let (blob, mut state, pieces) = (blob.clone(), hasher, next..next + ready);
        hasher = tokio::task::spawn_blocking(move || {
            for index in pieces {
                let range: ByteRange = geometry.range(PieceIndex(index));
                state.update(&blob.read(range)?);
            }
            Ok::<_, FetchError>(state)
        })
        .await
        .map_err(|_| FetchError::Closing)??;
        next += ready;
    }
    Ok(hasher.finish())
}
