//! How fast a blob would reach many nodes: the scheduler's, the selection's and the revealing's own code in virtual time
//! (see `docs/simulation.md`), against what no swarm is faster than. Run by `cargo bench --bench simulate -- --peers 10000`;
//! with `--faults` or `--churn-hours`, what the same code does when things go wrong, and when they go on for long.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

#[path = "shared/plot.rs"]
mod plot;
#[path = "shared/units.rs"]
mod units;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use plot::{Plot, Series};
use simulator::{Arrival, Churn, Outcome, Scenario};
use supernode::scheduler::{Counts, Event, Member, Scheduler};
use units::{parse_rate, parse_size};

/// When the peers come.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Coming {
    /// All at once.
    Burst,
    /// One after another, over the time that the blob takes on one link.
    Rolling,
}

/// Simulates a swarm with the code that decides in the real one.
#[derive(Parser, Debug)]
struct Options {
    /// Number of peers.
    #[arg(long, default_value_t = 1_000)]
    peers: u32,
    /// Size of the blob, as in 64MiB.
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// Rate of each peer's link, each way, as in 50mbit.
    #[arg(long, default_value = "50mbit", value_parser = parse_rate)]
    rate: u64,
    /// Rate of the seed's link; the peers' when not given.
    #[arg(long, value_parser = parse_rate)]
    seed_rate: Option<u64>,
    /// Rate of the origin's link; the peers' when not given. A very fast one stands for a seed that has the blob already.
    #[arg(long, value_parser = parse_rate)]
    origin_rate: Option<u64>,
    /// One way between two nodes, in milliseconds; between zones it is ten times that.
    #[arg(long, default_value_t = 0.5)]
    latency: f64,
    /// Number of zones.
    #[arg(long, default_value_t = 1)]
    zones: u32,
    /// Rate of each zone's link to the others, each way; without limit when not given.
    #[arg(long, value_parser = parse_rate)]
    zone_rate: Option<u64>,
    /// Share of the peers that die at random times, in per cent.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Seconds after which those come back; never when not given.
    #[arg(long)]
    back_after: Option<f64>,
    /// When the peers come.
    #[arg(long, value_enum, default_value = "burst")]
    arrival: Coming,
    /// Decides all that is left to chance.
    #[arg(long, default_value_t = 1)]
    rng: u64,
    /// Length of a step of virtual time, in milliseconds; chosen by the number of peers when not given.
    #[arg(long)]
    step: Option<f64>,
    /// Messages between supernode and peers take room on the seed's line; they are counted anyway.
    #[arg(long)]
    control_takes_room: bool,
    /// Draws the share of peers that are done over time into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Instead: so many clusters in which things go wrong, each from its own seed; see `simulator::faults`.
    #[arg(long)]
    faults: Option<u64>,
    /// The first of those seeds.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Instead: so many hours of peers that come and go, and what is kept at the end of each.
    #[arg(long)]
    churn_hours: Option<u64>,
    /// What the scheduler takes a peer, measured before this process had anything else in memory.
    #[arg(long, hide = true)]
    footprint: Option<f64>,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

// === impl Options ===

impl Options {
    fn scenario(&self) -> Scenario {
        let mut scenario = Scenario { peers: self.peers, size: self.size, ..Scenario::default() };
        scenario = scenario.with_rate(self.rate);
        scenario.seed_rate = self.seed_rate.unwrap_or(self.rate);
        scenario.origin_rate = self.origin_rate.unwrap_or(self.rate);
        scenario.latency = Duration::from_secs_f64(self.latency / 1e3);
        scenario.zone_latency = scenario.latency * 10;
        (scenario.zones, scenario.zone_rate) = (self.zones, self.zone_rate);
        let back_after = self.back_after.map(Duration::from_secs_f64);
        scenario.churn = Churn { share: self.churn / 100.0, back_after };
        if let Coming::Rolling = self.arrival {
            let one = self.size as f64 * 8.0 / self.rate as f64;
            scenario.arrival = Arrival::Rolling(Duration::from_secs_f64(one));
        }
        scenario.rng = self.rng;
        scenario.step = self.step.map(|millis| Duration::from_secs_f64(millis / 1e3));
        scenario.control_takes_room = self.control_takes_room;
        scenario
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Bytes of memory that the scheduler takes a peer, all of them in one swarm. To be asked first, as freed memory of other
/// things would be used again.
fn footprint(peers: u32) -> f64 {
    let now = Instant::now();
    let task = TaskId([0; 32]);
    let node = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    };
    let contact = |id: NodeId| Contact { id, address: SocketAddr::from(([0, 0, 0, 0], 7710)) };
    let scenario = Scenario::default();
    let before = resident();
    let mut scheduler = Scheduler::new(contact(NodeId([255; 16])), scenario.settings, 1);
    scheduler.apply(Event::SeedMeta { task, pieces: 1024 }, now);
    for number in 0..peers {
        let labels = Labels { zone: "zone".into(), rack: "rack".into(), host: format!("host-{number}") };
        let member = Member { contact: contact(node(number)), labels, slots: scenario.slots };
        scheduler.apply(Event::PeerUp(member), now);
        scheduler.apply(Event::Join { task, node: node(number), held: 0 }, now);
    }
    (0..peers).for_each(|number| {
        scheduler.apply(Event::Progress { task, node: node(number), held: 100 }, now);
    });
    (resident() - before) as f64 / f64::from(peers)
}

/// Begins anew with huge pages: a large swarm lies all over the memory, and with small ones it takes a tenth longer.
/// Comes back where that cannot be.
fn with_huge_pages(memory: f64) {
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = Command::new(program);
    again.args(std::env::args_os().skip(1)).arg(format!("--footprint={memory}"));
    let error = again.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1").exec();
    eprintln!("without huge pages: {error}");
}

/// Breaks so many clusters; false when something did not hold.
fn break_clusters(first: u64, count: u64) -> bool {
    let begun = Instant::now();
    let (mut wrong, mut seconds) = (0, 0.0);
    for seed in first..first + count {
        let scenario = simulator::faults::draw(seed);
        let found = simulator::try_out(&scenario);
        seconds += found.seconds;
        for complaint in simulator::faults::complaints(&scenario.plan, scenario.supernodes, &found) {
            wrong += 1;
            println!("SIM_SEED={seed}: {complaint};{}", scenario.plan);
        }
    }
    let hours = seconds / 3600.0;
    println!(
        "{count} clusters, {hours:.0} virtual hours in {:.0} s: {wrong} complaints",
        begun.elapsed().as_secs_f64()
    );
    wrong == 0
}

/// Prints what is kept while peers come and go.
fn print_churn(hours: u64, seed: u64) {
    let (seen, end) = simulator::churn::churn(hours, seed);
    let row = |hour: &str, at: &simulator::churn::Hour| {
        let Counts { peers, swarms, members, seats, groups, accusations, .. } = at.counts;
        let (_, _, told) = at.fleets;
        let (deeds, pulls) = (at.deeds, at.pulls);
        print!("{hour:>5} {pulls:>6} {peers:>6} {swarms:>7} {members:>8} {seats:>6} {groups:>7}");
        println!(" {accusations:>12} {:>8} {told:>6} {deeds:>6}", at.recalled.1);
    };
    println!(" hour  pulls  peers  swarms  members  seats  groups  accusations  digests   told  deeds");
    (1..).zip(&seen).for_each(|(hour, at): (u64, _)| row(&hour.to_string(), at));
    row("end", &end);
}

fn main() {
    let options = Options::parse();
    if let Some(hours) = options.churn_hours {
        return print_churn(hours, options.rng);
    }
    if let Some(count) = options.faults {
        if !break_clusters(options.first_seed, count) {
            std::process::exit(1);
        }
        return;
    }
    let memory = options.footprint.unwrap_or_else(|| {
        let memory = footprint(options.peers.max(10_000));
        with_huge_pages(memory);
        memory
    });
    let outcome = simulator::run(&options.scenario());
    if options.json {
        println!("{:#}", json(&options, &outcome, memory));
    } else {
        print(&options, &outcome, memory);
    }
    if let Some(path) = &options.svg {
        let series = Series { name: format!("{} peers", options.peers), points: outcome.curve() };
        let plot = Plot {
            title: "Peers that have the blob".into(),
            x_label: "seconds of virtual time".into(),
            y_label: "per cent of the peers".into(),
            series: vec![series],
            marks: vec![(outcome.bound.as_secs_f64(), "no swarm is faster".into())],
        };
        std::fs::write(path, plot.svg()).unwrap();
    }
}

fn print(options: &Options, outcome: &Outcome, memory: f64) {
    let row = |what: &str, value: String| println!("{what:<44} {value:>16}");
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("peers", options.peers.to_string());
    row("bound: no swarm is faster", seconds(outcome.bound));
    for (name, percent) in [("median", 50.0), ("99th per cent", 99.0), ("last", 100.0)] {
        let value = format!("{} {:6.3}", seconds(outcome.percentile(percent)), outcome.ratio(percent));
        row(&format!("{name} peer, and over the bound"), value);
    }
    row("peers that did not finish", outcome.unfinished.to_string());
    row("the seed sent, in blobs", format!("{:.3}", outcome.seed_factor));
    row("the origin sent, in blobs", format!("{:.3}", outcome.origin_factor));
    if options.zones > 1 {
        let most = outcome.zone_factors[1..].iter().copied().fold(0.0, f64::max);
        row("into a zone without the seed, most, in blobs", format!("{most:.3}"));
        row("into the seed's zone, in blobs", format!("{:.3}", outcome.zone_factors[0]));
    }
    row("all that was sent, over what was needed", format!("{:.3}", outcome.sent_factor));
    row(
        "hedged requests, of all pieces",
        format!("{:.4}", outcome.hedges as f64 / outcome.pieces.max(1) as f64),
    );
    row("peers that asked the origin", outcome.fallbacks.to_string());
    row("cries for more parents", outcome.cries.to_string());
    let (said, heard) = outcome.control_factors;
    row("supernode's messages, out and in, in blobs", format!("{said:.3} {heard:.3}"));
    row("most links of a peer", outcome.most_links.to_string());
    row("scheduler: events and commands", format!("{} {}", outcome.events, outcome.commands));
    row("scheduler: events a second of its time", format!("{:.0}", outcome.events_per_second()));
    row("scheduler: bytes a peer (resident set)", format!("{memory:.0}"));
    row("this took", seconds(outcome.wall));
}

fn json(options: &Options, outcome: &Outcome, memory: f64) -> serde_json::Value {
    let ratio = |percent| outcome.ratio(percent);
    serde_json::json!({
        "peers": options.peers,
        "size": options.size,
        "rate": options.rate,
        "bound_seconds": outcome.bound.as_secs_f64(),
        "over_bound": { "median": ratio(50.0), "p99": ratio(99.0), "last": ratio(100.0) },
        "unfinished": outcome.unfinished,
        "seed_factor": outcome.seed_factor,
        "origin_factor": outcome.origin_factor,
        "zone_factors": outcome.zone_factors,
        "sent_factor": outcome.sent_factor,
        "hedges": outcome.hedges,
        "fallbacks": outcome.fallbacks,
        "cries": outcome.cries,
        "control_factors": outcome.control_factors,
        "scheduler": {
            "events": outcome.events,
            "commands": outcome.commands,
            "events_per_second": outcome.events_per_second(),
            "resident_bytes_per_peer": memory,
        },
        "wall_seconds": outcome.wall.as_secs_f64(),
    })
}
