//! Flags of what people do with Longshore: see it at work, fetch, look.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args)]
pub struct Demo {
    /// Number of peers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub peers: u16,
    /// Size of the generated image
    #[arg(long, default_value = "192MiB", value_name = "SIZE")]
    pub size: String,
    /// Keep running afterwards, until Ctrl-C, to look around
    #[arg(long)]
    pub stay: bool,
}

#[derive(Args)]
pub struct Get {
    /// What to fetch: an http:// or https:// URL
    pub source: String,
    /// The file to write; it appears only when it is whole and right
    #[arg(short, long, value_name = "PATH")]
    pub output: PathBuf,
    /// The content's digest, sha256:<64 hex>: nothing else is accepted
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// A word that separates this swarm from others of the same URL
    #[arg(long, default_value = "", value_name = "TAG")]
    pub tag: String,
    /// A header for the origin, as 'Name: value' (repeatable); it is kept secret
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
    /// Where the local peer's socket is looked for [default: the daemons' data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Without a local peer: join the swarm of this supernode (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub supernode: Vec<String>,
    /// The token to join it with
    #[arg(long, value_name = "FILE", requires = "supernode")]
    pub join_token_file: Option<PathBuf>,
    /// One JSON object on standard output when it is done
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// The local daemon that is meant.
#[derive(Args)]
pub struct At {
    /// The daemon's data directory [default: /var/lib/longshore as root, else the XDG data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    pub at: At,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

const TASKS: &str = "\
Examples:
  longshore tasks                       list them, the last used first
  longshore tasks pin 3f2a90c1b7d4      keep a blob, whatever the quota says
  longshore tasks remove sha256:3f2a…   make room for others

An ID is a task's: 64 hexadecimal digits, for a registry blob those of its digest (sha256:… is understood, too), or so many
of the first digits that only one task begins with them, at least 8.";

/// The store of the local daemon.
#[derive(Args)]
#[command(after_help = TASKS, args_conflicts_with_subcommands = true)]
pub struct Tasks {
    #[command(subcommand)]
    pub deed: Option<TaskDeed>,
    #[command(flatten)]
    pub list: Status,
}

/// What is to be done with a task.
#[derive(Subcommand)]
pub enum TaskDeed {
    /// Keep tasks: neither quota nor time to live takes them
    Pin(TaskIds),
    /// Let the quota take them again
    Unpin(TaskIds),
    /// Remove tasks that nobody has in use
    Remove(TaskIds),
}

/// The tasks that are meant.
#[derive(Args)]
pub struct TaskIds {
    /// Tasks, by their ids or the beginnings of these
    #[arg(value_name = "ID", required = true)]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub at: At,
}

const LOG: &str = "\
Examples:
  longshore log                      what is logged now
  longshore log debug                everything but the finest
  longshore log info,peer=debug      the engine in detail

A restart goes back to LONGSHORE_LOG.";

#[derive(Args)]
#[command(after_help = LOG)]
pub struct Log {
    /// What is logged from now on: a level (error, warn, info, debug, trace), or levels of parts
    #[arg(value_name = "LEVELS")]
    pub directives: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// The supernode's, where a peer runs beside it
    #[arg(long)]
    pub supernode: bool,
}
