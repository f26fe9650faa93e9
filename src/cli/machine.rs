//! Flags of what sets a machine up, and finds out what is wrong with it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const SETUP_EXAMPLES: &str = "\
Examples:
  longshore setup containerd --dry-run             show the changes as a diff, make none
  longshore setup containerd --registry docker.io --registry ghcr.io --registry registry.local:5000
                                                   these three through the peer, others as before
  longshore setup docker                           Docker takes a mirror for docker.io only
  longshore setup podman --registry quay.io        podman, buildah and skopeo
  longshore setup containerd --undo                put everything back to the byte
  longshore setup crio --root /mnt/image           prepare a disk image, not this machine

What was there is kept: other hosts, mirrors, comments, neighbouring keys. The originals are in
/var/lib/longshore/setup until --undo. Running it again changes nothing; more registries are added.";

/// A container runtime.
#[derive(Clone, Copy, ValueEnum)]
pub enum Runtime {
    /// containerd, as Kubernetes uses it: config.toml and certs.d/*/hosts.toml
    Containerd,
    /// Docker: daemon.json
    Docker,
    /// Podman, buildah and skopeo: a drop-in of registries.conf
    Podman,
    /// CRI-O: the same drop-in
    Crio,
}

impl From<Runtime> for proxy::setup::Runtime {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Containerd => Self::Containerd,
            Runtime::Docker => Self::Docker,
            Runtime::Podman => Self::Podman,
            Runtime::Crio => Self::Crio,
        }
    }
}

#[derive(Args)]
#[command(after_help = SETUP_EXAMPLES)]
pub struct Setup {
    /// The runtime
    #[arg(value_enum)]
    pub runtime: Runtime,
    /// A registry whose images are to come through the peer, as their names begin: ghcr.io, registry.local:5000
    /// (repeatable) [default: docker.io]
    #[arg(long, value_name = "NAME", conflicts_with = "undo")]
    pub registry: Vec<proxy::setup::Registry>,
    /// Where the peer's proxy listens
    #[arg(long, value_name = "URL", default_value_t, conflicts_with = "undo")]
    pub proxy: proxy::setup::Proxy,
    /// Turn containerd's old registry.mirrors tables, which exclude hosts.toml files, into such files
    #[arg(long, conflicts_with = "undo")]
    pub replace_mirrors: bool,
    /// Show what would be changed, as a unified diff, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Put everything back as it was before the first setup, to the byte
    #[arg(long)]
    pub undo: bool,
    /// With --undo: also files that somebody changed since; those changes are lost
    #[arg(long, requires = "undo")]
    pub force: bool,
    /// The directory that is the root of the machine's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

const DOCTOR: &str = "\
Examples:
  longshore doctor --config /etc/longshore/longshore.toml
  longshore doctor --supernode supernode.example:7700     whether it can be reached from here
  longshore doctor --only runtimes --before-start        what `longshore setup` did, before there is a peer
  longshore doctor --json | jq '.findings[] | select(.level != \"ok\")'

It changes nothing. Exit codes: 0 all works, be it with warnings; 1 something does not.";

#[derive(Args)]
#[command(after_help = DOCTOR)]
pub struct Doctor {
    /// The daemons' configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The supernode that this machine is to reach (repeatable) [default: that of the configuration, or the one here]
    #[arg(long, value_name = "HOST:PORT")]
    pub supernode: Vec<String>,
    /// Where container runtimes find the proxy [default: where the peer here listens, or http://127.0.0.1:7711]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<proxy::setup::Proxy>,
    /// The directory that is the root of the runtimes' files
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Look at this alone (repeatable) [default: at everything]
    #[arg(long, value_enum, value_name = "PART")]
    pub only: Vec<Part>,
    /// The daemons of this machine are still to be started: that they do not answer is as it should be
    #[arg(long)]
    pub before_start: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What the doctor looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Processor, kernel's buffers, limits
    Machine,
    /// Whether daemons would start with these settings
    Settings,
    /// The data directory and its disk
    Disk,
    /// Whether peer, proxy and supernode of this machine answer
    Daemons,
    /// Clock, certificate, and the way to the supernode
    Cluster,
    /// The way from containerd, docker, podman and CRI-O to the proxy
    Runtimes,
    /// Whether the registries can be reached
    Registries,
}

const COMPLETIONS: &str = "\
Examples:
  longshore completions bash > /etc/bash_completion.d/longshore
  longshore completions zsh > \"${fpath[1]}/_longshore\"
  longshore completions fish > ~/.config/fish/completions/longshore.fish";

#[derive(Args)]
#[command(after_help = COMPLETIONS)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

const MAN: &str = "\
Examples:
  sudo longshore man /usr/local/share/man/man1
  longshore man /tmp/man1 && man /tmp/man1/longshore-get.1";

#[derive(Args)]
#[command(after_help = MAN)]
pub struct Man {
    /// The folder that the pages are written to, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
