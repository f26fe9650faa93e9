//! Straight from the origin to standard output: in order and one range at a time. A pipe takes it no other way, and nothing of
//! it need lie on a disk.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::piece::{ByteRange, Geometry, PieceIndex};
use futures_util::{Stream, stream};
use peer::error::FetchError;
use peer::origin::{Fetch, Look, OriginClient, OriginError, OriginEvent, fetch};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::straight::{all_but, ask};
use super::{Job, part_of};
use crate::get::exit::Stop;
use crate::get::output::receive;
use crate::get::report::Transfer;

/// Pieces between the network and the pipe.
const WAITING: usize = 2;

/// The content as it comes.
struct Coming {
    events: mpsc::Receiver<OriginEvent>,
    fetching: AbortOnDropHandle<Result<(), OriginError>>,
    geometry: Geometry,
    window: ByteRange,
    next: PieceIndex,
    chunks: VecDeque<Bytes>,
    /// Where the first of the chunks lies.
    at: u64,
}

/// Brings it; gives its length.
pub(super) async fn bring(
    client: &OriginClient,
    job: &Job<'_>,
    now: Look,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<u64> {
    let excerpt = job.settings.excerpt;
    let window = |length| excerpt.map_or(Ok(ByteRange::new(0, length)), |excerpt| part_of(excerpt, length));
    let have = match excerpt {
        Some(_) => {
            let length = now
                .length
                .context("the origin does not say how long the content is: fetch it without --range")?;
            let geometry = Geometry::of(length)?;
            Some((geometry, all_but(geometry, window(length)?)))
        }
        None => None,
    };
    let (sender, mut events) = mpsc::channel(WAITING);
    let credentials = job.remote.credentials.clone();
    let wanted = Fetch { source: now.source.clone(), credentials, have, parallel: 1, hashed: false };
    let fetching = AbortOnDropHandle::new(tokio::spawn(fetch(client.clone(), wanted, sender)));
    let Some(OriginEvent::Meta { geometry, .. }) = events.recv().await else {
        fetching.await?.map_err(FetchError::from)?;
        bail!("the origin gave nothing");
    };
    let window = window(geometry.length())?;
    let next = geometry.piece_at(window.start);
    let coming = Coming { events, fetching, geometry, window, next, chunks: VecDeque::new(), at: 0 };
    receive(job, (window.len(), now.modified), Box::pin(coming.bytes()), transfer).await?;
    if now.lasting && job.remote.source.digest.is_none() && ask(client, job).await?.source != now.source {
        return Err(Stop::Changed.into());
    }
    Ok(window.len())
}

// === impl Coming ===

impl Coming {
    fn bytes(self) -> impl Stream<Item = anyhow::Result<Bytes>> {
        stream::try_unfold(self, Self::chunk)
    }

    async fn chunk(mut self) -> anyhow::Result<Option<(Bytes, Self)>> {
        loop {
            while let Some(mut chunk) = self.chunks.pop_front() {
                let (start, end) = (self.at, self.at + chunk.len() as u64);
                self.at = end;
                let (from, to) = (start.max(self.window.start), end.min(self.window.end));
                if from < to {
                    let chunk = chunk.split_to((to - start) as usize).split_off((from - start) as usize);
                    return Ok(Some((chunk, self)));
                }
            }
            match self.events.recv().await {
                Some(OriginEvent::Piece { index, chunks, .. }) if index == self.next => {
                    (self.at, self.chunks) = (self.geometry.range(index).start, chunks.into());
                    self.next = PieceIndex(index.0 + 1);
                }
                Some(_) => bail!("the origin's pieces came out of order"),
                None => {
                    (&mut self.fetching).await?.map_err(FetchError::from)?;
                    return Ok(None);
                }
            }
        }
    }
}
