//! Faults on purpose: a registry, a supernode and six peers as real processes, each on a rate-limited host of its own, all
//! peers pulling, and something that goes wrong in the middle. First every fault alone with everybody whom it can befall,
//! then at random, one to four at a time, each schedule from a seed that is printed; then everything restarted in turn, and
//! the supernode lost for good. It ends with a table.
//!
//! What must hold in all of them is in `judge`: no wrong byte, no pull that does not end right, no copy too many, no
//! crash, no false proof, and all well again afterwards.
//!
//! `tests/run --only faults`, or `cargo test --test faults -- [PART OF A ROW'S NAME]…`. `FAULTS_SCHEDULES=N` says how many
//! random schedules there are, `FAULTS_SEED=N` replays one. It needs root and some parts of Debian, and says what is
//! missing; with `LONGSHORE_TESTS_REQUIRE_ALL=1` it then fails.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests talk to people")]

mod client;
mod cluster;
mod content;
mod deeds;
mod disk;
mod judge;
mod lab;
#[path = "../../benches/swarm/net.rs"]
#[allow(dead_code, reason = "the measurements need more of it, zones for one")]
mod net;
mod process;
mod schedule;
mod special;
mod table;
mod trial;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use rand::Rng as _;

use crate::lab::Lab;
use crate::schedule::Schedule;
use crate::table::{Row, Verdict};

/// Random schedules, unless told otherwise: a minute or two. Two hundred are for a night.
const SCHEDULES: u64 = 8;
/// What all of it stands on.
const PARTS: [&str; 7] = ["docker-registry", "ip", "tc", "nsenter", "setpriv", "mount", "umount"];

/// What is to be done.
struct Plan {
    /// Parts of rows' names; none is all rows.
    only: Vec<String>,
    seeds: Vec<u64>,
    /// Whether the seeds are all that is wanted.
    replay: bool,
}

// === impl Plan ===

impl Plan {
    fn read() -> anyhow::Result<Self> {
        let number = |name: &str| {
            let value = std::env::var(name).ok();
            value
                .map(|value| value.parse::<u64>().with_context(|| format!("{name}={value} is no number")))
                .transpose()
        };
        let (seed, count) = (number("FAULTS_SEED")?, number("FAULTS_SCHEDULES")?.unwrap_or(SCHEDULES));
        // What begins with a dash is meant for the usual harness.
        let only = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        let first = rand::rng().random_range(0..1_000_000);
        let seeds = seed.map_or_else(|| (first..first + count).collect(), |seed| vec![seed]);
        Ok(Self { only, seeds, replay: seed.is_some() })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    async fn run(&self) -> anyhow::Result<Vec<Row>> {
        let lab = Lab::make()?;
        let mut rows = Vec::new();
        let mut note = |row: Row| {
            eprintln!("{}", row.line());
            rows.push(row);
        };
        if !self.replay {
            note(the_judge());
            for schedule in std::iter::once(Schedule::quiet()).chain(Schedule::each_alone()) {
                if self.wants(&schedule.to_string()) {
                    note(trial::run(&lab, &schedule).await);
                }
            }
        }
        for seed in &self.seeds {
            if self.wants(&format!("seed {seed}")) {
                note(trial::run(&lab, &Schedule::random(*seed)).await);
            }
        }
        if !self.replay && self.wants(special::ROLLING) {
            note(special::rolling(&lab).await);
        }
        if !self.replay && self.wants(special::LOST) {
            special::supernode_lost(&lab).await.into_iter().for_each(note);
        }
        Ok(rows)
    }
}

/// The judge sees what it is shown.
fn the_judge() -> Row {
    let complaints = judge::blind_spots();
    let verdict =
        if complaints.is_empty() { Verdict::Held } else { Verdict::Failed { complaints, logs: None } };
    Row::plain("the judge itself", verdict)
}

/// What is missing.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |part: &str| std::env::split_paths(&path).any(|folder| folder.join(part).is_file());
    PARTS.into_iter().find(|part| !is_there(part))
}

#[tokio::main]
async fn main() -> ExitCode {
    let begun = Instant::now();
    let rows = match (Plan::read(), missing()) {
        (Err(error), _) => Err(error),
        (_, Some(part)) => {
            Ok((Vec::new(), vec![Row::plain("faults", Verdict::Skipped(format!("{part} is missing")))]))
        }
        (Ok(plan), None) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            plan.run().await.map(|rows| (plan.seeds, rows))
        }
    };
    let (seeds, rows) = match rows {
        Ok(found) => found,
        Err(error) => {
            println!("faults: {error:#}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            return ExitCode::FAILURE;
        }
    };
    println!("\n{}", table::heading());
    rows.iter().for_each(|row| println!("{}", row.line()));
    if let (Some(first), Some(last)) = (seeds.first(), seeds.last()) {
        println!("seeds {first} to {last}; FAULTS_SEED=N replays one");
    }
    print!("{}", table::remarks(&rows));
    // As in the other end-to-end tests.
    let all = std::env::var("LONGSHORE_TESTS_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let is_bad = |row: &&Row| match row.verdict {
        Verdict::Held => false,
        Verdict::Failed { .. } => true,
        Verdict::Skipped(_) => all,
    };
    let failed = rows.iter().filter(is_bad).count();
    let result = if failed == 0 { "ok" } else { "FAILED" };
    // Skipped rows say so on lines of their own, and are counted as passed, as the other end-to-end tests' are.
    println!(
        "test result: {result}. {} passed; {failed} failed; 0 ignored; finished in {:.0} s",
        rows.len() - failed,
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
