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
use crate::store::StoreError;

/// Without the supernode, and with nothing more from the known parents, the origin is asked after this.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// With the supernode, but with no parent that gives what is there to be had.
const STUCK_PATIENCE: Duration = Duration::from_secs(15);
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
    stored: Option<(Geometry, PieceSet)>,
    /// Pieces on disk that nobody has vouched for yet.
    found: BTreeMap<PieceIndex, Digest>,
    waiting: Vec<(LinkStream, Geometry)>,
    /// Parents named before the length.
    early: Vec<Contact>,
    /// The supernode says that its digests make the blob.
    supernode_proved: bool,
    lost: bool,
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
            let geometry = blob.geometry();
            let mut set = PieceSet::new(geometry.pieces());
            blocking(move || blob.pieces()).await?.into_iter().for_each(|(index, _)| {
                set.insert(index);
            });
            self.stored = Some((geometry, set));
        }
        let held = self.stored.as_ref().map_or(0, |(_, set)| set.count());
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
        if self.feed.is_some() {
            return None;
        }
        let stuck = self.mesh.as_ref().is_none_or(Mesh::is_stuck);
        let owed = self.mesh.as_ref().is_some_and(|mesh| mesh.wants_vouched());
        let patience = if self.lost { LOST_PATIENCE } else { STUCK_PATIENCE };
        if !(stuck && (self.lost || owed)) {
            self.moved = now;
            return Some(now + patience.min(NAG));
        }
        if self.moved + patience <= now {
            tracing::info!(task = ?self.shared.task(), lost = self.lost, "the swarm gives nothing more: asking the origin");
            self.go_to_origin();
            return None;
        }
        if !self.lost && self.nagged + NAG <= now {
            self.nagged = now;
            self.say(Notice::MoreParents);
        }
        Some((self.moved + patience).min(now + NAG))
    }

    async fn step(&mut self, wake: Option<Instant>) -> Result<(), FetchError> {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = next_order(&mut self.membership) => self.ordered(order).await,
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
            Some(Order::Failed(Failure::Origin(failure))) => return Err(FetchError::Origin(failure)),
            Some(Order::Failed(other)) => {
                tracing::info!(task = ?self.shared.task(), "the supernode cannot get it ({other}): asking the origin");
                self.go_to_origin();
            }
            Some(Order::GoToOrigin) => self.go_to_origin(),
            Some(Order::Lost) => self.lose(),
            None => {
                self.membership = None;
                self.lose();
            }
        }
        Ok(())
    }

    fn lose(&mut self) {
        self.lost = true;
        self.moved = Instant::now();
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
        let have = match self.shared.geometry() {
            Some(geometry) => {
                self.take_found();
                let mut have = PieceSet::new(geometry.pieces());
                let held = |index: &PieceIndex| self.shared.ready(*index, 1) == 1;
                (0..geometry.pieces()).map(PieceIndex).filter(held).for_each(|index| {
                    have.insert(index);
                });
                Some((geometry, have))
            }
            // Content without a digest may have changed since: what is here is not to be mixed with it.
            None => self.stored.clone().filter(|_| source.digest.is_some()),
        };
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(false);
            if source.digest.is_some() {
                self.proof.spawn(proof::digest(self.shared.clone()));
            }
        }
        let wanted = Fetch { source, credentials: self.credentials.clone(), have, parallel: PARALLEL };
        self.feed = Some(Feed::start(self.context.origin.clone(), wanted));
    }

    async fn fed(&mut self, fed: Fed) -> Result<(), FetchError> {
        match fed {
            Fed::Meta(geometry) => self.origin_knows(geometry).await,
            Fed::Piece { index, chunks, digest } => {
                let vouched = self.mesh.as_ref().and_then(|mesh| mesh.vouched(index));
                if vouched.is_some_and(|vouched| vouched != digest) {
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
            Fed::Failed(error) => Err(error),
            Fed::Done => self.check(),
        }
    }

    /// The origin's word on the length: a stored beginning of another length is no beginning of this.
    async fn origin_knows(&mut self, geometry: Geometry) -> Result<(), FetchError> {
        if self.mesh.is_some() {
            return self.know(geometry).await;
        }
        self.know(geometry).await?;
        if self.source.as_ref().is_some_and(|source| source.digest.is_some()) {
            self.take_found();
            self.proof.spawn(proof::digest(self.shared.clone()));
        } else {
            self.found.clear();
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(false);
        }
        self.say(Notice::Known(geometry));
        Ok(())
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
        if empty_and_right
            || (self.supernode_proved && self.feed.is_none())
            || digest.is_none() && self.trusts_itself()
        {
            self.prove();
        } else if self.lost && self.feed.is_none() && digest.is_some() && self.proof.is_empty() {
            self.proof.spawn(proof::digest(self.shared.clone()));
        }
        Ok(())
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
        self.proof.abort_all();
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
        let drop_bytes = poisoned || matches!(error, FetchError::StoreFull(_));
        self.shared.set_phase(Phase::Failed(error));
        self.say(Notice::Failed);
        self.ended = true;
        if drop_bytes {
            let (store, task) = (self.context.store.clone(), self.shared.task());
            if let Err(error) = blocking(move || store.remove(task)).await {
                tracing::warn!(?task, "cannot drop the task: {error}");
            }
        }
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

async fn next_order(membership: &mut Option<Membership>) -> Option<Order> {
    match membership {
        Some(membership) => membership.orders.recv().await,
        None => std::future::pending().await,
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
