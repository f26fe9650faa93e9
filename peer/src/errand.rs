//! Does what a supernode asks for ahead of need: fetches tasks into the store, or has the container runtime pull. Streams come
//! from [`crate::exchange::serve`]; the daemon runs [`Errands::run`].
//!
//! # Invariants
//! - Only a supernode, by its certificate, that this node has or had a session with is obeyed.
//! - An errand ends with its stream: a supernode that is gone, or wants it no more, leaves nothing running.
//! - What is fetched gives way to pulls ([`Priority::Preheat`]), and is no permission: who wants it later is asked for at the
//!   origin like anybody.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use common::task::{Credentials, Source};
use common::telemetry::TurnedAway;
use common::transport::CONTROL_PRIORITY;
use common::wire::codec::{self, CodecError, MAX_FRAME};
use common::wire::errand::{Errand, Login, MAX_SOURCES, MAX_UNDER_WAY, Report};
use common::wire::swarm::Priority;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::engine::{Engine, Request};
use crate::error::FetchError;
use crate::exchange::serve::SessionStream;
use crate::handle::Handle;
use crate::runtime::{self, Runtime, RuntimeError};

/// Errands at once: jobs are few, and each has some tasks under way.
const MOST: usize = 8;
/// Tasks of one errand under way, as many as a container runtime pulls at a time.
const AT_ONCE: usize = 3;
/// A supernode says what it wants at once.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(5);
/// A supernode that does not take a report is gone.
const REPORT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is said how far an errand is.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The longest reason that is told.
const MAX_REASON: usize = 500;

/// What errands are done with. Cheap to clone.
#[derive(Clone)]
pub struct Errands {
    engine: Engine,
    runtime: Runtime,
}

/// Why something could not be done ahead of need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In a line.
    pub why: String,
    /// Whether it may go better another time.
    pub passing: bool,
}

/// Fetches tasks into an engine's store ahead of need, and can be watched meanwhile.
#[derive(Default)]
pub struct Fetching(Mutex<Vec<(u32, Handle)>>);

/// How far that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that are here.
    pub held: u64,
    /// Bytes that are known of.
    pub total: u64,
    /// Tasks that are here.
    pub done: u32,
    /// Those that are not, and have begun: by their place, with the bytes that are here. At most [`MAX_UNDER_WAY`].
    pub under_way: Vec<(u32, u64)>,
}

// === impl Errands ===

impl Errands {
    /// With this engine's store, and this container runtime.
    pub fn new(engine: Engine, runtime: Runtime) -> Self {
        Self { engine, runtime }
    }

    /// Does errands as they come, until the engine is gone.
    pub async fn run(self, mut streams: mpsc::Receiver<SessionStream>) {
        let mut errands = JoinSet::new();
        loop {
            tokio::select! {
                stream = streams.recv() => {
                    let Some(stream) = stream else { return };
                    let crowded = errands.len() >= MOST;
                    errands.spawn(self.clone().one(stream, crowded));
                }
                Some(_) = errands.join_next() => {}
            }
        }
    }

    async fn one(self, mut stream: SessionStream, crowded: bool) {
        let node = stream.connection.node();
        let _ = stream.send.set_priority(CONTROL_PRIORITY);
        let ended = match crowded {
            true => Err(Failed { why: format!("{MOST} preheats are under way on this node"), passing: true }),
            false => match self.listen(&mut stream).await {
                Some(ended) => ended,
                None => return tracing::debug!(%node, "a supernode wants no more of its errand"),
            },
        };
        let last = match ended {
            Ok(held) => Report::Done { held },
            Err(Failed { why, passing }) => {
                tracing::info!(%node, "cannot preheat: {why}");
                Report::Failed { why: why.chars().take(MAX_REASON).collect(), passing }
            }
        };
        let _ = say(&mut stream, &last).await;
        let _ = stream.send.finish();
    }

    /// Does the errand and says how far it is; `None` when nobody wants it any more.
    async fn listen(&self, stream: &mut SessionStream) -> Option<Result<u64, Failed>> {
        stream.reader.set_limit(MAX_FRAME);
        let Ok(Ok(errand)) = timeout(ERRAND_TIMEOUT, stream.reader.expect::<Errand>()).await else {
            self.engine.metrics().turned_away.of(TurnedAway::Malformed).inc();
            return None;
        };
        let seen = Fetching::default();
        let mut deed = std::pin::pin!(self.run_one(errand, &seen));
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Seen { held, total, done, under_way } = tokio::select! {
                ended = &mut deed => return Some(ended),
                _ = ticks.tick() => seen.seen(),
                // There is nothing more to say to us: it is the end, or a reset.
                _ = stream.reader.next::<Errand>() => return None,
            };
            say(stream, &Report::Progress { held, total, done, under_way }).await.ok()?;
        }
    }

    async fn run_one(&self, errand: Errand, seen: &Fetching) -> Result<u64, Failed> {
        match errand {
            Errand::Fetch { sources, .. } if sources.len() > MAX_SOURCES => {
                Err(Failed { why: format!("more than {MAX_SOURCES} tasks in one errand"), passing: false })
            }
            Errand::Fetch { sources, credentials } => seen.run(&self.engine, sources, &credentials).await,
            Errand::Pull { image, timeout_millis: 0, .. } => {
                let here = self.runtime.has(&image).await.map_err(unpulled)?;
                Ok(here.map_or(0, |ready| ready.size.0.max(1)))
            }
            Errand::Pull { image, login, timeout_millis } => {
                let login = login.map(|login| match login {
                    Login::Password { user, password } => runtime::Login::Password { user, password },
                    Login::Token(token) => runtime::Login::RegistryToken(token),
                });
                let limit = Duration::from_millis(timeout_millis.into());
                let pulled = self.runtime.pull(&image, login.as_ref(), limit).await;
                pulled.map(|ready| ready.size.0).map_err(unpulled)
            }
        }
    }
}

// === impl Fetching ===

impl Fetching {
    /// Fetches them all, some at a time; gives how many bytes that is.
    ///
    /// # Errors
    /// With the first that cannot be had.
    pub async fn run(
        &self,
        engine: &Engine,
        sources: Vec<Source>,
        credentials: &Credentials,
    ) -> Result<u64, Failed> {
        let fetches = sources.into_iter().zip(0..).map(|(source, place)| async move {
            let url = common::telemetry::redact(&source.url);
            let credentials = credentials.clone();
            let request = Request { source, credentials, priority: Priority::Preheat, trace: None };
            let fetched = async {
                let handle = engine.open(request).await?;
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push((place, handle.clone()));
                handle.kept().await
            };
            fetched
                .await
                .map_err(|error| Failed { why: format!("{url}: {error}"), passing: may_pass(&error) })
        });
        futures_util::stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(self.seen().held)
    }

    /// How far it is.
    pub fn seen(&self) -> Seen {
        let handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Seen::default();
        for (place, handle) in &*handles {
            let (pieces, geometry) = (handle.held(), handle.geometry());
            let done = pieces >= geometry.pieces();
            let here = match done {
                true => handle.length(),
                false => (u64::from(pieces) * u64::from(geometry.piece_length())).min(handle.length()),
            };
            (seen.held, seen.total) = (seen.held + here, seen.total + handle.length());
            seen.done += u32::from(done);
            if !done && seen.under_way.len() < MAX_UNDER_WAY {
                seen.under_way.push((*place, here));
            }
        }
        seen
    }
}

/// Whether another attempt may end better. A token may have run out, and the next attempt have a new one.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Origin(failure) => matches!(failure.status, 401 | 408 | 429) || failure.status >= 500,
        FetchError::Unavailable(_) | FetchError::Swarm(_) | FetchError::Closing => true,
        FetchError::Forbidden(_) | FetchError::Poisoned { .. } => false,
        FetchError::StoreFull(_) | FetchError::Store(_) => false,
    }
}

fn unpulled(error: RuntimeError) -> Failed {
    Failed { why: error.to_string(), passing: error.is_worth_another_try() }
}

async fn say(stream: &mut SessionStream, report: &Report) -> Result<(), CodecError> {
    let said = timeout(REPORT_TIMEOUT, codec::send(&mut stream.send, report)).await;
    said.unwrap_or_else(|elapsed| Err(CodecError::Io(elapsed.into())))
}
