//! How each fault is done, and undone: [`faults`](crate::faults) says what they are. [`ways`] are cut elsewhere.

mod ways;

use std::collections::BTreeMap;
use std::time::Duration;

use common::piece::PieceSet;
use common::rendezvous;
use supernode::scheduler::{Event as Said, Standing};

use super::{Move, World, desk};
use crate::faults::{Findings, Role, Trouble, Victim};
use crate::hub::TASK;
use crate::member::Peer;
use crate::post::{HeldLetter, Node, Word};
use crate::visit::{Fixed, Request, Site, number};

/// A crawl, in bits a second.
const CRAWL: f64 = 100_000.0;
/// How often sessions and links are looked at.
const PULSE: Duration = Duration::from_millis(40);
/// See `common::transport::settings`.
const IDLE: Duration = Duration::from_secs(10);
/// See `peer::origin::{retry, client}`: five attempts and the waits between them, at an origin that refuses and at one that
/// cannot be reached.
const ORIGIN_REFUSES: Duration = Duration::from_secs(3);
const ORIGIN_IS_SILENT: Duration = Duration::from_secs(28);
const ORIGIN_RETRY: Duration = Duration::from_millis(200);
/// All that is said of anybody has faded after this.
const FADED: Duration = Duration::from_secs(31 * 60);

/// What does not work at the moment.
pub(super) struct Weather {
    /// Who is there, by node: the origin, too.
    pub(super) alive: Vec<bool>,
    /// How often each was started.
    pub(super) lives: Vec<u32>,
    pub(super) roles: BTreeMap<Node, Role>,
    /// Ways that are cut, how often, and since when.
    cuts: BTreeMap<(Node, Node), (u32, u64)>,
    /// Letters that wait for their way.
    held: BTreeMap<(Node, Node), Vec<HeldLetter>>,
    /// Requests that the origin does not answer, and since when.
    unanswered: BTreeMap<Request, u64>,
    /// What lines carried before they crawled.
    rates: BTreeMap<Node, (f64, f64)>,
    /// What is undone when.
    mends: BTreeMap<u64, Vec<(Victim, Trouble)>>,
    begun: usize,
    faults: Findings,
}

// === impl Weather ===

impl Weather {
    pub(super) fn new(fixed: &Fixed) -> Self {
        let nodes = fixed.origin as usize + 1;
        Self {
            alive: vec![true; nodes],
            lives: vec![0; nodes],
            roles: BTreeMap::new(),
            cuts: BTreeMap::new(),
            held: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            rates: BTreeMap::new(),
            mends: BTreeMap::new(),
            begun: 0,
            faults: Findings::default(),
        }
    }

    /// Whether nothing that needs an answer gets through between two nodes.
    pub(super) fn parts(&self, one: Node, other: Node) -> bool {
        !self.cuts.is_empty()
            && (self.cuts.contains_key(&(one, other)) || self.cuts.contains_key(&(other, one)))
    }

    pub(super) fn origin_is_away(&self, from: Node) -> bool {
        let origin = self.alive.len() as Node - 1;
        !self.alive[origin as usize] || self.parts(from, origin)
    }
}

// === impl World ===

impl World<'_> {
    /// Begins and ends faults, and lets time-outs run out.
    pub(super) fn blow(&mut self) {
        if self.scenario.plan.patience.is_zero() {
            return;
        }
        let due = |at: Duration| self.fixed.steps(at) <= self.step;
        let events = &self.scenario.plan.events;
        let begin: Vec<_> =
            events[self.weather.begun..].iter().take_while(|event| due(event.at)).copied().collect();
        for event in begin {
            self.weather.begun += 1;
            self.inflict(event.victim, event.trouble, event.lasts.is_some());
            if let Some(lasts) = event.lasts {
                let ends = self.step + self.fixed.steps(lasts);
                self.weather.mends.entry(ends).or_default().push((event.victim, event.trouble));
            }
        }
        for (victim, trouble) in self.weather.mends.remove(&self.step).unwrap_or_default() {
            self.mend(victim, trouble);
        }
        if self.step.is_multiple_of(self.fixed.steps(PULSE)) {
            (self.fixed.supernodes..self.fixed.origin).for_each(|node| self.look_at_sessions(node));
            self.lose_links();
            self.watch();
        }
    }

    fn node(&self, victim: Victim) -> Node {
        match victim {
            Victim::Origin => self.fixed.origin,
            Victim::Supernode(number) => number % self.fixed.supernodes,
            Victim::Peer(number) => self.fixed.supernodes + number,
        }
    }

    fn inflict(&mut self, victim: Victim, trouble: Trouble, returns: bool) {
        let node = self.node(victim);
        match trouble {
            Trouble::Kill { keeps } => self.kill(node, keeps, returns),
            Trouble::Crawl => {
                let crawl = CRAWL / 8.0 * self.fixed.step.as_secs_f64();
                let before = self.network.set_rate(node, (crawl, crawl));
                self.weather.rates.insert(node, before);
            }
            Trouble::Evict => self.evict(node),
            Trouble::Cut | Trouble::Deafen | Trouble::Mute | Trouble::Part(_) => self.cut(node, trouble),
        }
    }

    fn mend(&mut self, victim: Victim, trouble: Trouble) {
        let node = self.node(victim);
        match trouble {
            Trouble::Kill { .. } if victim == Victim::Origin => self.weather.alive[node as usize] = true,
            Trouble::Kill { .. } => self.come_or_go(Move::Come(node)),
            Trouble::Crawl => {
                if let Some(before) = self.weather.rates.remove(&node) {
                    self.network.set_rate(node, before);
                }
            }
            Trouble::Evict => {}
            Trouble::Cut | Trouble::Deafen | Trouble::Mute | Trouble::Part(_) => self.open(node, trouble),
        }
    }

    // --- death -----------------------------------------------------------------------------------------------

    fn kill(&mut self, node: Node, keeps: bool, returns: bool) {
        self.weather.alive[node as usize] = false;
        self.weather.lives[node as usize] += 1;
        if node == self.fixed.origin {
            let broken = self.network.cut(|flow| flow.from == node);
            let request = |piece, to| Request { from: node, to, piece };
            self.out.asks.extend(broken.iter().map(|flow| request(flow.piece, flow.to)));
            return;
        }
        if !self.fixed.is_seed(node) {
            self.returns[node as usize] = returns;
            if self.peers[node as usize].is_none() && self.finished[node as usize].is_none() && !returns {
                // Between two pulls, and never again.
                self.unfinished -= 1;
            }
            self.moves
                .values_mut()
                .for_each(|moves| moves.retain(|what| !matches!(what, Move::Come(other) if *other == node)));
        }
        self.go(node);
        if !keeps {
            self.kept.remove(&node);
        }
        if self.fixed.is_seed(node) {
            self.hubs[node as usize].restart(node, self.scenario, &self.fixed);
            let edition = self.sites[node as usize].edition + 1;
            self.sites[node as usize] = Site { edition, ..Site::default() };
            self.memories[node as usize] = supernode::testimony::Recollection::default();
        }
    }

    /// A seed cannot get the task.
    pub(super) fn seed_failed(&mut self, at: Node) {
        let Some(seed) = self.peers[at as usize].take() else { return };
        self.disband(at, &seed);
        self.kept.insert(at, seed.have);
        let edition = self.sites[at as usize].edition + 1;
        self.sites[at as usize] = Site { edition, ..Site::default() };
        let Self { hubs, fixed, out, sites, step, .. } = self;
        hubs[at as usize].seed_failed(&mut desk(fixed, *step, out, &sites[at as usize]));
    }

    /// A download ends, and with it its links.
    pub(super) fn disband(&mut self, node: Node, peer: &Peer) {
        for link in &peer.links {
            let delay = self.fixed.delay(node, link.node);
            self.out.post.send(delay, link.node, node, Word::Closed(link.id));
        }
        for flow in self.network.cut(|flow| flow.from == node || flow.to == node) {
            self.ended(flow.from);
            if flow.from == node {
                self.out.post.send(1, flow.to, node, Word::Silent(flow.piece));
            }
        }
    }

    // --- the origin ------------------------------------------------------------------------------------------

    /// Whether a request to the origin is answered now; otherwise it is made again, or given up.
    pub(super) fn origin_answers(&mut self, request: Request) -> bool {
        if !self.weather.origin_is_away(request.to) {
            self.weather.unanswered.remove(&request);
            return true;
        }
        let since = *self.weather.unanswered.entry(request).or_insert(self.step);
        let refuses = !self.weather.alive[self.fixed.origin as usize];
        let patience = if refuses { ORIGIN_REFUSES } else { ORIGIN_IS_SILENT };
        if self.step - since >= self.fixed.steps(patience) {
            self.weather.unanswered.remove(&request);
            self.out.post.send(1, request.to, request.from, Word::NoOrigin);
        } else {
            let later = self.step + self.fixed.steps(ORIGIN_RETRY);
            self.requests.entry(later).or_default().push(request);
        }
        false
    }

    // --- what is seen ----------------------------------------------------------------------------------------

    /// Takes the villains' parts: they hold everything, as they say.
    pub(super) fn cast(&mut self) {
        for (peer, role) in &self.scenario.plan.villains {
            self.weather.roles.insert(self.fixed.supernodes + peer, *role);
            self.finished[(self.fixed.supernodes + peer) as usize] = Some(0);
            self.unfinished -= 1;
        }
    }

    /// A villain is there.
    pub(super) fn play(&mut self, node: Node) {
        let pieces = self.fixed.geometry.pieces();
        self.tell(node, |peer, _| {
            peer.have = PieceSet::full(pieces);
            peer.reveal.old_pieces(&peer.have);
            (peer.joined, peer.complete) = (true, true);
        });
        self.proven(node);
    }

    fn watch(&mut self) {
        let now = self.fixed.at(self.step);
        for hub in self.hubs.iter().filter(|hub| hub.scheduler.distrusted(now) > 0) {
            let outcasts = hub.scheduler.peers(now).filter(|peer| peer.standing == Standing::Outcast);
            self.weather.faults.outcasts.extend(outcasts.map(|peer| number(peer.node)));
        }
    }

    /// Everybody has it, nothing is to come, and the seeds have ended.
    pub(super) fn is_done_in_spite_of_all(&self) -> bool {
        let (events, begun) = (self.scenario.plan.events.len(), self.weather.begun);
        let seeds = self.peers[..self.hubs.len()].iter().flatten();
        self.unfinished == 0
            && begun == events
            && self.weather.mends.is_empty()
            && seeds.into_iter().all(|seed| seed.complete)
    }

    /// Everybody goes, and what was seen is told.
    pub(super) fn findings(mut self) -> Findings {
        let first = self.fixed.supernodes;
        let seconds = self.fixed.step.mul_f64(self.step as f64).as_secs_f64();
        let peers = first..self.fixed.origin;
        let wanting = |node: &Node| {
            let here = self.weather.alive[*node as usize] && !self.weather.roles.contains_key(node);
            here && self.finished[*node as usize].is_none()
        };
        let without =
            peers.clone().filter(wanting).map(|node| (node - first, self.members[node as usize].failures));
        let without: Vec<_> = without.collect();
        let here = (0..first).filter(|at| self.weather.alive[*at as usize]).map(|at| self.fixed.id(at));
        let owner = rendezvous::first(&TASK.0, here).and_then(|id| self.peers[number(id) as usize].as_ref());
        let seed_has_all = owner.is_some_and(|seed| seed.complete);
        let whole = self.scenario.size as f64 * (1.0 + self.scenario.overhead);
        let copies = self.network.sent[self.fixed.origin as usize] / whole;
        self.moves.clear();
        peers.for_each(|node| self.go(node));
        self.run_for(2 * IDLE, |_| false);
        let now = self.fixed.at(self.step) + FADED;
        let seeds_ended = self.peers[..first as usize].iter().flatten().all(|seed| seed.complete);
        let left = self.hubs.iter_mut().filter(|_| seeds_ended).map(|hub| {
            hub.scheduler.apply(Said::Tick, now);
            hub.scheduler.counts()
        });
        let mut found =
            Findings { without, seed_has_all, copies, seconds, left: left.collect(), ..self.weather.faults };
        for (by, about, fault) in self.out.faults {
            found.faults.entry((by.wrapping_sub(first), about.wrapping_sub(first))).or_default().push(fault);
        }
        found.barred = self.out.barred.iter().map(|(by, about)| (by - first, about - first)).collect();
        found.outcasts.iter_mut().for_each(|node| *node -= first);
        found.outcasts.dedup();
        found.blind = self.out.counts.blind;
        found
    }
}
