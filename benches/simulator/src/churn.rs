//! Days of comings and goings, to see that nothing piles up: peers come, pull, blame each other, evict and go, and
//! supernodes are started anew, for as many virtual hours as are asked for. The real [`Scheduler`]s, [`Fleet`]s,
//! [`Recollection`]s and [`Deeds`] keep their books; pieces are not moved, a download is a time that it takes. Used by
//! this crate's tests and by `cargo bench --bench simulate -- --churn-hours 24`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::digest::Digest;
use common::identity::Seal;
use common::node::{Contact, Labels, NodeId};
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use common::wire::swarm::{Fault, Testimony};
use peer::coordinator::fleet::{Command, Fleet};
use peer::trust::Deeds;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use supernode::scheduler::{Counts, Event, Member, Scheduler, Settings};
use supernode::testimony::Recollection;

/// Peers, some of which are away at any time.
pub const PEERS: u32 = 40;
/// Tasks that a peer keeps before it evicts the oldest, and a seed.
pub const KEPT: usize = 8;
const SEED_KEEPS: usize = 64;
/// Supernodes.
const SUPERNODES: u32 = 2;
/// Different tasks over all the time: each is seldom pulled again.
const TASKS: u32 = 4_000;
/// Bytes of each.
const LENGTH: u64 = 16 << 20;
/// A supernode is started anew so often, for the first time after a part of that, and is away so long; all in seconds.
const RESTART: u64 = 3600;
const FIRST: u64 = RESTART / 4;
const AWAY: u64 = 30;

/// What there is of everything at the end of an hour, over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hour {
    /// What the schedulers keep, added up.
    pub counts: Counts,
    /// Tasks and digests that peers have shown to supernodes.
    pub recalled: (usize, usize),
    /// Tasks that fleets want and hold, and those that supernodes were told of.
    pub fleets: (usize, usize, usize),
    /// Neighbours whose deeds are remembered.
    pub deeds: usize,
    /// Pulls that began in this hour.
    pub pulls: usize,
}

struct Hub {
    id: NodeId,
    scheduler: Scheduler,
    recollection: Recollection,
    /// What the seed fetches, and when that ends.
    fetching: BTreeMap<TaskId, u64>,
    has: VecDeque<TaskId>,
    /// It is away until then.
    back: u64,
}

struct Node {
    fleet: Option<Fleet>,
    deeds: Deeds,
    /// What it pulls: since when, and when that ends.
    pulls: BTreeMap<TaskId, (u64, u64)>,
    held: VecDeque<TaskId>,
    /// When it does something again.
    next: u64,
}

struct World {
    rng: SmallRng,
    start: Instant,
    second: u64,
    geometry: Geometry,
    hubs: Vec<Hub>,
    nodes: Vec<Node>,
    pulls: usize,
}

/// So many hours; gives what there was at the end of each, and after everybody had gone.
pub fn churn(hours: u64, seed: u64) -> (Vec<Hour>, Hour) {
    let mut world = World::new(seed);
    let mut seen = Vec::new();
    for hour in 1..=hours {
        while world.second < hour * 3600 {
            world.second += 1;
            world.pass();
        }
        seen.push(world.count());
        world.pulls = 0;
    }
    (seen, world.end())
}

fn id(number: u32) -> NodeId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn contact(id: NodeId) -> Contact {
    Contact { id, address: SocketAddr::from(([0, 0, 0, 0], 7710)) }
}

// === impl Hub ===

impl Hub {
    fn new(number: u32, back: u64) -> Self {
        let id = id(PEERS + number);
        Self {
            id,
            scheduler: Scheduler::new(contact(id), Settings::default(), u64::from(number)),
            recollection: Recollection::default(),
            fetching: BTreeMap::new(),
            has: VecDeque::new(),
            back,
        }
    }

    /// The seed ends what it fetches, and evicts.
    fn pass(&mut self, second: u64, now: Instant, rng: &mut SmallRng) {
        for (task, _) in self.fetching.extract_if(.., |_, ends| *ends <= second).collect::<Vec<_>>() {
            if rng.random_ratio(1, 50) {
                self.scheduler.apply(Event::SeedFailed(task), now);
                continue;
            }
            self.scheduler.apply(Event::SeedProven(task), now);
            self.has.push_back(task);
            if self.has.len() > SEED_KEEPS
                && let Some(evicted) = self.has.pop_front()
            {
                self.scheduler.apply(Event::SeedDropped(evicted), now);
            }
        }
        self.scheduler.apply(Event::Tick, now);
    }
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let node = |rng: &mut SmallRng| Node {
            fleet: None,
            deeds: Deeds::default(),
            pulls: BTreeMap::new(),
            held: VecDeque::new(),
            next: rng.random_range(1..600),
        };
        Self {
            start: Instant::now(),
            second: 0,
            geometry: Geometry::of(LENGTH).expect("invariant: a length that a geometry allows"),
            hubs: (0..SUPERNODES).map(|number| Hub::new(number, 0)).collect(),
            nodes: (0..PEERS).map(|_| node(&mut rng)).collect(),
            pulls: 0,
            rng,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.second)
    }

    /// A second.
    fn pass(&mut self) {
        self.restart();
        let (second, now) = (self.second, self.now());
        let up = self.hubs.iter_mut().filter(|hub| hub.back <= second);
        up.for_each(|hub| hub.pass(second, now, &mut self.rng));
        for node in 0..PEERS {
            if self.nodes[node as usize].next <= second {
                self.nodes[node as usize].next = second + self.rng.random_range(2..40);
                self.act(node);
            }
            self.advance(node);
            let wake = self.nodes[node as usize].fleet.as_ref().and_then(Fleet::wake);
            if wake.is_some_and(|at| at <= now) {
                self.with_fleet(node, |fleet| fleet.tick(now));
            }
        }
    }

    /// Now this supernode is started anew, now that: it knows nobody then.
    fn restart(&mut self) {
        let (second, now) = (self.second, self.now());
        let turn = (second / RESTART) as u32 % SUPERNODES;
        if second % RESTART == FIRST {
            let gone = self.hubs[turn as usize].id;
            self.hubs[turn as usize] = Hub::new(turn, second + AWAY);
            (0..PEERS).for_each(|node| self.with_fleet(node, |fleet| fleet.down(gone, now)));
        } else if second % RESTART == FIRST + AWAY {
            (0..PEERS).for_each(|node| self.connect(node, turn as usize));
        }
    }

    fn connect(&mut self, node: u32, at: usize) {
        let (now, hub) = (self.now(), &mut self.hubs[at]);
        if hub.back > self.second || self.nodes[node as usize].fleet.is_none() {
            return;
        }
        let labels = Labels { zone: format!("z{}", node % 3), host: format!("h{node}"), ..Labels::default() };
        hub.scheduler.apply(Event::PeerUp(Member { contact: contact(id(node)), labels, slots: 8 }), now);
        let supernode = hub.id;
        self.with_fleet(node, |fleet| fleet.up(supernode, Vec::new(), now));
    }

    /// A peer does something.
    fn act(&mut self, node: u32) {
        let now = self.now();
        let state = &mut self.nodes[node as usize];
        if state.fleet.is_none() {
            let mut fleet = Fleet::new(now, SmallRng::seed_from_u64(u64::from(node) ^ self.second));
            let held = state.held.iter().map(|task| (*task, self.geometry)).collect();
            fleet.holds(held);
            state.fleet = Some(fleet);
            return (0..self.hubs.len()).for_each(|at| self.connect(node, at));
        }
        match self.rng.random_range(0..100) {
            0..4 => self.vanish(node),
            4..20 => self.blame(node),
            20..25 => self.give_up(node),
            _ => self.pull(node),
        }
    }

    fn vanish(&mut self, node: u32) {
        let (now, away) = (self.now(), self.rng.random_range(30..900));
        let state = &mut self.nodes[node as usize];
        (state.fleet, state.deeds, state.next) = (None, Deeds::default(), self.second + away);
        state.pulls.clear();
        self.hubs.iter_mut().for_each(|hub| drop(hub.scheduler.apply(Event::PeerDown(id(node)), now)));
    }

    /// Most complaints are of nothing much; every eighth node is a liar, and they are found out.
    fn blame(&mut self, node: u32) {
        let (about, now) = (self.rng.random_range(0..PEERS), self.now());
        let fault = match self.rng.random_range(0..6) {
            _ if about % 8 == 0 => Fault::WrongBytes,
            0 => Fault::FalseClaim,
            1..4 => Fault::Silent,
            _ => Fault::Slow,
        };
        let state = &mut self.nodes[node as usize];
        state.deeds.note(id(about), fault, now);
        let Some((task, _)) = state.pulls.first_key_value().map(|(task, times)| (*task, *times)) else {
            return;
        };
        let place = state.fleet.as_ref().and_then(|fleet| fleet.place(task));
        if let Some(at) = place {
            self.hear(at, Event::Blame { task, by: id(node), about: id(about), fault });
            self.hear(at, Event::MoreParents { task, node: id(node) });
        }
    }

    fn give_up(&mut self, node: u32) {
        if let Some((task, _)) = self.nodes[node as usize].pulls.pop_first() {
            self.with_fleet(node, |fleet| fleet.unwant(task).into_iter().collect());
        }
    }

    fn pull(&mut self, node: u32) {
        // What is new is pulled by many at about the same time.
        let newest = (self.second / 60) as u32;
        let number = (newest + self.rng.random_range(0..20)) % TASKS;
        let task = TaskId(Digest::of(&number.to_be_bytes()).0);
        let (now, takes) = (self.now(), self.rng.random_range(2..90));
        let state = &mut self.nodes[node as usize];
        if state.held.contains(&task) || state.pulls.contains_key(&task) {
            return;
        }
        state.pulls.insert(task, (self.second, self.second + takes));
        self.pulls += 1;
        self.with_fleet(node, |fleet| fleet.want(task, now));
    }

    /// A peer's downloads get on, and end.
    fn advance(&mut self, node: u32) {
        let (second, now, geometry) = (self.second, self.now(), self.geometry);
        let state = &mut self.nodes[node as usize];
        let done: Vec<TaskId> =
            state.pulls.extract_if(.., |_, (_, ends)| *ends <= second).map(|(task, _)| task).collect();
        let half = |(_, (begun, ends)): &(&TaskId, &(u64, u64))| (*begun + *ends) / 2 == second;
        let half: Vec<TaskId> = state.pulls.iter().filter(half).map(|(task, _)| *task).collect();
        for task in half {
            if let Some(at) = self.nodes[node as usize].fleet.as_ref().and_then(|fleet| fleet.place(task)) {
                self.hear(at, Event::Progress { task, node: id(node), held: geometry.pieces() / 2 });
            }
        }
        for task in done {
            self.with_fleet(node, |fleet| fleet.proven(task, geometry, now).into_iter().collect());
            let held = &mut self.nodes[node as usize].held;
            held.push_back(task);
            if held.len() > KEPT {
                held.pop_front();
                let left = held.iter().map(|task| (*task, geometry)).collect();
                self.with_fleet(node, |fleet| fleet.holds(left));
            }
        }
    }

    fn hear(&mut self, at: NodeId, event: Event) {
        let now = self.now();
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.id == at) {
            hub.scheduler.apply(event, now);
        }
    }

    fn with_fleet(&mut self, node: u32, ask: impl FnOnce(&mut Fleet) -> Vec<Command>) {
        let Some(fleet) = &mut self.nodes[node as usize].fleet else { return };
        for command in ask(fleet) {
            match command {
                Command::Join { task, at } => self.join(node, task, at),
                Command::Leave { task, at } => self.hear(at, Event::Leave { task, node: id(node) }),
                Command::Hold { at, tasks } => {
                    for (task, geometry) in tasks {
                        self.hear(at, Event::Hold { task, node: id(node), pieces: geometry.pieces() });
                    }
                }
                // It is on its own: the origin gives it in the same time.
                Command::Lost(_) | Command::Alone(_) => {}
            }
        }
    }

    fn join(&mut self, node: u32, task: TaskId, at: NodeId) {
        let (second, now, geometry) = (self.second, self.now(), self.geometry);
        let begun = self.nodes[node as usize].pulls.get(&task).map_or(second, |(begun, _)| *begun);
        let takes = self.rng.random_range(1..30);
        let Some(hub) = self.hubs.iter_mut().find(|hub| hub.id == at) else { return };
        let known = ((second - begun) as u32).min(geometry.pieces());
        if known > 0 {
            // It was told these by another supernode. Seals are checked before anything is learnt.
            let digests = (0..known).map(|index| Digest::of(&index.to_be_bytes())).collect();
            let testimony = Testimony { task, geometry, first: PieceIndex(0), digests, seal: Seal([0; 32]) };
            hub.recollection.learn(&testimony, now);
        }
        hub.scheduler.apply(Event::Join { task, node: id(node), held: known / 2 }, now);
        hub.scheduler.apply(Event::SeedMeta { task, pieces: geometry.pieces() }, now);
        if hub.has.contains(&task) {
            hub.scheduler.apply(Event::SeedProven(task), now);
        } else {
            hub.fetching.entry(task).or_insert(second + takes);
        }
    }

    fn count(&self) -> Hour {
        let mut hour = Hour { pulls: self.pulls, ..Hour::default() };
        for hub in &self.hubs {
            let (counts, recalled) = (hub.scheduler.counts(), hub.recollection.counts());
            hour.counts.peers += counts.peers;
            hour.counts.listed += counts.listed;
            hour.counts.swarms += counts.swarms;
            hour.counts.lone += counts.lone;
            hour.counts.members += counts.members;
            hour.counts.seats += counts.seats;
            hour.counts.groups += counts.groups;
            hour.counts.accusations += counts.accusations;
            hour.recalled = (hour.recalled.0 + recalled.0, hour.recalled.1 + recalled.1);
        }
        for node in &self.nodes {
            let (wanted, held, told) = node.fleet.as_ref().map(Fleet::counts).unwrap_or_default();
            hour.fleets = (hour.fleets.0 + wanted, hour.fleets.1 + held, hour.fleets.2 + told);
            hour.deeds += node.deeds.records(self.now()).len();
        }
        hour
    }

    /// Everybody goes, the seeds end what they began, and what was said of anybody fades.
    fn end(mut self) -> Hour {
        (0..PEERS).for_each(|node| self.vanish(node));
        for _ in 0..60 {
            self.second += 1;
            let (second, now) = (self.second, self.now());
            self.hubs.iter_mut().for_each(|hub| hub.pass(second, now, &mut self.rng));
        }
        self.second += 3600;
        let now = self.now();
        self.hubs.iter_mut().for_each(|hub| drop(hub.scheduler.apply(Event::Tick, now)));
        Hour { pulls: 0, ..self.count() }
    }
}
