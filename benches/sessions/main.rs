//! What peers cost a supernode: the memory of an idle session, and how soon a join is answered while many join at
//! once, against the limits that one supernode is meant to keep. Run by `cargo bench --bench sessions`.
//!
//! The supernode is a process of its own, the built `longshore`. The peers are real members with keys, certificates
//! and sessions of their own, but nothing behind them, and all on one UDP port of this process: so a machine holds
//! thousands. Both sides share the machine's cores; the supernode's own share is printed as CPU time.
//!
//! "Warm" is a task that the seed holds; "cold" one that nobody has asked for yet, so that the answer waits for the
//! origin's word about its length, while 200 joins are one download. The CPU time of a cold join holds its share of that
//! download, which is most of it (`--joins 1` shows it alone).

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

mod member;
mod origin;
mod page;
mod report;
mod supernode;

use std::time::{Duration, Instant};

use clap::Parser;
use common::identity::{self, Identity};
use common::task::Source;
use common::wire::swarm::ToSupernode;
use futures_util::StreamExt as _;

use member::{Answers, Dialler, Member};
use origin::Origin;
use report::{Burst, Report};
use supernode::Supernode;

/// Handshakes that this side has under way at once.
const AT_ONCE: usize = 32;
/// The supernode is left alone for so long before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// Measures memory, latency and CPU time of a supernode's sessions.
#[derive(Parser, Debug)]
struct Options {
    /// How many sessions to open.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// How many of them join at once.
    #[arg(long, default_value_t = 200)]
    joins: usize,
    /// How often they do, warm and cold each.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Length of what they join, in MiB.
    #[arg(long, default_value_t = 64)]
    size: u64,
    /// Measure also what an open page of the dashboard costs
    #[arg(long)]
    pages: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// What cargo gives to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut options = Options::parse();
    options.joins = options.joins.min(options.sessions);
    identity::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = runtime.block_on(measure(&options));
    if options.json {
        println!("{}", report.json());
    } else {
        report.print();
    }
}

async fn measure(options: &Options) -> Report {
    let origin = Origin::start(options.size * 1024 * 1024).await;
    let folder = tempfile::tempdir().unwrap();
    let mut supernode = Supernode::start(folder.path(), &origin.host()).await;
    let identities = enrol(options.sessions, &supernode).await;
    // Enrolling leaves memory free inside the process, which would hide what sessions take.
    supernode.stop().await;
    let supernode = Supernode::start(folder.path(), &origin.host()).await;

    let dialler = Dialler::new(supernode.quic());
    tokio::time::sleep(REST).await;
    let (empty, cpu, begun) = (supernode.memory(), supernode.cpu(), Instant::now());
    let members = open(&dialler, &identities).await;
    let (took, cpu_connecting) = (begun.elapsed(), supernode.cpu() - cpu);
    tokio::time::sleep(REST).await;
    let mut report = Report {
        sessions: members.len(),
        empty,
        idle: supernode.memory(),
        connecting: took,
        cpu_connecting,
        warm: Burst::default(),
        cold: Burst::default(),
        busy: 0,
        pages: if options.pages { pages(&supernode).await } else { Vec::new() },
    };
    let mut crowd = members.iter().cycle();
    let warm = origin.source(0);
    join(&supernode, crowd.by_ref().take(1).collect(), &warm).await;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let joining = crowd.by_ref().take(options.joins).collect();
        report.warm.add(join(&supernode, joining, &warm).await);
        let joining = crowd.by_ref().take(options.joins).collect();
        report.cold.add(join(&supernode, joining, &origin.source(round)).await);
    }
    tokio::time::sleep(REST).await;
    report.busy = supernode.memory();
    report
}

/// The supernode's share of a core with its sessions alone, and what each page adds to it.
async fn pages(supernode: &Supernode) -> Vec<(&'static str, f64)> {
    let alone = page::alone(supernode).await;
    let mut all = vec![("no page", alone)];
    for (name, detail) in page::PAGES {
        all.push((name, page::beside(supernode, detail).await - alone));
    }
    all
}

async fn enrol(count: usize, supernode: &Supernode) -> Vec<Identity> {
    let (address, token) = (supernode.quic(), supernode.token());
    let enrolling = futures_util::stream::iter(0..count).map(|_| async {
        let identity = Identity::ephemeral().unwrap();
        common::transport::enrol(address, &token, &identity).await.unwrap();
        identity
    });
    gather("enrolled", count, enrolling.buffer_unordered(AT_ONCE)).await
}

async fn open(dialler: &Dialler, identities: &[Identity]) -> Vec<Member> {
    let opening = futures_util::stream::iter(identities).map(|identity| dialler.open(identity));
    gather("sessions", identities.len(), opening.buffer_unordered(AT_ONCE)).await
}

async fn gather<T>(what: &str, count: usize, stream: impl futures_util::Stream<Item = T>) -> Vec<T> {
    let mut stream = std::pin::pin!(stream);
    let mut all = Vec::with_capacity(count);
    while let Some(next) = stream.next().await {
        all.push(next);
        if all.len() % 100 == 0 {
            eprintln!("{what}: {} of {count}", all.len());
        }
    }
    all
}

/// Lets the members join all at once, waits until each has heard everything, and lets them leave.
async fn join(supernode: &Supernode, members: Vec<&Member>, source: &Source) -> Burst {
    let task = source.task();
    let cpu = supernode.cpu();
    let joining = members.iter().map(|member| member.join(source));
    let answers: Vec<Answers> = futures_util::future::join_all(joining).await;
    let burst = Burst::new(answers, supernode.cpu() - cpu);
    for member in members {
        member.say(&ToSupernode::Leave(task)).await;
    }
    // The supernode hears of the leaving before the next round begins.
    tokio::time::sleep(REST / 4).await;
    burst
}
