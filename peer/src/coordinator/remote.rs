//! A peer's session with its supernode: one control stream over QUIC, kept up for as long as the daemon lives. It
//! enrols when there is no valid certificate, renews it in time, joins swarms for the downloads, and after a loss
//! comes back by itself, with back-off and jitter, and says again what it wants and holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use common::identity::{Identity, JoinToken};
use common::node::NodeId;
use common::task::TaskId;
use common::telemetry::Metrics;
use common::transport::{self, CONTROL_PRIORITY, Connection, Transport, TransportError};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::Opening;
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::{Join, MAX_ENTRIES, ToPeer, ToSupernode};
use futures_util::future::BoxFuture;
use quinn::{RecvStream, SendStream};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

use super::line::Line;
use super::standing::{self, Standing};
use super::{Coordinator, Membership, NOTICES, Notice, Notices, ORDERS, Order, Wish};
use crate::engine::Engine;

/// Progress is told in batches: it decides on parents, and those change slowly.
const BATCH: Duration = Duration::from_millis(100);
/// How often, at most, it is looked what is held by now, and said what changed: many blobs go at once when room is made.
const HOLDINGS: Duration = Duration::from_millis(250);
/// A supernode that does not read for so long is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of the pause between attempts.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Without a supernode for so long, new downloads do not wait for it any more.
const GIVEN_UP: Duration = Duration::from_secs(4);

/// Where the supernodes are and how to become a member.
pub struct RemoteOptions {
    /// `HOST:PORT`, or a DNS name with several addresses and a port.
    pub supernodes: Vec<String>,
    /// Who we are.
    pub identity: Identity,
    /// What supernodes say of members and CAs, and what they are asked for.
    pub standing: Standing,
    /// What lets us in, if we have no certificate.
    pub token: Option<JoinToken>,
    /// What is counted.
    pub metrics: Metrics,
}

/// A node's line to its supernode; the session runs as [`Session::run`].
pub struct Remote {
    joins: mpsc::Sender<(TaskId, Wish, mpsc::Sender<Order>)>,
    notices: mpsc::Sender<(TaskId, Notice)>,
    seed: Arc<OnceLock<NodeId>>,
    connected: watch::Receiver<bool>,
    line: Arc<Line>,
}

/// The driver behind a [`Remote`].
pub struct Session {
    options: Arc<RemoteOptions>,
    joins: mpsc::Receiver<(TaskId, Wish, mpsc::Sender<Order>)>,
    notices: mpsc::Receiver<(TaskId, Notice)>,
    seed: Arc<OnceLock<NodeId>>,
    connected: watch::Sender<bool>,
    line: Arc<Line>,
    members: BTreeMap<TaskId, Member>,
    progress: BTreeMap<TaskId, u32>,
    /// What this session's supernode was told is held here.
    told: BTreeSet<TaskId>,
    lost_since: Instant,
}

struct Member {
    wish: Wish,
    orders: mpsc::Sender<Order>,
}

/// Why a session ended, for the log.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0} has no address: {1}")]
    Resolve(String, std::io::Error),
    #[error("no certificate, and no join token: give one with --join-token-file")]
    NoToken,
    #[error("the supernode does not read")]
    Deaf,
    #[error("the supernode closed the session")]
    Closed,
    #[error("no supernode is configured")]
    Nowhere,
}

// === impl Remote ===

impl Remote {
    /// The line, and the driver to run for it.
    pub fn new(options: RemoteOptions) -> (Self, Session) {
        // Joins have their own channel: notices may be dropped when there are too many, a join may not.
        let (joins, join_receiver) = mpsc::channel(NOTICES);
        let (notices, notice_receiver) = mpsc::channel(NOTICES);
        let (connected_sender, connected) = watch::channel(false);
        let (seed, line) = (Arc::new(OnceLock::new()), Arc::<Line>::default());
        let session = Session {
            options: Arc::new(options),
            joins: join_receiver,
            notices: notice_receiver,
            seed: seed.clone(),
            connected: connected_sender,
            line: line.clone(),
            members: BTreeMap::new(),
            progress: BTreeMap::new(),
            told: BTreeSet::new(),
            lost_since: Instant::now(),
        };
        (Self { joins, notices, seed, connected, line }, session)
    }

    /// Whether there is a session now.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

impl Coordinator for Remote {
    fn join(&self, task: TaskId, wish: Wish) -> Membership {
        let (sender, orders) = mpsc::channel(ORDERS);
        let notices = Notices::new(task, self.notices.clone());
        if self.joins.try_send((task, wish, sender.clone())).is_err() {
            // Thousands of joins wait already, or the session has ended.
            let _ = sender.try_send(Order::GoToOrigin);
        }
        Membership { orders, notices }
    }

    fn is_seed(&self, node: NodeId) -> bool {
        self.seed.get() == Some(&node)
    }

    fn inquire(&self, inquiry: Inquiry) -> BoxFuture<'_, Option<Inquired>> {
        Box::pin(self.line.inquire(inquiry))
    }
}

// === impl Session ===

impl Session {
    /// Keeps a session up until the caller drops the future. `transport` dials, `engine` serves what comes back.
    pub async fn run(mut self, transport: Transport, engine: Engine) {
        let mut backoff = MIN_BACKOFF;
        let mut said = String::new();
        loop {
            let begun = Instant::now();
            let connected = {
                // Downloads are answered while the supernode is dialled.
                let options = self.options.clone();
                let connecting = connect(&options, &transport);
                tokio::pin!(connecting);
                loop {
                    tokio::select! {
                        connected = &mut connecting => break connected,
                        () = self.answer_alone() => {}
                    }
                }
            };
            let error = match connected {
                Ok((address, connection)) => {
                    tracing::info!(supernode = %address, node = %connection.node(), "session with the supernode");
                    said.clear();
                    self.one_session(connection, &engine).await
                }
                Err(error) => error,
            };
            self.lost().await;
            if begun.elapsed() > MAX_BACKOFF {
                backoff = MIN_BACKOFF;
            }
            let text = error.to_string();
            // The same reason again and again is one line in the log.
            if said != text {
                tracing::warn!("no session with the supernode: {text}; pulls go on without it");
                said = text;
            }
            let pause = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(MAX_BACKOFF);
            self.wait(pause).await;
        }
    }

    async fn one_session(&mut self, connection: Connection, engine: &Engine) -> SessionError {
        let _ = self.seed.set(connection.node());
        engine.adopt(connection.clone());
        let (mut send, receive) = match connection.open().await {
            Ok(streams) => streams,
            Err(error) => return error.into(),
        };
        let _ = send.set_priority(CONTROL_PRIORITY);
        // Before it is said what is held: what changes from here on is news.
        let holdings = engine.store().holdings();
        if let Err(error) = self.introduce(&mut send, &connection, engine).await {
            return error;
        }
        self.show_expiry();
        self.line.set(Some(connection.clone()));
        self.connected.send_replace(true);
        self.options.metrics.supernode_connected.set(1);
        let supernode = (connection.node(), FrameReader::new(receive));
        let error = self.converse(&mut send, supernode, (engine, holdings)).await;
        self.line.set(None);
        connection.close("session over");
        error
    }

    /// What is held and wanted, said at the start of every session.
    async fn introduce(
        &mut self,
        send: &mut SendStream,
        connection: &Connection,
        engine: &Engine,
    ) -> Result<(), SessionError> {
        let opening = codec::send(send, &Opening::Session);
        timeout(SEND_TIMEOUT, opening).await.map_err(|_| SessionError::Deaf)??;
        if let Some(greeting) = self.options.standing.greeting(connection.node(), connection.version()) {
            say(send, &greeting).await?;
        }
        self.told.clear();
        self.tell_holdings(send, engine).await?;
        self.members.retain(|_, member| !member.orders.is_closed());
        for member in self.members.values() {
            say(send, &join(&member.wish)).await?;
        }
        Ok(())
    }

    /// Says what came to be held here, and what is held no more.
    async fn tell_holdings(&mut self, send: &mut SendStream, engine: &Engine) -> Result<(), SessionError> {
        let held = match engine.holdings().await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!("cannot say what is held here: {error}");
                return Ok(());
            }
        };
        let came: Vec<_> = held
            .iter()
            .filter(|(task, _)| !self.told.contains(task))
            .map(|(task, cut)| (*task, *cut))
            .collect();
        for batch in came.chunks(MAX_ENTRIES) {
            say(send, &ToSupernode::Holdings(batch.to_vec())).await?;
        }
        let told = std::mem::replace(&mut self.told, held.keys().copied().collect());
        // Who joins again has said so, and that it has less than all.
        let left = told.difference(&self.told).filter(|task| !self.members.contains_key(task));
        for task in left {
            say(send, &ToSupernode::Leave(*task)).await?;
        }
        Ok(())
    }

    async fn converse(
        &mut self,
        send: &mut SendStream,
        (supernode, mut reader): (NodeId, FrameReader<RecvStream>),
        (engine, mut holdings): (&Engine, watch::Receiver<u64>),
    ) -> SessionError {
        let mut batch = tokio::time::interval(BATCH);
        let (mut look, mut news) = (tokio::time::interval(HOLDINGS), false);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate = tokio::time::interval(standing::LOOK);
        loop {
            let done = tokio::select! {
                message = reader.next::<ToPeer>() => match message {
                    Ok(Some(message)) => self.heard(supernode, message).await,
                    Ok(None) => return SessionError::Closed,
                    Err(error) => return error.into(),
                },
                Some((task, wish, orders)) = self.joins.recv() => {
                    let message = join(&wish);
                    self.members.insert(task, Member { wish, orders });
                    say(send, &message).await
                }
                Some((task, notice)) = self.notices.recv() => match self.noticed(task, notice) {
                    Some(message) => say(send, &message).await,
                    None => Ok(()),
                },
                _ = batch.tick(), if !self.progress.is_empty() => {
                    let entries: Vec<_> = std::mem::take(&mut self.progress).into_iter().take(MAX_ENTRIES).collect();
                    say(send, &ToSupernode::Progress(entries)).await
                }
                Ok(()) = holdings.changed() => {
                    news = true;
                    Ok(())
                }
                _ = look.tick(), if news => {
                    news = false;
                    self.tell_holdings(send, engine).await
                }
                _ = certificate.tick() => self.renew(send).await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// What a download has to say, as a message; progress is kept for the next batch.
    fn noticed(&mut self, task: TaskId, notice: Notice) -> Option<ToSupernode> {
        match notice {
            Notice::Progress(held) => {
                if let Some(member) = self.members.get_mut(&task) {
                    member.wish.held = held;
                    self.progress.insert(task, held);
                }
                None
            }
            Notice::Proven(geometry) => {
                self.members.remove(&task);
                self.progress.remove(&task);
                self.told.insert(task);
                Some(ToSupernode::Holdings(vec![(task, geometry)]))
            }
            Notice::Blame { node, fault } => Some(ToSupernode::Blame { task, node, fault }),
            Notice::MoreParents => Some(ToSupernode::MoreParents(task)),
            Notice::Left => {
                // A new download of the task may have joined since: then its orders are open.
                let over = self.members.get(&task).is_some_and(|member| member.orders.is_closed());
                over.then(|| {
                    self.members.remove(&task);
                    self.progress.remove(&task);
                    ToSupernode::Leave(task)
                })
            }
            Notice::Known(_) | Notice::Failed => None,
        }
    }

    async fn heard(&mut self, supernode: NodeId, message: ToPeer) -> Result<(), SessionError> {
        let (task, order) = match message {
            ToPeer::Joined { task, geometry, inline } => (task, Order::Joined { geometry, inline }),
            ToPeer::Digests { task, first, digests } => (task, Order::Digests { first, digests }),
            ToPeer::Parents { task, add, remove } => (task, Order::Parents { add, remove }),
            ToPeer::Proven(task) => (task, Order::Proven),
            ToPeer::Poisoned(task) => (task, Order::Poisoned),
            ToPeer::Failed { task, failure } => (task, Order::Failed(failure)),
            ToPeer::Renewed(chain) => {
                self.renewed(&chain);
                return Ok(());
            }
            ToPeer::Sealed { .. } => return Ok(()),
            ToPeer::Revoked(_) | ToPeer::Authorities(_) => {
                self.options.standing.heard(supernode, message);
                return Ok(());
            }
            ToPeer::RenewalRefused(reason) => {
                tracing::warn!("the supernode does not renew our certificate: {reason}");
                return Ok(());
            }
        };
        if let Some(member) = self.members.get(&task) {
            let _ = member.orders.send(order).await;
        }
        Ok(())
    }

    async fn renew(&self, send: &mut SendStream) -> Result<(), SessionError> {
        self.show_expiry();
        match self.options.standing.request(SystemTime::now()).map_err(TransportError::from)? {
            Some(request) => say(send, &request).await,
            None => Ok(()),
        }
    }

    fn renewed(&self, chain: &[Vec<u8>]) {
        match self.options.identity.install(chain) {
            Ok(()) => tracing::info!("certificate renewed"),
            Err(error) => tracing::warn!("the renewed certificate cannot be used: {error}"),
        }
        self.show_expiry();
    }

    fn show_expiry(&self) {
        let expiry = self.options.identity.certificate().map(|certificate| certificate.not_after);
        let seconds = expiry.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.options.metrics.certificate_expiry.set(seconds.map_or(0, |seconds| seconds.as_secs() as i64));
    }

    /// Tells the downloads that they are on their own for now.
    async fn lost(&mut self) {
        if !self.connected.send_replace(false) {
            return;
        }
        self.lost_since = Instant::now();
        self.options.metrics.supernode_connected.set(0);
        for member in self.members.values() {
            let _ = member.orders.send(Order::Lost).await;
        }
    }

    /// Waits before the next attempt, and answers downloads meanwhile.
    async fn wait(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.answer_alone() => {}
            }
        }
    }

    /// Hears one download while there is no supernode. May be dropped at any await: nothing is lost.
    async fn answer_alone(&mut self) {
        tokio::select! {
            Some((task, wish, orders)) = self.joins.recv() => {
                let given_up = self.lost_since.elapsed() > GIVEN_UP;
                let _ = orders.try_send(if given_up { Order::GoToOrigin } else { Order::Lost });
                self.members.insert(task, Member { wish, orders });
            }
            Some((task, notice)) = self.notices.recv() => {
                let _ = self.noticed(task, notice);
            }
            else => std::future::pending().await,
        }
    }
}

async fn connect(
    options: &RemoteOptions,
    transport: &Transport,
) -> Result<(SocketAddr, Connection), SessionError> {
    let mut last = SessionError::Nowhere;
    for name in &options.supernodes {
        let addresses = match tokio::net::lookup_host(name).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = SessionError::Resolve(name.clone(), error);
                continue;
            }
        };
        for address in addresses {
            match connect_to(options, transport, address).await {
                Ok(connection) => return Ok((address, connection)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn connect_to(
    options: &RemoteOptions,
    transport: &Transport,
    address: SocketAddr,
) -> Result<Connection, SessionError> {
    let identity = &options.identity;
    if must_enrol(identity, options.token.as_ref(), SystemTime::now()) {
        let token = options.token.as_ref().ok_or(SessionError::NoToken)?;
        transport::enrol(address, token, identity).await?;
        tracing::info!(supernode = %address, node = %identity.node(), "enrolled");
    }
    transport.refresh()?;
    Ok(transport.dial_supernode(address).await?)
}

/// Whether there is no certificate that is good here: none, an expired one, or one of another cluster than the token's.
pub fn must_enrol(identity: &Identity, token: Option<&JoinToken>, now: SystemTime) -> bool {
    let elsewhere = |token: &JoinToken| !identity.is_of_cluster(token.ca());
    !identity.is_valid(now) || token.is_some_and(elsewhere)
}

fn join(wish: &Wish) -> ToSupernode {
    let Wish { source, credentials, held, .. } = wish.clone();
    ToSupernode::Join(Join { source, credentials, held })
}

async fn say(send: &mut SendStream, message: &ToSupernode) -> Result<(), SessionError> {
    timeout(SEND_TIMEOUT, codec::send(send, message)).await.map_err(|_| SessionError::Deaf)??;
    Ok(())
}
