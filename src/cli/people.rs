//! Flags of what people do with Longshore: see it at work, fetch, look.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use common::config::{Rate, Span};
use peer::local_api::Excerpt;

use crate::get::tree::Depth;
use crate::settings::permissions;
use peer::image::manifest::Platform;
use peer::origin::query::Filter;

const DEMO: &str = "\
Examples:
  longshore demo                            four peers, 192 MiB
  longshore demo --peers 12 --size 1GiB     more of both
  longshore demo --peers 12 --stay          look around afterwards, until Ctrl-C";

#[derive(Args)]
#[command(after_help = DEMO)]
pub struct Demo {
    /// Number of peers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub peers: u16,
    /// Size of the generated image
    #[arg(long, default_value = "192MiB", value_name = "SIZE")]
    pub size: String,
    /// Keep running afterwards, until Ctrl-C: new releases of the image to pull, and a dashboard to watch it on
    #[arg(long)]
    pub stay: bool,
}

const GET: &str = "\
Examples:
  longshore get https://example.com/big.iso                     big.iso, in this folder
  longshore get https://example.com/big.iso -o - | tar x        to standard output
  longshore get -i list --output-dir /srv/images                many, one a line: URL, or URL sha256:…
  longshore get -r https://example.com/pub/ --include '*.iso'    all such files of a folder and the folders in it
  longshore get s3://data/models/a.bin --s3-region eu-west-1    with AWS's environment variables or ~/.aws/credentials
  longshore get https://example.com/big.iso --range 0-1023 -o head
  longshore get oci://quay.io/team/app:1.2 -o app               an image into an OCI layout: skopeo copy oci:app:1.2 …

A get that was broken off goes on from NAME.part when it is asked again. With --json there is one JSON object a line on
standard output (on standard error with -o -): \"event\" is start, progress, done or failed; done has bytes, seconds, through
(who gave it) and digest, failed has error and code.

Exit codes: 0 done, 1 it did not work, 2 the command line makes no sense, 3 the content is not what its digest promises,
4 the origin does not have it or refuses it, 5 the time was up, 130 interrupted. Of several sources: that of the first failure.";

#[derive(Args)]
#[command(after_help = GET)]
pub struct Get {
    /// What to fetch: http:// and https:// URLs; s3://BUCKET/KEY; oci:// and docker:// images; file:// is copied
    #[arg(value_name = "SOURCE", required_unless_present = "input_file")]
    pub sources: Vec<String>,
    /// A file with more sources, one a line, perhaps with its digest behind it; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// The file to write, which appears only when it is whole and right; - is standard output [default: the URL's last part]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// The folder to write to, by the names in the URLs [default: this one]
    #[arg(short = 'O', long, value_name = "DIR", conflicts_with = "output")]
    pub output_dir: Option<PathBuf>,
    /// Everything below a folder: of a server that shows it as a page of links, or of a bucket (s3://BUCKET/PREFIX/). Files
    /// that are here already are left as they are
    #[arg(short, long, conflicts_with_all = ["output", "digest", "range"])]
    pub recursive: bool,
    /// Of a folder, only such files (repeatable): a pattern like '*.iso' of the name, or like 'a/**' of the path
    #[arg(long, value_name = "GLOB", requires = "recursive")]
    pub include: Vec<String>,
    /// Of a folder, no such files (repeatable); goes before --include
    #[arg(long, value_name = "GLOB", requires = "recursive")]
    pub exclude: Vec<String>,
    /// How many folders deep a folder is entered; 0 is the files in it alone
    #[arg(long, value_name = "COUNT", default_value_t, requires = "recursive")]
    pub depth: Depth,
    /// Sources that are fetched side by side
    #[arg(short = 'j', long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub parallel: u8,
    /// The server of s3:// sources, http(s)://HOST[:PORT] [default: Amazon's]
    #[arg(long, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Its region [default: AWS_REGION, AWS_DEFAULT_REGION or us-east-1]
    #[arg(long, value_name = "REGION")]
    pub s3_region: Option<String>,
    /// Its credentials, an AWS-style file of mode 600 [default: AWS's environment variables, ~/.aws/credentials, or nobody's]
    #[arg(long, value_name = "FILE")]
    pub s3_credentials_file: Option<PathBuf>,
    /// The content's digest, sha256:<64 hex>: nothing else is accepted
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// A word that separates this swarm from others of the same URL
    #[arg(long, default_value = "", value_name = "TAG")]
    pub tag: String,
    /// A header for the origin, as 'Name: value' (repeatable); it is kept secret
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// Query parameters that sign a URL and do not name its content, NAME,NAME…, beside those of AWS, Google and Azure;
    /// none: all name it
    #[arg(long, value_name = "NAMES")]
    pub filter_query: Option<Filter>,
    /// What an image is to run on, OS/ARCHITECTURE[/VARIANT] [default: linux on this machine's architecture]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// A registry that is spoken to in plain HTTP (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub insecure_registry: Vec<String>,
    /// Only these bytes: FIRST-LAST, FIRST- or -COUNT
    #[arg(long, value_name = "RANGE", conflicts_with = "digest", allow_hyphen_values = true)]
    pub range: Option<Excerpt>,
    /// At most so many bytes a second, for example 10MiB/s or 200mbit; a local peer has limits of its own beside it
    #[arg(long, value_name = "RATE")]
    pub limit: Option<Rate>,
    /// Give up after so long, for example 90s or 1h; for each source
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Try again so many times when a failure may pass, beside the retries of single requests
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub retry: u32,
    /// Take only what the local peer has already; the origin is asked whether it may be had, and for nothing else
    #[arg(long)]
    pub no_origin: bool,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
    /// The file's permissions, in octal, for example 0644
    #[arg(long, value_name = "MODE", value_parser = permissions)]
    pub mode: Option<u32>,
    /// Where the local peer's own socket is looked for [default: the daemons' data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The local peer's socket for clients [default: /run/longshore/get.sock, if the peer's own is not there or not open]
    #[arg(long, value_name = "PATH", conflicts_with = "data_dir")]
    pub socket: Option<PathBuf>,
    /// Without a local peer: join the swarm of this supernode (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub supernode: Vec<String>,
    /// The token to join it with
    #[arg(long, value_name = "FILE", requires = "supernode")]
    pub join_token_file: Option<PathBuf>,
    /// One JSON object a line on standard output, for programs
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

impl Get {
    /// The limit in bytes a second.
    pub fn limit_bytes(&self) -> Option<u64> {
        Some(self.limit?.bytes_per_second()?.get())
    }
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

const EXPLAIN: &str = "\
Examples:
  longshore explain                             the last pulls
  longshore explain docker.io/library/nginx:1.29   an image, as it was typed to the runtime
  longshore explain 3f2a90c1b7d4                one task: 64 hexadecimal digits, or so many that only one begins with them

A daemon remembers its last 256 pulls until it ends.";

#[derive(Args)]
#[command(after_help = EXPLAIN)]
pub struct Explain {
    /// An image, or a task [default: the last pulls are listed]
    #[arg(value_name = "IMAGE|TASK")]
    pub what: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// The supernode's, where a peer runs beside it
    #[arg(long)]
    pub supernode: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

const TOP: &str = "\
Examples:
  longshore top                       the peer's, or the supernode's where no peer runs
  longshore top --supernode           the supernode's, beside a peer
  longshore top --once                one look, as text

Keys: left and right change the page, up and down the row, s sorts, p pauses, ? helps, q ends.";

#[derive(Args)]
#[command(after_help = TOP)]
pub struct Top {
    #[command(flatten)]
    pub at: At,
    /// The supernode's, where a peer runs beside it
    #[arg(long)]
    pub supernode: bool,
    /// Print all of it once, as it is without a terminal
    #[arg(long)]
    pub once: bool,
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
