//! Drives the sessions with the supernodes: hears the downloads, the supernodes and the store, asks [`super::fleet`] what
//! follows, and carries it out. One task of the runtime a node; [`super::remote`] is its other end.
//!
//! # Invariants
//! - It never waits for a session: what does not fit into a session's queue ends that session. So a session may wait for
//!   room in the events without a deadlock, and a download's orders slow down whoever sends them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::node::NodeId;
use common::task::TaskId;
use common::transport::{Connection, Transport};
use common::wire::swarm::{Failure, Join, MAX_ENTRIES, Priority, ToPeer, ToSupernode};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::fleet::{Command, Fleet};
use super::harbour::{Harbour, Lookup};
use super::remote::{Ends, RemoteOptions};
use super::session::{self, Event, Shared};
use super::standing;
use super::testimony::Vouched;
use super::{Notice, Order, Wish};
use crate::engine::Engine;

/// Progress is told in batches: it decides on parents, and those change slowly.
const BATCH: Duration = Duration::from_millis(100);
/// How often, at most, it is looked what is held by now, and said what changed: many blobs go at once when room is made.
const HOLDINGS: Duration = Duration::from_millis(250);
/// How often names are looked up: a new supernode is to have its share soon, and a name server some rest.
const LOOKUP: Duration = Duration::from_secs(5);
/// Messages of all supernodes that wait for a download: few, each may be half a mebibyte.
const EVENTS: usize = 64;
/// The first version that knows what testimony is, and that some joins are less urgent.
const SECOND: u16 = 2;
/// The first that can be told which trace a join is part of.
const THIRD: u16 = 3;

/// Keeps the sessions behind a [`super::remote::Remote`].
pub struct Driver {
    options: Arc<RemoteOptions>,
    ends: Ends,
    fleet: Fleet,
    lines: BTreeMap<NodeId, Line>,
    members: BTreeMap<TaskId, Member>,
    progress: BTreeMap<TaskId, u32>,
}

/// A supernode with a session.
struct Line {
    queue: mpsc::Sender<ToSupernode>,
    version: u16,
}

/// A download.
struct Member {
    wish: Wish,
    orders: mpsc::Sender<Order>,
    vouched: Vouched,
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(options: RemoteOptions, ends: Ends) -> Self {
        Self {
            options: Arc::new(options),
            ends,
            fleet: Fleet::new(Instant::now(), SmallRng::from_rng(&mut rand::rng())),
            lines: BTreeMap::new(),
            members: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Keeps the sessions up until the caller drops the future. `transport` dials, `engine` serves what comes back.
    pub async fn run(mut self, transport: Transport, engine: Engine) {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let shared = Shared::new(self.options.clone(), (transport, engine.clone()), sender);
        let mut harbour = Harbour::new(shared);
        harbour.names().into_iter().for_each(|name| self.fleet.expect(name));
        // Before it is said what is held: what changes from here on is news.
        let mut holdings = engine.store().holdings();
        self.look_at_holdings(&engine).await;
        let (mut batch, mut lookup) = (tokio::time::interval(BATCH), tokio::time::interval(LOOKUP));
        let (mut look, mut news) = (tokio::time::interval(HOLDINGS), false);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate = tokio::time::interval(standing::LOOK);
        loop {
            let wake = self.fleet.wake();
            tokio::select! {
                Some(event) = events.recv() => self.happened(event, &mut harbour).await,
                Some((task, wish, orders)) = self.ends.joins.recv() => {
                    self.members.insert(task, Member { wish, orders, vouched: Vouched::default() });
                    let commands = self.fleet.want(task, Instant::now());
                    self.carry_out(commands).await;
                }
                Some((task, notice)) = self.ends.notices.recv() => self.noticed(task, notice).await,
                _ = batch.tick(), if !self.progress.is_empty() => self.tell_progress(),
                Ok(()) = holdings.changed() => news = true,
                _ = look.tick(), if news => {
                    news = false;
                    self.look_at_holdings(&engine).await;
                }
                _ = lookup.tick() => harbour.look_up(),
                answer = harbour.looked_up() => self.looked_up(answer, &mut harbour).await,
                () = until(wake) => {
                    let commands = self.fleet.tick(Instant::now());
                    self.carry_out(commands).await;
                }
                _ = certificate.tick() => self.renew(),
            }
        }
    }

    // --- supernodes ------------------------------------------------------------------------------------------

    async fn looked_up(&mut self, answer: Lookup, harbour: &mut Harbour) {
        let name = answer.0.clone();
        for address in harbour.learn(answer) {
            self.fleet.expect(address.to_string());
        }
        let commands = self.fleet.answered(&name, Instant::now());
        self.carry_out(commands).await;
        self.show(harbour);
    }

    async fn happened(&mut self, event: Event, harbour: &mut Harbour) {
        match event {
            Event::Heard { node, message } => return self.heard(node, message).await,
            Event::Up { address, connection, queue } => {
                match harbour.met(address, connection.node(), true) {
                    true => self.up((address, connection), queue, harbour).await,
                    // Nobody would say when it ends.
                    false => connection.close("the address is named no more"),
                }
            }
            Event::Down { address, node } => {
                let _ = harbour.met(address, node, false);
                harbour.look_up();
                self.down(node).await;
                self.answered(address).await;
            }
            Event::Twin { address, node } => {
                let _ = harbour.met(address, node, false);
                self.answered(address).await;
            }
            Event::Failed { address } => self.answered(address).await,
        }
        self.show(harbour);
    }

    async fn answered(&mut self, address: SocketAddr) {
        let commands = self.fleet.answered(&address.to_string(), Instant::now());
        self.carry_out(commands).await;
    }

    async fn up(
        &mut self,
        (address, connection): (SocketAddr, Connection),
        queue: mpsc::Sender<ToSupernode>,
        harbour: &Harbour,
    ) {
        self.sweep();
        let (node, version) = (connection.node(), connection.version());
        self.lines.insert(node, Line { queue, version });
        self.ends.line.begun(connection);
        session::show_expiry(&self.options.identity, &self.options.metrics);
        let absent = harbour.absent().map(|address| address.to_string()).collect();
        let commands = self.fleet.up(node, absent, Instant::now());
        self.carry_out(commands).await;
        self.answered(address).await;
    }

    async fn down(&mut self, node: NodeId) {
        self.sweep();
        self.lines.remove(&node);
        self.ends.line.ended(node);
        let commands = self.fleet.down(node, Instant::now());
        let moved = commands.iter().filter(|command| matches!(command, Command::Join { .. })).count();
        if self.fleet.connected().next().is_some() {
            tracing::info!(lost = %node, "a supernode is lost: {moved} running downloads move to others");
        }
        self.carry_out(commands).await;
    }

    /// Forgets downloads that ended when there was no room to say so.
    fn sweep(&mut self) {
        let over: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.orders.is_closed())
            .map(|(task, _)| *task)
            .collect();
        for task in over {
            self.forget(task);
            if let Some(Command::Leave { task, at }) = self.fleet.unwant(task) {
                self.say(at, ToSupernode::Leave(task));
            }
        }
    }

    fn show(&self, harbour: &Harbour) {
        let sessions = self.fleet.connected().count();
        self.options.metrics.supernode_connected.set(sessions as i64);
        self.ends
            .connected
            .send_if_modified(|known| std::mem::replace(known, sessions > 0) != (sessions > 0));
        self.ends.supernodes.send_replace(harbour.view(|node| self.fleet.has(node)));
    }

    // --- words -----------------------------------------------------------------------------------------------

    async fn heard(&mut self, node: NodeId, message: ToPeer) {
        let (task, order) = match message {
            ToPeer::Joined { task, geometry, inline } => (task, Order::Joined { geometry, inline }),
            ToPeer::Digests { task, first, digests } => (task, Order::Digests { first, digests }),
            ToPeer::Parents { task, add, remove } => (task, Order::Parents { add, remove }),
            ToPeer::Proven(task) => (task, Order::Proven),
            ToPeer::Poisoned(task) => (task, Order::Poisoned),
            ToPeer::Failed { task, failure } => (task, Order::Failed(failure)),
            ToPeer::Sealed { task, first, count, seal } => {
                if let Some(member) = self.member(task, node) {
                    member.vouched.seal(first, count, seal);
                }
                return;
            }
            // The session keeps these to itself.
            ToPeer::Renewed(_) | ToPeer::RenewalRefused(_) | ToPeer::Revoked(_) | ToPeer::Authorities(_) => {
                return;
            }
        };
        if self.member(task, node).is_none() || self.waits(task, &order) {
            return;
        }
        if let Some(member) = self.members.get_mut(&task) {
            match &order {
                Order::Joined { geometry, .. } => member.vouched.joined(*geometry),
                Order::Digests { first, digests } => member.vouched.digests(*first, digests),
                _ => {}
            }
            let _ = member.orders.send(order).await;
        }
    }

    /// The download of a task that is joined at that supernode: from another it is said too late.
    fn member(&mut self, task: TaskId, node: NodeId) -> Option<&mut Member> {
        self.fleet.place(task).filter(|at| *at == node)?;
        self.members.get_mut(&task)
    }

    /// Whether a task is joined again after a while, because a supernode is busy.
    fn waits(&mut self, task: TaskId, order: &Order) -> bool {
        let Order::Failed(Failure::Busy { retry_after_millis }) = order else { return false };
        let retry_after = Duration::from_millis(u64::from(*retry_after_millis));
        self.fleet.busy(task, retry_after, Instant::now())
    }

    /// What a download has to say; progress is kept for the next batch.
    async fn noticed(&mut self, task: TaskId, notice: Notice) {
        let command = match notice {
            Notice::Progress(held) => {
                if let Some(member) = self.members.get_mut(&task) {
                    member.wish.held = held;
                    self.progress.insert(task, held);
                }
                None
            }
            Notice::Proven(geometry) => {
                self.forget(task);
                self.fleet.proven(task, geometry, Instant::now())
            }
            Notice::Blame { node, fault } => {
                if let Some(at) = self.fleet.place(task).or_else(|| self.fleet.owner(task)) {
                    let version = self.lines.get(&at).map_or(1, |line| line.version);
                    self.say(at, ToSupernode::Blame { task, node, fault: fault.for_version(version) });
                }
                None
            }
            Notice::MoreParents => {
                if let Some(at) = self.fleet.place(task) {
                    self.say(at, ToSupernode::MoreParents(task));
                }
                None
            }
            // A new download of the task may have joined since: then its orders are open.
            Notice::Left if self.members.get(&task).is_some_and(|member| member.orders.is_closed()) => {
                self.forget(task);
                self.fleet.unwant(task)
            }
            Notice::Left | Notice::Known(_) | Notice::Failed { .. } => None,
        };
        self.carry_out(command).await;
    }

    fn forget(&mut self, task: TaskId) {
        self.members.remove(&task);
        self.progress.remove(&task);
    }

    fn tell_progress(&mut self) {
        let mut news = BTreeMap::<NodeId, Vec<_>>::new();
        for (task, held) in std::mem::take(&mut self.progress) {
            if let Some(at) = self.fleet.place(task) {
                news.entry(at).or_default().push((task, held));
            }
        }
        for (at, entries) in news {
            entries.chunks(MAX_ENTRIES).for_each(|batch| self.say(at, ToSupernode::Progress(batch.to_vec())));
        }
    }

    async fn look_at_holdings(&mut self, engine: &Engine) {
        match engine.holdings().await {
            Ok(held) => {
                let commands = self.fleet.holds(held);
                self.carry_out(commands).await;
            }
            Err(error) => tracing::warn!("cannot say what is held here: {error}"),
        }
    }

    /// Any supernode of the cluster can renew the certificate.
    fn renew(&mut self) {
        session::show_expiry(&self.options.identity, &self.options.metrics);
        let Some(at) = self.fleet.connected().next() else { return };
        match self.options.standing.request(SystemTime::now()) {
            Ok(Some(request)) => self.say(at, request),
            Ok(None) => {}
            Err(error) => tracing::warn!("the certificate cannot be renewed: {error}"),
        }
    }

    // --- deeds -----------------------------------------------------------------------------------------------

    async fn carry_out(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            match command {
                Command::Join { task, at } => self.join(task, at),
                Command::Leave { task, at } => self.say(at, ToSupernode::Leave(task)),
                Command::Hold { at, tasks } => self.say(at, ToSupernode::Holdings(tasks)),
                Command::Lost(task) => self.order(task, Order::Lost).await,
                Command::Alone(task) => self.order(task, Order::GoToOrigin).await,
            }
        }
    }

    fn join(&mut self, task: TaskId, at: NodeId) {
        let (Some(member), Some(line)) = (self.members.get(&task), self.lines.get(&at)) else { return };
        // For people only: a download that has no room for it now does without.
        let _ = member.orders.try_send(Order::Joining(at));
        let Wish { source, credentials, held, priority, trace } = member.wish.clone();
        let join = Join { source, credentials, held };
        let join = match (trace.filter(|_| line.version >= THIRD), priority) {
            (Some(trace), priority) => ToSupernode::JoinTraced { join, priority, trace },
            (None, Priority::Preheat) if line.version >= SECOND => ToSupernode::JoinAs { join, priority },
            (None, Priority::Preheat | Priority::Pull) => ToSupernode::Join(join),
        };
        let shown = member.vouched.testimonies(task).filter(|_| line.version >= SECOND);
        // Before the join, which begins the origin's fetch: what is vouched for need not be part of it.
        let words: Vec<_> = shown.map(ToSupernode::Testimony).chain([join]).collect();
        tracing::debug!(?task, supernode = %at, testimonies = words.len() - 1, "joins");
        words.into_iter().for_each(|message| self.say(at, message));
    }

    async fn order(&mut self, task: TaskId, order: Order) {
        if let Some(member) = self.members.get(&task) {
            let _ = member.orders.send(order).await;
        }
    }

    /// Puts a message into a session's queue. One that is thousands of messages behind is ended: without its queue it
    /// says so itself, and all of it moves.
    fn say(&mut self, at: NodeId, message: ToSupernode) {
        if let Some(line) = self.lines.get(&at)
            && line.queue.try_send(message).is_err()
        {
            self.lines.remove(&at);
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
