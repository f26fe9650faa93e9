//! One kind of registry with the peers before it, and how each way leads to it. Made by the matrix for every kind.
//!
//! The same registry goes by four names, of which no name server knows any: who does not ask the peer gets nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Client, Kind, Way};
use crate::support::cluster::{Cluster, Node, World};
use crate::support::image::Image;
use crate::support::process::without_proxies;
use crate::support::redirecting::Redirecting;
use crate::support::registry::{self, Door, Registry, User};
use crate::support::tls::Ca;
use crate::support::tokens::{Rule, TokenServer};

/// Who may pull where a name is asked for.
const USER: User = User { name: "stevedore", password: "R0pe-and-tackle" };
/// The registry's name for clients that know mirrors.
const MIRRORED: &str = "mirror.test";
/// Its name for clients whose mirrors are for one registry, and what a peer takes for meant where none is named.
const HUB: &str = "docker.io";
/// Its name where a client speaks plain HTTP.
const PLAIN: &str = "plain.test:5000";
/// Its name where a client speaks TLS.
const SECURE: &str = "tls.test";

/// How one client reaches the registry.
pub(super) struct Route {
    pub(super) way: Way,
    /// The first of the cell's two clients; where a setting can be written in two ways, each is told in its own.
    pub(super) first: bool,
    /// The registry's name for this client.
    pub(super) registry: &'static str,
    /// The mirror as podman's family writes it: the peer's address and what stands before the repository.
    pub(super) location: String,
    /// The address of the peer's proxy.
    pub(super) proxy: String,
    pub(super) user: Option<User>,
    /// The CA of what the peer opens.
    pub(super) authority: PathBuf,
}

/// One kind of registry, and its peers.
pub(super) struct Quay {
    pub(super) kind: Kind,
    /// What mirror and HTTP proxy stand before.
    plain: Arc<Registry>,
    /// What the HTTPS proxy stands before: it speaks TLS.
    secure: Registry,
    redirecting: Option<Redirecting>,
    cluster: Cluster,
    /// Two for each way; started for the first cell that needs them.
    peers: Mutex<BTreeMap<Way, Vec<Node>>>,
    _ca: Ca,
}

// === impl Quay ===

impl Quay {
    /// Starts registries and peers.
    pub(super) async fn open(kind: Kind) -> Self {
        let ca = Ca::new();
        let door = match kind {
            Kind::Basic | Kind::Redirecting => Door::Basic(USER),
            Kind::Token => {
                let rule = Rule { user: Some(USER), below: "team/" };
                Door::Token(Arc::new(TokenServer::start(&[rule]).await))
            }
            _ => Door::Open,
        };
        let secure = Registry::with(door.clone(), Some(&ca)).await;
        let plain = Arc::new(Registry::with(door, (kind == Kind::Tls).then_some(&ca)).await);
        let redirecting = match kind {
            Kind::Redirecting => Some(Redirecting::before(plain.clone()).await),
            _ => None,
        };
        let front = redirecting.as_ref().map(Redirecting::url);
        let plain_url = front.clone().unwrap_or_else(|| plain.url());
        let mut world = World::registry(MIRRORED, &plain_url)
            .and(HUB, &plain_url)
            .and(PLAIN, &plain_url)
            // the front speaks plain HTTP; of a redirecting registry it is the client's side that has TLS
            .and(SECURE, &front.unwrap_or_else(|| secure.url()))
            .insecure(PLAIN);
        // the CA can be told for one registry or for all
        world = match kind {
            Kind::Tls => {
                [HUB, MIRRORED, SECURE].iter().fold(world, |world, name| world.authority(name, &ca.file()))
            }
            _ => world.trusting(&ca.file()),
        };
        if let Some(redirecting) = &redirecting {
            world = world.allowing(&redirecting.store);
        }
        let cluster = Cluster::start(0, world).await;
        Self { kind, plain, secure, redirecting, cluster, peers: Mutex::default(), _ca: ca }
    }

    /// Two routes to the registry, through two peers.
    pub(super) async fn routes(&self, client: Client, way: Way) -> [Route; 2] {
        let user = (!matches!(self.kind, Kind::Plain | Kind::Tls)).then_some(USER);
        let route = |node: &Node, first| {
            let registry = name_for(client, way, first);
            let proxy = node.at.proxy.clone();
            let location = if registry == HUB { proxy.clone() } else { format!("{proxy}/{registry}") };
            let authority = node.data.join("intercept/ca.pem");
            Route { way, first, registry, location, proxy, user, authority }
        };
        let mut peers = self.peers.lock().await;
        let started = peers.entry(way).or_default();
        while started.len() < 2 {
            let name = format!("{way:?}{}", started.len() + 1).to_lowercase();
            let mut peer = self.cluster.spawn_peer(&name, flags(way), None);
            peer.ready().await;
            started.push(peer);
        }
        [route(&started[0], true), route(&started[1], false)]
    }

    /// Puts the image where this way leads.
    pub(super) async fn push(&self, way: Way, image: &Image) {
        match (&self.redirecting, way) {
            (None, Way::HttpsProxy) => self.secure.push(image).await,
            _ => self.plain.push(image).await,
        }
    }

    /// Asserts that everything of `image` has left what this way leads to once.
    pub(super) async fn served_once(&self, way: Way, image: &Image) {
        match (&self.redirecting, way) {
            (Some(redirecting), _) => {
                registry::served_once(image, || redirecting.accesses()).await;
                assert_eq!(
                    redirecting.refused(),
                    0,
                    "the store was asked without signature or with credentials"
                );
            }
            (None, Way::HttpsProxy) => self.secure.served_once(image).await,
            (None, _) => self.plain.served_once(image).await,
        }
    }
}

/// What a client calls the registry.
fn name_for(client: Client, way: Way, first: bool) -> &'static str {
    match (way, client) {
        // its mirrors are for Docker Hub alone
        (Way::Mirror, Client::Dockerd) => HUB,
        // who sends no `?ns=` puts the name before the repository, or means the peer's default
        (Way::Mirror, Client::Podman | Client::Skopeo) if !first => HUB,
        (Way::Mirror, _) => MIRRORED,
        (Way::HttpProxy, _) => PLAIN,
        (Way::HttpsProxy, _) => SECURE,
    }
}

/// What the peers of a way are told beside the registries. A proxy has to read the registry out of the request: the
/// default that a mirror falls back to is nobody.
fn flags(way: Way) -> &'static [&'static str] {
    match way {
        Way::Mirror => &[],
        Way::HttpProxy => &["--default-registry", "nobody.test"],
        Way::HttpsProxy => &["--default-registry", "nobody.test", "--intercept", SECURE],
    }
}

// === impl Route ===

impl Route {
    /// Tells a program of the proxy, where this way is one.
    pub(super) fn proxied<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let proxy = format!("http://{}", self.proxy);
        match self.way {
            Way::Mirror => without_proxies(command),
            Way::HttpProxy => without_proxies(command).env("HTTP_PROXY", proxy),
            Way::HttpsProxy => {
                without_proxies(command).env("HTTPS_PROXY", proxy).env("SSL_CERT_FILE", &self.authority)
            }
        }
    }
}
