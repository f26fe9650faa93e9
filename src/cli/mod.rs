//! The command line, as clap reads it: the commands here, their flags in a file for each kind.

mod cluster;
mod daemons;
mod machine;
mod people;
mod preheat;

use clap::{Parser, Subcommand, ValueEnum};
use common::telemetry::LogFormat;

pub use cluster::{Ca, CaDeed, ClusterFolder, Node, NodeDeed, Token, TokenDeed};
pub use daemons::{Home, Peer, Supernode, Up};
pub use machine::{Completions, Doctor, Man, Part, Setup};
pub use people::{At, Demo, Explain, Get, Log, Status, TaskDeed, TaskIds, Tasks, Top};
pub use preheat::{
    Deed as PreheatDeed, Job as PreheatJob, Preheat, Preheats, Schedule, ScheduleDeed, Schedules,
    Target as PreheatTarget,
};

const EXAMPLES: &str = "\
Examples:
  longshore demo                                    see a swarm at work; needs nothing else
  longshore up --registry docker.io=https://registry-1.docker.io
                                                    supernode, peer and proxy on this machine
  longshore setup containerd                        point a container runtime at this machine's peer
  longshore get https://example.com/big.iso -o big.iso --digest sha256:…
                                                    fetch a file, through the swarm where there is one";

const STATUS: &str = "\
Examples:
  longshore status                                  the peer's, or the supernode's where no peer runs
  longshore status --json | jq .received            bytes by where they came from
  sudo longshore status --data-dir /var/lib/longshore-peer";

const PEERS: &str = "\
Examples:
  longshore peers                                   at a supernode everybody, at a peer who wronged it
  longshore peers --json | jq '.[] | select(.standing != \"good\")'";

/// Carries container images to thousands of nodes at once, peer to peer.
#[derive(Parser)]
#[command(name = "longshore", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// How log lines are written; what is logged is set by LONGSHORE_LOG (for example `debug`)
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub log_format: Format,
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines are written.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Json => Self::Json,
        }
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Supernode, peer and proxy in one process, on loopback
    Up(Up),
    /// A supernode, several peers and a built-in origin: watch them share a generated image
    Demo(Demo),
    /// The supernode: tracks and schedules pieces, asks the origin, lets peers join
    Supernode(Supernode),
    /// The peer of a node: fetches and serves pieces, and carries the registry proxy
    Peer(Peer),
    /// Fetch files and images: through the local peer if one runs, else with --supernode from its swarm, else straight
    Get(Get),
    /// Bring an image or files to nodes before they are wanted; on the supernode's machine
    Preheat(Preheat),
    /// The preheat jobs: shown, watched, paused, cancelled
    Preheats(Preheats),
    /// What is going on at the local daemon
    #[command(after_help = STATUS)]
    Status(Status),
    /// Who takes part, how it stands, and what neighbours did wrong
    #[command(after_help = PEERS)]
    Peers(Status),
    /// What the local daemon's store has, and what of it is to stay
    Tasks(Tasks),
    /// Why a pull took its time: where each part came from, and what was waited for
    Explain(Explain),
    /// What goes on at the local daemon, live
    Top(Top),
    /// What the local daemon logs, shown or changed while it runs
    Log(Log),
    /// What a shell needs to complete commands and flags
    Completions(Completions),
    /// Manual pages, of all commands
    Man(Man),
    /// Point a container runtime at this machine's peer, or back
    Setup(Setup),
    /// Find out what is wrong with this machine's set-up, and how to mend it
    Doctor(Doctor),
    /// Make, list or revoke the tokens that let peers join; on the supernode's machine
    Token(Token),
    /// Turn a member out, or let it in again; on the supernode's machine
    Node(Node),
    /// Change the cluster's CA while the cluster works; on the supernode's machine
    Ca(Ca),
}
