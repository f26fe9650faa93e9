//! How long the last of many nodes waits that all want the same image at once, against the time that the lines
//! allow, and against others that do the same work on the same network. Run by `cargo bench --bench swarm`, as
//! root: each node is a network namespace whose line is limited in both directions.
//!
//! Real daemons and a real registry; what is pulled is pulled through the proxies, as a container runtime would.
//! All of it shares the processors of one machine: the report says how busy they were.

#![allow(clippy::unwrap_used, reason = "a bad peer that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

mod aria2;
mod client;
mod cluster;
mod content;
mod hostile;
mod lab;
mod net;
mod options;
mod output;
#[path = "../shared/plot.rs"]
mod plot;
mod preheat;
mod process;
mod registry;
mod report;
mod running;
mod torrent;
mod tracker;
#[path = "../shared/units.rs"]
mod units;

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use lab::{Lab, Outcome};
use options::{Child, Contender, Options, Part};

/// The exit code when something is missing that the bench cannot do without.
const UNUSABLE: u8 = 2;
const FAILED: u8 = 1;
/// What a shell says of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Programs that are needed, how to see that they are there, and the packages that have them.
const TOOLS: [(&str, &str, &str); 5] = [
    ("ip", "-V", "iproute2"),
    ("tc", "-V", "iproute2"),
    ("nsenter", "--version", "util-linux"),
    ("setpriv", "--version", "util-linux"),
    (registry::PROGRAM, "--version", "docker-registry"),
];

// One thread: a process that is started here dies with the thread that started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    common::identity::install_crypto_provider();
    if let Some(child) = options.part.child {
        return ended(play(child, options.part).await);
    }
    if let Some(missing) = missing() {
        eprintln!("{missing}");
        return UNUSABLE.into();
    }
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return FAILED.into() };
    // Whatever ends it, all that was made is dropped, and so removed, before this returns.
    let result = tokio::select! {
        result = measure(options) => result,
        _ = interrupt.recv() => return INTERRUPTED.into(),
        _ = terminate.recv() => return INTERRUPTED.into(),
    };
    ended(result)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{error:#}");
    FAILED.into()
}

async fn play(child: Child, part: Part) -> anyhow::Result<()> {
    match child {
        Child::Hostile => hostile::run(part.hostile().context("the bad peer was not told everything")?).await,
        Child::Tracker => tracker::run().await?,
    }
    Ok(())
}

async fn measure(mut options: Options) -> anyhow::Result<()> {
    if options.against.contains(&Contender::Aria2) && !is_there(aria2::PROGRAM, "--version") {
        eprintln!("without aria2, which is not installed: `apt-get install aria2`");
        options.against.retain(|contender| *contender != Contender::Aria2);
    }
    let lab = Lab::make(options)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for run in 1..=lab.options.runs {
        for contender in lab.options.contenders() {
            let outcome = lab.measure(contender, false, run).await?;
            report::tell(run, &outcome);
            outcomes.push(outcome);
            if contender == Contender::Longshore && lab.options.hostile.is_some() {
                let outcome = lab.measure(contender, true, run).await?;
                report::tell(run, &outcome);
                outcomes.push(outcome);
            }
        }
    }
    report::print(&lab.options, &outcomes);
    output::write(&lab.options, &outcomes)
}

/// What stands in the way, in words.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the swarm bench makes network namespaces: run it as root".to_owned());
    }
    TOOLS.into_iter().find(|(tool, version, _)| !is_there(tool, version)).map(|(tool, _, package)| {
        format!("the swarm bench needs {tool}: install it with `apt-get install {package}`")
    })
}

fn is_there(tool: &str, version: &str) -> bool {
    Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
