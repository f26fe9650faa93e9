//! Straight from the origin, with ranges side by side, into a partial file that the next attempt goes on from. No store and
//! no swarm: a piece is written where it belongs as soon as it is here, and the whole is hashed close behind.
//!
//! # Invariants
//! - Content without a digest is what the origin names by the same revision before and after.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::piece::{ByteRange, Geometry, PieceIndex, PieceSet};
use peer::error::FetchError;
use peer::origin::ranges::DEFAULT_PARALLEL;
use peer::origin::{Fetch, Look, OriginClient, OriginError, OriginEvent, fetch, look};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{Done, Job, part_of, pipe};
use crate::get::behind::Behind;
use crate::get::exit::Stop;
use crate::get::part::{self, Part, Rest};
use crate::get::report::Transfer;
use crate::get::wanted::Target;

/// Pieces between the network and the disk: each is memory.
const WAITING: usize = 2;
/// Pieces being written at once.
const WRITES: usize = 4;

/// Brings it.
pub(super) async fn bring(
    client: &OriginClient,
    job: &Job<'_>,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let now = ask(client, job).await?;
    let length = match job.target {
        Target::File(path) => Straight { client, job, path, look: now }.to_file(transfer).await?,
        Target::Stdout => pipe::bring(client, job, now, transfer).await?,
    };
    Ok(Done { length, through: "the origin", digest: job.remote.source.digest })
}

/// What the origin says of it now.
pub(super) async fn ask(client: &OriginClient, job: &Job<'_>) -> Result<Look, FetchError> {
    Ok(look(client, job.remote.source.clone(), &job.remote.credentials).await?)
}

/// One download.
struct Straight<'a> {
    client: &'a OriginClient,
    job: &'a Job<'a>,
    path: &'a std::path::Path,
    look: Look,
}

/// What is known once the origin gives.
struct Running {
    part: Arc<Part>,
    behind: Behind,
    have: PieceSet,
    /// Up to where there is no gap.
    front: watch::Sender<u64>,
    proof: AbortOnDropHandle<anyhow::Result<Digest>>,
}

// === impl Straight ===

impl Straight<'_> {
    async fn to_file(&self, transfer: &mut Transfer<'_>) -> anyhow::Result<u64> {
        let rest = self.rest().await?;
        let have = match (&rest, self.job.settings.excerpt) {
            (Some(Rest { part, have }), _) => Some((part.geometry(), have.clone())),
            (None, None) => None,
            (None, Some(_)) => Some(self.all_but_the_window()?),
        };
        let (sender, events) = mpsc::channel(WAITING);
        let parallel = DEFAULT_PARALLEL;
        let wanted = Fetch {
            source: self.look.source.clone(),
            credentials: self.job.remote.credentials.clone(),
            have,
            parallel,
            // The whole is, where there is a digest; and the partial file has checksums of its own.
            hashed: false,
        };
        let fetching = fetch(self.client.clone(), wanted, sender);
        let (fetched, written) = tokio::join!(fetching, self.write(events, rest, transfer));
        // Should both have failed, the disk is the reason: the fetch ends well when nobody takes its pieces.
        let running = written?;
        if let (Err(OriginError::Changed { .. }), Some(running)) = (&fetched, &running) {
            running.part.discard();
        }
        if let Err(error) = fetched {
            if let Some(running) = running {
                running.end().await;
            }
            return Err(FetchError::from(error).into());
        }
        let running = running.context("the origin gave nothing")?;
        self.settle(running).await
    }

    /// What an earlier attempt left.
    async fn rest(&self) -> anyhow::Result<Option<Rest>> {
        if !self.look.lasting || self.job.settings.excerpt.is_some() {
            return Ok(None);
        }
        let (path, task) = (self.path.to_owned(), self.look.source.task());
        tokio::task::spawn_blocking(move || part::resume(&path, task)).await?
    }

    fn all_but_the_window(&self) -> anyhow::Result<(Geometry, PieceSet)> {
        let length = self
            .look
            .length
            .context("the origin does not say how long the content is: fetch it without --range")?;
        let geometry = Geometry::of(length)?;
        Ok((geometry, all_but(geometry, self.window(length)?)))
    }

    fn window(&self, length: u64) -> anyhow::Result<ByteRange> {
        self.job.settings.excerpt.map_or(Ok(ByteRange::new(0, length)), |excerpt| part_of(excerpt, length))
    }

    /// Writes what comes, until nothing more does.
    async fn write(
        &self,
        mut events: mpsc::Receiver<OriginEvent>,
        mut rest: Option<Rest>,
        transfer: &mut Transfer<'_>,
    ) -> anyhow::Result<Option<Running>> {
        let mut running = None;
        let mut writes = JoinSet::new();
        while let Some(event) = events.recv().await {
            match (event, &mut running) {
                (OriginEvent::Meta { geometry, .. }, _) => {
                    running = Some(self.begin(geometry, rest.take(), transfer).await?)
                }
                (OriginEvent::Piece { .. }, None) => bail!("the origin gave a piece before its length"),
                (OriginEvent::Piece { index, chunks, .. }, Some(running)) => {
                    let bytes: usize = chunks.iter().map(Bytes::len).sum();
                    self.job.settings.pace.pass(bytes as u64).await;
                    while writes.len() >= WRITES {
                        self.written(&mut writes, running, transfer).await?;
                    }
                    let part = running.part.clone();
                    writes.spawn_blocking(move || part.write(index, &chunks).map(|()| index));
                }
            }
        }
        if let Some(running) = &mut running {
            while !writes.is_empty() {
                self.written(&mut writes, running, transfer).await?;
            }
        }
        Ok(running)
    }

    async fn begin(
        &self,
        geometry: Geometry,
        rest: Option<Rest>,
        transfer: &mut Transfer<'_>,
    ) -> anyhow::Result<Running> {
        let window = self.window(geometry.length())?;
        let (part, have) = match rest {
            Some(Rest { part, have }) => (part, have),
            None => {
                let (path, task) = (self.path.to_owned(), self.look.source.task());
                let task = Some(task).filter(|_| self.look.lasting);
                let create = move || Part::create(&path, task, geometry, window);
                (tokio::task::spawn_blocking(create).await??, PieceSet::new(geometry.pieces()))
            }
        };
        let behind = Behind::of(&part::data_path(self.path))?;
        transfer.knows(window.len(), part::held(geometry, &have));
        let part = Arc::new(part);
        let (front, hashed) = watch::channel(front(geometry, &have));
        let length = self.job.remote.source.digest.map(|_| geometry.length());
        let proof = AbortOnDropHandle::new(tokio::spawn(prove(part.clone(), hashed, length.unwrap_or(0))));
        Ok(Running { part, behind, have, front, proof })
    }

    /// One of the writes is done.
    async fn written(
        &self,
        writes: &mut JoinSet<anyhow::Result<PieceIndex>>,
        running: &mut Running,
        transfer: &mut Transfer<'_>,
    ) -> anyhow::Result<()> {
        let Some(written) = writes.join_next().await else { return Ok(()) };
        let (index, geometry) = (written??, running.part.geometry());
        running.have.insert(index);
        running.front.send_replace(front(geometry, &running.have));
        let (piece, window) = (geometry.range(index), self.window(geometry.length())?);
        transfer.add(ByteRange::new(piece.start.max(window.start), piece.end.min(window.end)).len());
        running.behind.wrote(piece.len())
    }

    /// Makes sure that it is what was asked for, and gives it its name.
    async fn settle(&self, running: Running) -> anyhow::Result<u64> {
        let Running { part, behind, proof, .. } = running;
        behind.end().await?;
        if let Some(digest) = self.job.remote.source.digest {
            if proof.await?? != digest {
                part.discard();
                return Err(Stop::OtherContent(digest).into());
            }
        } else if self.look.lasting && ask(self.client, self.job).await?.source != self.look.source {
            part.discard();
            return Err(Stop::Changed.into());
        }
        let length = self.window(part.geometry().length())?.len();
        let (to, finish, modified) = (self.path.to_owned(), self.job.settings.finish, self.look.modified);
        tokio::task::spawn_blocking(move || part.settle(&to, finish, modified)).await??;
        Ok(length)
    }
}

// === impl Running ===

impl Running {
    /// Lets go of the file, which another attempt may want at once.
    async fn end(self) {
        let Self { part, front, proof, .. } = self;
        drop((part, front));
        let _ = proof.await;
    }
}

/// The pieces that have nothing of the window.
pub(super) fn all_but(geometry: Geometry, window: ByteRange) -> PieceSet {
    let (wanted, mut rest) = (geometry.pieces_of(window), PieceSet::new(geometry.pieces()));
    rest.insert_range(0..wanted.start);
    rest.insert_range(wanted.end..geometry.pieces());
    rest
}

/// Up to where there is no gap.
fn front(geometry: Geometry, have: &PieceSet) -> u64 {
    have.first_missing(0).map_or(geometry.length(), |index| geometry.range(index).start)
}

/// Hashes the file in order, close behind what is written: what was just written is still in memory.
async fn prove(part: Arc<Part>, mut front: watch::Receiver<u64>, length: u64) -> anyhow::Result<Digest> {
    let (mut hasher, mut at) = (Hasher::new(), 0);
    while at < length {
        let to = *front.wait_for(|front| *front > at).await?;
        let (part, range) = (part.clone(), ByteRange::new(at, to.min(length)));
        let hash = move || part.hash(range, &mut hasher).map(|()| hasher);
        hasher = tokio::task::spawn_blocking(hash).await??;
        at = range.end;
    }
    Ok(hasher.finish())
}
