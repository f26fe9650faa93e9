//! The peers' sessions: one control stream each. A session reads what its peer says and turns it into events and
//! feeders; what is to be said to it goes through one bounded queue, so messages keep their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use common::node::Contact;
use common::piece::Geometry;
use common::task::TaskId;
use common::telemetry::TurnedAway;
use common::telemetry::trace::TraceContext;
use common::wire::codec::CodecError;
use common::wire::hello::PASSING;
use common::wire::swarm::{Failure, Join, MAX_ENTRIES, Priority, ToPeer, ToSupernode};
use peer::engine::Engine;
use peer::exchange::serve::SessionStream;
use peer::paces::Paces;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Admission, Capacity};
use crate::bulletin::Bulletins;
use crate::feeder::Feeder;
use crate::hub::Hub;
use crate::kubernetes::Zones;
use crate::membership::Membership;
use crate::openings::Openings;
use crate::outbox::{Letter, Outbox};
use crate::roster::Roster;
use crate::scheduler::{Event, Member};
use crate::seed::Memory;
use crate::testimony::Notary;

/// Children that one peer is trusted to serve at once, whatever it says.
const MAX_SLOTS: u16 = 64;
/// Tasks that one peer may be joining at once: an image has at most some hundred layers.
const MAX_FEEDERS: usize = 1024;

/// What a join names and shows at most: twice the longest that registries and their token services are known to use.
const MAX_WORDS: usize = 64 * 1024;
/// What a header takes in memory beside its letters.
const HEADER: usize = 128;
/// When a peer whose joins wait for an origin is to come again with more of them.
const CROWDED: Duration = Duration::from_secs(2);
/// Words that a peer may say in one go: all that a large node holds, some times over. Each costs the scheduler some
/// microseconds, so the rate is a few hundredths of a core.
const WORDS: u32 = 65_536;
const WORD_RATE: u32 = 5_000;
/// What a message that moves much costs, in words: a signature, a look at all tasks of the accused, a seal to check.
const COSTLY: u32 = 50;

/// What a peer hears that is one too many.
const FULL: &str = "busy, retry in 10 s: there are as many sessions as this supernode takes (--max-sessions)";

/// What all sessions share.
#[derive(Clone)]
pub struct Sessions {
    /// The seed's engine.
    pub engine: Engine,
    /// The scheduler.
    pub hub: Arc<Hub>,
    /// Who can be reached.
    pub roster: Roster,
    /// Where nodes are that do not know it themselves.
    pub zones: Zones,
    /// Renews certificates, and has news of the cluster for all peers.
    pub membership: Arc<Membership>,
    /// How much is taken on.
    pub capacity: Capacity,
    /// The joins that may still be taken on, over all sessions.
    pub admission: Arc<Mutex<Admission>>,
    /// What is told to all alike.
    pub bulletins: Bulletins,
    /// Knows the word of other supernodes.
    pub notary: Notary,
    /// What they vouched for.
    pub memory: Memory,
    /// The words that each peer may say.
    pub paces: Arc<Mutex<Paces>>,
    /// The tasks that each peer may have opened at once.
    pub openings: Openings,
}

/// The paces at which peers are heard.
pub fn paces() -> Arc<Mutex<Paces>> {
    Arc::new(Mutex::new(Paces::new(WORDS, WORD_RATE)))
}

struct Session {
    shared: Sessions,
    feeder: Feeder,
    feeding: JoinSet<(TaskId, u64)>,
    /// The feeder of each task, numbered, so that the end of an old one is not taken for the new one's.
    by_task: HashMap<TaskId, (u64, AbortHandle)>,
    joins: u64,
    /// The joins that this peer may still ask for.
    admission: Admission,
}

// === impl Sessions ===

impl Sessions {
    /// Runs sessions as they come, until the caller drops the future.
    pub async fn run(self, mut streams: mpsc::Receiver<SessionStream>) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                stream = streams.recv() => {
                    let Some(stream) = stream else { return };
                    if sessions.len() >= self.capacity.sessions {
                        self.engine.metrics().turned_away.of(TurnedAway::Busy).inc();
                        stream.connection.close(FULL);
                        continue;
                    }
                    sessions.spawn(self.clone().session(stream));
                }
                Some(_) = sessions.join_next() => {}
            }
        }
    }

    async fn session(self, stream: SessionStream) {
        let SessionStream { connection, send, mut reader } = stream;
        let (hello, remote) = (connection.hello().clone(), connection.remote_address());
        let contact = Contact { id: hello.node, address: hello.advertise.unwrap_or(remote) };
        let node = contact.id;
        let (outbox, letters) = Outbox::new();
        let stop = CancellationToken::new();
        let labels = self.zones.complete(hello.labels).await;
        let member = Member { contact, labels: labels.clone(), slots: hello.slots.min(MAX_SLOTS) };
        let (hub, version) = (self.hub.clone(), connection.version());
        let mut news = self.membership.news();
        let stays = hello.features & PASSING == 0;
        let _reach = stays.then(|| self.roster.enter(connection.clone(), labels));
        let _place = hub.enter(member, outbox.clone(), stop.clone());
        tracing::info!(%node, %remote, "peer joined");
        let (engine, bulletins) = (self.engine.clone(), self.bulletins.clone());
        let (hub_of_feeders, turns) = (self.hub.clone(), self.openings.of(node));
        let feeder = Feeder { engine, hub: hub_of_feeders, bulletins, node, version, outbox, turns };
        let mut session = Session {
            admission: Admission::of_one(&self.capacity, Instant::now()),
            shared: self,
            feeder,
            feeding: JoinSet::new(),
            by_task: HashMap::new(),
            joins: 0,
        };
        let mut writer = JoinSet::new();
        writer.spawn(letters.send(send));
        let mut rested = None;
        let reason = loop {
            // Who says too much is not read for a while: the rest waits where it comes from.
            let next = async {
                // Even a moment that has passed takes the timer a millisecond.
                if let Some(rested) = rested {
                    tokio::time::sleep_until(rested).await;
                }
                reader.next::<ToSupernode>().await
            };
            tokio::select! {
                biased;
                // Before anything that this session is asked for: parents may be known by these CAs only.
                Ok(()) = news.changed(), if version >= 2 => {
                    let letter = Letter::Frames(news.borrow_and_update().clone());
                    if session.feeder.outbox.push(letter).is_err() {
                        break "it does not read".to_owned();
                    }
                }
                message = next => match message {
                    Ok(Some(message)) => {
                        let rest = session.rest(&message);
                        rested = (!rest.is_zero()).then(|| tokio::time::Instant::now() + rest);
                        session.heard(message).await;
                    }
                    Ok(None) => break "it said goodbye".to_owned(),
                    Err(CodecError::Io(_)) => break "the connection is gone".to_owned(),
                    Err(error) => {
                        session.shared.engine.metrics().turned_away.of(TurnedAway::Malformed).inc();
                        break error.to_string();
                    }
                },
                Some(ended) = session.feeding.join_next() => session.fed(ended),
                Some(ended) = writer.join_next() => {
                    break ended.unwrap_or_else(|_| "the writer ended".to_owned());
                }
                () = stop.cancelled() => break "it does not read, or has a newer session".to_owned(),
            }
        };
        tracing::info!(%node, %remote, "peer left: {reason}");
        connection.close("session over");
    }
}

// === impl Session ===

impl Session {
    /// How long the peer is not heard after this message.
    fn rest(&self, message: &ToSupernode) -> Duration {
        let mut paces = self.shared.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.charge(self.feeder.node, words(message), Instant::now())
    }

    async fn heard(&mut self, message: ToSupernode) {
        let (hub, node) = (&self.feeder.hub, self.feeder.node);
        match message {
            ToSupernode::Join(join) => self.join(join, Priority::Pull, None).await,
            ToSupernode::JoinAs { join, priority } => self.join(join, priority, None).await,
            ToSupernode::JoinTraced { join, priority, trace } => self.join(join, priority, Some(trace)).await,
            ToSupernode::Testimony(said) if self.shared.notary.believes(&said) => {
                self.shared.memory.learn(&said)
            }
            ToSupernode::Testimony(said) => {
                self.shared.engine.metrics().turned_away.of(TurnedAway::Malformed).inc();
                tracing::debug!(%node, task = ?said.task, "a testimony without a true seal")
            }
            ToSupernode::Revoked(entries) => self.shared.membership.hear(entries).await,
            ToSupernode::Progress(entries) => {
                let event = |(task, held)| Event::Progress { task, node, held };
                hub.apply_all(entries.into_iter().take(MAX_ENTRIES).map(event));
            }
            ToSupernode::Holdings(entries) => {
                let event = |(task, geometry): (TaskId, Geometry)| Event::Hold {
                    task,
                    node,
                    pieces: geometry.pieces(),
                };
                let held: Vec<_> = entries.into_iter().take(MAX_ENTRIES).collect();
                hub.apply_all(held.iter().copied().map(event));
                hub.learn(held.into_iter());
            }
            ToSupernode::Leave(task) => {
                if let Some((_, feeding)) = self.by_task.remove(&task) {
                    feeding.abort();
                }
                self.feeder.leave(task);
            }
            ToSupernode::Blame { task, node: about, fault } => {
                tracing::info!(by = %node, about = %about, ?task, ?fault, "blame");
                hub.apply(Event::Blame { task, by: node, about, fault });
            }
            ToSupernode::MoreParents(task) => hub.apply(Event::MoreParents { task, node }),
            ToSupernode::Renew(csr) => self.renew(&csr).await,
        }
    }

    async fn join(&mut self, join: Join, priority: Priority, trace: Option<TraceContext>) {
        let task = join.source.task();
        let length = length(&join);
        if length > MAX_WORDS {
            self.shared.engine.metrics().turned_away.of(TurnedAway::Malformed).inc();
            let failure = Failure::Refused(format!("its URL and credentials are above {MAX_WORDS} bytes"));
            let _ = self.feeder.outbox.say(ToPeer::Failed { task, failure }).await;
            return;
        }
        if let Err(wait) = self.admit(priority) {
            self.shared.engine.metrics().turned_away.of(TurnedAway::Busy).inc();
            let failure = admission::busy(wait).for_version(self.feeder.version);
            let _ = self.feeder.outbox.say(ToPeer::Failed { task, failure }).await;
            return;
        }
        if let Some((_, old)) = self.by_task.remove(&task) {
            old.abort();
        }
        if self.by_task.len() >= MAX_FEEDERS {
            let failure = Failure::Unavailable(format!("too many tasks at once: at most {MAX_FEEDERS}"));
            let _ = self.feeder.outbox.say(ToPeer::Failed { task, failure }).await;
            return;
        }
        let Some(kept) = self.feeder.turns.keep(length) else {
            self.shared.engine.metrics().turned_away.of(TurnedAway::Busy).inc();
            let failure = admission::busy(CROWDED).for_version(self.feeder.version);
            let _ = self.feeder.outbox.say(ToPeer::Failed { task, failure }).await;
            return;
        };
        let feeder = self.feeder.clone();
        self.joins += 1;
        let number = self.joins;
        let feeding = self.feeding.spawn(async move {
            feeder.run(join, priority, kept, trace).await;
            (task, number)
        });
        self.by_task.insert(task, (number, feeding));
    }

    /// Takes a join on, if this peer may ask for one more and there is room for it.
    fn admit(&mut self, priority: Priority) -> Result<(), Duration> {
        let now = Instant::now();
        self.admission.take(priority, now)?;
        let mut all = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        all.take(priority, now).inspect_err(|_| self.admission.give_back())
    }

    fn fed(&mut self, ended: Result<(TaskId, u64), JoinError>) {
        if let Ok((task, number)) = ended
            && self.by_task.get(&task).is_some_and(|(present, _)| *present == number)
        {
            self.by_task.remove(&task);
        }
    }

    async fn renew(&self, csr: &[u8]) {
        let who = (self.feeder.node, self.feeder.version);
        let answer = self.shared.membership.renew(csr, who, SystemTime::now());
        let _ = self.feeder.outbox.say(answer).await;
    }
}

/// What a message costs to hear.
fn words(message: &ToSupernode) -> u32 {
    match message {
        ToSupernode::Progress(entries) => 1 + entries.len() as u32,
        ToSupernode::Holdings(entries) => 1 + entries.len() as u32,
        ToSupernode::Revoked(revoked) => COSTLY + revoked.len() as u32,
        ToSupernode::Testimony(said) => COSTLY + said.digests.len() as u32 / 16,
        ToSupernode::Blame { .. } | ToSupernode::Renew(_) => COSTLY,
        // Joins have their own measure.
        ToSupernode::Join(_) | ToSupernode::JoinAs { .. } | ToSupernode::JoinTraced { .. } => 1,
        ToSupernode::Leave(_) | ToSupernode::MoreParents(_) => 1,
    }
}

/// How much is kept for a join while it lasts.
fn length(join: &Join) -> usize {
    let Join { source, credentials, .. } = join;
    let shown: usize = credentials.expose().map(|(name, value)| HEADER + name.len() + value.len()).sum();
    shown + source.url.len() + source.tag.len() + source.accept.as_ref().map_or(0, String::len)
}
