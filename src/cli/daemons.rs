//! Flags of the daemons: texts, and named like their keys; [`crate::settings`] lays them over the environment and the
//! configuration file and reads them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

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
    /// An OpenTelemetry collector that is told how pulls went, over OTLP/HTTP, for example http://127.0.0.1:4318
    /// [default: LONGSHORE_OTLP_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT, else pulls are not traced]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How many of the requests are traced whose client did not decide it with a `traceparent` header [default: 1%]
    #[arg(long, value_name = "PERCENT")]
    pub otlp_sample: Option<String>,
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
    /// The container runtime's CRI socket, through which the runtime is asked to pull what is preheated into it [default:
    /// /run/containerd/containerd.sock or /run/crio/crio.sock, whichever is there]
    #[arg(long, value_name = "PATH")]
    pub runtime_socket: Option<String>,
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
    /// A folder that nodes share, such as a network file system: what everybody may read there can be fetched as
    /// file:///PATH, at most once from the share (repeatable) [default: none]
    #[arg(long, value_name = "FOLDER")]
    pub origin_folder: Vec<PathBuf>,
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

const SUPERNODE: &str = "\
Examples:
  longshore supernode --config /etc/longshore/longshore.toml
  longshore supernode --quota 200GiB --origin-allow '*.example.com'
  longshore supernode --cluster-dir /etc/longshore/cluster             one of several of a cluster
  longshore supernode --cache-url s3://acme-images/longshore --cache-region eu-central-1

The first join token is in <data-dir>/join-token; `longshore token` makes others.";

#[derive(Args, Serialize)]
#[command(after_help = SUPERNODE)]
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
    /// The supernode's own token for it, read anew as it changes; for --kubernetes-join its ServiceAccount needs the ClusterRole
    /// system:auth-delegator [default: /var/run/secrets/kubernetes.io/serviceaccount/token]
    #[arg(long, value_name = "FILE")]
    pub kubernetes_token_file: Option<String>,
    /// Work on the cluster's ImagePreheats, which preheat images as `longshore preheat` does. Of several supernodes one does, which a
    /// Lease says. Its ServiceAccount needs the rights that the chart gives it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub kubernetes_controller: Option<bool>,
    /// The namespace of that Lease [default: the pod's]
    #[arg(long, value_name = "NAMESPACE")]
    pub kubernetes_namespace: Option<String>,
    /// Read from the cluster's Nodes in which zone a peer is that does not say so itself; its --host is its Node's name. The
    /// ServiceAccount must be allowed to list and watch nodes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub kubernetes_zones: Option<bool>,
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
    /// Preheat what a registry tells of that it was pushed: the images, by patterns with * and **, and where to, for example
    /// 'quay.io/team/**:v*=peers,zone=eu-1a' (repeatable; the first that fits counts) [default: nothing]
    #[arg(long, value_name = "REGISTRY/REPOSITORY[:TAG]=cache|peers|runtime[,…]")]
    pub preheat_rule: Vec<String>,
    /// Logins at registries, as `docker login` writes them, for preheating what nobody brings credentials for; whoever may make jobs
    /// uses them [default: none]
    #[arg(long, value_name = "FILE")]
    pub registry_logins: Option<String>,
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

const PEER: &str = "\
Examples:
  longshore peer --supernode supernode.example:7700 --join-token-file /etc/longshore/join-token
  longshore peer --config /etc/longshore/longshore.toml --zone eu-1a --quota 50GiB
  longshore peer --supernode one.example:7700 --supernode two.example:7700
                                                    with the certificate that it has; any of the two will do

Then `longshore setup` points a container runtime at its proxy.";

#[derive(Args, Serialize)]
#[command(after_help = PEER)]
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
    /// A Unix socket through which other users of this machine may fetch, with their own credentials, and nothing else;
    /// `longshore get` looks for it at /run/longshore/get.sock
    #[arg(long, value_name = "PATH")]
    pub client_socket: Option<String>,
    /// The group that the socket gets [default: the daemon's]
    #[arg(long, value_name = "GROUP")]
    pub client_socket_group: Option<String>,
    /// Its permissions, in octal; who may write to it may fetch [default: 0660]
    #[arg(long, value_name = "MODE")]
    pub client_socket_mode: Option<String>,
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

const UP: &str = "\
Examples:
  longshore up                                      all on loopback; the proxy is http://127.0.0.1:7711
  longshore up --insecure-registry 127.0.0.1:5000   and a registry of this machine, in plain HTTP
  longshore up --data-dir /srv/longshore --quota 50GiB";

#[derive(Args)]
#[command(after_help = UP)]
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
