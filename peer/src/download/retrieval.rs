//! Reads a blob out of a vault: ranged reads side by side, each piece compared with the digest that was kept with it.
//! Run by [`super::feed`], before the origin is asked for whatever this leaves out.
//!
//! # Invariants
//! - Only pieces with the right digest leave.
//! - A vault that breaks off is not asked again in this download; what it began with stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::piece::{ByteRange, PieceIndex, PieceSet};
use common::task::TaskId;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::origin::OriginEvent;
use crate::origin::plan::Segments;
use crate::origin::segment::{Assembly, Content};
use crate::vault::{Kept, Trouble, Vault};

/// A blob that a vault should have.
#[derive(Clone)]
pub(super) struct Retrieval {
    /// Where.
    pub(super) vault: Arc<dyn Vault>,
    /// Which.
    pub(super) task: TaskId,
    /// What is known of it.
    pub(super) kept: Arc<Kept>,
}

/// How one reader ended.
struct Read {
    came: Vec<PieceIndex>,
    trouble: Option<Trouble>,
}

// === impl Retrieval ===

impl Retrieval {
    /// Sends the pieces that are not in `have`, as far as the vault gives them; tells what need not be fetched any more.
    pub(super) async fn run(
        self,
        mut have: PieceSet,
        parallel: usize,
        events: Sender<OriginEvent>,
    ) -> PieceSet {
        let geometry = self.kept.geometry;
        let mut segments = Segments::new(geometry, have.clone(), parallel);
        let content = Arc::new(Content { geometry, have: have.clone(), validator: None, hashed: true });
        let cut = Arc::new(AtomicBool::new(false));
        let (mut readers, mut spoilt) = (JoinSet::new(), false);
        loop {
            while readers.len() < parallel.max(1)
                && !cut.load(Ordering::Relaxed)
                && let Some(segment) = segments.next()
            {
                let (content, events) = (content.clone(), events.clone());
                readers.spawn(self.clone().segment(content, segment, events, cut.clone()));
            }
            let Some(read) = readers.join_next().await else { break };
            let Ok(Read { came, trouble }) = read else { continue };
            for index in came {
                have.insert(index);
            }
            spoilt |= trouble == Some(Trouble::Spoilt);
        }
        if spoilt {
            tracing::warn!(task = %self.task, "the cache's copy is not what was kept there: dropped, and the origin asked");
            self.vault.forget(self.task).await;
        }
        have
    }

    async fn segment(
        self,
        content: Arc<Content>,
        segment: ByteRange,
        events: Sender<OriginEvent>,
        cut: Arc<AtomicBool>,
    ) -> Read {
        let mut read = Read { came: Vec::new(), trouble: None };
        if let Err(trouble) = self.pieces(content, segment, &events, &mut read).await {
            read.trouble = Some(trouble);
            cut.store(true, Ordering::Relaxed);
        }
        read
    }

    /// Reads one segment. A piece that is not the one that was kept is left out, and the next ones are read on.
    async fn pieces(
        &self,
        content: Arc<Content>,
        segment: ByteRange,
        events: &Sender<OriginEvent>,
        read: &mut Read,
    ) -> Result<(), Trouble> {
        let mut stream = self.vault.read(self.task, &self.kept, segment).await?;
        let mut assembly = Assembly::new(content, segment.start);
        let mut left = segment.len();
        while left > 0 {
            let mut chunk = stream.next().await.ok_or(Trouble::Spoilt)??;
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= chunk.len() as u64;
            while !chunk.is_empty() {
                let Some(piece) = assembly.take(&mut chunk) else { continue };
                let OriginEvent::Piece { index, digest, .. } = &piece else { continue };
                if self.kept.digests.get(index.0 as usize) != digest.as_ref() {
                    read.trouble = Some(Trouble::Spoilt);
                    continue;
                }
                let index = *index;
                if events.send(piece).await.is_err() {
                    return Ok(());
                }
                read.came.push(index);
            }
        }
        Ok(())
    }
}
