//! What one peer is told about one task that it joined: the length, the piece digests as the seed learns them, and
//! the end. One feeder a peer and task; it ends when all is said, or the peer leaves.

use std::sync::Arc;

use common::node::NodeId;
use common::task::TaskId;
use common::telemetry::trace::{Span, TraceContext};
use common::wire::swarm::{Failure, Join, MAX_INLINE, Priority, ToPeer};
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::handle::Handle;
use tokio::sync::oneshot;

use crate::bulletin::{ALWAYS_INLINE, Bulletins};
use crate::hub::Hub;
use crate::openings::{Part, Turns};
use crate::outbox::{Gone, Letter, Outbox};
use crate::scheduler::Event;

/// With fewer pieces out than this the seed's line is not busy.
const IDLE: usize = 4;

/// The seed, the scheduler, and the way to the peer.
#[derive(Clone)]
pub struct Feeder {
    /// The seed's engine.
    pub engine: Engine,
    /// The scheduler.
    pub hub: Arc<Hub>,
    /// What is told to all alike.
    pub bulletins: Bulletins,
    /// The peer.
    pub node: NodeId,
    /// The protocol version that it speaks.
    pub version: u16,
    /// Its queue.
    pub outbox: Outbox,
    /// Its turns at opening tasks.
    pub turns: Turns,
}

// === impl Feeder ===

impl Feeder {
    /// Serves one join to its end. What it says is kept, and counted, until its task is open.
    pub async fn run(self, join: Join, priority: Priority, kept: Part, trace: Option<TraceContext>) {
        let task = join.source.task();
        let mut span = Span::asked("supernode.join", trace);
        span.note("longshore.task", task);
        span.note("longshore.node", self.engine.node());
        span.note("longshore.peer", self.node);
        let trace = span.context();
        self.engine.metrics().joins.inc();
        // Nothing is left to do for a peer that is gone.
        let _: Result<(), Gone> = match self.feed(join, priority, kept, trace).await {
            Ok(said) => said,
            Err(FetchError::Poisoned { .. }) => self.outbox.say(ToPeer::Poisoned(task)).await,
            Err(error) => {
                span.fail();
                let failure = failure(error).for_version(self.version);
                self.outbox.say(ToPeer::Failed { task, failure }).await
            }
        };
    }

    async fn feed(
        &self,
        join: Join,
        priority: Priority,
        kept: Part,
        trace: Option<TraceContext>,
    ) -> Result<Result<(), Gone>, FetchError> {
        let Join { source, credentials, held } = join;
        let handle = self.open(Request { source, credentials, priority, trace }, kept).await?;
        let (task, geometry) = (handle.task(), handle.geometry());
        let mut bulletin = self.bulletins.read(handle.clone(), self.version);
        if self.is_inline(handle.length()) {
            let said = self.outbox.say(Letter::Frames(bulletin.inline().await?)).await;
            self.hub.gave(self.node, handle.length());
            return Ok(said);
        }
        if self.outbox.say(ToPeer::Joined { task, geometry, inline: None }).await.is_err() {
            return Ok(Err(Gone));
        }
        self.enter(&handle, held);
        while let Some(frames) = bulletin.next().await? {
            if self.outbox.say(Letter::Frames(frames)).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        handle.finished().await?;
        Ok(self.outbox.say(ToPeer::Proven(task)).await)
    }

    /// Whether all bytes come with the answer. A small layer is had soonest that way; but to everybody in a burst it would
    /// take as much of the seed's line as a large one, and while that is busy the swarm is the faster way.
    fn is_inline(&self, length: u64) -> bool {
        length <= ALWAYS_INLINE || length <= MAX_INLINE && self.engine.out() < IDLE
    }

    /// Tells the scheduler of the join.
    fn enter(&self, handle: &Handle, held: u32) {
        let (task, node, pieces) = (handle.task(), self.node, handle.geometry().pieces());
        // A copy that was here before is news to the scheduler, which forgets a swarm that nobody is in.
        let proven = handle.is_local().then_some(Event::SeedProven(task));
        let joined = [Event::Join { task, node, held }, Event::SeedMeta { task, pieces }];
        self.hub.apply_all(joined.into_iter().chain(proven));
        self.hub.know(task, handle.geometry());
    }

    /// The one origin fetch of the task, begun or joined. A fetch that others began may have failed for want of
    /// their credentials: it is tried once more with this peer's. The turn lasts as long as the opening does, also when the peer
    /// leaves meanwhile: the origin is asked all the same.
    async fn open(&self, request: Request, kept: Part) -> Result<Handle, FetchError> {
        let task = request.source.task();
        // What the seed has, or has begun, costs nothing to open.
        let turn = match self.engine.is_at_hand(task).await? {
            true => None,
            false => Some(self.turns.next(task).await),
        };
        let (engine, (sender, opened)) = (self.engine.clone(), oneshot::channel());
        self.engine.spawn(async move {
            let _until_open = (turn, kept);
            let result = match engine.open(request.clone()).await {
                Err(FetchError::Origin(failure)) if matches!(failure.status, 401 | 403 | 404) => {
                    engine.open(request).await
                }
                result => result,
            };
            let _ = sender.send(result);
        });
        opened.await.unwrap_or(Err(FetchError::Closing))
    }

    /// The peer wants no more of the task.
    pub fn leave(&self, task: TaskId) {
        self.hub.apply(Event::Leave { task, node: self.node });
    }
}

fn failure(error: FetchError) -> Failure {
    match error {
        FetchError::Origin(failure) => Failure::Origin(failure),
        FetchError::Forbidden(why) => Failure::Refused(why),
        other => Failure::Unavailable(other.to_string()),
    }
}
