//! Flags of preheating.

use clap::{Args, Subcommand, ValueEnum};
use common::config::Span;

use super::people::At;

const PREHEAT: &str = "\
Examples:
  longshore preheat quay.io/team/app:1.2                         into the stores of all nodes' peers
  longshore preheat quay.io/team/app:1.2 --to runtime --wait     unpacked at every node, and watched
  longshore preheat nginx:1.29 --to cache                        the supernode has it: the origin is asked no more
  longshore preheat app:2 --percent 10 --parallelism 4           a tenth of the nodes, four at a time
  longshore preheat quay.io/team/app:1.2 --plan                  how much that would be, and how long
  longshore preheat https://example.com/model.bin --zone a       a file, at the nodes of a zone
  longshore preheat nginx:1.29 --schedule '0 3 * * *' --time-zone Europe/Berlin       every night
  longshore preheat quay.io/team/app:main --follow               now, and each time that the tag moves
  longshore preheat --for deployment/app --image app:2 --wait    at the nodes that run the deployment's pods

It is a job of the supernode, which this command finds by its data folder: run it where the supernode runs (in a cluster:
kubectl exec). The job goes on when the command has ended; `longshore preheats` shows, pauses, cancels. Logins are those of docker,
podman and skopeo; the job keeps them in memory only, so that one that needs them does not outlive a restart of the supernode. Where
none are there, the supernode uses its own (supernode --registry-logins), which a restart does not forget.

Exit codes: 0 taken on, or with --wait all nodes have it; 1 it did not work; 2 the command line makes no sense.";

/// Where to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Target {
    /// The supernode's cache
    Cache,
    /// The stores of nodes' peers
    Peers,
    /// The nodes' container runtimes, unpacked
    Runtime,
}

#[derive(Args)]
#[command(after_help = PREHEAT)]
pub struct Preheat {
    /// An image as docker pull takes it, or http:// and https:// URLs
    #[arg(value_name = "IMAGE|URL", required_unless_present = "image")]
    pub what: Vec<String>,
    /// The image, in place of IMAGE: it reads better behind --for
    #[arg(long, value_name = "IMAGE", conflicts_with = "what")]
    pub image: Option<String>,
    /// Where to
    #[arg(long, value_enum, default_value_t = Target::Peers, value_name = "WHERE")]
    pub to: Target,
    /// Only these nodes: host labels or node ids, NAME,NAME… [default: all that are connected]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// Only the nodes that run a Kubernetes workload's pods now: deployment/NAME, statefulset/NAME or daemonset/NAME, of the cluster
    /// that a kubeconfig file names, or that this pod is in
    #[arg(long = "for", value_name = "KIND/NAME", conflicts_with = "nodes")]
    pub workload: Option<String>,
    /// The workload's namespace [default: the kubeconfig context's, or the pod's]
    #[arg(short, long, value_name = "NAMESPACE", requires = "workload")]
    pub namespace: Option<String>,
    /// Only nodes of this zone (repeatable)
    #[arg(long, value_name = "ZONE")]
    pub zone: Vec<String>,
    /// Only nodes of this rack (repeatable)
    #[arg(long, value_name = "RACK")]
    pub rack: Vec<String>,
    /// Only so many of these nodes, spread over the zones
    #[arg(long, value_name = "COUNT", conflicts_with = "percent")]
    pub count: Option<u32>,
    /// Only so many of a hundred of them, spread over the zones
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: Option<u8>,
    /// For OS/ARCHITECTURE[/VARIANT], or all (repeatable) [default: the supernode's own]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// A file's digest, sha256:<64 hex>
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Nodes at work at once
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub parallelism: u32,
    /// How long one attempt of one node may take
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub timeout: Span,
    /// How often a node tries again after a failure
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub retries: u32,
    /// End the job after so long, done or not
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<Span>,
    /// Show the job for so long after its end
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub ttl: Span,
    /// A header for the registry, as 'Authorization: value' [default: your logins]
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub header: Option<String>,
    /// Wait until it is over, and show how it goes
    #[arg(long, conflicts_with_all = ["schedule", "follow"])]
    pub wait: bool,
    /// Bring nothing: say how many bytes would move, from where, and how long it would take
    #[arg(long, conflicts_with_all = ["wait", "schedule", "follow"])]
    pub plan: bool,
    /// Begin such a job again and again: five fields as cron has them, or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "CRON", conflicts_with = "follow")]
    pub schedule: Option<String>,
    /// The time zone of --schedule, for example Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "schedule")]
    pub time_zone: Option<String>,
    /// Begin such a job now and each time that the image's tag moves, which the registry is asked this often: --follow or
    /// --follow=TIME [default: 5m; at least 30s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5m")]
    pub follow: Option<Span>,
    #[command(flatten)]
    pub at: At,
    /// The job as JSON on standard output, for programs
    #[arg(long)]
    pub json: bool,
}

const PREHEATS: &str = "\
Examples:
  longshore preheats                 all jobs, the newest first
  longshore preheats show 12         one, node by node
  longshore preheats watch 12        until it is over
  longshore preheats cancel 12
  longshore preheats schedules       what begins jobs by itself
  longshore preheats schedules run 3";

/// The jobs that there are.
#[derive(Args)]
#[command(after_help = PREHEATS, args_conflicts_with_subcommands = true)]
pub struct Preheats {
    #[command(subcommand)]
    pub deed: Option<Deed>,
    #[command(flatten)]
    pub at: At,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What is to be done with a job.
#[derive(Subcommand)]
pub enum Deed {
    /// Show it with its nodes
    Show(Job),
    /// Watch it until it is over
    Watch(Job),
    /// Let nobody work on it until it is resumed
    Pause(Job),
    /// Go on with it
    Resume(Job),
    /// End it
    Cancel(Job),
    /// End and forget it; what was brought stays
    Remove(Job),
    /// What begins jobs by itself (preheat --schedule, --follow)
    Schedules(Schedules),
}

/// The schedules that there are.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Schedules {
    #[command(subcommand)]
    pub deed: Option<ScheduleDeed>,
    #[command(flatten)]
    pub at: At,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What is to be done with a schedule.
#[derive(Subcommand)]
pub enum ScheduleDeed {
    /// Show it with its last runs
    Show(Schedule),
    /// Run it now, paused or not
    Run(Schedule),
    /// Let it begin nothing by itself until it is resumed
    Pause(Schedule),
    /// Go on with it; what was missed meanwhile is not made up for
    Resume(Schedule),
    /// Forget it; a job that it began goes on
    Remove(Schedule),
}

/// The schedule that is meant.
#[derive(Args)]
pub struct Schedule {
    /// Its number
    #[arg(value_name = "SCHEDULE")]
    pub id: u64,
    #[command(flatten)]
    pub at: At,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// The job that is meant.
#[derive(Args)]
pub struct Job {
    /// Its number
    #[arg(value_name = "JOB")]
    pub id: u64,
    #[command(flatten)]
    pub at: At,
    /// For programs
    #[arg(long)]
    pub json: bool,
}
