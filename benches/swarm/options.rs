//! What can be asked of the bench, and what follows from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use common::digest::Digest;

use crate::hostile::{HostileOptions, Kind};
use crate::net::Host;
use crate::units::{parse_rate, parse_size};

const EXAMPLES: &str = "\
It needs root, because it makes network namespaces, and Debian's packages iproute2, util-linux and
docker-registry; aria2 too where it is a contender. Nothing is changed in the machine's own
network, and all is removed at the end.

Examples:
  cargo bench --bench swarm -- --nodes 16 --rate 50mbit --size 64MiB --against direct,aria2
  cargo bench --bench swarm -- --nodes 24 --mode zones --zones 3 --zone-rate 50mbit
  cargo bench --bench swarm -- --against preheat,beside
  cargo bench --bench swarm -- --hostile liar
  cargo bench --bench swarm -- --longshore /tmp/longshore-before";

/// When and what the nodes pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One blob, all nodes at one instant.
    Burst,
    /// One blob, two more nodes every while.
    Rolling,
    /// A burst of nodes that stand in zones, with thin links between the zones.
    Zones,
    /// A burst for an image of 40 layers of uneven sizes, three at a time on each node.
    ManyLayers,
}

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// The binary that is measured.
    #[value(skip)]
    Longshore,
    /// Every node straight from the registry.
    Direct,
    /// The same binary: a preheat job brings the content to all nodes' peers.
    Preheat,
    /// The same binary: all nodes pull while a preheat job brings them as much of something else.
    Beside,
    /// BitTorrent as aria2 speaks it, with a tracker and one seeder on the supernode's host.
    Aria2,
}

/// A part that this program plays in another process.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Child {
    /// The bad peer.
    Hostile,
    /// The tracker of a torrent.
    Tracker,
}

/// What a part is played with. Only this program itself says it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Part {
    /// The part that this process plays.
    #[arg(long, hide = true)]
    pub(crate) child: Option<Child>,
    #[arg(long, hide = true, value_enum)]
    pub(crate) kind: Option<Kind>,
    #[arg(long, hide = true)]
    pub(crate) supernode: Option<SocketAddr>,
    #[arg(long, hide = true)]
    pub(crate) join_token_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) data_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) blob: Option<Digest>,
    #[arg(long, hide = true)]
    pub(crate) registry: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) repository: Option<String>,
}

/// Pulls one blob, or an image, on many rate-limited hosts at once, and says how long the last one waits.
#[derive(Parser, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Hosts that pull.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=250))]
    pub(crate) nodes: u16,
    /// Line rate of a node, in each direction.
    #[arg(long, default_value = "50mbit", value_parser = parse_rate)]
    pub(crate) rate: u64,
    /// Line rate of the registry [default: that of a node].
    #[arg(long, value_parser = parse_rate)]
    pub(crate) registry_rate: Option<u64>,
    /// Line rate of the supernode [default: that of a node].
    #[arg(long, value_parser = parse_rate)]
    pub(crate) supernode_rate: Option<u64>,
    /// Bytes that every node pulls.
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub(crate) size: u64,
    /// When and what the nodes pull.
    #[arg(long, value_enum, default_value = "burst")]
    pub(crate) mode: Mode,
    /// The same work done by others, on the same network.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) against: Vec<Contender>,
    /// Zones, with `--mode zones`; the registry and the supernode stand outside of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub(crate) zones: u16,
    /// Rate of the link between a zone and the core, in each direction.
    #[arg(long, default_value = "50mbit", value_parser = parse_rate)]
    pub(crate) zone_rate: u64,
    /// Seconds between two pairs of nodes, with `--mode rolling` [default: a third of the ideal time].
    #[arg(long)]
    pub(crate) every: Option<f64>,
    /// How often everything is measured, each time with empty stores.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) runs: u16,
    /// Adds a bad peer, and measures with and without it.
    #[arg(long, value_enum)]
    pub(crate) hostile: Option<Kind>,
    /// One more setting for aria2, as `--name=value` (repeatable).
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) aria2_setting: Vec<String>,
    /// Piece length of the torrent; of 64 KiB to 1 MiB the default did best in bursts.
    #[arg(long, default_value = "128KiB", value_parser = parse_size)]
    pub(crate) aria2_piece: u64,
    /// Writes all figures to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where the plot goes [default: swarm.svg in cargo's target folder].
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// Keeps the logs of all processes in this folder.
    #[arg(long)]
    pub(crate) keep_logs: Option<PathBuf>,
    /// The binary that is measured [default: the one built with this bench].
    #[arg(long, default_value = env!("CARGO_BIN_EXE_longshore"), hide_default_value = true)]
    pub(crate) longshore: PathBuf,
    #[command(flatten)]
    pub(crate) part: Part,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

// === impl Options ===

impl Options {
    /// The time in which one node gets everything if nothing but the thinnest line on the way counts.
    pub(crate) fn ideal(&self) -> Duration {
        let zone = if self.mode == Mode::Zones { self.zone_rate } else { u64::MAX };
        let rate = self.rate.min(self.registry_rate()).min(self.supernode_rate()).min(zone);
        Duration::from_secs_f64(self.size as f64 * 8.0 / rate as f64)
    }

    /// How long after the start a node, counted from 0, begins.
    pub(crate) fn begins(&self, node: usize) -> Duration {
        if self.mode != Mode::Rolling {
            return Duration::ZERO;
        }
        let every = self.every.unwrap_or(self.ideal().as_secs_f64() / 3.0);
        Duration::from_secs_f64(every * (node / 2) as f64)
    }

    /// After so long a node that is not done is never going to be.
    pub(crate) fn limit(&self, contender: Contender) -> Duration {
        let copies = if contender == Contender::Direct { 2.0 * f64::from(self.nodes) } else { 10.0 };
        Duration::from_mins(1) + self.ideal().mul_f64(copies)
    }

    /// Zones of the network; 0 is a flat one.
    pub(crate) fn zones(&self) -> u16 {
        if self.mode == Mode::Zones { self.zones } else { 0 }
    }

    pub(crate) fn registry_rate(&self) -> u64 {
        self.registry_rate.unwrap_or(self.rate)
    }

    pub(crate) fn supernode_rate(&self) -> u64 {
        self.supernode_rate.unwrap_or(self.rate)
    }

    /// Longshore first, then whom it is measured against.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let mut all = vec![Contender::Longshore];
        all.extend(self.against.iter().filter(|contender| **contender != Contender::Longshore));
        all.dedup();
        all
    }
}

// === impl Child ===

impl Child {
    /// This program again, on `host`.
    pub(crate) fn command(self, host: &Host) -> anyhow::Result<Command> {
        let name = self.to_possible_value().expect("invariant: no part is skipped");
        let mut command = host.command(std::env::current_exe()?);
        command.args(["--child", name.get_name()]);
        Ok(command)
    }
}

// === impl Part ===

impl Part {
    /// What the bad peer needs, if all of it was said.
    pub(crate) fn hostile(self) -> Option<HostileOptions> {
        Some(HostileOptions {
            kind: self.kind?,
            supernode: self.supernode?,
            join_token_file: self.join_token_file?,
            data_dir: self.data_dir?,
            blob: self.blob?,
            registry: self.registry?,
            repository: self.repository?,
        })
    }
}

// === impl Mode ===

impl Mode {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

// === impl Contender ===

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Longshore => "longshore",
            Self::Preheat => "preheat",
            Self::Beside => "beside",
            Self::Direct => "direct",
            Self::Aria2 => "aria2",
        }
    }
}
