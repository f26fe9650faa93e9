//! The engine: all tasks of one node. Clients [`Engine::open`] tasks, neighbours are served from it, and one
//! download session runs for each task that is wanted or linked, however many ask. The daemons, the proxy, the
//! supernode's seed and `get` are built on it; it knows none of their roles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::node::{NodeId, Role};
use common::piece::{Geometry, PieceIndex};
use common::task::{Credentials, Source, TaskId};
use common::telemetry::trace::{Side, Span, TraceContext};
use common::telemetry::{Metrics, TurnedAway, hold};
use common::transport::{Connection, Transport};
use common::wire::exchange::Refusal;
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::{Failure, Priority};
use dashmap::DashMap;
use tokio::sync::{Semaphore, mpsc};

use crate::coordinator::Coordinator;
use crate::download::session::{Input, Session, Start};
use crate::download::shared::{Phase, Shared};
use crate::download::{BUDGET_UNIT, Context};
use crate::error::FetchError;
use crate::exchange::courtesy::Courtesy;
use crate::exchange::guests::Guests;
use crate::exchange::line::Line;
use crate::exchange::link::{self, LinkStream};
use crate::exchange::pool::Pool;
use crate::exchange::reveal::Style;
use crate::exchange::serve::{self, SessionStream};
use crate::handle::{Handle, Local};
use crate::inquiry::{Desk, Outcome};
use crate::limit::{Limits, Rates};
use crate::origin::{self, OriginClient};
use crate::provenance::Provenance;
use crate::recheck::Looks;
use crate::record::book::Book;
use crate::store::{Blob, Store};
use crate::tasks::Tasks;
use crate::trust::{Record, Trust};
use crate::vault::Vault;

/// Bytes in memory on their way in, over all downloads of the node.
const DOWNLOAD_BUDGET: u64 = 48 * 1024 * 1024;
/// Messages waiting for a session: it takes them at once.
const INPUTS: usize = 64;
/// How long a closing engine waits for its sessions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What an engine is made of.
pub struct EngineOptions {
    /// Where bytes are kept.
    pub store: Store,
    /// The node's connections; none for a lone fetch.
    pub transport: Option<Transport>,
    /// Who knows the swarms.
    pub coordinator: Arc<dyn Coordinator>,
    /// How origins are asked.
    pub origin: OriginClient,
    /// Where whole blobs are looked for before the origin is asked; none for all but a seed.
    pub vault: Option<Arc<dyn Vault>>,
    /// What is counted.
    pub metrics: Metrics,
    /// How thrifty the node shows its pieces.
    pub style: Style,
    /// Who takes sessions (a supernode); others refuse them.
    pub sessions: Option<mpsc::Sender<SessionStream>>,
    /// Who does what supernodes ask for ahead of need (a peer); others refuse it.
    pub errands: Option<mpsc::Sender<SessionStream>>,
    /// The limits to begin with.
    pub rates: Rates,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it comes from, and how it is known.
    pub source: Source,
    /// What opens it at the origin.
    pub credentials: Credentials,
    /// How urgent it is.
    pub priority: Priority,
    /// What it is part of, if that is traced.
    pub trace: Option<TraceContext>,
}

/// All tasks of one node. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    live: DashMap<TaskId, Live>,
    sessions: Option<mpsc::Sender<SessionStream>>,
    errands: Option<mpsc::Sender<SessionStream>>,
    guests: Arc<Guests>,
    desk: Desk,
    provenance: Provenance,
    looks: Looks,
    tasks: Tasks,
}

#[derive(Clone)]
struct Live {
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
}

// === impl Engine ===

impl Engine {
    /// Starts an engine on the present runtime.
    pub fn start(options: EngineOptions) -> Self {
        let (dialled, mut connections) = mpsc::channel(16);
        let pool = options.transport.map(|transport| Arc::new(Pool::new(transport, dialled)));
        let limits = Limits::new(&options.rates);
        let context = Context {
            store: options.store,
            pool,
            coordinator: options.coordinator,
            origin: options.origin,
            vault: options.vault,
            metrics: options.metrics,
            style: options.style,
            courtesy: Courtesy::default(),
            downlink: Line::default(),
            uplink: Line::default(),
            budget: Arc::new(Semaphore::new((DOWNLOAD_BUDGET / BUDGET_UNIT) as usize)),
            limits: limits.clone(),
            trust: Trust::default(),
            book: Arc::default(),
        };
        let inner = Inner {
            desk: Desk::new(&context.origin),
            provenance: Provenance::new(),
            looks: Looks::default(),
            context: Arc::new(context),
            live: DashMap::new(),
            sessions: options.sessions,
            errands: options.errands,
            guests: Guests::new(limits),
            tasks: Tasks::default(),
        };
        let engine = Self { inner: Arc::new(inner) };
        let serving = engine.clone();
        engine.spawn(async move {
            while let Some(connection) = connections.recv().await {
                serving.serve(connection);
            }
        });
        engine
    }

    /// Starts or joins the one download of the source's task on this node; resolves once the length is known.
    ///
    /// # Errors
    /// When the task cannot be had: with the origin's own answer, where it gave one; and when the source's origin does not
    /// show that it has what was fetched from another one ([`crate::provenance`]).
    pub async fn open(&self, request: Request) -> Result<Handle, FetchError> {
        let task = request.source.task();
        let local = self.is_here(task).await?;
        let mut span = Span::within("engine.open", request.trace, Side::Inside);
        span.note("longshore.task", task);
        span.note("longshore.local", local);
        let start = || Start::Wanted {
            source: request.source.clone(),
            credentials: request.credentials.clone(),
            priority: request.priority,
            trace: request.trace,
        };
        let mut shared = self.session_for(task, start());
        shared.hasten(request.priority);
        let mut started = shared.started().await;
        if matches!(started, Err(FetchError::Closing)) && !self.inner.tasks.is_closing() {
            // The session that was there was begun to serve a copy that has been evicted since.
            shared = self.session_for(task, start());
            shared.hasten(request.priority);
            started = shared.started().await;
        }
        let geometry = started?;
        if geometry.length() == 0 {
            // There is no last piece to withhold until it is known that there should be none.
            shared.finished().await?;
        }
        let handle = self.handle(shared, geometry, local);
        let Request { source, credentials, .. } = &request;
        let (tasks, origin) = (&self.inner.tasks, self.origin());
        self.inner.provenance.check((tasks, origin), &handle, source, credentials).await?;
        Ok(handle)
    }

    /// A task that is here, whole; `None` otherwise. Asks nobody.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn local(&self, task: TaskId) -> Result<Option<Handle>, FetchError> {
        if !self.is_here(task).await? {
            return Ok(None);
        }
        let shared = self.session_for(task, Start::Held);
        let geometry = shared.started().await?;
        Ok(Some(self.handle(shared, geometry, true)))
    }

    fn handle(&self, shared: Arc<Shared>, geometry: Geometry, local: bool) -> Handle {
        let (looks, book) = (self.inner.looks.clone(), self.book().clone());
        Handle::new(shared, geometry, self.metrics().clone(), Local { is: local, looks, book })
    }

    /// Whether opening the task asks no origin for it: it is here, or its length is known to a session that runs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_at_hand(&self, task: TaskId) -> Result<bool, FetchError> {
        let begun = self.live(task).is_some_and(|live| live.shared.geometry().is_some());
        Ok(begun || self.is_stored(task).await?)
    }

    /// Puts a question to an origin, once for all who put the same one at this moment: through the supernode, which hears
    /// all nodes' questions, where there is one that can ask.
    ///
    /// # Errors
    /// When the origin must not be asked, or does not answer.
    pub async fn inquire(&self, inquiry: Inquiry, trace: Option<TraceContext>) -> Outcome {
        self.origin().allows(&inquiry.url)?;
        let place = origin::place_of(&inquiry.url)?;
        if self.inner.desk.is_worth_asking(&place, Instant::now()) {
            match self.inner.context.coordinator.inquire(inquiry.clone(), trace).await {
                Some(Inquired::Answered(answered)) => return Ok(answered),
                // It asks for others, and would for us a moment later.
                Some(Inquired::Unable(Failure::Busy { .. })) | None => {}
                Some(Inquired::Unable(why)) => {
                    tracing::debug!(place, "the supernode cannot ask: {why}");
                    self.inner.desk.was_unable(place, Instant::now());
                }
            }
        }
        self.inner.desk.ask(inquiry).await
    }

    /// Serves a member's connection, and uses it for pieces, too.
    pub fn adopt(&self, connection: Connection) {
        if let Some(pool) = self.inner.context.pool.clone() {
            let connection = connection.clone();
            // The pool may be dialling this very node, which is no reason to keep others waiting.
            self.spawn(async move { pool.register(connection).await });
        }
        self.serve(connection);
    }

    fn serve(&self, connection: Connection) {
        self.spawn(serve::connection(self.clone(), connection));
    }

    /// How origins are asked.
    pub fn origin(&self) -> &OriginClient {
        &self.inner.context.origin
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.context.metrics
    }

    /// Where bytes are kept.
    pub fn store(&self) -> &Store {
        &self.inner.context.store
    }

    /// What neighbours did to this node, worst first.
    pub fn neighbours(&self) -> Vec<Record> {
        self.inner.context.trust.records()
    }

    /// What happened in the last pulls.
    pub fn book(&self) -> &Arc<Book> {
        &self.inner.context.book
    }

    /// The limits, which may be changed.
    pub fn limits(&self) -> &Limits {
        &self.inner.context.limits
    }

    /// Who we are.
    pub fn node(&self) -> NodeId {
        self.inner.context.node()
    }

    /// Pieces that this seed has shown and that are not taken yet, over all tasks: how busy its line is.
    pub fn out(&self) -> usize {
        self.inner.context.uplink.total()
    }

    /// The tasks with a running session: pieces held and pieces in all.
    pub fn live_tasks(&self) -> Vec<(TaskId, u32, Option<Geometry>)> {
        let of = |live: &Live| (live.shared.task(), live.shared.held(), live.shared.geometry());
        self.inner.live.iter().map(|entry| of(entry.value())).collect()
    }

    /// The whole tasks that neighbours may be sent here for.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn holdings(&self) -> Result<BTreeMap<TaskId, Geometry>, FetchError> {
        // The sessions first: one that ends meanwhile has left its task to the store.
        let proven = |shared: &Shared| matches!(shared.phase(), Phase::Proven);
        let blobs =
            self.inner.live.iter().filter(|live| proven(&live.shared)).filter_map(|live| live.shared.blob());
        let blobs: Vec<Blob> = blobs.collect();
        let store = self.store().clone();
        let held = tokio::task::spawn_blocking(move || -> Result<_, FetchError> {
            let kept = blobs.iter().filter(|blob| blob.is_kept()).map(|blob| (blob.task(), blob.geometry()));
            Ok(kept.chain(store.proven()?).collect())
        });
        held.await.map_err(|_| FetchError::Closing)?
    }

    /// Ends all sessions, flushes the store.
    pub async fn close(&self) {
        self.inner.tasks.close(CLOSE_TIMEOUT).await;
        let store = self.inner.context.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// Refreshes the gauges that are not counted as things happen.
    pub fn sample(&self) {
        let metrics = self.metrics();
        self.store().room().show(metrics);
        let (blobs, bytes) = self.store().adopted_usage();
        metrics.adopted_blobs.set(blobs as i64);
        metrics.adopted_bytes.set(bytes as i64);
        metrics.neighbours_barred.set(self.neighbours().iter().filter(|record| record.barred).count() as i64);
        if let Some(pool) = &self.inner.context.pool {
            pool.sweep();
        }
    }

    // --- for neighbours --------------------------------------------------------------------------------------

    /// Hands a link to the task's session, if there is one or the task is here.
    pub(crate) async fn incoming_link(&self, task: TaskId, geometry: Geometry, link: LinkStream) {
        let live = match self.live(task) {
            Some(live) => Some(live),
            None if self.is_stored(task).await.unwrap_or(false) => {
                self.session_for(task, Start::Held);
                self.live(task)
            }
            None => None,
        };
        match live {
            Some(live) => {
                let _ = live.inputs.send(Input::Link(Box::new(link), geometry)).await;
            }
            None => link::refuse(link, Refusal::UnknownTask).await,
        }
    }

    /// The blob to serve a piece from.
    pub(crate) async fn servable(&self, task: TaskId, index: PieceIndex) -> Result<Blob, Refusal> {
        if let Some(live) = self.live(task) {
            let blob = live.shared.blob().filter(|_| live.shared.may_serve(index));
            return blob.ok_or(Refusal::UnknownPiece);
        }
        let store = self.store().clone();
        let stored = tokio::task::spawn_blocking(move || store.get(task)).await;
        let blob =
            stored.ok().and_then(Result::ok).flatten().filter(Blob::is_proven).ok_or(Refusal::UnknownTask)?;
        if index.0 < blob.geometry().pieces() { Ok(blob) } else { Err(Refusal::UnknownPiece) }
    }

    /// Who is served, and how much each may have at once.
    pub(crate) fn guests(&self) -> &Arc<Guests> {
        &self.inner.guests
    }

    /// Hands a session's stream to whoever takes sessions.
    pub(crate) async fn session(&self, stream: SessionStream) {
        match &self.inner.sessions {
            Some(sessions) => {
                let _ = sessions.send(stream).await;
            }
            None => {
                tracing::debug!(node = %stream.connection.node(), "asked for a session, but this is no supernode")
            }
        }
    }

    /// Hands an errand's stream to whoever does errands, if it is a supernode's.
    pub(crate) async fn errand(&self, stream: SessionStream) {
        let (who, coordinator) = (&stream.connection, &self.inner.context.coordinator);
        let from_supernode = who.hello().role == Role::Supernode && coordinator.is_seed(who.node());
        match &self.inner.errands {
            Some(errands) if from_supernode => {
                let _ = errands.send(stream).await;
            }
            _ => self.metrics().turned_away.of(TurnedAway::Malformed).inc(),
        }
    }

    /// Puts a neighbour's question to an origin; only who takes sessions does that.
    pub(crate) async fn inquire_for_neighbour(&self, inquiry: Inquiry) -> Inquired {
        if self.inner.sessions.is_none() {
            return Inquired::Unable(Failure::Refused("only a supernode asks for others".to_owned()));
        }
        self.inner.desk.ask_for_neighbour(inquiry).await
    }

    // --- sessions --------------------------------------------------------------------------------------------

    fn live(&self, task: TaskId) -> Option<Live> {
        self.inner.live.get(&task).map(|live| live.value().clone())
    }

    /// Whether a task is here, whole: its session knows that a moment before the store does. Asks nobody, and begins nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_here(&self, task: TaskId) -> Result<bool, FetchError> {
        let proven = self.live(task).is_some_and(|live| matches!(live.shared.phase(), Phase::Proven));
        Ok(self.is_stored(task).await? || proven)
    }

    async fn is_stored(&self, task: TaskId) -> Result<bool, FetchError> {
        let store = self.store().clone();
        let stored = tokio::task::spawn_blocking(move || -> Result<bool, FetchError> {
            let blob = store.get(task)?;
            if let Some(blob) = &blob {
                blob.touch();
            }
            Ok(blob.is_some_and(|blob| blob.is_proven()))
        });
        stored.await.map_err(|_| FetchError::Closing)?
    }

    /// The running session of a task, or a new one.
    fn session_for(&self, task: TaskId, start: Start) -> Arc<Shared> {
        let mut begun = None;
        let shared = {
            let mut begin = || {
                let shared = Arc::new(Shared::new(task));
                let (inputs, receiver) = mpsc::channel(INPUTS);
                begun = Some(Box::new(Session::new(self.inner.context.clone(), shared.clone(), receiver)));
                Live { shared, inputs }
            };
            let mut entry = self.inner.live.entry(task).or_insert_with(&mut begin);
            // A session that failed a moment ago is no answer to a new wish, which may carry other credentials.
            if matches!(entry.shared.phase(), Phase::Failed(_)) {
                *entry = begin();
            }
            entry.shared.clone()
        };
        if let Some(session) = begun {
            let (engine, mine) = (self.clone(), shared.clone());
            // In a box: each layer around it would make room for it anew.
            self.spawn(Box::pin(async move {
                // Removed however the session ends, or the task could never be asked for again.
                let _registration = Registration { engine: &engine, shared: mine };
                let _active = hold(&engine.metrics().downloads_active);
                session.run(start).await;
            }));
        }
        shared
    }

    /// Runs work that belongs to this engine, until it ends or the engine closes.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(work);
    }
}

/// A session's place in the engine's map.
struct Registration<'a> {
    engine: &'a Engine,
    shared: Arc<Shared>,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mine = |live: &Live| Arc::ptr_eq(&live.shared, &self.shared);
        self.engine.inner.live.remove_if(&self.shared.task(), |_, live| mine(live));
    }
}
