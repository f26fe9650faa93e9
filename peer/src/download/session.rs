//! The download session: one task of the runtime owns one task's download on this node, from the first wish to
//! the last link. It hears the coordinator, the neighbours and, where it must, the origin, and writes what they
//! bring into [`Shared`].
//!
//! # Where pieces come from
//! In a swarm, from neighbours, compared with digests that the supernode vouches for. From the origin, when the
//! coordinator says so, when it cannot get the task, or when it is lost and the known parents have nothing more
//! for [`LOST_PATIENCE`]: then the digest of the whole is computed here.
//!
//! Pieces found on disk count only once the supernode vouches for their digests, or the origin is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::Digest;
use common::node::{Contact, NodeId};
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::task::{Credentials, Source};
use common::telemetry::{ByteSource, Outcome};
use common::wire::exchange::Refusal;
use common::wire::swarm::Failure;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::feed::{Fed, Feed};
use super::mesh::{Mesh, News};
use super::shared::{Phase, Shared};
use super::{Context, proof};
use crate::coordinator::{Membership, Notice, Order, Wish};
use crate::error::FetchError;
use crate::exchange::link::{self, LinkStream};
use crate::exchange::reveal::Style;
use crate::origin::Fetch;
use crate::store::{Blob, StoreError};

/// Without the supernode, and with nothing more from the known parents, the origin is asked after this.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// With the supernode, but with no parent that gives what is there to be had.
const STUCK_PATIENCE: Duration = Duration::from_secs(15);
/// The seed itself waits for the origin; after this, perhaps another way to it is better.
const ORIGIN_PATIENCE: Duration = Duration::from_secs(60);
/// How often other parents are asked for while stuck.
const NAG: Duration = Duration::from_secs(2);
/// A finished task stays ready for neighbours for so long after its last link.
const LINGER: Duration = Duration::from_secs(10);
/// Links that wait for the task's length.
const MAX_WAITING: usize = 128;
/// Pieces looked for in one go on a blocking thread.
const SALVAGE_BATCH: usize = 64;
/// Ranged requests at the origin, side by side.
const PARALLEL: usize = 4;

/// From outside to a session.
pub enum Input {
    /// A neighbour opened a link, and names the task's geometry.
    Link(LinkStream, Geometry),
}

/// What a session is begun with.
pub enum Start {
    /// Somebody here wants the task.
    Wanted {
        /// Where it comes from.
        source: Source,
        /// What opens it there.
        credentials: Credentials,
    },
    /// It is whole in the store, and a neighbour wants it.
    Held,
}

/// What was on disk before; holding the blob keeps it there.
struct Stored {
    geometry: Geometry,
    pieces: PieceSet,
    _pinned: Blob,
}

/// A running session's state.
pub struct Session {
    context: Arc<Context>,
    shared: Arc<Shared>,
    inputs: mpsc::Receiver<Input>,
    source: Option<Source>,
    credentials: Credentials,
    membership: Option<Membership>,
    mesh: Option<Mesh>,
    feed: Option<Feed>,
    proof: JoinSet<Result<Digest, FetchError>>,
    background: JoinSet<()>,
    /// What the store held of the task when the session began.
    stored: Option<Stored>,
    /// Pieces on disk that nobody has vouched for yet.
    found: BTreeMap<PieceIndex, Digest>,
    waiting: Vec<(LinkStream, Geometry)>,
    /// Parents named before the length.
    early: Vec<Contact>,
    /// The supernode says that its digests make the blob.
    supernode_proved: bool,
    lost: bool,
    /// What the supernode said when it could not get the task.
    refused: Option<Failure>,
    /// The coordinator will give no more orders.
    deaf: bool,
    /// The origin was asked again for what it left out.
    asked_again: bool,
    /// When something last arrived, for patience.
    moved: Instant,
    nagged: Instant,
    idle_since: Option<Instant>,
    ended: bool,
}

// === impl Session ===

impl Session {
    /// A session over `shared`, to be [`Session::run`].
    pub fn new(context: Arc<Context>, shared: Arc<Shared>, inputs: mpsc::Receiver<Input>) -> Self {
        let now = Instant::now();
        Self {
            context,
            shared,
            inputs,
            source: None,
            credentials: Credentials::none(),
            membership: None,
            mesh: None,
            feed: None,
            proof: JoinSet::new(),
            background: JoinSet::new(),
            stored: None,
            found: BTreeMap::new(),
            waiting: Vec::new(),
            early: Vec::new(),
            supernode_proved: false,
            lost: false,
            refused: None,
            deaf: false,
            asked_again: false,
            moved: now,
            nagged: now,
            idle_since: None,
            ended: false,
        }
    }

    /// Runs until the task failed, or is whole and no neighbour needs it.
    pub async fn run(mut self, start: Start) {
        if let Err(error) = self.begin(start).await {
            self.fail(error).await;
        }
        while !self.ended {
            let now = Instant::now();
            let complete = self.is_proven();
            let pumped = self.mesh.as_mut().and_then(|mesh| mesh.pump(complete, now));
            let wake = self.patience(now).into_iter().chain(pumped).min();
            if let Err(error) = self.step(wake).await {
                self.fail(error).await;
            }
        }
    }

    async fn begin(&mut self, start: Start) -> Result<(), FetchError> {
        let (store, task) = (self.context.store.clone(), self.shared.task());
        let stored = blocking(move || store.get(task)).await?;
        if let Some(blob) = stored.as_ref().filter(|blob| blob.is_proven()) {
            let geometry = blob.geometry();
            self.shared.start(blob.clone());
            let pieces = blob.clone();
            for (index, digest) in blocking(move || pieces.pieces()).await? {
                self.shared.set_present(index, digest);
            }
            let mut mesh = Mesh::new(self.context.clone(), self.shared.clone(), geometry);
            mesh.offer_all();
            self.mesh = Some(mesh);
            self.shared.set_phase(Phase::Proven);
            return Ok(());
        }
        let Start::Wanted { source, credentials } = start else { return Err(FetchError::Closing) };
        if let Some(blob) = stored {
            let (geometry, asked) = (blob.geometry(), blob.clone());
            let mut pieces = PieceSet::new(geometry.pieces());
            blocking(move || asked.pieces()).await?.into_iter().for_each(|(index, _)| {
                pieces.insert(index);
            });
            self.stored = Some(Stored { geometry, pieces, _pinned: blob });
        }
        let held = self.stored.as_ref().map_or(0, |stored| stored.pieces.count());
        let wish = Wish { source: source.clone(), credentials: credentials.clone(), held };
        self.membership = Some(self.context.coordinator.join(task, wish));
        self.source = Some(source);
        self.credentials = credentials;
        Ok(())
    }

    fn is_proven(&self) -> bool {
        matches!(self.shared.phase(), Phase::Proven)
    }

    /// When to look again for lack of news; does what patience has run out for.
    fn patience(&mut self, now: Instant) -> Option<Instant> {
        if self.is_proven() {
            let linked =
                self.mesh.as_ref().is_some_and(|mesh| mesh.links() > 0) || !self.background.is_empty();
            let since = *self.idle_since.get_or_insert(now);
            if linked {
                self.idle_since = None;
                return None;
            }
            self.ended = since + LINGER <= now;
            return Some(since + LINGER);
        }
        if self.feed.is_some() || self.is_whole() {
            return None;
        }
        let stuck = self.mesh.as_ref().is_none_or(Mesh::is_stuck);
        let owed = stuck && self.mesh.as_ref().is_some_and(Mesh::wants_vouched);
        let patience = match (self.lost, stuck) {
            (true, true) => LOST_PATIENCE,
            (false, true) if owed => STUCK_PATIENCE,
            (_, false) => 2 * STUCK_PATIENCE,
            // The seed has nothing more either: it waits for the origin, which we would only burden.
            (false, true) => ORIGIN_PATIENCE + self.spread(),
        };
        if self.moved + patience <= now {
            tracing::info!(task = ?self.shared.task(), lost = self.lost, "the swarm gives nothing more: asking the origin");
            self.go_to_origin();
            return None;
        }
        if owed && !self.lost && self.nagged + NAG <= now && self.moved + NAG <= now {
            self.nagged = now;
            self.say(Notice::MoreParents);
        }
        Some((self.moved + patience).min(now + NAG))
    }

    /// A time of this node's own, so that a thousand nodes that wait for one thing do not lose patience at once.
    fn spread(&self) -> Duration {
        ORIGIN_PATIENCE.mul_f64(self.context.seed_for(self.shared.task()) as f64 / u64::MAX as f64)
    }

    async fn step(&mut self, wake: Option<Instant>) -> Result<(), FetchError> {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = next_order(&mut self.membership, self.deaf) => self.ordered(order).await,
            news = next_news(&mut self.mesh) => self.news(news),
            fed = next_fed(&mut self.feed) => self.fed(fed).await,
            Some(proof) = self.proof.join_next() => {
                let digest = proof.map_err(|_| FetchError::Closing)??;
                self.hashed(digest)
            }
            Some(_) = self.background.join_next() => Ok(()),
            input = self.inputs.recv() => {
                match input {
                    Some(Input::Link(link, geometry)) => self.incoming(link, geometry),
                    // The engine let go of the task: it closes.
                    None => return Err(FetchError::Closing),
                }
                Ok(())
            }
            () = sleep => Ok(()),
        }
    }

    // --- the coordinator -------------------------------------------------------------------------------------

    async fn ordered(&mut self, order: Option<Order>) -> Result<(), FetchError> {
        match order {
            Some(Order::Joined { geometry, inline }) => {
                self.lost = false;
                self.refused = None;
                // A supernode that came back vouches anew.
                self.supernode_proved = false;
                self.moved = Instant::now();
                self.know(geometry).await?;
                if let Some(bytes) = inline {
                    self.take_inline(Bytes::from(bytes)).await?;
                }
            }
            Some(Order::Digests { first, digests }) => self.vouch(first, &digests).await?,
            Some(Order::Parents { add, remove }) => match &mut self.mesh {
                Some(mesh) => mesh.parents(add, &remove, Instant::now()),
                None => {
                    self.early.retain(|contact| !remove.contains(&contact.id));
                    self.early.extend(add.into_iter().take(MAX_WAITING - self.early.len().min(MAX_WAITING)));
                }
            },
            Some(Order::Proven) => {
                self.supernode_proved = true;
                self.check()?;
            }
            Some(Order::Poisoned) => return Err(FetchError::Poisoned { task: self.shared.task() }),
            Some(Order::Failed(failure)) => {
                // It may have asked another registry, or with another client's credentials; the origin's answer
                // to this node's own question is what the client is to see.
                tracing::info!(task = ?self.shared.task(), "the supernode cannot get it ({failure}): asking the origin");
                self.refused = Some(failure);
                self.go_to_origin();
            }
            Some(Order::GoToOrigin) => self.go_to_origin(),
            Some(Order::Lost) => self.lose()?,
            None => {
                // Nothing more will be said. Whoever sent us to the origin still listens.
                self.deaf = true;
                if self.feed.is_none() {
                    self.lose()?;
                }
            }
        }
        Ok(())
    }

    fn lose(&mut self) -> Result<(), FetchError> {
        if !self.lost {
            self.lost = true;
            self.moved = Instant::now();
        }
        self.check()
    }

    /// The length is known: from here on there is a blob to write to.
    async fn know(&mut self, geometry: Geometry) -> Result<(), FetchError> {
        if let Some(known) = self.shared.geometry() {
            if known == geometry {
                return Ok(());
            }
            return Err(FetchError::Swarm(format!(
                "task {} has another length than before: {} and {} bytes",
                self.shared.task(),
                known.length(),
                geometry.length()
            )));
        }
        let (store, task) = (self.context.store.clone(), self.shared.task());
        let url = self.source.as_ref().map(|source| source.url.clone()).unwrap_or_default();
        let blob = blocking(move || store.create(task, geometry, &common::telemetry::redact(&url))).await?;
        let pieces = blob.clone();
        self.found = blocking(move || pieces.pieces()).await?.into_iter().collect();
        self.shared.start(blob);
        let mut mesh = Mesh::new(self.context.clone(), self.shared.clone(), geometry);
        mesh.parents(std::mem::take(&mut self.early), &[], Instant::now());
        self.mesh = Some(mesh);
        for (link, theirs) in std::mem::take(&mut self.waiting) {
            self.incoming(link, theirs);
        }
        self.check()
    }

    /// A small task came with the answer.
    async fn take_inline(&mut self, bytes: Bytes) -> Result<(), FetchError> {
        let (Some(blob), Some(geometry)) = (self.shared.blob(), self.shared.geometry()) else {
            return Ok(());
        };
        let digest = Digest::of(&bytes);
        let expected = self.source.as_ref().and_then(|source| source.digest);
        let whole = geometry.pieces() <= 1 && bytes.len() as u64 == geometry.length();
        if !whole || expected.is_some_and(|expected| expected != digest) {
            return Err(FetchError::Swarm(format!(
                "the supernode sent wrong bytes for task {}",
                self.shared.task()
            )));
        }
        if geometry.pieces() == 1 {
            self.count(ByteSource::Seed, geometry.length());
            blocking(move || blob.write_piece(PieceIndex(0), &[bytes], digest)).await?;
            if let Some(mesh) = &mut self.mesh {
                mesh.vouch(PieceIndex(0), digest);
            }
            self.arrived(PieceIndex(0), digest, None, true);
        }
        self.supernode_proved = true;
        self.check()
    }

    async fn vouch(&mut self, first: PieceIndex, digests: &[Digest]) -> Result<(), FetchError> {
        let (Some(mesh), Some(blob)) = (&mut self.mesh, self.shared.blob()) else { return Ok(()) };
        let mut unclaimed = Vec::new();
        for (offset, digest) in digests.iter().enumerate() {
            let index = PieceIndex(first.0.saturating_add(offset as u32));
            let changed = |known: Option<Digest>| known.is_some_and(|known| known != *digest);
            if changed(mesh.vouched(index)) || changed(self.shared.digest(index)) {
                // Two contents under one name: what is here may be of either.
                return Err(FetchError::Poisoned { task: self.shared.task() });
            }
            mesh.vouch(index, *digest);
            unclaimed.push((index, *digest));
        }
        for (index, digest) in std::mem::take(&mut unclaimed) {
            match self.found.remove(&index) {
                Some(found) if found == digest => self.arrived(index, found, None, true),
                Some(_) => {
                    tracing::warn!(task = ?self.shared.task(), piece = index.0, "a stored piece is another one: dropped");
                    let blob = blob.clone();
                    blocking(move || blob.forget_piece(index)).await?;
                }
                None => unclaimed.push((index, digest)),
            }
        }
        if self.stored.is_some() {
            self.salvage(unclaimed).await?;
        }
        self.check()
    }

    /// Looks among the bytes that an earlier run left for pieces that its index lost.
    async fn salvage(&mut self, pieces: Vec<(PieceIndex, Digest)>) -> Result<(), FetchError> {
        let Some(blob) = self.shared.blob() else { return Ok(()) };
        for batch in pieces.chunks(SALVAGE_BATCH) {
            let (blob, missing) = (blob.clone(), |index| self.shared.ready(index, 1) == 0);
            let batch: Vec<_> = batch.iter().copied().filter(|(index, _)| missing(*index)).collect();
            let salvaged = blocking(move || {
                let mut salvaged = Vec::new();
                for (index, digest) in batch {
                    if blob.salvage(index, digest)? {
                        salvaged.push((index, digest));
                    }
                }
                Ok::<_, StoreError>(salvaged)
            });
            for (index, digest) in salvaged.await? {
                self.arrived(index, digest, None, true);
            }
        }
        Ok(())
    }

    fn say(&self, notice: Notice) {
        if let Some(membership) = &self.membership {
            membership.notices.say(notice);
        }
    }

    // --- neighbours ------------------------------------------------------------------------------------------

    fn incoming(&mut self, link: LinkStream, geometry: Geometry) {
        match (&mut self.mesh, self.shared.geometry()) {
            (Some(mesh), Some(ours)) if ours == geometry => mesh.incoming(link),
            (None, _) if self.waiting.len() < MAX_WAITING => self.waiting.push((link, geometry)),
            (None, _) => self.refuse(link, Refusal::Busy),
            _ => self.refuse(link, Refusal::OtherGeometry),
        }
        self.idle_since = None;
    }

    fn refuse(&mut self, link: LinkStream, refusal: Refusal) {
        self.background.spawn(link::refuse(link, refusal));
    }

    fn news(&mut self, news: News) -> Result<(), FetchError> {
        match news {
            News::Piece { index, from, bytes } => {
                let seed = self.context.coordinator.is_seed(from);
                self.count(if seed { ByteSource::Seed } else { ByteSource::Peer }, bytes);
                let digest = self.mesh.as_ref().and_then(|mesh| mesh.vouched(index));
                if let Some(digest) = digest {
                    self.arrived(index, digest, Some(from), true);
                }
                self.check()
            }
            News::Blame(node, fault) => {
                self.say(Notice::Blame { node, fault });
                Ok(())
            }
            News::Store(error) => Err(error.into()),
            News::Nothing => Ok(()),
        }
    }

    // --- the origin ------------------------------------------------------------------------------------------

    fn go_to_origin(&mut self) {
        let Some(source) = self.source.clone().filter(|_| self.feed.is_none() && !self.is_proven()) else {
            return;
        };
        let have = match (self.shared.geometry(), source.digest) {
            (Some(geometry), Some(_)) => {
                self.take_found();
                let mut have = PieceSet::new(geometry.pieces());
                let held = |index: &PieceIndex| self.shared.ready(*index, 1) == 1;
                (0..geometry.pieces()).map(PieceIndex).filter(held).for_each(|index| {
                    have.insert(index);
                });
                Some((geometry, have))
            }
            // Content without a digest may have changed: what is here is asked for again and compared, not mixed.
            (Some(geometry), None) => {
                self.found.clear();
                Some((geometry, PieceSet::new(geometry.pieces())))
            }
            (None, Some(_)) => self.stored.as_ref().map(|stored| (stored.geometry, stored.pieces.clone())),
            (None, None) => None,
        };
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(false);
            if source.digest.is_some() && self.proof.is_empty() {
                self.proof.spawn(proof::digest(self.shared.clone()));
            }
        }
        let wanted = Fetch { source, credentials: self.credentials.clone(), have, parallel: PARALLEL };
        self.feed =
            Some(Feed::start(self.context.origin.clone(), wanted, self.context.download_limit.clone()));
    }

    async fn fed(&mut self, fed: Fed) -> Result<(), FetchError> {
        match fed {
            Fed::Meta(geometry) => self.origin_knows(geometry).await,
            Fed::Piece { index, chunks, digest } => {
                let vouched = self.mesh.as_ref().and_then(|mesh| mesh.vouched(index));
                let changed = |known: Option<Digest>| known.is_some_and(|known| known != digest);
                if changed(vouched) || changed(self.shared.digest(index)) {
                    return Err(FetchError::Poisoned { task: self.shared.task() });
                }
                if let (Some(feed), Some(blob)) = (&mut self.feed, self.shared.blob()) {
                    feed.write(blob, index, chunks, digest);
                }
                Ok(())
            }
            Fed::Written { index, digest } => {
                let bytes = self.shared.geometry().map_or(0, |geometry| geometry.range(index).len());
                self.count(ByteSource::Origin, bytes);
                let vouched = self.mesh.as_ref().is_some_and(|mesh| mesh.vouched(index).is_some());
                self.arrived(index, digest, None, vouched || self.context.style == Style::Seed);
                self.check()
            }
            Fed::Failed(error) => self.origin_failed(error),
            Fed::Done if self.is_whole() => self.check(),
            Fed::Done if self.asked_again => {
                Err(FetchError::Swarm(format!("the origin did not give all of task {}", self.shared.task())))
            }
            Fed::Done => {
                self.asked_again = true;
                self.feed = None;
                self.go_to_origin();
                Ok(())
            }
        }
    }

    /// Back to the swarm, if there is hope in it.
    fn origin_failed(&mut self, error: FetchError) -> Result<(), FetchError> {
        let answered = matches!(error, FetchError::Origin(_));
        if let (Some(Failure::Origin(failure)), false) = (&self.refused, answered) {
            // This node cannot ask at all, but the supernode did, and was answered.
            return Err(FetchError::Origin(failure.clone()));
        }
        if self.lost || self.refused.is_some() || self.deaf || !is_of_origin(&error) {
            return Err(error);
        }
        tracing::info!(task = ?self.shared.task(), "the origin failed ({error}): back to the swarm");
        self.feed = None;
        self.proof = JoinSet::new();
        self.moved = Instant::now();
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(true);
        }
        self.check()
    }

    /// The origin's word on the length: a stored beginning of another length is no beginning of this.
    async fn origin_knows(&mut self, geometry: Geometry) -> Result<(), FetchError> {
        let first = self.mesh.is_none();
        self.know(geometry).await?;
        if self.is_proven() {
            return Ok(());
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(false);
        }
        if self.source.as_ref().is_some_and(|source| source.digest.is_some()) {
            self.take_found();
            if self.proof.is_empty() {
                self.proof.spawn(proof::digest(self.shared.clone()));
            }
        } else {
            self.found.clear();
        }
        if first {
            self.say(Notice::Known(geometry));
        }
        self.check()
    }

    /// Counts what is on disk as present: it was right when it was written, and the digest of the whole decides.
    fn take_found(&mut self) {
        for (index, digest) in std::mem::take(&mut self.found) {
            self.arrived(index, digest, None, self.context.style == Style::Seed);
        }
    }

    fn hashed(&mut self, digest: Digest) -> Result<(), FetchError> {
        let expected = self.source.as_ref().and_then(|source| source.digest);
        if expected.is_some_and(|expected| expected != digest) {
            return Err(FetchError::Poisoned { task: self.shared.task() });
        }
        self.prove();
        Ok(())
    }

    // --- progress --------------------------------------------------------------------------------------------

    fn count(&self, source: ByteSource, bytes: u64) {
        self.context.metrics.received_bytes.of(source).inc_by(bytes);
    }

    fn arrived(&mut self, index: PieceIndex, digest: Digest, from: Option<NodeId>, offer: bool) {
        let now = Instant::now();
        self.moved = now;
        self.shared.set_present(index, digest);
        if let Some(mesh) = &mut self.mesh {
            mesh.present(index, from, offer, now);
        }
        self.say(Notice::Progress(self.shared.held()));
    }

    /// Whether the task is whole, and whether that is proven.
    fn check(&mut self) -> Result<(), FetchError> {
        let Some(geometry) = self.shared.geometry() else { return Ok(()) };
        if self.is_proven() || self.shared.held() < geometry.pieces() {
            return Ok(());
        }
        let digest = self.source.as_ref().and_then(|source| source.digest);
        let empty_and_right = geometry.pieces() == 0 && digest == Some(Digest::of(b""));
        let vouched_and_right = self.supernode_proved && self.is_vouched(geometry);
        if empty_and_right || vouched_and_right || digest.is_none() && self.trusts_itself() {
            self.prove();
        } else if self.lost && self.feed.is_none() && digest.is_some() && self.proof.is_empty() {
            self.proof.spawn(proof::digest(self.shared.clone()));
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.shared.geometry().is_some_and(|geometry| self.shared.held() == geometry.pieces())
    }

    /// Whether the supernode vouches for every piece as it is here. What came inline was compared whole.
    fn is_vouched(&self, geometry: Geometry) -> bool {
        let Some(mesh) = &self.mesh else { return false };
        let same =
            |index| mesh.vouched(index).is_some_and(|vouched| self.shared.digest(index) == Some(vouched));
        (0..geometry.pieces()).map(PieceIndex).all(same)
    }

    /// Content without a digest is proven by having come whole: from the origin, or piece by piece as the
    /// supernode, now gone, vouched for.
    fn trusts_itself(&self) -> bool {
        self.feed.is_some() || self.lost
    }

    fn prove(&mut self) {
        let (Some(blob), Some(mesh)) = (self.shared.blob(), &mut self.mesh) else { return };
        mesh.offer_all();
        self.feed = None;
        self.proof = JoinSet::new();
        self.shared.set_phase(Phase::Proven);
        self.context.metrics.downloads.of(Outcome::Ok).inc();
        let geometry = blob.geometry();
        self.say(Notice::Proven(geometry));
        // Nothing more is expected of the coordinator: it knows us as one who holds the task.
        self.membership = None;
        let task = self.shared.task();
        self.background.spawn(async move {
            // Until this is on the disk, a restart finds the pieces and proves them again.
            if let Err(error) = blocking(move || blob.prove()).await {
                tracing::warn!(?task, "the finished task could not be marked as such: {error}");
            }
        });
    }

    async fn fail(&mut self, error: FetchError) {
        if self.is_proven() {
            self.ended = true;
            return;
        }
        let poisoned = matches!(error, FetchError::Poisoned { .. });
        let outcome = if poisoned { Outcome::Poisoned } else { Outcome::Failed };
        self.context.metrics.downloads.of(outcome).inc();
        if !matches!(error, FetchError::Closing | FetchError::Origin(_)) {
            tracing::warn!(task = ?self.shared.task(), "download failed: {error}");
        }
        if poisoned || matches!(error, FetchError::StoreFull(_)) {
            // Before anybody hears of it: whoever asks again must find nothing of this.
            let (store, task) = (self.context.store.clone(), self.shared.task());
            if let Err(error) = blocking(move || store.remove(task)).await {
                tracing::warn!(?task, "cannot drop the task: {error}");
            }
        }
        self.shared.set_phase(Phase::Failed(error));
        self.say(Notice::Failed);
        self.ended = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Cut off or panicked: whoever waits must hear of it.
        if !matches!(self.shared.phase(), Phase::Proven | Phase::Failed(_)) {
            self.shared.set_phase(Phase::Failed(FetchError::Closing));
        }
    }
}

/// Whether a failure is one of the origin, and not of this node.
fn is_of_origin(error: &FetchError) -> bool {
    matches!(error, FetchError::Origin(_) | FetchError::Unavailable(_) | FetchError::Forbidden(_))
}

async fn next_order(membership: &mut Option<Membership>, deaf: bool) -> Option<Order> {
    match membership {
        Some(membership) if !deaf => membership.orders.recv().await,
        _ => std::future::pending().await,
    }
}

async fn next_news(mesh: &mut Option<Mesh>) -> News {
    match mesh {
        Some(mesh) => mesh.next().await,
        None => std::future::pending().await,
    }
}

async fn next_fed(feed: &mut Option<Feed>) -> Fed {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// Store work beside the async threads.
async fn blocking<T: Send + 'static, E: Into<FetchError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(FetchError::Closing),
    }
}
