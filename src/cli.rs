//! The command line, as clap reads it. Flags of daemons are texts here, and named like their keys; [`crate::settings`] lays them
//! over the environment and the configuration file and reads them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::telemetry::LogFormat;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  longshore demo                                    see a swarm at work; needs nothing else
  longshore up --registry docker.io=https://registry-1.docker.io
                                                    supernode, peer and proxy on this machine
  longshore setup containerd                        point a container runtime at this machine's peer
  longshore get https://example.com/big.iso -o big.iso --digest sha256:…
                                                    fetch a file, through the swarm where there is one";

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
    /// Fetch one URL: through the local peer if one runs, else by joining the swarm, else straight
    Get(Get),
    /// What is going on at the local daemon
    Status(Status),
    /// Who takes part, how it stands, and what neighbours did wrong
    Peers(Status),
    /// What the local daemon's store has, and what of it is to stay
    Tasks(Tasks),
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
    pub at: Status,
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
    /// The daemon's data folder [default: /var/lib/longshore as root, else the XDG data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Where a daemon lives.
#[derive(Args, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Home {
    /// TOML file with settings, under [supernode] and [peer]; flags and LONGSHORE_<SECTION>_<KEY> variables go before it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where keys and blobs are kept [default: /var/lib/longshore as root, else the XDG data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How much of the disk may be used, for example 50GiB or 80% [default: no limit]
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub quota: Option<String>,
    /// Above this part of the quota the least recently used blobs go, in the background [default: 95%]
    #[arg(long, value_name = "PERCENT")]
    pub high_watermark: Option<String>,
    /// Down to this part of the quota [default: 85%]
    #[arg(long, value_name = "PERCENT")]
    pub low_watermark: Option<String>,
    /// What the disk must have free, for example 20GiB or 15%: blobs go for it, and are streamed through when none is
    /// left to go [default: 15% on a Kubernetes node, else 5%]
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub keep_free: Option<String>,
    /// Blobs that nobody used for so long go, for example 30d [default: never]
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<String>,
}

/// A bucket behind the supernode's disk.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cache {
    /// An S3-compatible bucket that keeps the registry blobs of all supernodes of a cluster, as s3://BUCKET/PREFIX
    /// [default: this machine's disk alone]
    #[arg(long, value_name = "URL")]
    pub cache_url: Option<String>,
    /// Its server, as https://HOST[:PORT], or http:// where that is meant [default: AWS]
    #[arg(long, value_name = "URL")]
    pub cache_endpoint: Option<String>,
    /// Its region [default: AWS_REGION, or us-east-1]
    #[arg(long, value_name = "NAME")]
    pub cache_region: Option<String>,
    /// An AWS-style credentials file that nobody else may read [default: the AWS_* variables, or the machine's role]
    #[arg(long, value_name = "FILE")]
    pub cache_credentials_file: Option<String>,
}

/// Where a peer stands, and what it carries.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Carrier {
    /// TCP address of the registry proxy [default: 127.0.0.1:7711]
    #[arg(long, value_name = "ADDRESS")]
    pub proxy_listen: Option<String>,
    /// The registry meant where a request has no ?ns= [default: docker.io]
    #[arg(long, value_name = "NAME")]
    pub default_registry: Option<String>,
    /// A host whose HTTPS connections through the proxy are opened and served from the swarm, as HOST[:PORT] or *.DOMAIN
    /// (repeatable); clients must trust <data-dir>/intercept/ca.pem
    #[arg(long, value_name = "PATTERN")]
    pub intercept: Vec<String>,
    /// The zone that this node stands in: a blob crosses into a zone about once
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// The rack that this node stands in
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,
    /// A runtime's content store, whose whole blobs are offered from where they lie: containerd's root, for example
    /// /var/lib/containerd, or a folder of blobs named by their SHA-256 (repeatable) [default: none]
    #[arg(long, value_name = "DIR")]
    pub content_store: Vec<String>,
}

/// How much may pass. A file's values may be changed under way: SIGHUP has it read again.
#[derive(Args, Serialize)]
#[command(next_help_heading = "Limits (SIGHUP reads the file again)")]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// How fast pieces are handed on, for example 200mbit or 25MiB/s [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub upload_limit: Option<String>,
    /// How fast bytes are taken in, from neighbours and origins [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub download_limit: Option<String>,
    /// How fast bytes are taken from origins [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub origin_limit: Option<String>,
    /// How fast pieces of one task are handed on [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub task_upload_limit: Option<String>,
    /// How fast bytes of one task are taken in [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub task_download_limit: Option<String>,
    /// How fast bytes of one task are taken from its origin [default: no limit]
    #[arg(long, value_name = "RATE")]
    pub task_origin_limit: Option<String>,
    /// How many pieces are handed on at once [default: as many as fit into 32 MiB]
    #[arg(long, value_name = "N")]
    pub max_uploads: Option<u32>,
}

/// Which origins may be asked, and where they are.
#[derive(Args, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origins {
    /// An origin that may be asked: host, host:port, *.domain, or * for all (repeatable) [default: every host that
    /// is not loopback, with `up` loopback too; link-local and metadata addresses never]
    #[arg(long, value_name = "PATTERN")]
    pub origin_allow: Vec<String>,
    /// Where a registry's name is reached, as NAME=URL (repeatable)
    #[arg(long, value_name = "NAME=URL")]
    pub registry: Vec<String>,
    /// A registry that is spoken to in plain HTTP, as HOST:PORT (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,
    /// The CA that a registry's certificate is signed by, as NAME=FILE (PEM, repeatable)
    #[arg(long, value_name = "NAME=FILE")]
    pub registry_ca: Vec<String>,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Supernode {
    #[command(flatten)]
    #[serde(flatten)]
    pub home: Home,
    /// UDP address for peers [default: 0.0.0.0:7700]
    #[arg(long, value_name = "ADDRESS")]
    pub quic_listen: Option<String>,
    /// TCP address for the API, /metrics, /healthz and /readyz [default: 0.0.0.0:7701]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// The address that peers are told, if not the one that they dial
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<String>,
    /// Where the cluster's CA, join tokens and revocations are, for several supernodes of one cluster: a shared folder, a copy,
    /// or a mounted Kubernetes Secret; it may be read-only [default: <data-dir>/identity]
    #[arg(long, value_name = "DIR")]
    pub cluster_dir: Option<String>,
    /// The API's bearer token, which is asked for wherever HTTP listens beyond loopback [default: <data-dir>/api-token, made
    /// at the first start]
    #[arg(long, value_name = "FILE")]
    pub api_token_file: Option<String>,
    /// Let pods join that run as this Kubernetes ServiceAccount, with a projected token instead of a join token: the supernode
    /// has the Kubernetes API check it (repeatable)
    #[arg(long, value_name = "NAMESPACE/SERVICEACCOUNT")]
    pub kubernetes_join: Vec<String>,
    /// What those tokens must be made for: the audience of the pods' projected volumes [default: longshore]
    #[arg(long, value_name = "AUDIENCE")]
    pub kubernetes_audience: Option<String>,
    /// The Kubernetes API [default: https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT]
    #[arg(long, value_name = "URL")]
    pub kubernetes_api: Option<String>,
    /// The CA of its certificate, PEM [default: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt]
    #[arg(long, value_name = "FILE")]
    pub kubernetes_ca_file: Option<String>,
    /// The supernode's own token for it, read anew as it changes; its ServiceAccount needs the ClusterRole
    /// system:auth-delegator [default: /var/run/secrets/kubernetes.io/serviceaccount/token]
    #[arg(long, value_name = "FILE")]
    pub kubernetes_token_file: Option<String>,
    /// HTTPS instead of HTTP: the PEM chain, or `cluster` for a certificate of the cluster's CA
    #[arg(long, value_name = "FILE|cluster")]
    pub http_cert: Option<String>,
    /// The chain's key, PEM
    #[arg(long, value_name = "FILE")]
    pub http_key: Option<String>,
    /// Sessions with peers at once; one more is told to come again [default: 20000]
    #[arg(long, value_name = "N")]
    pub max_sessions: Option<u32>,
    /// Joins a second over all peers; what is beyond is told to come again [default: 5000]
    #[arg(long, value_name = "N")]
    pub max_joins: Option<u32>,
    #[command(flatten)]
    #[serde(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    #[serde(flatten)]
    pub cache: Cache,
    #[command(flatten)]
    #[serde(flatten)]
    pub origins: Origins,
}

#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Peer {
    #[command(flatten)]
    #[serde(flatten)]
    pub home: Home,
    #[command(flatten)]
    #[serde(flatten)]
    pub carrier: Carrier,
    /// The supernode, or a DNS name with several addresses (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub supernode: Vec<String>,
    /// The token that lets this node join: the supernode wrote one to its <data-dir>/join-token
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<String>,
    /// In a Kubernetes pod, instead of a join token: the token of a projected serviceAccountToken volume. Give the volume the
    /// supernode's --kubernetes-audience and not the API's own, so that the token opens nothing else
    #[arg(long, value_name = "FILE")]
    pub kubernetes_token_file: Option<String>,
    /// With it, the cluster's CA: ca.pem of the supernode's cluster folder. The token is shown only to a supernode that has a
    /// certificate of this CA
    #[arg(long, value_name = "FILE")]
    pub cluster_ca_file: Option<String>,
    /// UDP address for neighbours [default: 0.0.0.0:7710]
    #[arg(long, value_name = "ADDRESS")]
    pub quic_listen: Option<String>,
    /// TCP address for /metrics, /healthz and /readyz [default: 0.0.0.0:7712]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// The address that neighbours are told, if not the one that this node's packets come from
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub origins: Origins,
    #[command(flatten)]
    #[serde(flatten)]
    pub limits: Limits,
}

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    pub home: Home,
    #[command(flatten)]
    pub carrier: Carrier,
    /// UDP address of the supernode [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDRESS")]
    pub quic_listen: Option<String>,
    /// TCP address of the supernode's HTTP [default: 127.0.0.1:7701]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// UDP address of the peer [default: 127.0.0.1:7710]
    #[arg(long, value_name = "ADDRESS")]
    pub peer_quic_listen: Option<String>,
    /// TCP address of the peer's /metrics and health [default: 127.0.0.1:7712]
    #[arg(long, value_name = "ADDRESS")]
    pub peer_http_listen: Option<String>,
    #[command(flatten)]
    pub origins: Origins,
    #[command(flatten)]
    pub limits: Limits,
}

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

#[derive(Args)]
pub struct Status {
    /// The daemon's data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

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

#[derive(Args)]
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
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    pub deed: TokenDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

/// Where the cluster's CA, tokens and revocations are.
#[derive(Args)]
pub struct ClusterFolder {
    /// The supernode's data directory
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "cluster_dir")]
    pub data_dir: Option<PathBuf>,
    /// The folder that the supernodes have as --cluster-dir [default: <data-dir>/identity]
    #[arg(long, global = true, value_name = "DIR")]
    pub cluster_dir: Option<PathBuf>,
    /// For programs
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Args)]
pub struct Node {
    #[command(subcommand)]
    pub deed: NodeDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

#[derive(Subcommand)]
pub enum NodeDeed {
    /// Turn a node out: supernodes and peers refuse it and drop its connections within a minute
    Revoke {
        /// Its id, as `longshore status` shows it
        id: String,
        /// For how long: a certificate lasts a day, so that its key is worthless after that, but a join token brings another
        #[arg(long, value_name = "TIME", default_value = "30d")]
        r#for: String,
    },
    /// List the nodes that are turned out
    List,
    /// Let a node in again; where supernodes have copies of the cluster's folder, at each of them
    Allow {
        /// Its id
        id: String,
    },
}

#[derive(Args)]
pub struct Ca {
    #[command(subcommand)]
    pub deed: CaDeed,
    #[command(flatten)]
    pub folder: ClusterFolder,
}

#[derive(Subcommand)]
pub enum CaDeed {
    /// Show the CA, and how far a rotation is
    Status,
    /// Begin a rotation: a new CA issues from now on, and the present one is believed beside it. All nodes must be of this
    /// release; tokens made so far work until the end
    Rotate,
    /// End a rotation: the former CA is believed no more, and its join tokens end
    Finish {
        /// Although certificates of the former CA may still be good: nodes that have not renewed must enrol again
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
pub enum TokenDeed {
    /// Make a token and print it
    Create {
        /// How long it is good for, for example 24h [default: until revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How many nodes may join with it [default: any number]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// What it is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        note: String,
    },
    /// List the tokens; their secrets are not kept
    List,
    /// Make a token useless; nodes that joined with it stay
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}
