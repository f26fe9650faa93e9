//! How flags, environment and file become the options of the daemons.

mod flags;
mod groups;
mod keys;
mod node;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use common::config::{ListenAddr, Settings, Span, environment};
use common::node::Labels;
use peer::daemon::PeerOptions;
use peer::origin::guard::Pattern;
use peer::runtime::Runtime;
use peer::socket::ClientSocket;
use proxy::{ProxyOptions, Terms};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use supernode::admission::Capacity;
use supernode::api::tls::Certificate;
use supernode::daemon::{SupernodeOptions, WebOptions};
use supernode::drivers::Rules;
use supernode::kubernetes;
use supernode::preheat::Logins;
use supernode::vault::CacheOptions;

use crate::joining::Joining;
use crate::{traces, usage};

use keys::SCHEMA;
use node::{Basics, NodeSection};

pub use flags::Flags;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct SupernodeSection {
    quic_listen: Option<ListenAddr>,
    http_listen: Option<ListenAddr>,
    advertise: Option<SocketAddr>,
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
    kubernetes_controller: bool,
    kubernetes_zones: bool,
    kubernetes_namespace: Option<String>,
    http_cert: Option<PathBuf>,
    http_key: Option<PathBuf>,
    max_sessions: Option<NonZeroU32>,
    max_joins: Option<NonZeroU32>,
    preheat_rule: Vec<String>,
    registry_logins: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PeerSection {
    supernode: Vec<String>,
    join_token_file: Option<PathBuf>,
    kubernetes_token_file: Option<PathBuf>,
    cluster_ca_file: Option<PathBuf>,
    quic_listen: Option<ListenAddr>,
    proxy_listen: Option<ListenAddr>,
    http_listen: Option<ListenAddr>,
    client_socket: Option<PathBuf>,
    client_socket_group: Option<String>,
    client_socket_mode: Option<String>,
    advertise: Option<SocketAddr>,
    zone: String,
    rack: String,
    host: String,
    default_registry: Option<String>,
    content_store: Vec<PathBuf>,
    runtime_socket: Option<PathBuf>,
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

fn gather(config: Option<&Path>, section: &'static str, flags: Flags) -> anyhow::Result<Settings> {
    let mut settings = match config {
        Some(path) => Settings::from_file(path).map_err(usage)?,
        None => Settings::empty(),
    };
    settings.overlay_env(environment(), &SCHEMA).map_err(usage)?;
    for (key, value) in flags.each() {
        settings.set(section, &key, value);
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

/// The supernode's options.
pub fn supernode(
    config: Option<&Path>,
    flags: Flags,
    defaults: Defaults,
) -> anyhow::Result<SupernodeOptions> {
    let all = gather(config, "supernode", flags)?;
    let settings: SupernodeSection = section(&all, "supernode")?;
    let interface = defaults.interface;
    let cache = CacheOptions::read(
        settings.cache_url.as_deref(),
        settings.cache_endpoint,
        settings.cache_region,
        settings.cache_credentials_file,
    );
    let cache = cache.map_err(usage)?;
    let web = WebOptions {
        token_file: settings.api_token_file,
        certificate: certificate(settings.http_cert, settings.http_key).map_err(usage)?,
    };
    let kubernetes = kubernetes::Flags {
        join: settings.kubernetes_join,
        audience: settings.kubernetes_audience,
        api: settings.kubernetes_api,
        ca_file: settings.kubernetes_ca_file,
        token_file: settings.kubernetes_token_file,
        controller: settings.kubernetes_controller,
        namespace: settings.kubernetes_namespace,
        zones: settings.kubernetes_zones,
    };
    let kubernetes = kubernetes.plan(|name| std::env::var(name).ok()).map_err(usage)?;
    let preheat_rules = Rules::read(&settings.preheat_rule).map_err(usage)?;
    let registry_logins = settings.registry_logins.map(Logins::open).transpose().map_err(usage)?;
    let capacity = Capacity::default();
    let capacity = Capacity {
        sessions: settings.max_sessions.map_or(capacity.sessions, |most| most.get() as usize),
        joins: settings.max_joins.map_or(capacity.joins, NonZeroU32::get),
    };
    // Last, for it makes the folder.
    let Basics { data_dir, origin, limits, rates } =
        section::<NodeSection>(&all, "supernode")?.basics(defaults)?;
    Ok(SupernodeOptions {
        web,
        capacity,
        preheat_rules,
        registry_logins: registry_logins.unwrap_or_default(),
        rates,
        data_dir,
        quic_listen: on(interface.into(), settings.quic_listen, 7700),
        http_listen: on(interface.into(), settings.http_listen, 7701),
        advertise: settings.advertise,
        origin,
        limits,
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
    let all = gather(config, "peer", flags)?;
    let mut settings: PeerSection = section(&all, "peer")?;
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
    let runtime = runtime(settings.runtime_socket.take()).map_err(usage)?;
    let proxy_listen = on(Ipv4Addr::LOCALHOST.into(), settings.proxy_listen, 7711);
    let client_socket = client_socket(&mut settings).map_err(usage)?;
    let Basics { data_dir, origin, limits, rates } =
        section::<NodeSection>(&all, "peer")?.basics(defaults)?;
    let proxy = proxy_options(&mut settings, proxy_listen, &data_dir).map_err(usage)?;
    Ok(PeerPlan {
        options: PeerOptions {
            data_dir,
            passing: false,
            supernodes: settings.supernode,
            proof,
            quic_listen: on(interface.into(), settings.quic_listen, 7710),
            http_listen: Some(on(interface.into(), settings.http_listen, 7712)),
            client_socket,
            advertise: settings.advertise,
            labels: Labels { zone: settings.zone, rack: settings.rack, host },
            origin,
            limits,
            content_store: content_store.map_err(usage)?,
            runtime,
            rates,
        },
        proxy_listen,
        proxy,
    })
}

/// Permissions, without the bits that give a program somebody else's rights.
///
/// # Errors
/// When they are not written in octal.
pub fn permissions(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| "expected permissions in octal, 0 to 0777".into())
}

/// The socket for other users of the machine, if there is to be one.
fn client_socket(settings: &mut PeerSection) -> anyhow::Result<Option<ClientSocket>> {
    let (group, mode) = (settings.client_socket_group.take(), settings.client_socket_mode.take());
    let Some(path) = settings.client_socket.take() else {
        anyhow::ensure!(
            group.is_none() && mode.is_none(),
            "client-socket-group and client-socket-mode are of the socket that --client-socket names, and there is none"
        );
        return Ok(None);
    };
    let mode = mode.map_or(Ok(peer::socket::CLIENTS_MODE), |text| permissions(&text));
    let mode = mode.map_err(|why| anyhow::anyhow!("client-socket-mode: {why}"))?;
    let group = group.map(|name| groups::number(&name)).transpose()?;
    Ok(Some(ClientSocket { path: std::path::absolute(path)?, group, mode }))
}

/// The container runtime behind a socket, which may be written as other programs of CRI have it.
fn runtime(socket: Option<PathBuf>) -> anyhow::Result<Runtime> {
    let Some(socket) = socket else { return Ok(Runtime::default()) };
    let path = socket.to_str().and_then(|text| text.strip_prefix("unix://")).map_or(&*socket, Path::new);
    let path = std::path::absolute(path).with_context(|| format!("--runtime-socket {}", socket.display()))?;
    anyhow::ensure!(
        cfg!(feature = "cri"),
        "--runtime-socket needs a build with the feature `cri`, and this one has it not"
    );
    Ok(Runtime::new(path))
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

/// What a daemon's section says of traces.
pub fn traces(config: Option<&Path>, name: &'static str, flags: Flags) -> anyhow::Result<traces::Wish> {
    Ok(section::<NodeSection>(&gather(config, name, flags)?, name)?.traces())
}

/// Reads all sections, as the daemons would, and makes nothing. The flags are a peer's.
pub fn outlook(config: Option<&Path>, flags: Flags) -> anyhow::Result<Outlook> {
    let settings = gather(config, "peer", flags)?;
    let _: SupernodeSection = section(&settings, "supernode")?;
    let peer: PeerSection = section(&settings, "peer")?;
    let nodes = (section::<NodeSection>(&settings, "supernode")?, section::<NodeSection>(&settings, "peer")?);
    Ok(Outlook {
        data_dir: nodes.1.data_dir.or(nodes.0.data_dir),
        supernodes: peer.supernode,
        joining: Joining {
            join_token: peer.join_token_file,
            kubernetes_token: peer.kubernetes_token_file,
            cluster_ca: peer.cluster_ca_file,
        },
        default_registry: peer.default_registry,
        registries: nodes.0.registry.into_iter().chain(nodes.1.registry).collect(),
    })
}

/// This machine's name, which tells neighbours on one machine that they are near.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_socket_is_a_path_or_a_url_of_one_and_need_not_be_there() {
        let of = |socket: &str| runtime(Some(socket.into()));
        if cfg!(feature = "cri") {
            let expected = Runtime::new("/run/x/y.sock".into());
            assert_eq!(of("/run/x/y.sock").unwrap(), expected);
            assert_eq!(of("unix:///run/x/y.sock").unwrap(), expected);
            assert!(of("").unwrap_err().to_string().contains("--runtime-socket"));
        } else {
            assert!(of("/run/x/y.sock").unwrap_err().to_string().contains("feature `cri`"));
        }
        assert_eq!(runtime(None).unwrap(), Runtime::default());
    }
}
