//! Time, and everything that happens in it: who comes and goes, who is visited, what is served. One step after the other;
//! within a step the nodes' turns touch each other by letters only, so their order decides nothing.

mod moves;
mod report;
mod traffic;
mod turns;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::piece::PieceSet;

use crate::hub::{Desk, Hub};
use crate::member::Peer;
use crate::network::Network;
use crate::outcome::Outcome;
use crate::post::{Node, Sorter};
use crate::scenario::Scenario;
use crate::visit::{Fixed, Notice, Out, Request, SEED, Visit};
use moves::Move;
use traffic::Uploads;

/// See `supernode::bulletin`, and `supernode::daemon` for the tick.
const DIGEST_BATCH: Duration = Duration::from_millis(4);
const DIGEST_BATCH_EACH: Duration = Duration::from_micros(50);
const LONGEST_DIGEST_BATCH: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_secs(1);

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
    out: Out,
    notices: BTreeMap<u64, Vec<(Node, Notice)>>,
    moves: BTreeMap<u64, Vec<Move>>,
    log: Vec<(u32, u64)>,
    /// When the batch of digests is posted that is gathered now, or was last.
    posted: u64,
    /// Requests on their way, by the step in which they arrive.
    requests: BTreeMap<u64, Vec<Request>>,
    uploads: Vec<Uploads>,
    queued: BTreeMap<u64, Vec<Node>>,
    /// The step in which each node is to be visited.
    wake: Vec<u64>,
    came: Vec<u64>,
    finished: Vec<Option<u64>>,
    returns: Vec<bool>,
    unfinished: u32,
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
            network: traffic::network(scenario, &fixed),
            out: Out::default(),
            notices: BTreeMap::new(),
            moves: BTreeMap::new(),
            log: Vec::new(),
            posted: 0,
            requests: BTreeMap::new(),
            uploads: std::iter::repeat_with(Uploads::default).take(peers + 1).collect(),
            queued: BTreeMap::new(),
            wake: vec![u64::MAX; peers + 1],
            came: vec![0; peers + 1],
            finished: vec![None; peers + 1],
            returns: vec![false; peers + 1],
            unfinished: scenario.peers,
            scenario,
            fixed,
        };
        world.plan();
        world
    }

    fn one(&mut self, sorter: &mut Sorter) {
        let bucket = self.out.post.next();
        sorter.sort(&bucket.letters, self.peers.len());
        for what in self.moves.remove(&self.step).unwrap_or_default() {
            self.come_or_go(what);
        }
        self.control();
        self.turns(&bucket, sorter);
        self.out.post.give_back(bucket);
        self.heard_from_seed();
        for (at, node, notice) in self.out.notices.drain(..) {
            self.notices.entry(at).or_default().push((node, notice));
        }
        self.withdraw();
        self.serve();
        self.carry();
    }

    /// What the supernode hears, and its clock.
    fn control(&mut self) {
        let now = self.fixed.at(self.step);
        let (digests, tick) = (self.log.len(), self.fixed.steps(TICK));
        let post = &mut self.out.post;
        let mut desk = Desk { fixed: &self.fixed, now, post, digests };
        for (node, notice) in self.notices.remove(&self.step).unwrap_or_default() {
            self.hub.hear(node, notice, self.peers[node as usize].as_deref_mut(), &mut desk);
        }
        if self.step.is_multiple_of(tick) {
            self.hub.tick(&mut desk);
        }
    }

    /// What a node may look at and touch in this step.
    fn turn(&mut self) -> Visit<'_> {
        let now = self.fixed.at(self.step);
        Visit { fixed: &self.fixed, now, step: self.step, log: &self.log, out: &mut self.out }
    }

    /// What the seed's session tells the scheduler and the feeders.
    fn heard_from_seed(&mut self) {
        let now = self.fixed.at(self.step);
        let Some(seed) = &mut self.peers[SEED as usize] else { return };
        let (new, digests) = (seed.fresh.len(), self.log.len());
        let post = &mut self.out.post;
        let mut desk = Desk { fixed: &self.fixed, now, post, digests };
        if seed.joined && !self.hub.knows_length() {
            self.hub.length_known(&mut desk);
        }
        if new == 0 {
            return;
        }
        let first = self.posted <= self.step;
        if first {
            let pause = DIGEST_BATCH + DIGEST_BATCH_EACH * self.hub.listeners;
            self.posted = self.step + self.fixed.steps(pause.min(LONGEST_DIGEST_BATCH));
        }
        self.hub.seed_got(new, first, seed.have.count(), &mut desk);
        self.log.extend(seed.fresh.drain(..).map(|piece| (piece, self.posted)));
        if seed.complete {
            let here = (1..).zip(&self.peers[1..]).filter(|(_, peer)| peer.is_some()).map(|(node, _)| node);
            self.hub.seed_proven(here, (self.posted - self.step) as u32, &mut desk);
        }
    }
}
