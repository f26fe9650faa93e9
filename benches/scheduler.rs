//! How many events a second the scheduler takes, alone on one core, and how much memory it needs, against the figures
//! that one supernode needs for its swarm. Run by `cargo bench --bench scheduler`.
//!
//! Time is the thread's CPU time, so that a busy machine weighs little, unless the core's other hardware thread is busy:
//! that can cost nearly half. What is printed are medians over rounds, each with a scheduler of its own. Memory is the growth of the resident set (`/proc/self/statm`) while the largest swarm
//! comes up, before anything else has run in the process: what the allocator wastes counts, too.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, reason = "it talks to people")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use common::wire::swarm::Fault;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use supernode::scheduler::{Event, Member, Scheduler, Settings};

/// Events a second that are asked for, of every kind, with 10,000 peers in one swarm.
const NEEDED: f64 = 200_000.0;
/// Bytes that a peer and its one task may take.
const MEMORY: f64 = 4096.0;
const TASK: TaskId = TaskId([0; 32]);
const OTHER: TaskId = TaskId([1; 32]);
const PIECES: u32 = 1000;
/// Longer than a peer waits between two cries for parents.
const LATER: Duration = Duration::from_secs(3);
/// Longer than a small fault is remembered.
const FORGIVEN: Duration = Duration::from_secs(300);

/// Measures the scheduler.
#[derive(Parser, Debug)]
struct Options {
    /// Sizes of the swarm.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    peers: Vec<u32>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A scheduler with a cluster around it.
struct Cluster {
    scheduler: Scheduler,
    rng: SmallRng,
    peers: Vec<NodeId>,
    now: Instant,
}

/// The rate of one kind of event in one round, and how many commands came of it.
struct Rate {
    what: &'static str,
    rate: f64,
    commands: usize,
}

fn main() {
    let options = Options::parse();
    let most = options.peers.iter().copied().max().unwrap();
    let memory = memory(most);
    let mut rows = Vec::new();
    for &peers in &options.peers {
        let rounds: Vec<Vec<Rate>> = (0..options.rounds).map(|round| round_of(peers, round as u64)).collect();
        for row in 0..rounds[0].len() {
            let mut rates: Vec<f64> = rounds.iter().map(|round| round[row].rate).collect();
            rates.sort_by(f64::total_cmp);
            let Rate { what, commands, .. } = rounds[0][row];
            rows.push((peers, Rate { what, rate: rates[rates.len() / 2], commands }));
        }
    }
    if options.json {
        let events = rows.iter().map(|(peers, row)| {
            serde_json::json!({ "peers": peers, "events": row.what, "a_second": row.rate, "target": NEEDED })
        });
        let events: Vec<_> = events.collect();
        let memory = serde_json::json!({ "peers": most, "bytes": memory, "target": MEMORY });
        println!("{}", serde_json::json!({ "bench": "scheduler", "events": events, "memory": memory }));
        return;
    }
    println!("{:>7} {:<9} {:>12} {:>6} {:>10}", "peers", "events", "a second", "ratio", "commands");
    for (peers, Rate { what, rate, commands }) in rows {
        println!("{peers:>7} {what:<9} {rate:>12.0} {:>6.2} {commands:>10}", rate / NEEDED);
    }
    println!("{most:>7} bytes a peer and task: {memory:.0} of {MEMORY}, {:.2}", memory / MEMORY);
}

/// Bytes that the scheduler takes for each of so many peers in one swarm.
fn memory(peers: u32) -> f64 {
    let before = resident();
    let mut cluster = Cluster::new(peers, 0);
    let ids = (peers as usize * size_of::<NodeId>()) as u64;
    cluster.come();
    cluster.once(Event::SeedMeta { task: TASK, pieces: PIECES });
    cluster.join("join");
    (resident() - before - ids) as f64 / f64::from(peers)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// All kinds of events, in the order of two swarms' lives: one whose length is known when its peers join and which
/// finishes, and one that is joined before, and whose peers go one after another while they still want it.
fn round_of(peers: u32, seed: u64) -> Vec<Rate> {
    let mut rates = long_life(Cluster::new(peers, seed));
    rates.extend(short_life(Cluster::new(peers, seed)));
    rates
}

fn long_life(mut cluster: Cluster) -> Vec<Rate> {
    let nodes = cluster.peers.clone();
    let mut rates = vec![cluster.come()];
    cluster.once(Event::SeedMeta { task: TASK, pieces: PIECES });
    rates.push(cluster.join("join"));
    // What every join brings with it: the seed's state, in case that the swarm was forgotten.
    rates.push(cluster.each("seed", |_, _| Event::SeedMeta { task: TASK, pieces: PIECES }));
    rates.push(cluster.each("progress", |node, _| Event::Progress { task: TASK, node, held: 100 }));
    cluster.now += LATER;
    rates.push(cluster.each("more", |node, _| Event::MoreParents { task: TASK, node }));
    rates.push(cluster.each("mixed", |_, rng| {
        let node = nodes[rng.random_range(0..nodes.len())];
        match rng.random_range(0..16) {
            0 => Event::Leave { task: TASK, node },
            1 => Event::Join { task: TASK, node, held: 0 },
            2 => Event::MoreParents { task: TASK, node },
            _ => Event::Progress { task: TASK, node, held: rng.random_range(0..PIECES) },
        }
    }));
    rates.push(cluster.each("blame", |by, rng| {
        let about = nodes[rng.random_range(0..nodes.len())];
        Event::Blame { task: TASK, by, about, fault: Fault::Silent }
    }));
    cluster.now += FORGIVEN;
    cluster.once(Event::Tick);
    rates.push(cluster.each("finish", |node, _| Event::Progress { task: TASK, node, held: PIECES }));
    let (half, _) = nodes.split_at(nodes.len() / 2);
    let leave = |&node: &NodeId| Event::Leave { task: TASK, node };
    rates.push(cluster.take("leave", half.iter().map(leave).collect()));
    let join = |&node: &NodeId| Event::Join { task: TASK, node, held: 0 };
    rates.push(cluster.take("late join", half.iter().map(join).collect()));
    rates.push(cluster.each("hold", |node, _| Event::Hold { task: OTHER, node, pieces: PIECES }));
    rates
}

fn short_life(mut cluster: Cluster) -> Vec<Rate> {
    cluster.come();
    let join = |&node: &NodeId| Event::Join { task: TASK, node, held: 0 };
    let mut events: Vec<Event> = cluster.peers.iter().map(join).collect();
    events.push(Event::SeedMeta { task: TASK, pieces: PIECES });
    let mut rates = vec![cluster.take("cold join", events)];
    rates.push(cluster.join("rejoin"));
    rates.push(cluster.each("down", |node, _| Event::PeerDown(node)));
    rates
}

// === impl Cluster ===

impl Cluster {
    fn new(peers: u32, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let peers = (0..peers).map(|_| NodeId(rng.random())).collect();
        let scheduler = Scheduler::new(contact(NodeId([255; 16])), Settings::default(), seed);
        Self { scheduler, rng, peers, now: Instant::now() }
    }

    /// Two peers a machine, three zones.
    fn come(&mut self) -> Rate {
        let member = |(number, &node): (usize, &NodeId)| {
            let zone = format!("z{}", number % 3);
            let labels = Labels { zone, rack: String::new(), host: format!("h{}", number / 2) };
            Event::PeerUp(Member { contact: contact(node), labels, slots: 8 })
        };
        let events = self.peers.iter().enumerate().map(member).collect();
        self.take("up", events)
    }

    fn join(&mut self, what: &'static str) -> Rate {
        self.each(what, |node, _| Event::Join { task: TASK, node, held: 0 })
    }

    fn once(&mut self, event: Event) {
        self.scheduler.apply(event, self.now);
    }

    /// One event a peer.
    fn each(&mut self, what: &'static str, mut next: impl FnMut(NodeId, &mut SmallRng) -> Event) -> Rate {
        let rng = &mut self.rng;
        let events = self.peers.iter().map(|&node| next(node, rng)).collect();
        self.take(what, events)
    }

    fn take(&mut self, what: &'static str, events: Vec<Event>) -> Rate {
        let count = events.len() as f64;
        let start = thread_time();
        let commands = events.into_iter().map(|event| self.scheduler.apply(event, self.now).len()).sum();
        Rate { what, rate: count / (thread_time() - start).as_secs_f64(), commands }
    }
}

fn contact(id: NodeId) -> Contact {
    Contact { id, address: SocketAddr::from(([0, 0, 0, 0], 7710)) }
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}
