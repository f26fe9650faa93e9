//! Which settings there are, and how flags, environment and file become the options of the daemons.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::config::{Key, Kind, ListenAddr, Percent, Rate, Schema, Settings, Share, Span, environment};
use common::node::Labels;
use peer::daemon::PeerOptions;
use peer::limit::Rates;
use peer::origin::guard::Pattern;
use peer::origin::{OriginClient, OriginOptions};
use peer::store::Limits;
use proxy::{ProxyOptions, Terms};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use supernode::admission::Capacity;
use supernode::api::tls::Certificate;
use supernode::daemon::{SupernodeOptions, WebOptions};
use supernode::enrolment::KubernetesFlags;
use supernode::vault::CacheOptions;
use toml::Value;

use crate::joining::Joining;
use crate::{cli, usage};

const SUPERNODE: &[Key] = &[
    Key::new("data-dir", Kind::Text, "/var/lib/longshore"),
    Key::new("quic-listen", Kind::Address, "0.0.0.0:7700"),
    Key::new("http-listen", Kind::Address, "0.0.0.0:7701"),
    Key::new("advertise", Kind::Text, "10.0.0.1:7700"),
    Key::new("origin-allow", Kind::List, "*.example.com"),
    Key::new("registry", Kind::Table, "docker.io=https://registry-1.docker.io"),
    Key::new("insecure-registry", Kind::List, "registry.local:5000"),
    Key::new("ca-file", Kind::List, "/etc/ssl/registry-ca.pem"),
    Key::new("registry-ca", Kind::Table, "registry.local:5000=/etc/ssl/registry-ca.pem"),
    Key::new("quota", Kind::Share, "100GiB"),
    Key::new("high-watermark", Kind::Percent, "95%"),
    Key::new("low-watermark", Kind::Percent, "85%"),
    Key::new("keep-free", Kind::Share, "15%"),
    Key::new("ttl", Kind::Span, "30d"),
    Key::new("cache-url", Kind::Text, "s3://BUCKET/PREFIX"),
    Key::new("cache-endpoint", Kind::Text, "https://minio.example:9000"),
    Key::new("cache-region", Kind::Text, "eu-central-1"),
    Key::new("cache-credentials-file", Kind::Text, "/etc/longshore/cache-credentials"),
    Key::new("cluster-dir", Kind::Text, "/etc/longshore/cluster"),
    Key::new("api-token-file", Kind::Text, "/etc/longshore/api-token"),
    Key::new("kubernetes-join", Kind::List, "longshore/longshore-peer"),
    Key::new("kubernetes-audience", Kind::Text, "longshore"),
    Key::new("kubernetes-api", Kind::Text, "https://10.96.0.1:443"),
    Key::new("kubernetes-ca-file", Kind::Text, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    Key::new("kubernetes-token-file", Kind::Text, "/var/run/secrets/kubernetes.io/serviceaccount/token"),
    Key::new("http-cert", Kind::Text, "/etc/longshore/tls.crt"),
    Key::new("http-key", Kind::Text, "/etc/longshore/tls.key"),
    Key::new("max-sessions", Kind::Number, "20000"),
    Key::new("max-joins", Kind::Number, "5000"),
    Key::new("upload-limit", Kind::Rate, "200mbit"),
    Key::new("download-limit", Kind::Rate, "200mbit"),
    Key::new("origin-limit", Kind::Rate, "200mbit"),
    Key::new("task-upload-limit", Kind::Rate, "100mbit"),
    Key::new("task-download-limit", Kind::Rate, "100mbit"),
    Key::new("task-origin-limit", Kind::Rate, "100mbit"),
    Key::new("max-uploads", Kind::Number, "32"),
];

const PEER: &[Key] = &[
    Key::new("data-dir", Kind::Text, "/var/lib/longshore"),
    Key::new("supernode", Kind::List, "supernode.example:7700"),
    Key::new("join-token-file", Kind::Text, "/etc/longshore/join-token"),
    Key::new("kubernetes-token-file", Kind::Text, "/var/run/secrets/longshore/token"),
    Key::new("cluster-ca-file", Kind::Text, "/etc/longshore/ca.pem"),
    Key::new("quic-listen", Kind::Address, "0.0.0.0:7710"),
    Key::new("proxy-listen", Kind::Address, "127.0.0.1:7711"),
    Key::new("http-listen", Kind::Address, "0.0.0.0:7712"),
    Key::new("advertise", Kind::Text, "10.0.0.2:7710"),
    Key::new("zone", Kind::Text, "eu-1a"),
    Key::new("rack", Kind::Text, "r12"),
    Key::new("host", Kind::Text, "node-7"),
    Key::new("default-registry", Kind::Text, "docker.io"),
    Key::new("origin-allow", Kind::List, "*.example.com"),
    Key::new("registry", Kind::Table, "docker.io=https://registry-1.docker.io"),
    Key::new("insecure-registry", Kind::List, "registry.local:5000"),
    Key::new("ca-file", Kind::List, "/etc/ssl/registry-ca.pem"),
    Key::new("registry-ca", Kind::Table, "registry.local:5000=/etc/ssl/registry-ca.pem"),
    Key::new("quota", Kind::Share, "50GiB"),
    Key::new("high-watermark", Kind::Percent, "95%"),
    Key::new("low-watermark", Kind::Percent, "85%"),
    Key::new("keep-free", Kind::Share, "15%"),
    Key::new("ttl", Kind::Span, "30d"),
    Key::new("permission-life", Kind::Span, "5m"),
    Key::new("permission-grace", Kind::Span, "1h"),
    Key::new("push", Kind::Text, "as-proxy"),
    Key::new("forward-proxy", Kind::Bool, "true"),
    Key::new("intercept", Kind::List, "registry-1.docker.io"),
    Key::new("read-ahead", Kind::Bool, "true"),
    Key::new("content-store", Kind::List, "/var/lib/containerd"),
    Key::new("upload-limit", Kind::Rate, "200mbit"),
    Key::new("download-limit", Kind::Rate, "200mbit"),
    Key::new("origin-limit", Kind::Rate, "200mbit"),
    Key::new("task-upload-limit", Kind::Rate, "100mbit"),
    Key::new("task-download-limit", Kind::Rate, "100mbit"),
    Key::new("task-origin-limit", Kind::Rate, "100mbit"),
    Key::new("max-uploads", Kind::Number, "32"),
];

const SCHEMA: Schema =
    Schema { sections: &[("supernode", SUPERNODE), ("peer", PEER)], exempt: &["LONGSHORE_TESTS_"] };

/// Where the kubelet keeps its state, whoever runs it.
const KUBELET: &str = "/var/lib/kubelet";

/// Flags of one section, as they were typed.
#[derive(Clone, Default)]
pub struct Flags(Vec<(&'static str, Value)>);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct SupernodeSection {
    data_dir: Option<PathBuf>,
    quic_listen: Option<ListenAddr>,
    http_listen: Option<ListenAddr>,
    advertise: Option<SocketAddr>,
    origin_allow: Vec<String>,
    registry: BTreeMap<String, String>,
    insecure_registry: Vec<String>,
    ca_file: Vec<PathBuf>,
    registry_ca: BTreeMap<String, PathBuf>,
    quota: Option<Share>,
    high_watermark: Option<Percent>,
    low_watermark: Option<Percent>,
    keep_free: Option<Share>,
    ttl: Option<Span>,
    cache_url: Option<String>,
    cache_endpoint: Option<String>,
    cache_region: Option<String>,
    cache_credentials_file: Option<PathBuf>,
    cluster_dir: Option<PathBuf>,
    api_token_file: Option<PathBuf>,
    kubernetes_join: Vec<String>,
    kubernetes_audience: Option<String>,
    kubernetes_api: Option<String>,
    kubernetes_ca_file: Option<PathBuf>,
    kubernetes_token_file: Option<PathBuf>,
    http_cert: Option<PathBuf>,
    http_key: Option<PathBuf>,
    max_sessions: Option<NonZeroU32>,
    max_joins: Option<NonZeroU32>,
    upload_limit: Option<Rate>,
    download_limit: Option<Rate>,
    origin_limit: Option<Rate>,
    task_upload_limit: Option<Rate>,
    task_download_limit: Option<Rate>,
    task_origin_limit: Option<Rate>,
    max_uploads: Option<NonZeroU32>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PeerSection {
    data_dir: Option<PathBuf>,
    supernode: Vec<String>,
    join_token_file: Option<PathBuf>,
    kubernetes_token_file: Option<PathBuf>,
    cluster_ca_file: Option<PathBuf>,
    quic_listen: Option<ListenAddr>,
    proxy_listen: Option<ListenAddr>,
    http_listen: Option<ListenAddr>,
    advertise: Option<SocketAddr>,
    zone: String,
    rack: String,
    host: String,
    default_registry: Option<String>,
    origin_allow: Vec<String>,
    registry: BTreeMap<String, String>,
    insecure_registry: Vec<String>,
    ca_file: Vec<PathBuf>,
    registry_ca: BTreeMap<String, PathBuf>,
    quota: Option<Share>,
    high_watermark: Option<Percent>,
    low_watermark: Option<Percent>,
    keep_free: Option<Share>,
    ttl: Option<Span>,
    content_store: Vec<PathBuf>,
    upload_limit: Option<Rate>,
    download_limit: Option<Rate>,
    origin_limit: Option<Rate>,
    task_upload_limit: Option<Rate>,
    task_download_limit: Option<Rate>,
    task_origin_limit: Option<Rate>,
    max_uploads: Option<NonZeroU32>,
    permission_life: Option<Span>,
    permission_grace: Option<Span>,
    push: Option<String>,
    forward_proxy: Option<bool>,
    intercept: Vec<String>,
    read_ahead: Option<bool>,
}

/// A peer's options, and those of the proxy that it carries.
pub struct PeerPlan {
    /// The peer.
    pub options: PeerOptions,
    /// Where the proxy listens.
    pub proxy_listen: SocketAddr,
    /// What the proxy is told.
    pub proxy: ProxyOptions,
}

/// What the settings say of a machine's daemons, for whoever only looks.
#[derive(Default)]
pub struct Outlook {
    /// Where data is kept: the peer's, or else the supernode's.
    pub data_dir: Option<PathBuf>,
    /// The peer's supernodes.
    pub supernodes: Vec<String>,
    /// What it joins with.
    pub joining: Joining,
    /// What is meant where a pull names no registry.
    pub default_registry: Option<String>,
    /// Where registries' names are reached.
    pub registries: BTreeMap<String, String>,
}

// === impl Flags ===

impl Flags {
    /// A flag that may be missing.
    pub fn text(mut self, key: &'static str, value: Option<String>) -> Self {
        self.0.extend(value.map(|value| (key, Value::String(value))));
        self
    }

    /// A repeatable flag.
    pub fn list(mut self, key: &'static str, values: Vec<String>) -> Self {
        if !values.is_empty() {
            self.0.push((key, Value::Array(values.into_iter().map(Value::String).collect())));
        }
        self
    }
}

impl Flags {
    /// Where a daemon lives; the file is read before.
    pub fn home(self, home: cli::Home) -> Self {
        self.text("data-dir", home.data_dir)
            .text("quota", home.quota)
            .text("high-watermark", home.high_watermark)
            .text("low-watermark", home.low_watermark)
            .text("keep-free", home.keep_free)
            .text("ttl", home.ttl)
    }

    /// A bucket behind the supernode's disk.
    pub fn cache(self, cache: cli::Cache) -> Self {
        self.text("cache-url", cache.cache_url)
            .text("cache-endpoint", cache.cache_endpoint)
            .text("cache-region", cache.cache_region)
            .text("cache-credentials-file", cache.cache_credentials_file)
    }

    /// Where a peer stands, and what it carries.
    pub fn carrier(self, carrier: cli::Carrier) -> Self {
        self.text("proxy-listen", carrier.proxy_listen)
            .text("default-registry", carrier.default_registry)
            .list("intercept", carrier.intercept)
            .text("zone", carrier.zone)
            .text("rack", carrier.rack)
            .list("content-store", carrier.content_store)
    }

    /// How much may pass.
    pub fn limits(self, limits: cli::Limits) -> Self {
        self.text("upload-limit", limits.upload_limit)
            .text("download-limit", limits.download_limit)
            .text("origin-limit", limits.origin_limit)
            .text("task-upload-limit", limits.task_upload_limit)
            .text("task-download-limit", limits.task_download_limit)
            .text("task-origin-limit", limits.task_origin_limit)
            .number("max-uploads", limits.max_uploads)
    }

    /// A flag that is a number and may be missing.
    pub fn number(mut self, key: &'static str, value: Option<u32>) -> Self {
        self.0.extend(value.map(|value| (key, Value::Integer(value.into()))));
        self
    }

    /// Which origins may be asked, and where they are.
    pub fn origins(self, origins: cli::Origins) -> Self {
        self.list("origin-allow", origins.origin_allow)
            .list("registry", origins.registry)
            .list("insecure-registry", origins.insecure_registry)
            .list("registry-ca", origins.registry_ca)
    }
}

fn gather(config: Option<&Path>, section: &'static str, flags: Flags) -> anyhow::Result<Settings> {
    let mut settings = match config {
        Some(path) => Settings::from_file(path).map_err(usage)?,
        None => Settings::empty(),
    };
    settings.overlay_env(environment(), &SCHEMA).map_err(usage)?;
    for (key, value) in flags.0 {
        settings.set(section, key, value);
    }
    Ok(settings)
}

fn section<T: DeserializeOwned>(settings: &Settings, name: &str) -> anyhow::Result<T> {
    settings.section(name, &SCHEMA).map_err(usage)
}

fn on(interface: IpAddr, given: Option<ListenAddr>, port: u16) -> SocketAddr {
    given.unwrap_or(ListenAddr::Port(port)).resolve(interface)
}

/// A folder that can be written.
pub fn prepared(dir: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let dir = dir.unwrap_or_else(common::config::data_dir_default);
    common::config::prepare_data_dir(&dir)?;
    Ok(dir)
}

/// How a daemon is, unless told otherwise.
#[derive(Clone, Copy)]
pub struct Defaults {
    /// Where it listens.
    pub interface: Ipv4Addr,
    /// Which origins may be asked; empty means all that are not loopback.
    pub origin_allow: &'static [&'static str],
}

/// A daemon on a machine among others.
pub const CLUSTER: Defaults = Defaults { interface: Ipv4Addr::UNSPECIFIED, origin_allow: &[] };
/// All daemons in one process, for this machine alone: its own loopback origins are meant, too.
pub const LOOPBACK: Defaults = Defaults { interface: Ipv4Addr::LOCALHOST, origin_allow: &["*"] };

/// Finds out what is wrong with the origin settings before anything is opened.
fn checked(mut origin: OriginOptions, defaults: Defaults) -> anyhow::Result<OriginOptions> {
    if origin.allow.is_empty() {
        origin.allow = defaults.origin_allow.iter().map(|&pattern| pattern.to_owned()).collect();
    }
    OriginClient::new(origin.clone()).map_err(usage)?;
    Ok(origin)
}

/// How much a daemon keeps.
fn limits(
    quota: Option<Share>,
    [high, low]: [Option<Percent>; 2],
    keep_free: Option<Share>,
    ttl: Option<Span>,
) -> anyhow::Result<Limits> {
    let limits = Limits {
        quota,
        high: high.unwrap_or(Limits::NONE.high),
        // Who sets the high one alone need not think of the other.
        low: low.unwrap_or(Limits::NONE.low.min(high.unwrap_or(Limits::NONE.high))),
        keep_free: keep_free.unwrap_or_else(keep_free_here),
        ttl: ttl.map(|ttl| ttl.0),
    };
    anyhow::ensure!(
        limits.low <= limits.high,
        "--low-watermark {} is above --high-watermark {}: evicting ends at the low one",
        limits.low,
        limits.high
    );
    Ok(limits)
}

/// What the disk has to have free where nobody said. The kubelet drives pods away at 15 % of the images' disk; other
/// machines only need room to go on.
fn keep_free_here() -> Share {
    let node = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || Path::new(KUBELET).exists();
    Share::Percent(Percent::new(if node { 15 } else { 5 }))
}

/// The limits of a section: both have the same keys.
macro_rules! rates {
    ($section:expr) => {{
        let rate = |rate: Option<Rate>| rate.and_then(Rate::bytes_per_second).map(u64::from);
        Rates {
            upload: rate($section.upload_limit),
            download: rate($section.download_limit),
            origin: rate($section.origin_limit),
            task_upload: rate($section.task_upload_limit),
            task_download: rate($section.task_download_limit),
            task_origin: rate($section.task_origin_limit),
            uploads: $section.max_uploads.map(|most| u64::from(most.get())),
        }
    }};
}

/// The supernode's options.
pub fn supernode(
    config: Option<&Path>,
    flags: Flags,
    defaults: Defaults,
) -> anyhow::Result<SupernodeOptions> {
    let settings: SupernodeSection = section(&gather(config, "supernode", flags)?, "supernode")?;
    let interface = defaults.interface;
    let limits = limits(
        settings.quota,
        [settings.high_watermark, settings.low_watermark],
        settings.keep_free,
        settings.ttl,
    );
    let cache = CacheOptions::read(
        settings.cache_url.as_deref(),
        settings.cache_endpoint,
        settings.cache_region,
        settings.cache_credentials_file,
    );
    let cache = cache.map_err(usage)?;
    let origin = OriginOptions {
        allow: settings.origin_allow,
        registries: settings.registry,
        insecure_registries: settings.insecure_registry,
        extra_ca: settings.ca_file,
        registry_ca: settings.registry_ca,
    };
    let web = WebOptions {
        token_file: settings.api_token_file,
        certificate: certificate(settings.http_cert, settings.http_key).map_err(usage)?,
    };
    let kubernetes = KubernetesFlags {
        join: settings.kubernetes_join,
        audience: settings.kubernetes_audience,
        api: settings.kubernetes_api,
        ca_file: settings.kubernetes_ca_file,
        token_file: settings.kubernetes_token_file,
    };
    let kubernetes = kubernetes.options(|name| std::env::var(name).ok()).map_err(usage)?;
    let capacity = Capacity::default();
    let capacity = Capacity {
        sessions: settings.max_sessions.map_or(capacity.sessions, |most| most.get() as usize),
        joins: settings.max_joins.map_or(capacity.joins, NonZeroU32::get),
    };
    Ok(SupernodeOptions {
        web,
        capacity,
        rates: rates!(settings),
        data_dir: prepared(settings.data_dir)?,
        quic_listen: on(interface.into(), settings.quic_listen, 7700),
        http_listen: on(interface.into(), settings.http_listen, 7701),
        advertise: settings.advertise,
        origin: checked(origin, defaults)?,
        limits: limits.map_err(usage)?,
        cache,
        cluster_dir: settings.cluster_dir,
        kubernetes,
        certificate_life: certificate_life()?,
    })
}

/// How long certificates last, for tests that wait for renewals. Not a setting: a cluster's last a day.
fn certificate_life() -> anyhow::Result<Option<Duration>> {
    let Ok(text) = std::env::var("LONGSHORE_TESTS_CERTIFICATE_LIFE") else { return Ok(None) };
    Ok(Some(text.parse::<Span>().map_err(usage)?.0))
}

/// Where the certificate of the HTTP port comes from.
fn certificate(chain: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<Certificate>> {
    match (chain, key) {
        (None, None) => Ok(None),
        (Some(chain), None) if chain == Path::new("cluster") => Ok(Some(Certificate::Cluster)),
        (Some(chain), Some(key)) => Ok(Some(Certificate::Files { chain, key })),
        _ => anyhow::bail!(
            "--http-cert and --http-key belong together; `--http-cert cluster` alone takes a certificate of the cluster's CA"
        ),
    }
}

/// The peer's options. The proxy is on loopback unless told otherwise.
pub fn peer(config: Option<&Path>, flags: Flags, defaults: Defaults) -> anyhow::Result<PeerPlan> {
    let interface = defaults.interface;
    let mut settings: PeerSection = section(&gather(config, "peer", flags)?, "peer")?;
    for supernode in &settings.supernode {
        let port = supernode
            .rsplit_once(':')
            .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
        if !matches!(port, Some(Ok(1..))) {
            return Err(usage(anyhow::anyhow!(
                "--supernode {supernode:?} is not HOST:PORT, for example supernode.example:7700"
            )));
        }
    }
    let joining = Joining {
        join_token: settings.join_token_file.take(),
        kubernetes_token: settings.kubernetes_token_file.take(),
        cluster_ca: settings.cluster_ca_file.take(),
    };
    let proof = joining.proof().map_err(usage)?;
    let host = if settings.host.is_empty() { hostname() } else { std::mem::take(&mut settings.host) };
    // They are noted in the store, and the next start may be in another folder.
    let content_store = settings.content_store.iter().map(std::path::absolute).collect::<Result<_, _>>();
    let rates = rates!(settings);
    let proxy_listen = on(Ipv4Addr::LOCALHOST.into(), settings.proxy_listen, 7711);
    let limits = limits(
        settings.quota,
        [settings.high_watermark, settings.low_watermark],
        settings.keep_free,
        settings.ttl,
    );
    let data_dir = prepared(settings.data_dir.take())?;
    let proxy = proxy_options(&mut settings, proxy_listen, &data_dir).map_err(usage)?;
    let origin = OriginOptions {
        allow: settings.origin_allow,
        registries: settings.registry,
        insecure_registries: settings.insecure_registry,
        extra_ca: settings.ca_file,
        registry_ca: settings.registry_ca,
    };
    Ok(PeerPlan {
        options: PeerOptions {
            data_dir,
            supernodes: settings.supernode,
            proof,
            quic_listen: on(interface.into(), settings.quic_listen, 7710),
            http_listen: Some(on(interface.into(), settings.http_listen, 7712)),
            advertise: settings.advertise,
            labels: Labels { zone: settings.zone, rack: settings.rack, host },
            origin: checked(origin, defaults)?,
            limits: limits.map_err(usage)?,
            content_store: content_store.map_err(usage)?,
            rates,
        },
        proxy_listen,
        proxy,
    })
}

/// What a peer's proxy is told.
fn proxy_options(
    settings: &mut PeerSection,
    listen: SocketAddr,
    data_dir: &Path,
) -> anyhow::Result<ProxyOptions> {
    let defaults = ProxyOptions::default();
    let terms = Terms {
        life: settings.permission_life.map_or(defaults.terms.life, |span| span.0),
        grace: settings.permission_grace.map_or(defaults.terms.grace, |span| span.0),
    };
    let push = settings.push.as_deref().map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    let intercept = settings.intercept.iter().map(|host| host.parse::<Pattern>());
    let intercept: Vec<Pattern> = intercept.collect::<Result<_, _>>()?;
    // A proxy that everybody reaches would open this node's network to everybody.
    let forward = settings.forward_proxy.unwrap_or(listen.ip().is_loopback());
    if !forward && !intercept.is_empty() {
        anyhow::bail!(
            "--intercept needs an HTTP proxy, and this one listens beyond loopback: set forward-proxy = true, \
             or --proxy-listen on loopback"
        );
    }
    Ok(ProxyOptions {
        default_registry: settings.default_registry.take().unwrap_or(defaults.default_registry),
        terms,
        push: push.unwrap_or(defaults.push),
        forward,
        intercept,
        intercept_dir: data_dir.join("intercept"),
        read_ahead: settings.read_ahead.unwrap_or(defaults.read_ahead),
    })
}

/// Reads all sections, as the daemons would, and makes nothing. The flags are a peer's.
pub fn outlook(config: Option<&Path>, flags: Flags) -> anyhow::Result<Outlook> {
    let settings = gather(config, "peer", flags)?;
    let supernode: SupernodeSection = section(&settings, "supernode")?;
    let peer: PeerSection = section(&settings, "peer")?;
    Ok(Outlook {
        data_dir: peer.data_dir.or(supernode.data_dir),
        supernodes: peer.supernode,
        joining: Joining {
            join_token: peer.join_token_file,
            kubernetes_token: peer.kubernetes_token_file,
            cluster_ca: peer.cluster_ca_file,
        },
        default_registry: peer.default_registry,
        registries: supernode.registry.into_iter().chain(peer.registry).collect(),
    })
}

/// This machine's name, which tells neighbours on one machine that they are near.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
