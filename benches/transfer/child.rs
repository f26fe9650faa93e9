//! This program again as one side of a measurement, and how the two talk: the child prints a line when it is ready,
//! a client waits for a line before it begins and prints one when it has everything, and a server ends when its
//! input does.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::lab::Lab;
use crate::link::{End, Link};
use crate::{engine, exchange, http, quic, tcp};

/// A part in a measurement.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    QuicServer,
    QuicClient,
    TcpServer,
    TcpClient,
    EngineParent,
    EngineChild,
    Taker,
    Verifier,
    Proxy,
    ProxyAnew,
    Reader,
}

/// What a part is played with.
pub(crate) struct Task {
    pub(crate) lab: Lab,
    /// The address of this side.
    pub(crate) local: SocketAddr,
    /// Where the other side is.
    pub(crate) other: String,
}

pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A process whose CPU time counts as the server's.
pub(crate) trait Process {
    fn id(&self) -> u32;

    /// User and system time of all its threads so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The second field is the name, in parentheses, and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

// === impl Role ===

impl Role {
    pub(crate) fn play(self, task: &Task) {
        match self {
            Self::QuicServer => quic::serve(task),
            Self::QuicClient => quic::receive(task),
            Self::TcpServer => tcp::serve(task),
            Self::TcpClient => tcp::receive(task),
            Self::EngineParent => engine::serve(task),
            Self::EngineChild => engine::receive(task),
            Self::Taker => exchange::receive(task, false),
            Self::Verifier => exchange::receive(task, true),
            Self::Proxy => http::serve(task, true),
            Self::ProxyAnew => http::serve(task, false),
            Self::Reader => http::receive(task),
        }
    }
}

// === impl Child ===

impl Child {
    pub(crate) fn spawn(role: Role, lab: &Lab, (link, end): (&Link, End), other: &str) -> Self {
        let role = role.to_possible_value().unwrap();
        let program = std::env::current_exe().unwrap();
        let local = link.local(end).to_string();
        let mut process = link
            .command(end, program.to_str().expect("a path of plain characters"))
            .args(["--child", role.get_name(), "--other", other, "--local", &local, "--lab"])
            .arg(lab.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { input: process.stdin.take(), process, lines }
    }

    /// Waits until it is ready; gives what it says then.
    pub(crate) fn ready(&mut self) -> String {
        self.lines.next().expect("a child ended before it was ready").unwrap()
    }

    /// Lets it begin and waits until it has everything.
    pub(crate) fn run(&mut self) -> Duration {
        let begun = Instant::now();
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        self.lines.next().expect("a child ended before it was done").unwrap();
        begun.elapsed()
    }
}

impl Process for Child {
    fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}

/// The child's side: says that it is ready.
pub(crate) fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

/// The child's side: waits for the word to begin.
pub(crate) fn wait_for_word() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The child's side: waits until it may end.
pub(crate) fn wait_for_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
