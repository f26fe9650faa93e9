//! A download's neighbours: opens links to the parents that the coordinator names, accepts those of children,
//! asks for pieces as [`Select`] says and shows pieces as [`Reveal`] says. It owns every task that it starts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::digest::Digest;
use common::node::{Contact, NodeId};
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::task::TaskId;
use common::telemetry::trace::{Side, Span, TraceContext};
use common::telemetry::{Held, RejectReason, hold};
use common::transport::Connection;
use common::wire::exchange::{Link, MAX_RUNS, Refusal};
use common::wire::swarm::Fault;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::doorstep::Doorstep;
use super::shared::Shared;
use super::{BUDGET_UNIT, Context};
use crate::exchange::courtesy;
use crate::exchange::fetch::{self, FetchFault, Wanted};
use crate::exchange::line::Share;
use crate::exchange::link::{self, LinkEnd, LinkStream, Said};
use crate::exchange::reveal::{Reveal, Style};
use crate::exchange::select::{Ask, Select, Setback};
use crate::limit::Allowance;
use crate::record::Who;
use crate::store::StoreError;

/// Links of one task; a supernode's scheduler stays below it, a flood does not.
const MAX_LINKS: usize = 128;
/// A parent that refused or did not answer is tried again after this, doubling with every attempt.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A node that showed so many pieces and gave none of them does not err: what it shows is false.
const FALSE_SET: u32 = 8;
/// When the memory budget is used up, look again after this.
const STARVED: Duration = Duration::from_millis(20);

/// What the session must know.
#[derive(Debug)]
pub enum News {
    /// A piece is written and right.
    Piece {
        /// Which.
        index: PieceIndex,
        /// Who gave it.
        from: NodeId,
        /// Its length.
        bytes: u64,
    },
    /// A neighbour is to blame.
    Blame(NodeId, Fault),
    /// The store failed.
    Store(StoreError),
    /// Something changed inside.
    Nothing,
}

struct Neighbour {
    connection: Connection,
    outbox: mpsc::Sender<Link>,
    /// Who opened the link: decides which of two stays.
    opener: NodeId,
    generation: u64,
    _counted: Held,
}

struct Parent {
    contact: Contact,
    attempts: u32,
    retry: Instant,
    opening: bool,
}

enum LinkEvent {
    Opened(NodeId, Result<Box<LinkStream>, LinkEnd>),
    Ended(NodeId, u64, LinkEnd),
}

struct Fetched {
    from: NodeId,
    index: PieceIndex,
    /// Bytes, and when they had come.
    result: Result<(u64, Instant), Failed>,
}

enum Failed {
    Parent(FetchFault),
    Store(StoreError),
}

/// The neighbours of one task.
pub struct Mesh {
    context: Arc<Context>,
    shared: Arc<Shared>,
    task: TaskId,
    geometry: Geometry,
    digests: Vec<Option<Digest>>,
    select: Select,
    /// What it may take from neighbours.
    allowance: Allowance,
    /// That somebody waits for it.
    pull: Share,
    /// What it has asked for.
    down: Share,
    reveal: Reveal,
    /// What it has shown and not sent.
    up: Share,
    parents: BTreeMap<NodeId, Parent>,
    links: BTreeMap<NodeId, Neighbour>,
    doorstep: Doorstep,
    generation: u64,
    link_tasks: JoinSet<LinkEvent>,
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    fetches: JoinSet<Fetched>,
    running: BTreeMap<(NodeId, PieceIndex), AbortHandle>,
    /// Pieces that a neighbour showed and did not give.
    false_claims: BTreeMap<NodeId, u32>,
    /// What is to be told of neighbours.
    blames: VecDeque<(NodeId, Fault)>,
    /// What [`crate::trust::Trust::barrings`] was at the last look.
    barrings: u64,
    /// False while the origin is asked: then only serving goes on.
    asking: bool,
    starved: bool,
    /// What the links to parents are part of, if that is traced.
    trace: Option<TraceContext>,
}

// === impl Mesh ===

impl Mesh {
    /// No neighbours yet.
    pub fn new(context: Arc<Context>, shared: Arc<Shared>, geometry: Geometry) -> Self {
        let (task, pieces) = (shared.task(), geometry.pieces());
        let select = Select::new(geometry, PieceSet::new(pieces), context.seed_for(task));
        let reveal = Reveal::new(context.style, pieces);
        let (down, up) = (context.downlink.share(), context.uplink.share());
        let (allowance, pull) = (context.limits.download.allowance(), context.courtesy.share());
        Self {
            allowance,
            pull,
            context,
            shared,
            task,
            geometry,
            digests: vec![None; pieces as usize],
            select,
            down,
            reveal,
            up,
            parents: BTreeMap::new(),
            links: BTreeMap::new(),
            doorstep: Doorstep::default(),
            generation: 0,
            link_tasks: JoinSet::new(),
            said: mpsc::channel(256),
            fetches: JoinSet::new(),
            running: BTreeMap::new(),
            false_claims: BTreeMap::new(),
            blames: VecDeque::new(),
            barrings: 0,
            asking: true,
            starved: false,
            trace: None,
        }
    }

    /// Links from now on are part of this.
    pub fn part_of(&mut self, trace: Option<TraceContext>) {
        self.trace = trace;
    }

    /// A piece's digest may be relied on.
    pub fn vouch(&mut self, index: PieceIndex, digest: Digest) {
        if let Some(slot) = self.digests.get_mut(index.0 as usize) {
            *slot = Some(digest);
            self.select.vouch(index);
            self.shared.scribe().note(|record, now| record.vouched(index, now));
        }
    }

    /// The digest that a piece must have, if it is known.
    pub fn vouched(&self, index: PieceIndex) -> Option<Digest> {
        self.digests.get(index.0 as usize).copied().flatten()
    }

    /// A piece is here; `offer` says whether neighbours may have it, `old` that it has been here for long.
    pub fn present(&mut self, index: PieceIndex, from: Option<NodeId>, offer: bool, now: Instant) {
        for needless in self.select.arrived(index, from, now) {
            if let Some(fetch) = self.running.remove(&(needless, index)) {
                fetch.abort();
                let who = self.who(needless);
                self.shared.scribe().note(|record, now| record.gave_up(who, false, now));
            }
        }
        for node in self.select.slow() {
            self.blame(node, Fault::Slow);
        }
        if offer {
            self.shared.offer(index);
            self.reveal.piece(index, now);
        }
    }

    /// All pieces are here and proven: everybody may have them.
    pub fn offer_all(&mut self) {
        let all = PieceSet::full(self.geometry.pieces());
        all.iter().for_each(|index| self.shared.offer(index));
        self.reveal.old_pieces(&all);
    }

    /// Whether requests are made; serving goes on regardless.
    pub fn set_asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// The coordinator's word on parents.
    pub fn parents(&mut self, add: Vec<Contact>, remove: &[NodeId], now: Instant) {
        for node in remove {
            self.parents.remove(node);
            // A link that the neighbour wants is its to end.
            if self.links.get(node).is_some_and(|link| link.opener == self.context.node()) {
                self.link_down(*node);
            }
        }
        let ours = self.context.node();
        let good = |contact: &Contact| contact.id != ours && !self.context.is_barred(contact.id);
        for contact in add.into_iter().filter(good) {
            let parent = Parent { contact: contact.clone(), attempts: 0, retry: now, opening: false };
            self.parents.entry(contact.id).or_insert(parent);
        }
    }

    /// A neighbour opened a link.
    pub fn incoming(&mut self, link: LinkStream) {
        let node = link.connection.node();
        // A neighbour that comes again takes its own place.
        let refused = match self.links.get(&node) {
            Some(other) => link::keeps(other.opener, node),
            None => self.links.len() >= MAX_LINKS,
        };
        if refused || !self.doorstep.admits(node, Instant::now()) {
            self.refuse(link, Refusal::Busy);
        } else {
            self.link_up(link);
        }
    }

    /// Number of links.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether nothing is in flight and no parent shows anything that is wanted.
    pub fn is_stuck(&self) -> bool {
        self.fetches.is_empty() && self.select.useful_parents() == 0
    }

    /// Whether pieces are asked for, and no more than one parent has any that are wanted.
    pub fn hangs_on_one(&self) -> bool {
        !self.fetches.is_empty() && self.select.useful_parents() <= 1
    }

    /// Whether a piece is wanted whose digest is known.
    pub fn wants_vouched(&self) -> bool {
        let held = |index: u32| self.shared.ready(PieceIndex(index), 1) == 1;
        (0..self.geometry.pieces()).any(|index| self.digests[index as usize].is_some() && !held(index))
    }

    /// Does what is due and returns when to be called again.
    pub fn pump(&mut self, complete: bool, now: Instant) -> Option<Instant> {
        self.shun();
        self.open_links(complete, now);
        let urgent = self.shared.is_urgent();
        let gives_way = !urgent && self.pull.others() > 0;
        let others = if gives_way { usize::MAX } else { self.up.others() };
        for tell in self.reveal.drain(others, now) {
            let (show, hold) = (runs(&tell.show), runs(&tell.hold));
            let show = show.chunks(MAX_RUNS).map(|runs| Link::Have(runs.to_vec()));
            let hold = hold.chunks(MAX_RUNS).map(|runs| Link::Hold(runs.to_vec()));
            let said = show.chain(hold).all(|message| {
                self.links.get(&tell.to).is_some_and(|link| link.outbox.try_send(message).is_ok())
            });
            if !said {
                tracing::debug!(task = ?self.task, node = %tell.to, "link dropped: the neighbour does not read");
                self.doorstep.shown_the_door(tell.to, now);
                self.link_down(tell.to);
            }
        }
        self.up.set(self.reveal.out());
        if complete {
            let idle: Vec<_> =
                self.links.keys().copied().filter(|node| self.reveal.child_is_full(*node)).collect();
            idle.into_iter().for_each(|node| self.link_down(node));
            self.down.set(0);
            // A seed that has it deals it out while somebody waits for it.
            self.pull.set(usize::from(urgent && self.context.style == Style::Seed && self.reveal.out() > 0));
            return self.reveal.wake_at();
        }
        self.starved = false;
        self.down.set(self.select.flights());
        self.pull.set(usize::from(urgent));
        let waits = gives_way && !self.context.courtesy.lets_pass(now);
        if self.asking && !waits {
            let others = if gives_way { usize::MAX } else { self.down.others() };
            for ask in self.select.poll(others, now) {
                if gives_way {
                    self.context.courtesy.charge(self.geometry.range(ask.index).len());
                }
                self.launch(ask, now);
            }
            self.down.set(self.select.flights());
        }
        let retry = self.parents.values().filter(|parent| !parent.opening && parent.retry > now);
        let retry = retry.map(|parent| parent.retry).min();
        let starved = self.starved.then(|| now + STARVED);
        let select = match waits {
            true => Some(now + courtesy::LOOK_AGAIN),
            false => self.select.wake_at(now),
        };
        let select = select.filter(|_| self.asking);
        let wakes = [self.reveal.wake_at(), select, retry, starved];
        wakes.into_iter().flatten().min()
    }

    /// The next thing that happens.
    pub async fn next(&mut self) -> News {
        if let Some((node, fault)) = self.blames.pop_front() {
            return News::Blame(node, fault);
        }
        tokio::select! {
            Some(Said { node, generation, runs, shown }) = self.said.1.recv() => {
                if self.links.get(&node).is_some_and(|link| link.generation == generation) {
                    self.reveal.child_has(node, &runs);
                    self.select.parent_has(node, &runs, shown);
                }
                News::Nothing
            }
            Some(event) = self.link_tasks.join_next() => {
                match event {
                    Ok(LinkEvent::Opened(node, result)) => self.opened(node, result),
                    Ok(LinkEvent::Ended(node, generation, end)) => self.ended(node, generation, &end),
                    Err(_) => {}
                }
                News::Nothing
            }
            Some(fetched) = self.fetches.join_next() => match fetched {
                Ok(fetched) => self.fetched(fetched),
                // Aborted: its request was withdrawn already.
                Err(_) => News::Nothing,
            },
        }
    }

    /// Takes nothing more from those that were barred since the last look, by whatever task.
    fn shun(&mut self) {
        let barrings = self.context.trust.barrings();
        if std::mem::replace(&mut self.barrings, barrings) != barrings {
            for node in self.links.keys().filter(|node| self.context.is_barred(**node)) {
                self.select.ban(*node);
            }
            self.parents.retain(|node, _| !self.context.is_barred(*node));
        }
    }

    fn open_links(&mut self, complete: bool, now: Instant) {
        let Some(pool) = self.context.pool.clone().filter(|_| !complete) else { return };
        for (node, parent) in &mut self.parents {
            if parent.opening || parent.retry > now || self.links.contains_key(node) {
                continue;
            }
            parent.opening = true;
            let mut span = Span::within("engine.link", self.trace, Side::Client);
            span.note("longshore.parent", *node);
            let (pool, contact, task, geometry) =
                (pool.clone(), parent.contact.clone(), self.task, self.geometry);
            self.link_tasks.spawn(async move {
                let opened = match pool.get(&contact).await {
                    Ok(connection) => link::open(connection, (task, geometry), span).await.map(Box::new),
                    Err(error) => Err(LinkEnd::Broken(error.to_string())),
                };
                LinkEvent::Opened(contact.id, opened)
            });
        }
    }

    fn opened(&mut self, node: NodeId, result: Result<Box<LinkStream>, LinkEnd>) {
        let wanted = self.parents.get_mut(&node);
        match (result, wanted) {
            (Ok(link), Some(parent)) => {
                parent.opening = false;
                parent.attempts = 0;
                let ours = self.context.node();
                if !self.links.get(&node).is_some_and(|other| link::keeps(other.opener, ours)) {
                    self.link_up(*link);
                }
            }
            (Ok(_), None) => {}
            (Err(end), Some(parent)) => {
                tracing::debug!(task = ?self.task, %node, "no link: {end}");
                parent.opening = false;
                parent.attempts += 1;
                let wait = RETRY * 2u32.saturating_pow(parent.attempts.min(10));
                parent.retry = Instant::now() + wait.min(MAX_RETRY);
            }
            (Err(_), None) => {}
        }
    }

    fn link_up(&mut self, mut link: LinkStream) {
        let node = link.connection.node();
        self.link_down(node);
        self.generation += 1;
        let (outbox, messages) = mpsc::channel(link::OUTBOX);
        let opener = if link.ours { self.context.node() } else { node };
        let (connection, generation) = (link.connection.clone(), self.generation);
        let _counted = hold(&self.context.metrics.links);
        self.links.insert(node, Neighbour { connection, outbox, opener, generation, _counted });
        self.select.parent_up(node);
        if self.context.is_barred(node) {
            self.select.ban(node);
        }
        if self.context.coordinator.is_seed(node) {
            self.select.seed_is(node);
        }
        self.reveal.child_up(node);
        let (inbox, pieces) = (self.said.0.clone(), self.geometry.pieces());
        self.link_tasks.spawn(async move {
            if !link.ours
                && let Err(end) = link::accept(&mut link).await
            {
                return LinkEvent::Ended(node, generation, end);
            }
            LinkEvent::Ended(node, generation, link::carry(link, pieces, generation, messages, inbox).await)
        });
    }

    fn link_down(&mut self, node: NodeId) {
        // Dropping the outbox ends the link's task.
        if self.links.remove(&node).is_some() {
            self.select.parent_down(node);
            self.reveal.child_down(node);
        }
    }

    fn ended(&mut self, node: NodeId, generation: u64, end: &LinkEnd) {
        if self.links.get(&node).is_some_and(|link| link.generation == generation) {
            tracing::debug!(task = ?self.task, %node, "link ended: {end}");
            self.link_down(node);
            if matches!(end, LinkEnd::Broken(_)) {
                self.doorstep.shown_the_door(node, Instant::now());
            }
            if let Some(parent) = self.parents.get_mut(&node) {
                parent.retry = Instant::now() + RETRY * 5;
            }
        }
    }

    fn refuse(&mut self, link: LinkStream, refusal: Refusal) {
        let node = link.connection.node();
        self.link_tasks.spawn(async move {
            link::refuse(link, refusal).await;
            LinkEvent::Ended(node, 0, LinkEnd::Refused(refusal))
        });
    }

    fn launch(&mut self, ask: Ask, now: Instant) {
        let Ask { node, index, hedge } = ask;
        let length = self.geometry.range(index).len();
        let budget = self.context.budget.clone();
        let permit = budget.try_acquire_many_owned(length.div_ceil(BUDGET_UNIT) as u32);
        // Asked last, since what it lets pass is paid for.
        let permit = permit.ok().filter(|_| {
            let passes = self.allowance.try_pass(length).is_ok();
            if !passes {
                self.shared.scribe().note(|record, now| record.withheld(index, now));
            }
            passes
        });
        let connection = self.links.get(&node).map(|link| link.connection.clone());
        let (Some(permit), Some(connection), Some(digest), Some(blob)) =
            (permit, connection, self.vouched(index), self.shared.blob())
        else {
            self.select.setback((node, index), Setback::Withdrawn, now);
            self.starved = true;
            return;
        };
        if hedge {
            self.context.metrics.hedged_requests.inc();
        }
        let wanted = Wanted { task: self.task, index, length, digest };
        let fetching = async move {
            let chunks = fetch::piece(&connection, wanted).await.map_err(Failed::Parent)?;
            let came = Instant::now();
            let written = tokio::task::spawn_blocking(move || {
                let written = blob.write_piece(index, &chunks, digest);
                drop(permit);
                written
            });
            written.await.map_err(|_| Failed::Parent(FetchFault::Silent))?.map_err(Failed::Store)?;
            Ok((length, came))
        };
        let who = self.who(node);
        self.shared.scribe().note(|record, now| record.asked(index, who, now));
        let fetch = self.fetches.spawn(async move { Fetched { from: node, index, result: fetching.await } });
        self.running.insert((node, index), fetch);
    }

    fn fetched(&mut self, fetched: Fetched) -> News {
        let Fetched { from, index, result } = fetched;
        self.running.remove(&(from, index));
        let who = self.who(from);
        let fault = match result {
            Ok((bytes, came)) => {
                self.shared.scribe().note(|record, now| {
                    record.came(index, who, bytes, came);
                    record.kept(index, Duration::ZERO, now);
                });
                return News::Piece { index, from, bytes };
            }
            Err(Failed::Store(error)) => return News::Store(error),
            Err(Failed::Parent(fault)) => fault,
        };
        let (setback, reason, blame) = match fault {
            FetchFault::Refused(Refusal::Busy) => (Setback::Busy, RejectReason::Refused, None),
            FetchFault::Refused(_) => (Setback::NotThere, RejectReason::Refused, Some(Fault::FalseClaim)),
            FetchFault::Silent => (Setback::Silent, RejectReason::Timeout, Some(Fault::Silent)),
            FetchFault::Nonsense(_) | FetchFault::WrongBytes => {
                (Setback::WrongBytes, RejectReason::Digest, Some(Fault::WrongBytes))
            }
        };
        self.context.metrics.pieces_rejected.of(reason).inc();
        self.shared.scribe().note(|record, now| record.gave_up(who, blame.is_some(), now));
        let linked = self.links.contains_key(&from);
        self.select.setback((from, index), setback, Instant::now());
        if setback == Setback::WrongBytes {
            tracing::warn!(task = ?self.task, piece = index.0, node = %from, "{fault}; it is avoided from now on");
            self.parents.remove(&from);
        }
        if let Some(fault) = blame.filter(|_| linked) {
            self.blame(from, fault);
        }
        News::Nothing
    }

    /// A neighbour, as the record of the pull has it.
    fn who(&self, node: NodeId) -> Who {
        if self.context.coordinator.is_seed(node) { Who::Seed(node) } else { Who::Peer(node) }
    }

    /// Notes what a neighbour did, and has the supernode told.
    fn blame(&mut self, node: NodeId, fault: Fault) {
        let claims = self.false_claims.entry(node).or_default();
        *claims += u32::from(fault == Fault::FalseClaim);
        let fault = if *claims >= FALSE_SET { Fault::FalseSet } else { fault };
        *claims %= FALSE_SET;
        // Everybody hangs on the seed, which has no reason to lie: whoever rules it rules the digests, too.
        if !self.context.coordinator.is_seed(node) {
            self.context.trust.note(node, fault, &self.context.metrics);
        }
        self.blames.push_back((node, fault));
    }
}

/// Ascending runs of pieces, as links carry them.
fn runs(pieces: &[PieceIndex]) -> Vec<std::ops::Range<u32>> {
    let mut sorted: Vec<u32> = pieces.iter().map(|index| index.0).collect();
    sorted.sort_unstable();
    let mut runs: Vec<std::ops::Range<u32>> = Vec::new();
    for index in sorted {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}
