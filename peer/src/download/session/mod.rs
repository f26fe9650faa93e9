//! The download session: one task of the runtime owns one task's download on this node, from the first wish to
//! the last link. It hears the coordinator, the neighbours and, where it must, the origin, and writes what they
//! bring into [`Shared`].
//!
//! # Where pieces come from
//! In a swarm, from neighbours, compared with digests that the supernode vouches for. From the origin (at the seed, after a look into its vault), when the
//! coordinator says so, when it cannot get the task, or when it is lost and the known parents have nothing more
//! for [`LOST_PATIENCE`]: then the digest of the whole is computed here.
//!
//! Pieces found on disk count only once the supernode vouches for their digests, or the origin is asked.

mod orders;
mod origin;
mod progress;
mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::digest::Digest;
use common::node::Contact;
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::task::{Credentials, Source};
use common::telemetry::trace::{Side, Span, TraceContext};
use common::wire::swarm::{Failure, Priority};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::coordinator::{Membership, Notice, Order, Wish};
use crate::download::Context;
use crate::download::feed::{Fed, Feed};
use crate::download::mesh::{Mesh, News};
use crate::download::shared::{Phase, Shared};
use crate::error::FetchError;
use crate::exchange::link::LinkStream;
use crate::record::End;
use crate::store::Blob;
use crate::vault::Kept;

/// Without the supernode, and with nothing more from the known parents, the origin is asked after this.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// Of the pieces that another supernode had given, as many are with neighbours as it had time to hand on; they come over links
/// that are only being opened.
const RECALLED_PATIENCE: Duration = Duration::from_secs(3);
/// With the supernode, but with no parent that gives what is there to be had.
const STUCK_PATIENCE: Duration = Duration::from_secs(15);
/// The seed itself waits for the origin; after this, perhaps another way to it is better.
const ORIGIN_PATIENCE: Duration = Duration::from_secs(60);
/// How often other parents are asked for while stuck.
const NAG: Duration = Duration::from_secs(2);
/// Without a piece for so long, and with all requests at one parent, others are asked for: should it never answer, they
/// are there before its silence is called one.
const HANGING: Duration = Duration::from_millis(600);
/// A finished task stays ready for neighbours for so long after its last link.
const LINGER: Duration = Duration::from_secs(10);
/// Links that wait for the task's length.
const MAX_WAITING: usize = 128;
/// Pieces looked for in one go on a blocking thread.
const SALVAGE_BATCH: usize = 64;
/// What is fetched ahead of need has so many times the patience.
const AHEAD_OF_NEED: u32 = 10;
/// Ranged requests at the origin, side by side.
const PARALLEL: usize = 4;

/// From outside to a session.
pub enum Input {
    /// A neighbour opened a link, and names the task's geometry.
    ///
    /// In a box: a channel has room for dozens, and there may be thousands of sessions.
    Link(Box<LinkStream>, Geometry),
}

/// What a session is begun with.
pub enum Start {
    /// Somebody here wants the task.
    Wanted {
        /// Where it comes from.
        source: Source,
        /// What opens it there.
        credentials: Credentials,
        /// How urgent it is.
        priority: Priority,
        /// What it is part of, if that is traced.
        trace: Option<TraceContext>,
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
    /// What other coordinators vouched for is with the neighbours, and not asked of the origin yet.
    recalled: bool,
    /// What the supernode said when it could not get the task.
    refused: Option<Failure>,
    /// The coordinator will give no more orders.
    deaf: bool,
    /// Looks whether the vault has the task.
    finding: JoinSet<Option<Kept>>,
    /// What the vault has of it.
    kept: Option<Arc<Kept>>,
    /// Some of it came from the origin.
    from_origin: bool,
    /// The origin was asked again for what it left out.
    asked_again: bool,
    /// When something last arrived, for patience.
    moved: Instant,
    /// When other parents were last asked for.
    nagged: Option<Instant>,
    idle_since: Option<Instant>,
    /// It was whole when somebody here asked for it, and no neighbour has.
    looked_for: bool,
    ended: bool,
    /// The download, until it is proven or failed, if whoever began it is traced.
    span: Span,
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
            recalled: false,
            refused: None,
            deaf: false,
            finding: JoinSet::new(),
            kept: None,
            from_origin: false,
            asked_again: false,
            moved: now,
            nagged: None,
            idle_since: None,
            looked_for: false,
            ended: false,
            span: Span::none(),
        }
    }

    /// Runs until the task failed, or is whole and no neighbour needs it.
    ///
    /// In a box: a future keeps several copies of what it is given by value, and there may be thousands of them.
    pub async fn run(mut self: Box<Self>, start: Start) {
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
            self.looked_for = matches!(start, Start::Wanted { .. });
            self.shared.set_phase(Phase::Proven);
            return Ok(());
        }
        let Start::Wanted { source, credentials, priority, trace } = start else {
            return Err(FetchError::Closing);
        };
        self.context.book.add(self.shared.scribe().clone());
        self.span = Span::within("engine.download", trace, Side::Inside);
        self.span.note("longshore.task", task);
        self.span.note("longshore.node", self.context.node());
        if let Some(blob) = stored {
            let (geometry, asked) = (blob.geometry(), blob.clone());
            let mut pieces = PieceSet::new(geometry.pieces());
            blocking(move || asked.pieces()).await?.into_iter().for_each(|(index, _)| {
                pieces.insert(index);
            });
            self.stored = Some(Stored { geometry, pieces, _pinned: blob });
        }
        let held = self.stored.as_ref().map_or(0, |stored| stored.pieces.count());
        let trace = self.span.context();
        let wish = Wish { source: source.clone(), credentials: credentials.clone(), held, priority, trace };
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
            let closing = self.shared.scribe().close(now);
            if linked {
                (self.idle_since, self.looked_for) = (None, false);
                return closing;
            }
            let until = since + self.linger();
            self.ended = until <= now;
            return closing.into_iter().chain([until]).min();
        }
        if self.feed.is_some() || self.is_whole() || !self.finding.is_empty() {
            return None;
        }
        let stuck = self.mesh.as_ref().is_none_or(Mesh::is_stuck);
        let owed = stuck && self.mesh.as_ref().is_some_and(Mesh::wants_vouched);
        let patience = match (self.lost, stuck) {
            (true, true) => LOST_PATIENCE,
            // The origin gave the rest, and what was to be had of the neighbours is had.
            (false, true) if self.recalled => RECALLED_PATIENCE,
            (false, true) if owed => STUCK_PATIENCE,
            (_, false) => 2 * STUCK_PATIENCE,
            // The seed has nothing more either: it waits for the origin, which we would only burden.
            (false, true) => ORIGIN_PATIENCE + self.spread(),
        };
        // What nobody waits for yet gives way to what somebody does: at the origin that would be no way to give.
        let patience = if self.shared.is_urgent() { patience } else { patience * AHEAD_OF_NEED };
        if self.moved + patience <= now {
            tracing::info!(task = ?self.shared.task(), lost = self.lost, "the swarm gives nothing more: asking the origin");
            self.recalled = false;
            self.go_to_origin();
            return None;
        }
        let hangs = || self.mesh.as_ref().is_some_and(Mesh::hangs_on_one);
        let in_need = owed && self.moved + NAG <= now || self.moved + HANGING <= now && hangs();
        if in_need && !self.lost && self.nagged.is_none_or(|at| at + NAG <= now) {
            self.nagged = Some(now);
            self.say(Notice::MoreParents);
        }
        let hanging = (!self.lost).then_some(self.moved + HANGING).filter(|at| *at > now);
        [Some(self.moved + patience), Some(now + NAG), hanging].into_iter().flatten().min()
    }

    /// How long it stays ready for neighbours. A preheat that finds all of its parts here, thousands of them, has brought nothing
    /// that neighbours wait for.
    fn linger(&self) -> Duration {
        if self.looked_for && !self.shared.is_urgent() { Duration::ZERO } else { LINGER }
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
                self.hashed(digest).await
            }
            Some(found) = self.finding.join_next() => self.found_in_vault(found.ok().flatten()).await,
            Some(_) = self.background.join_next() => Ok(()),
            input = self.inputs.recv() => {
                match input {
                    Some(Input::Link(link, geometry)) => {
                        self.incoming(*link, geometry);
                        // It may have been about to go.
                        self.ended = false;
                    }
                    // The engine let go of the task: it closes.
                    None => return Err(FetchError::Closing),
                }
                Ok(())
            }
            // It is proven, so this ends the session and no more; what is left of the blob stays.
            () = self.shared.damaged() => Err(FetchError::Closing),
            () = sleep => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Cut off or panicked: whoever waits must hear of it.
        if !matches!(self.shared.phase(), Phase::Proven | Phase::Failed(_)) {
            self.shared.scribe().end(End::Failed { why: FetchError::Closing.to_string(), trouble: false });
            self.shared.set_phase(Phase::Failed(FetchError::Closing));
        }
        self.shared.scribe().close_now();
    }
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
