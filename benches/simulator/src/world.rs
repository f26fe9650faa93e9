//! Time, and everything that happens in it: who comes and goes, who is visited, what is served. One step after the other;
//! within a step the nodes' turns touch each other by letters only, so their order decides nothing.

mod deeds;
mod fleets;
mod moves;
mod report;
mod traffic;
mod turns;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::piece::PieceSet;
use supernode::testimony::Recollection;

use crate::faults::Findings;
use crate::hub::{Desk, Hub};
use crate::member::Peer;
use crate::network::Network;
use crate::outcome::Outcome;
use crate::post::{Node, Sorter};
use crate::scenario::Scenario;
use crate::visit::{Ends, Fixed, Notice, Out, Request, Site, Visit};
use deeds::Weather;
use fleets::Membership;
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
    /// The supernodes, what they vouch for, and what peers have shown them of others' work.
    hubs: Vec<Hub>,
    sites: Vec<Site>,
    memories: Vec<Recollection>,
    /// The peers' sessions with them.
    members: Vec<Membership>,
    weather: Weather,
    network: Network,
    out: Out,
    notices: BTreeMap<u64, Vec<(Ends, Notice)>>,
    moves: BTreeMap<u64, Vec<Move>>,
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
    world.run_for(scenario.bound().mul_f64(scenario.patience) + Duration::from_secs(60), World::is_done);
    world.outcome(begun.elapsed())
}

/// Simulates with the scenario's plan of faults, and judges what came out.
pub fn try_out(scenario: &Scenario) -> Findings {
    let mut world = World::new(scenario);
    world.run_for(scenario.plan.patience, World::is_done_in_spite_of_all);
    world.findings()
}

// === impl World ===

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let (peers, step) = (scenario.peers as usize, scenario.step());
        let seeds = scenario.supernodes.max(1);
        let nodes = peers + seeds as usize;
        let ways = |latency: Duration| (latency.as_secs_f64() / step.as_secs_f64()).round() as u32;
        let zones = scenario.zones.clamp(1, 1000);
        let zone = |node: u32| node.checked_sub(seeds).map_or(0, |peer| (peer % zones) as u16);
        // The origin, at the end, stands beside the seed: what comes from it crosses no zone.
        let mut zone_of: Vec<u16> = (0..nodes as u32).map(zone).collect();
        zone_of.push(0);
        let fixed = Fixed {
            geometry: scenario.geometry(),
            base: Instant::now(),
            step,
            near: ways(scenario.latency),
            far: ways(scenario.zone_latency),
            zone_of,
            supernodes: seeds,
            origin: nodes as Node,
            rng: scenario.rng,
        };
        let mut world = Self {
            step: 0,
            peers: std::iter::repeat_with(|| None).take(nodes).collect(),
            kept: BTreeMap::new(),
            hubs: (0..seeds).map(|me| Hub::new(me, scenario, &fixed)).collect(),
            sites: std::iter::repeat_with(Site::default).take(seeds as usize).collect(),
            memories: std::iter::repeat_with(Recollection::default).take(seeds as usize).collect(),
            members: std::iter::repeat_with(Membership::default).take(nodes).collect(),
            weather: Weather::new(&fixed),
            network: traffic::network(scenario, &fixed),
            out: Out::default(),
            notices: BTreeMap::new(),
            moves: BTreeMap::new(),
            requests: BTreeMap::new(),
            uploads: std::iter::repeat_with(Uploads::default).take(nodes).collect(),
            queued: BTreeMap::new(),
            wake: vec![u64::MAX; nodes],
            came: vec![0; nodes],
            finished: vec![None; nodes],
            returns: vec![false; nodes],
            unfinished: scenario.peers,
            scenario,
            fixed,
        };
        world.plan();
        world.cast();
        world
    }

    /// Lets time pass until somebody says that it is enough, or there is no more.
    fn run_for(&mut self, most: Duration, enough: impl Fn(&Self) -> bool) {
        let most = self.step + self.fixed.steps(most);
        let mut sorter = Sorter::default();
        while self.step < most && !enough(self) {
            self.step += 1;
            self.one(&mut sorter);
        }
    }

    fn is_done(&self) -> bool {
        self.unfinished == 0
    }

    fn one(&mut self, sorter: &mut Sorter) {
        let mut bucket = self.out.post.next();
        self.hold_up(&mut bucket);
        sorter.sort(&bucket.letters, self.peers.len());
        for what in self.moves.remove(&self.step).unwrap_or_default() {
            self.come_or_go(what);
        }
        self.blow();
        self.control();
        self.turns(&bucket, sorter);
        self.out.post.give_back(bucket);
        (0..self.fixed.supernodes).for_each(|seed| self.heard_from_seed(seed));
        for (at, ends, notice) in self.out.notices.drain(..) {
            self.notices.entry(at).or_default().push((ends, notice));
        }
        self.withdraw();
        self.serve();
        self.carry();
    }

    /// What the supernodes hear, and their clock.
    fn control(&mut self) {
        for (ends, notice) in self.notices.remove(&self.step).unwrap_or_default() {
            if !self.is_held_up(ends, notice) {
                if matches!(notice, Notice::Join) {
                    self.begin_at(ends.0, ends.1);
                }
                let Self { hubs, fixed, out, sites, step, peers, .. } = self;
                let (to, from) = (ends.0 as usize, ends.1);
                let mut desk = desk(fixed, *step, out, &sites[to]);
                hubs[to].hear(from, notice, peers[from as usize].as_deref_mut(), &mut desk);
            }
        }
        if self.step.is_multiple_of(self.fixed.steps(TICK)) {
            for at in 0..self.fixed.supernodes {
                let Self { hubs, fixed, out, sites, step, .. } = self;
                hubs[at as usize].tick(&mut desk(fixed, *step, out, &sites[at as usize]));
            }
        }
    }

    /// What a node may look at and touch in this step.
    fn turn(&mut self) -> Visit<'_> {
        let now = self.fixed.at(self.step);
        Visit { fixed: &self.fixed, now, step: self.step, sites: &self.sites, out: &mut self.out }
    }

    /// What a seed's session tells the scheduler and the feeders.
    fn heard_from_seed(&mut self, at: Node) {
        let Some(seed) = self.peers[at as usize].as_deref() else { return };
        if seed.gave_up {
            return self.seed_failed(at);
        }
        let Self { hubs, fixed, out, sites, step, peers, .. } = self;
        let (hub, site) = (&mut hubs[at as usize], &mut sites[at as usize]);
        let (others, peers) = peers.split_at_mut(fixed.supernodes as usize);
        let Some(seed) = &mut others[at as usize] else { return };
        let mut desk = desk(fixed, *step, out, site);
        if seed.joined && !hub.knows_length() {
            hub.length_known(&mut desk);
        }
        let new = seed.fresh.len();
        if new == 0 && (hub.is_proven() || !seed.complete) {
            return;
        }
        let first = site.posted <= *step;
        if first {
            let pause = DIGEST_BATCH + DIGEST_BATCH_EACH * hub.listeners;
            site.posted = *step + fixed.steps(pause.min(LONGEST_DIGEST_BATCH));
        }
        hub.seed_got(new, first, seed.have.count(), &mut desk);
        site.log.extend(seed.fresh.drain(..).map(|piece| (piece, site.posted)));
        if seed.complete {
            let here =
                (fixed.supernodes..).zip(peers).filter(|(_, peer)| peer.is_some()).map(|(node, _)| node);
            hub.seed_proven(here, (site.posted - *step) as u32, &mut desk);
        }
    }
}

/// A supernode's desk in a step.
fn desk<'a>(fixed: &'a Fixed, step: u64, out: &'a mut Out, site: &Site) -> Desk<'a> {
    Desk { fixed, now: fixed.at(step), post: &mut out.post, digests: site.log.len() }
}
