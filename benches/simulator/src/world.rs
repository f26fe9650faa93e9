//! Time, and everything that happens in it: who comes and goes, who is visited, what is served. One step after the other;
//! within a step the nodes' turns touch each other by letters only, so their order decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use common::piece::{PieceIndex, PieceSet};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::network::{Capacities, Network};
use crate::outcome::Outcome;
use crate::member::Peer;
use crate::post::{Bucket, Node, Post, Sorter, Word};
use crate::scenario::{Arrival, Scenario};
use crate::hub::{Desk, Hub};
use crate::visit::{Counts, Fixed, Notice, Request, SEED, Visit};

/// See `common::transport::settings`, `peer::exchange::{fetch, serve}`, `peer::engine` and `supernode::feeder`.
const IDLE: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(1900);
const QUEUE_TIMEOUT: Duration = Duration::from_secs(4);
const UPLOAD_BUDGET: u64 = 32 * 1024 * 1024;
const DIGEST_BATCH: Duration = Duration::from_millis(4);
const TICK: Duration = Duration::from_secs(1);

/// Somebody comes or goes.
#[derive(Clone, Copy, Debug)]
enum Move {
    Come(Node),
    Go(Node),
}

/// A node's uploads.
#[derive(Default)]
struct Uploads {
    active: u32,
    waiting: VecDeque<(u64, Request)>,
}

/// A run in progress.
struct World<'a> {
    scenario: &'a Scenario,
    fixed: Fixed,
    step: u64,
    peers: Vec<Option<Box<Peer>>>,
    /// What those that left keep on their disks.
    kept: BTreeMap<Node, PieceSet>,
    hub: Hub,
    network: Network,
    post: Post,
    notices: BTreeMap<u64, Vec<(Node, Notice)>>,
    moves: BTreeMap<u64, Vec<Move>>,
    log: Vec<(u32, u64)>,
    /// Requests on their way, by the step in which they arrive.
    requests: BTreeMap<u64, Vec<Request>>,
    asks: Vec<Request>,
    cancels: Vec<Request>,
    uploads: Vec<Uploads>,
    queued: BTreeMap<u64, Vec<Node>>,
    wakes: BTreeMap<u64, Vec<Node>>,
    /// The step in which each node is to be visited.
    wake: Vec<u64>,
    came: Vec<u64>,
    finished: Vec<Option<u64>>,
    returns: Vec<bool>,
    unfinished: u32,
    counts: Counts,
    last_debug: [f64; 3],
}

/// Simulates.
pub fn run(scenario: &Scenario) -> Outcome {
    let begun = Instant::now();
    let mut world = World::new(scenario);
    let most = world.fixed.steps(scenario.bound().mul_f64(scenario.patience) + Duration::from_secs(60));
    let mut sorter = Sorter::default();
    while world.unfinished > 0 && world.step < most {
        world.step += 1;
        world.one(&mut sorter);
        world.debug();
    }
    world.outcome(begun.elapsed())
}

// === impl World ===

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let (peers, step) = (scenario.peers as usize, scenario.step());
        let ways = |latency: Duration| (latency.as_secs_f64() / step.as_secs_f64()).round() as u32;
        let zones = scenario.zones.clamp(1, 1000);
        let zone = |node: usize| if node == 0 { 0 } else { ((node as u32 - 1) % zones) as u16 };
        // The origin, at the end, stands beside the seed: what comes from it crosses no zone.
        let mut zone_of: Vec<u16> = (0..=peers).map(zone).collect();
        zone_of.push(0);
        let fixed = Fixed {
            geometry: scenario.geometry(),
            base: Instant::now(),
            step,
            near: ways(scenario.latency),
            far: ways(scenario.zone_latency),
            zone_of,
            origin: scenario.peers + 1,
            rng: scenario.rng,
        };
        let mut world = Self {
            step: 0,
            peers: std::iter::repeat_with(|| None).take(peers + 1).collect(),
            kept: BTreeMap::new(),
            hub: Hub::new(scenario, &fixed),
            network: network(scenario, &fixed),
            post: Post::default(),
            notices: BTreeMap::new(),
            moves: BTreeMap::new(),
            log: Vec::new(),
            requests: BTreeMap::new(),
            asks: Vec::new(),
            cancels: Vec::new(),
            uploads: std::iter::repeat_with(Uploads::default).take(peers + 1).collect(),
            queued: BTreeMap::new(),
            wakes: BTreeMap::new(),
            wake: vec![u64::MAX; peers + 1],
            came: vec![0; peers + 1],
            finished: vec![None; peers + 1],
            returns: vec![false; peers + 1],
            unfinished: scenario.peers,
            counts: Counts::default(), last_debug: [0.0; 3],
            scenario,
            fixed,
        };
        world.plan();
        world
    }

    /// Draws who comes when, and who leaves.
    fn plan(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.scenario.rng ^ 0x5eed);
        let (bound, churn) = (self.scenario.bound(), self.scenario.churn);
        for node in 1..=self.scenario.peers {
            let at = match self.scenario.arrival {
                Arrival::Burst(span) => span.mul_f64(rng.random()),
                Arrival::Rolling(span) => span.mul_f64(f64::from(node - 1) / f64::from(self.scenario.peers)),
            };
            self.moved(at, Move::Come(node));
            if rng.random::<f64>() < churn.share {
                let leaves = at + bound.mul_f64(rng.random());
                self.moved(leaves, Move::Go(node));
                if let Some(away) = churn.back_after {
                    self.returns[node as usize] = true;
                    self.moved(leaves + away, Move::Come(node));
                }
            }
        }
    }

    fn moved(&mut self, at: Duration, what: Move) {
        self.moves.entry(self.fixed.steps(at)).or_default().push(what);
    }

    fn one(&mut self, sorter: &mut Sorter) {
        let bucket = self.post.next();
        sorter.sort(&bucket.letters, self.peers.len());
        for what in self.moves.remove(&self.step).unwrap_or_default() {
            match what {
                Move::Come(node) => self.come(node),
                Move::Go(node) => self.go(node),
            }
        }
        self.control();
        for node in self.wakes.remove(&self.step).unwrap_or_default() {
            // Later ones are marked by their letters; a wake that was moved forward is void.
            if self.wake[node as usize] == self.step {
                self.wake[node as usize] = 0;
            }
        }
        for node in 0..self.peers.len() as u32 {
            let letters = sorter.of(node);
            if !letters.is_empty() || self.wake[node as usize] == 0 {
                self.visit(node, &bucket, letters);
            }
        }
        self.post.give_back(bucket);
        self.withdraw();
        self.serve();
        self.carry();
    }

    /// What the supernode hears, and its clock.
    fn control(&mut self) {
        let now = self.fixed.at(self.step);
        let (digests, tick) = (self.log.len(), self.fixed.steps(TICK));
        let mut desk = Desk { fixed: &self.fixed, now, post: &mut self.post, digests };
        for (node, notice) in self.notices.remove(&self.step).unwrap_or_default() {
            self.hub.hear(node, notice, self.peers[node as usize].as_deref_mut(), &mut desk);
        }
        if self.step.is_multiple_of(tick) {
            self.hub.tick(&mut desk);
        }
    }

    /// A node's turn.
    fn visit(&mut self, node: Node, bucket: &Bucket, letters: &[u32]) {
        let Some(mut peer) = self.peers[node as usize].take() else {
            self.wake[node as usize] = u64::MAX;
            letters.iter().for_each(|at| self.bounce(&bucket.letters[*at as usize].word, node, bucket, *at));
            return;
        };
        let mut visit = Visit {
            fixed: &self.fixed,
            now: self.fixed.at(self.step),
            step: self.step,
            log: &self.log,
            post: &mut self.post,
            asks: &mut self.asks,
            cancels: &mut self.cancels,
            notices: &mut self.notices,
            counts: &mut self.counts,
        };
        let knew = peer.joined;
        letters.iter().for_each(|at| peer.hear(&bucket.letters[*at as usize], bucket, &mut visit));
        let wake = peer.pump(&mut visit);
        self.wake[node as usize] = wake.unwrap_or(u64::MAX);
        if let Some(at) = wake {
            self.wakes.entry(at).or_default().push(node);
        }
        if node == SEED {
            self.heard_from_seed(&mut peer, knew);
        } else if peer.complete && self.finished[node as usize].is_none() {
            self.finished[node as usize] = Some(self.step);
            self.unfinished -= 1;
        }
        peer.fresh.clear();
        self.peers[node as usize] = Some(peer);
    }

    /// What the seed's session tells the scheduler and the feeders.
    fn heard_from_seed(&mut self, seed: &mut Peer, knew: bool) {
        let now = self.fixed.at(self.step);
        let new = seed.fresh.len();
        let digests = self.log.len();
        let mut desk = Desk { fixed: &self.fixed, now, post: &mut self.post, digests };
        if seed.joined && !knew {
            self.hub.length_known(&mut desk);
        }
        if new == 0 {
            return;
        }
        self.hub.seed_got(new, seed.have.count(), &mut desk);
        let at = self.step + self.fixed.steps(DIGEST_BATCH);
        self.log.extend(seed.fresh.iter().map(|piece| (*piece, at)));
        if seed.complete {
            let here = (1..).zip(&self.peers[1..]).filter(|(_, peer)| peer.is_some()).map(|(node, _)| node);
            self.hub.seed_proven(here, &mut desk);
        }
    }

    /// A letter to somebody who is not there.
    fn bounce(&mut self, word: &Word, node: Node, bucket: &Bucket, at: u32) {
        let from = bucket.letters[at as usize].from;
        let (dial, idle) = (self.fixed.steps(DIAL_TIMEOUT) as u32, self.fixed.steps(IDLE) as u32);
        match word {
            Word::Open(_) => self.post.send(dial, from, node, Word::NoLink),
            Word::Accepted(link) => self.post.send(idle, from, node, Word::Closed(*link)),
            _ => {}
        }
    }

    fn come(&mut self, node: Node) {
        let pieces = self.fixed.geometry.pieces();
        let kept = self.kept.remove(&node).unwrap_or_else(|| PieceSet::new(pieces));
        if kept.is_empty() {
            self.came[node as usize] = self.step;
        }
        let first = self.peers[SEED as usize].is_none();
        for (node, kept) in [(SEED, PieceSet::new(pieces)), (node, kept)].into_iter().skip(usize::from(!first)) {
            let mut visit = Visit {
                fixed: &self.fixed,
                now: self.fixed.at(self.step),
                step: self.step,
                log: &self.log,
                post: &mut self.post,
                asks: &mut self.asks,
                cancels: &mut self.cancels,
                notices: &mut self.notices,
                counts: &mut self.counts,
            };
            let mut peer = Peer::new(node, kept, &visit);
            if node == SEED {
                peer.go_to_origin(&mut visit);
                // The origin's first answer has the length.
                visit.post.send(1 + 2 * visit.fixed.near, SEED, SEED, Word::Joined);
            } else {
                visit.notice(node, Notice::Join);
            }
            self.peers[node as usize] = Some(Box::new(peer));
        }
        self.hub.sessions[node as usize] += 1;
    }

    /// Somebody goes without a word.
    fn go(&mut self, node: Node) {
        let Some(peer) = self.peers[node as usize].take() else { return };
        let (idle, silence) = (self.fixed.steps(IDLE) as u32, self.fixed.steps(SILENCE) as u32);
        if self.finished[node as usize].is_none() && !self.returns[node as usize] {
            self.unfinished -= 1;
        }
        for link in &peer.links {
            self.post.send(idle, link.node, node, Word::Closed(link.id));
        }
        for flow in self.network.cut(|flow| flow.from == node || flow.to == node) {
            self.ended(flow.from);
            if flow.from == node && flow.to != node {
                self.post.send(silence, flow.to, node, Word::Silent(flow.piece));
            }
        }
        for (_, request) in std::mem::take(&mut self.uploads[node as usize]).waiting {
            self.post.send(silence, request.to, node, Word::Silent(request.piece));
        }
        let session = self.hub.sessions[node as usize];
        let noticed = self.step + self.fixed.steps(IDLE);
        self.notices.entry(noticed).or_default().push((node, Notice::Down(session)));
        if self.returns[node as usize] {
            self.kept.insert(node, peer.have);
        } else {
            self.hub.listeners -= u32::from(peer.joined && !peer.complete);
        }
    }

    /// Takes requests back.
    fn withdraw(&mut self) {
        if self.cancels.is_empty() {
            return;
        }
        self.cancels.sort_unstable();
        let cancelled = |request: &Request| self.cancels.binary_search(request).is_ok();
        let is_cut = |flow: &crate::network::Flow| {
            cancelled(&Request { from: flow.from, to: flow.to, piece: flow.piece })
        };
        let cut = self.network.cut(is_cut);
        for node in self.cancels.iter().map(|request| request.from).filter(|node| *node != self.fixed.origin) {
            self.uploads[node as usize].waiting.retain(|(_, request)| !cancelled(request));
        }
        self.requests.values_mut().for_each(|coming| coming.retain(|request| !cancelled(request)));
        self.cancels.clear();
        cut.into_iter().for_each(|flow| self.ended(flow.from));
    }

    /// Requests arrive at whom they were sent to.
    fn serve(&mut self) {
        for ask in std::mem::take(&mut self.asks) {
            let far = self.fixed.delay(ask.to, ask.from);
            self.requests.entry(self.step + u64::from(far)).or_default().push(ask);
        }
        for node in self.queued.remove(&self.step).unwrap_or_default() {
            let waiting = &mut self.uploads[node as usize].waiting;
            while let Some((_, late)) = waiting.pop_front_if(|(deadline, _)| *deadline <= self.step) {
                self.post.send(self.fixed.delay(node, late.to), late.to, node, Word::Busy(late.piece));
            }
        }
        for request in self.requests.remove(&self.step).unwrap_or_default() {
            let Request { from, to, piece } = request;
            if from == self.fixed.origin {
                self.start(request);
                continue;
            }
            let Some(peer) = &self.peers[from as usize] else {
                self.post.send(self.fixed.steps(SILENCE) as u32, to, from, Word::Silent(piece));
                continue;
            };
            let most = self.scenario.uploads.unwrap_or((UPLOAD_BUDGET / u64::from(self.fixed.geometry.piece_length())) as u32);
            let most = if from == SEED { self.scenario.seed_uploads.unwrap_or(most) } else { most };
            let uploads = &mut self.uploads[from as usize];
            if !peer.have.contains(PieceIndex(piece)) {
                self.post.send(self.fixed.delay(from, to), to, from, Word::NotThere(piece));
            } else if uploads.active < most {
                uploads.active += 1;
                self.start(request);
            } else {
                let deadline = self.step + self.fixed.steps(Duration::from_secs_f64(crate::knob("QT", 1.0)));
                uploads.waiting.push_back((deadline, request));
                self.queued.entry(deadline).or_default().push(from);
            }
        }
    }

    fn start(&mut self, request: Request) {
        let length = self.fixed.geometry.range(PieceIndex(request.piece)).len() as f64;
        let bytes = length * (1.0 + self.scenario.overhead);
        self.network.start(request.from, request.to, request.piece, bytes);
    }

    /// An upload of a node ended: the next that waits begins.
    fn ended(&mut self, from: Node) {
        let Some(uploads) = self.uploads.get_mut(from as usize) else { return };
        uploads.active = uploads.active.saturating_sub(1);
        if let Some((_, request)) = uploads.waiting.pop_front() {
            uploads.active += 1;
            self.start(request);
        }
    }

    /// Bytes move.
    fn carry(&mut self) {
        let owed = &mut self.hub.owed;
        let room = self.scenario.seed_rate as f64 / 8.0 * self.fixed.step.as_secs_f64();
        let spent = (owed.0.min(room), owed.1.min(room));
        *owed = (owed.0 - spent.0, owed.1 - spent.1);
        let spent = if self.scenario.control_takes_room { spent } else { (0.0, 0.0) };
        for flow in self.network.advance(spent) {
            let delay = 1 + self.fixed.delay(flow.from, flow.to);
            self.post.send(delay, flow.to, flow.from, Word::Piece(flow.piece));
            self.ended(flow.from);
        }
    }

    fn debug(&mut self) {
        if std::env::var_os("DBG").is_none() { return; }
        let each = self.fixed.steps(Duration::from_millis(500));
        if !self.step.is_multiple_of(each) { return; }
        let seed = self.network.sent[0]; let n = self.network.sent.len();
        let all: f64 = self.network.sent[1..n-1].iter().sum();
        let orig = self.network.sent[n-1];
        let mut helds: Vec<u32> = self.peers[1..].iter().flatten().map(|p| p.have.count()).collect(); helds.sort();
        let union = { let mut u = PieceSet::new(self.fixed.geometry.pieces()); for p in self.peers[1..].iter().flatten() { for i in p.have.iter() { u.insert(i); } } u.count() };
        let dt = self.fixed.step.as_secs_f64() * each as f64;
        let cap = self.scenario.seed_rate as f64 / 8.0 * dt;
        let (f0, f1): (usize, usize) = self.network.debug();
        let cur = [seed, all, orig];
        let last = self.last_debug; self.last_debug = cur;
        eprintln!("t {:6.2} origin {:.2} seed {:.2} peers {:.2} | seedhas {:4} union {:4} held min {:4} med {:4} max {:4} | flows seed {} all {} {}", self.step as f64 * self.fixed.step.as_secs_f64(),
            (orig-last[2])/cap, (seed-last[0])/cap, (all-last[1])/cap/(self.scenario.peers as f64), self.peers[0].as_ref().map_or(0, |p| p.have.count()), union, helds.first().unwrap_or(&0), helds.get(helds.len()/2).unwrap_or(&0), helds.last().unwrap_or(&0), f0, f1, self.network.debug2());
    }

    fn outcome(self, wall: Duration) -> Outcome {
        let blob = self.scenario.size as f64;
        let pieces = blob * (1.0 + self.scenario.overhead);
        let span = |steps: u64| self.fixed.step.mul_f64(steps as f64);
        let pairs = self.finished.iter().zip(&self.came);
        let ended: Vec<(u64, u64)> = pairs.filter_map(|(end, came)| Some(((*end)?, *came))).collect();
        let mut times: Vec<_> = ended.iter().map(|(end, came)| span(end - came)).collect();
        let mut finished_at: Vec<_> = ended.iter().map(|(end, _)| span(*end)).collect();
        times.sort_unstable();
        finished_at.sort_unstable();
        let sent = &self.network.sent;
        let by_all: f64 = sent[..sent.len() - 1].iter().sum();
        Outcome {
            bound: self.scenario.bound(),
            unfinished: self.unfinished,
            seed_factor: sent[SEED as usize] / pieces,
            origin_factor: sent[self.fixed.origin as usize] / pieces,
            zone_factors: self.network.crossed.iter().map(|bytes| bytes / pieces).collect(),
            sent_factor: by_all / pieces / (times.len() as f64).max(1.0),
            hedges: self.counts.hedges,
            fallbacks: self.counts.fallbacks,
            cries: self.counts.cries,
            control_factors: (self.hub.said / blob, self.hub.heard / blob),
            most_links: self.counts.most_links,
            events: self.hub.events,
            commands: self.hub.commands,
            pieces: self.counts.pieces,
            tells: self.counts.tells,
            scheduler_time: self.hub.time,
            times,
            finished_at,
            wall,
        }
    }
}

fn network(scenario: &Scenario, fixed: &Fixed) -> Network {
    let step = |bits: u64| bits as f64 / 8.0 * fixed.step.as_secs_f64();
    let lines = |peers: u64| {
        let mut lines = vec![step(peers); scenario.peers as usize + 2];
        lines[SEED as usize] = step(scenario.seed_rate);
        lines[fixed.origin as usize] = step(scenario.origin_rate);
        lines
    };
    Network::new(Capacities {
        up: lines(scenario.up),
        down: lines(scenario.down),
        zone: scenario.zone_rate.map(step),
        zone_of: fixed.zone_of.clone(),
    })
}
