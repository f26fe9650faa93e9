//! How fast bytes go from one node to another, against the limits and a peer on the same machine in the same run:
//! bare QUIC, TCP with TLS, Debian's `docker-registry`. Run by `cargo bench --bench transfer`.
//!
//! Sender and receiver are processes of their own (this program again, with a hidden argument), so that their CPU
//! times can be told apart. The measurements take turns, round by round, and what is printed are medians; machines
//! differ and are noisy, so the ratios are what counts.
//!
//! The loopback takes packets larger than an Ethernet's, which makes QUIC cheap and the hashing dear. As root the same
//! is measured with packets of 1500 bytes, too, and through a link of 1 Gbit/s.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

mod child;
mod engine;
mod exchange;
mod http;
mod lab;
mod link;
mod quic;
mod report;
mod tcp;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use common::identity;

use child::{Child, Process, Role, Task};
use lab::Lab;
use link::{End, Kind, Link};
use report::{Measured, Report};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// Bare QUIC on loopback, nothing hashed or written.
    Quic,
    /// TCP with TLS, likewise.
    Tcp,
    /// Pieces as the engine serves them, thrown away as they arrive.
    Exchange,
    /// The same, every piece verified.
    Verified,
    /// The engine, from one node's store to another's, with every piece verified and written.
    Engine,
    /// docker-registry serves a blob.
    Registry,
    /// The proxy serves the same blob from a warm store, and asks docker-registry for leave.
    Proxy,
    /// The same, for the first time since it was started: the blob is hashed on the way.
    ProxyAnew,
}

/// Measures transfers between two nodes of one machine, in MB/s and CPU seconds per GB.
#[derive(Parser, Debug)]
struct Options {
    /// Size of what is transferred, in MiB.
    #[arg(long, default_value_t = 512)]
    size: u64,
    /// Rounds; one more goes before them and is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measures only these, and what they are compared with (repeatable).
    #[arg(long, value_enum)]
    only: Vec<Row>,
    /// Measures only over these links (repeatable). [default: all that can be made here]
    #[arg(long, value_enum)]
    link: Vec<Kind>,
    /// Where the files go: a fresh folder in here, removed at the end.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// The part of a measurement that this process plays.
    #[arg(long, hide = true)]
    child: Option<Role>,
    /// The folder with what the children need.
    #[arg(long, hide = true, requires = "child")]
    lab: Option<PathBuf>,
    /// The address of this side.
    #[arg(long, hide = true, default_value = "127.0.0.1")]
    local: IpAddr,
    /// Where the other side is.
    #[arg(long, hide = true, default_value = "")]
    other: String,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

// === impl Row ===

impl Row {
    const ALL: [Self; 8] = [
        Self::Quic,
        Self::Tcp,
        Self::Exchange,
        Self::Verified,
        Self::Engine,
        Self::Registry,
        Self::Proxy,
        Self::ProxyAnew,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Quic => "bare QUIC",
            Self::Tcp => "TCP with TLS",
            Self::Exchange => "engine, without sink",
            Self::Verified => "engine, verified",
            Self::Engine => "engine, store to store",
            Self::Registry => "docker-registry",
            Self::Proxy => "proxy, warm blob",
            Self::ProxyAnew => "proxy, its first time",
        }
    }

    /// What it is compared with.
    pub(crate) fn base(self) -> Self {
        match self {
            Self::Quic | Self::Tcp | Self::Exchange | Self::Verified | Self::Engine => Self::Quic,
            Self::Registry | Self::Proxy | Self::ProxyAnew => Self::Registry,
        }
    }

    /// Transfers everything once.
    fn measure(self, lab: &Lab, link: &Link) -> Measured {
        let pair = |server: Role, client: Role| {
            let mut server = Child::spawn(server, lab, (link, End::Server), "");
            let address = server.ready();
            transfer(lab, link, &server, (client, &address))
        };
        match self {
            Self::Quic => pair(Role::QuicServer, Role::QuicClient),
            Self::Tcp => pair(Role::TcpServer, Role::TcpClient),
            Self::Exchange => pair(Role::EngineParent, Role::Taker),
            Self::Verified => pair(Role::EngineParent, Role::Verifier),
            Self::Engine => pair(Role::EngineParent, Role::EngineChild),
            Self::Registry => {
                let registry = http::Registry::start(lab, link);
                transfer(lab, link, &registry, (Role::Reader, &lab.url(registry.address())))
            }
            Self::Proxy | Self::ProxyAnew => {
                let registry = http::Registry::start(lab, link);
                let role = if self == Self::Proxy { Role::Proxy } else { Role::ProxyAnew };
                let mut proxy = Child::spawn(role, lab, (link, End::Server), registry.address());
                let address = proxy.ready();
                transfer(lab, link, &proxy, (Role::Reader, &lab.url(&address)))
            }
        }
    }
}

fn main() {
    let options = Options::parse();
    identity::install_crypto_provider();
    match (options.child, &options.lab) {
        (Some(role), Some(lab)) => {
            let local = (options.local, 0).into();
            role.play(&Task { lab: Lab::open(lab), local, other: options.other });
        }
        _ => measure(&options),
    }
}

/// One transfer: a client gets everything from an address, which `server` serves.
fn transfer(lab: &Lab, link: &Link, server: &impl Process, (role, address): (Role, &str)) -> Measured {
    let mut client = Child::spawn(role, lab, (link, End::Client), address);
    client.ready();
    let before = (server.cpu(), client.cpu());
    let took = client.run();
    let (server, client) = (server.cpu() - before.0, client.cpu() - before.1);
    Measured { bytes: lab.geometry.length(), took, server, client }
}

fn measure(options: &Options) {
    let folder = tempfile::tempdir_in(&options.dir).unwrap();
    let lab = Lab::make(folder.path(), options.size * 1024 * 1024);
    for kind in Kind::value_variants() {
        if !options.link.is_empty() && !options.link.contains(kind) {
            continue;
        }
        println!("\n{}", kind.title());
        match kind.is_possible() {
            Ok(()) => measure_over(&Link::make(*kind), &lab, options).print(),
            Err(reason) => println!("skipped: {reason}"),
        }
    }
}

fn measure_over(link: &Link, lab: &Lab, options: &Options) -> Report {
    let wanted = |row: &Row| {
        options.only.is_empty() || options.only.iter().any(|only| only == row || only.base() == *row)
    };
    let mut rows: Vec<Row> = Row::ALL.into_iter().filter(wanted).collect();
    let mut report = Report::new(rows.clone(), link.kind().line_rate());
    if !http::Registry::is_installed() {
        rows.retain(|row| row.base() != Row::Registry);
    }
    for round in 0..=options.runs {
        for row in &rows {
            let measured = row.measure(lab, link);
            eprintln!("round {round}: {:22} {:6.0} MB/s", row.title(), measured.rate());
            // The first round fills caches and touches pages.
            if round > 0 {
                report.note(*row, measured);
            }
        }
    }
    report
}
