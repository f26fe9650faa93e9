//! `supernode`, `peer` and `up`: start the rooms, say where they are, wait for the end.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use peer::daemon::{Peer, listen};
use proxy::Proxy;
use supernode::daemon::Supernode;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::field;

use crate::addresses::{Addresses, Published};
use crate::settings::{self, Flags, PeerPlan};
use crate::traces::Traces;
use crate::{cli, reload, shutdown, usage};

/// A peer with the proxy in front of it.
pub struct Node {
    peer: Peer,
    proxy: SocketAddr,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

// === impl Node ===

impl Node {
    /// Starts a peer and its proxy.
    pub async fn start(plan: PeerPlan) -> anyhow::Result<Self> {
        // The port first: a peer that cannot be pulled through is no use.
        let listener = listen(plan.proxy_listen, "the registry proxy", "--proxy-listen").await?;
        let proxy = listener.local_addr()?;
        let peer = Peer::start(plan.options).await?;
        let router = Proxy::new(peer.engine().clone(), plan.proxy)?.router();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(peer::http::serve(listener, router, stop.clone()));
        Ok(Self { peer, proxy, serving, stop })
    }

    /// The peer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where the proxy listens.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// Ends running pulls if they end soon, then the peer.
    pub async fn close(self) {
        self.stop.cancel();
        let mut serving = self.serving;
        if tokio::time::timeout(std::time::Duration::from_secs(5), &mut serving).await.is_err() {
            serving.abort();
        }
        self.peer.close().await;
    }

    fn publish(&self, dir: &Path) -> anyhow::Result<Published> {
        let addresses = Addresses {
            pid: std::process::id(),
            quic: self.peer.quic(),
            http: self.peer.http().context("the peer has no HTTP port")?,
            proxy: Some(self.proxy),
            socket: Some(self.peer.socket().to_owned()),
        };
        addresses.publish(dir)
    }
}

/// Said once, where a daemon begins: the machine's owner may know a better one.
fn warn_of_slow_hashing() {
    if !common::digest::accelerated() {
        tracing::warn!(
            "the processor has no instructions for SHA-256: hashing runs at about a quarter of the speed"
        );
    }
}

fn publish(supernode: &Supernode, dir: &Path) -> anyhow::Result<Published> {
    let (quic, http) = (supernode.quic(), supernode.http());
    Addresses { pid: std::process::id(), quic, http, proxy: None, socket: None }.publish(dir)
}

/// `longshore supernode`
pub async fn supernode(flags: cli::Supernode) -> anyhow::Result<()> {
    warn_of_slow_hashing();
    let config = flags.home.config.clone();
    let flags = Flags::of(&flags);
    let options = settings::supernode(config.as_deref(), flags.clone(), settings::CLUSTER)?;
    let dir = options.data_dir.clone();
    let traces = Traces::begin(&settings::traces(config.as_deref(), "supernode", flags.clone())?)?;
    let supernode = Supernode::start(options).await?;
    let limits = supernode.engine().limits().clone();
    let _reloading = reload::on_hangup(move || {
        limits.set(&settings::supernode(config.as_deref(), flags.clone(), settings::CLUSTER)?.rates);
        Ok(())
    })?;
    tracing::info!(
        quic = %supernode.quic(), http = %supernode.http(), join_token = %supernode.token().display(),
        "supernode is up"
    );
    let _published = publish(&supernode, &dir)?;
    shutdown::asked().await?;
    supernode.close().await;
    traces.finish().await;
    Ok(())
}

/// `longshore peer`
pub async fn peer(flags: cli::Peer) -> anyhow::Result<()> {
    warn_of_slow_hashing();
    let config = flags.home.config.clone();
    let flags = Flags::of(&flags);
    let plan = settings::peer(config.as_deref(), flags.clone(), settings::CLUSTER)?;
    if plan.options.supernodes.is_empty() {
        return Err(usage(anyhow::anyhow!(
            "no supernode is named: give --supernode HOST:PORT, or run `longshore up` for a node of its own"
        )));
    }
    let dir = plan.options.data_dir.clone();
    let traces = Traces::begin(&settings::traces(config.as_deref(), "peer", flags.clone())?)?;
    let node = Node::start(plan).await?;
    let limits = node.peer.engine().limits().clone();
    let _reloading = reload::on_hangup(move || {
        limits.set(&settings::peer(config.as_deref(), flags.clone(), settings::CLUSTER)?.options.rates);
        Ok(())
    })?;
    tracing::info!(
        quic = %node.peer.quic(), proxy = %node.proxy, http = node.peer.http().map(field::display), socket = %node.peer.socket().display(),
        "peer is up"
    );
    let _published = node.publish(&dir)?;
    shutdown::asked().await?;
    node.close().await;
    traces.finish().await;
    Ok(())
}

/// `longshore up`
pub async fn up(flags: cli::Up) -> anyhow::Result<()> {
    warn_of_slow_hashing();
    let base = settings::prepared(flags.home.data_dir.clone().map(Into::into))?;
    let config = flags.home.config.clone();
    let home = |name: &str| {
        let data_dir = Some(base.join(name).to_string_lossy().into_owned());
        Flags::of(&cli::Home { data_dir, ..flags.home.clone() })
    };
    let supernode_flags = home("supernode")
        .text("quic-listen", flags.quic_listen)
        .text("http-listen", flags.http_listen)
        .and(&flags.origins);
    // One process has one collector.
    let traces = Traces::begin(&settings::traces(config.as_deref(), "peer", home("peer"))?)?;
    let options = settings::supernode(config.as_deref(), supernode_flags, settings::LOOPBACK)?;
    let supernode_dir = options.data_dir.clone();
    let supernode = Supernode::start(options).await?;
    let peer_flags = home("peer")
        .list("supernode", vec![supernode.quic().to_string()])
        .text("join-token-file", Some(supernode.token().to_string_lossy().into_owned()))
        .text("quic-listen", flags.peer_quic_listen)
        .text("http-listen", flags.peer_http_listen)
        .and(&flags.carrier)
        .and(&flags.limits)
        .and(&flags.origins);
    let plan = settings::peer(config.as_deref(), peer_flags.clone(), settings::LOOPBACK)?;
    let peer_dir = plan.options.data_dir.clone();
    let node = Node::start(plan).await?;
    let limits = node.peer.engine().limits().clone();
    let _reloading = reload::on_hangup(move || {
        limits.set(&settings::peer(config.as_deref(), peer_flags.clone(), settings::LOOPBACK)?.options.rates);
        Ok(())
    })?;
    tracing::info!(
        quic = %supernode.quic(), http = %supernode.http(), proxy = %node.proxy, peer_quic = %node.peer.quic(),
        peer_http = node.peer.http().map(field::display), socket = %node.peer.socket().display(), "longshore is up"
    );
    let _published = (publish(&supernode, &supernode_dir)?, node.publish(&peer_dir)?, node.publish(&base)?);
    advise(node.proxy);
    shutdown::asked().await?;
    node.close().await;
    supernode.close().await;
    traces.finish().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the user is to do next")]
fn advise(proxy: SocketAddr) {
    println!(
        "
Point a runtime at http://{proxy}:

  containerd  in /etc/containerd/certs.d/docker.io/hosts.toml (config_path = \"/etc/containerd/certs.d\"):
                server = \"https://registry-1.docker.io\"
                [host.\"http://{proxy}\"]
                  capabilities = [\"pull\", \"resolve\"]
  docker      in /etc/docker/daemon.json, then restart it:
                {{ \"registry-mirrors\": [\"http://{proxy}\"] }}
  skopeo      skopeo copy --src-tls-verify=false docker://{proxy}/library/busybox:latest oci:busybox

Ctrl-C ends it."
    );
}
