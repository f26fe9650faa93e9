//! A supernode as a process: opens the data folder, makes or loads the cluster's CA, and runs the seed, the
//! sessions, the enrolment office and the HTTP API over one QUIC port and one TCP port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::identity::{self, Admits, Authority, Identity, TokenBook};
use common::node::{Contact, Labels, Role};
use common::telemetry::{Metrics, TurnedAway};
use common::transport::{self, Inbound, Transport, TransportOptions};
use peer::daemon::{DaemonError, listen};
use peer::engine::{Engine, EngineOptions};
use peer::exchange::reveal::Style;
use peer::housekeeping;
use peer::limit::Rates;
use peer::origin::{OriginClient, OriginOptions};
use peer::store::{Limits, Store, StoreError, StoreOptions};
use peer::tasks::Tasks;
use tokio::sync::mpsc;

use crate::admission::{Admission, Capacity};
use crate::api;
use crate::api::guard::{API_TOKEN, Door, Token};
use crate::api::tls::{Certificate, TlsListener};
use crate::bulletin::Bulletins;
#[cfg(feature = "kubernetes")]
use crate::controller::Controller;
use crate::dashboard::Dashboard;
use crate::drivers::{Drivers, Rules};
use crate::enrolment::{Desks, JoinTokens, Kubernetes, Office, Verifier};
use crate::hub::Hub;
use crate::kubernetes::{Access, JoinOptions, Plan, Zones};
use crate::membership::Membership;
use crate::openings::Openings;
use crate::preheat::{Logins, Preheats};
use crate::roster::Roster;
use crate::scheduler::{Event, Settings};
use crate::schedules::{self, Schedules};
use crate::seed::{self, SeedCoordinator};
use crate::sessions::{self, Sessions};
use crate::testimony::Notary;
use crate::tokens::{self, Tokens};
use crate::vault::{self, CacheOptions};

/// The first join token's file in the data folder.
pub const JOIN_TOKEN: &str = "join-token";
/// The API's socket in the data folder: whoever may open it needs no token.
pub const SOCKET: &str = "supernode.sock";
/// The scheduler's clock.
const TICK: Duration = Duration::from_secs(1);
/// Open requests get so long to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// How a supernode is to be.
pub struct SupernodeOptions {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// UDP address.
    pub quic_listen: SocketAddr,
    /// TCP address.
    pub http_listen: SocketAddr,
    /// Where peers reach us, if not at the address they dial.
    pub advertise: Option<SocketAddr>,
    /// Which origins, and how.
    pub origin: OriginOptions,
    /// How much to keep.
    pub limits: Limits,
    /// The bucket behind the store; none is the disk alone.
    pub cache: Option<CacheOptions>,
    /// Where the cluster's CA, tokens and revocations are, if not beside the supernode's own key.
    pub cluster_dir: Option<PathBuf>,
    /// What is done with the Kubernetes API; nothing is join tokens alone, and no custom resource.
    pub kubernetes: Plan,
    /// How long certificates last, in tests; none is as long as they do.
    pub certificate_life: Option<Duration>,
    /// Its HTTP port.
    pub web: WebOptions,
    /// The seed's limits to begin with.
    pub rates: Rates,
    /// How much it takes on.
    pub capacity: Capacity,
    /// Which pushes that registries tell of are preheated.
    pub preheat_rules: Rules,
    /// Who it is at registries where nobody says, for what it preheats.
    pub registry_logins: Logins,
}

/// How a supernode's HTTP port is to be.
#[derive(Clone, Debug, Default)]
pub struct WebOptions {
    /// The file with the API's bearer token; none is one in the data folder that is made at the first start.
    pub token_file: Option<PathBuf>,
    /// TLS; none is plain HTTP.
    pub certificate: Option<Certificate>,
}

/// A running supernode.
pub struct Supernode {
    engine: Engine,
    transport: Transport,
    quic: SocketAddr,
    http: SocketAddr,
    token: PathBuf,
    socket: PathBuf,
    tasks: Tasks,
}

// === impl SupernodeOptions ===

impl SupernodeOptions {
    /// A supernode for this machine alone: on loopback, at free ports, without limits.
    pub fn local(data_dir: PathBuf) -> Self {
        let free = || (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            data_dir,
            quic_listen: free(),
            http_listen: free(),
            advertise: None,
            origin: OriginOptions::default(),
            limits: Limits::default(),
            cache: None,
            cluster_dir: None,
            kubernetes: Plan::default(),
            certificate_life: None,
            web: WebOptions::default(),
            rates: Rates::default(),
            capacity: Capacity::default(),
            preheat_rules: Rules::default(),
            registry_logins: Logins::default(),
        }
    }
}

// === impl Supernode ===

impl Supernode {
    /// Starts a supernode on the present runtime.
    ///
    /// # Errors
    /// When the folder, the ports or the settings cannot be used.
    pub async fn start(options: SupernodeOptions) -> Result<Self, DaemonError> {
        let SupernodeOptions {
            data_dir,
            quic_listen,
            http_listen,
            advertise,
            origin,
            limits,
            cache,
            web,
            rates,
            capacity,
            preheat_rules,
            registry_logins,
            ..
        } = options;
        let store_dir = data_dir.clone();
        let store_options = StoreOptions { limits, durable: true };
        let metrics = Metrics::new();
        let counted = metrics.clone();
        let opened =
            tokio::task::spawn_blocking(move || Store::open_counted(&store_dir, store_options, counted))
                .await;
        let store = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let identity_dir = data_dir.join("identity");
        let cluster_dir = options.cluster_dir.unwrap_or_else(|| identity_dir.clone());
        let life = options.certificate_life.unwrap_or(identity::LIFETIME);
        let authority = Arc::new(Authority::open(&cluster_dir)?.with_lifetime(life));
        let book = Arc::new(TokenBook::open(&cluster_dir)?);
        let token = data_dir.join(JOIN_TOKEN);
        tokens::first(&token, &book, &authority)?;
        let identity = Identity::open(&identity_dir)?;
        let membership = Arc::new(Membership::open(authority.clone(), identity.clone(), &cluster_dir)?);

        let mut hello = transport::hello(identity.node(), Role::Supernode);
        hello.advertise = advertise;
        let admits = Admits::MembersAndStrangers;
        let bind = TransportOptions { listen: quic_listen, identity: identity.clone(), admits, hello };
        let transport = Transport::bind(bind)?;
        let quic = transport.local_addr().unwrap_or(quic_listen);
        let listener = listen(http_listen, "the API, metrics and health", "--http-listen").await?;
        let http = listener.local_addr().unwrap_or(http_listen);

        let tasks = Tasks::default();
        let behind = |cache: CacheOptions| vault::open(&cache, &data_dir, &authority, &store, &tasks);
        let vault = cache.map(behind).transpose().map_err(|error| DaemonError::Part(error.into()))?;
        let (coordinator, notices) = SeedCoordinator::new(identity.node());
        let memory = coordinator.memory();
        let (sessions, streams) = mpsc::channel(64);
        let engine = Engine::start(EngineOptions {
            store,
            transport: Some(transport.clone()),
            coordinator: Arc::new(coordinator),
            origin: OriginClient::new(origin)?.with_mark(&authority.fingerprint().hex()[..12]),
            vault,
            metrics: metrics.clone(),
            style: Style::Seed,
            sessions: Some(sessions),
            errands: None,
            rates,
        });
        let contact = Contact { id: identity.node(), address: advertise.unwrap_or(quic) };
        let settings = Settings { seed_labels: Labels::default(), ..Settings::default() };
        let hub = Arc::new(Hub::new(contact, settings, metrics.clone()));
        let desks = Desks::default();
        let verifiers = verifiers(options.kubernetes.join, (&book, &authority), &desks)?;
        let roll = identity.roll().clone();
        let office = Office::new(authority.clone(), verifiers, desks, roll, metrics);
        let running = Self {
            engine: engine.clone(),
            transport: transport.clone(),
            quic,
            http,
            token: token.clone(),
            socket: data_dir.join(SOCKET),
            tasks,
        };
        running.tasks.spawn(housekeeping::run(engine.store().clone()));
        let door = door(&data_dir, &web, http)?;
        let tls = web.certificate.map(|certificate| (certificate, identity.clone()));
        running.tasks.spawn(seed::listen(hub.clone(), memory.clone(), notices));
        let notary = Notary::new(&authority);
        let roster = Roster::default();
        let (preheats, schedules) = preheats(&engine, &roster, registry_logins, &running.tasks).await?;
        #[cfg(feature = "kubernetes")]
        if let Some(options) = options.kubernetes.controller {
            let controller = Controller::open(options, preheats.clone(), identity.node());
            let controller = controller.map_err(|error| DaemonError::Part(error.into()))?;
            running.tasks.spawn_told(|stop| controller.run(stop));
        }
        let zones = zones(options.kubernetes.zones, &running.tasks)?;
        let shared = Sessions {
            engine: engine.clone(),
            hub: hub.clone(),
            roster: roster.clone(),
            zones,
            membership: membership.clone(),
            admission: Arc::new(Mutex::new(Admission::of_all(&capacity, Instant::now()))),
            capacity,
            bulletins: Bulletins::new(notary.clone()),
            notary,
            memory,
            paces: sessions::paces(),
            openings: Openings::default(),
        };
        running.tasks.spawn(shared.run(streams));
        running.tasks.spawn(accept(transport, engine.clone(), office));
        running.tasks.spawn(keep_time(hub.clone()));
        running.tasks.spawn(tokens::watch(membership, Tokens { book, file: token, authority }));
        let (dashboard, news) = Dashboard::new(hub.clone(), engine.clone());
        running.tasks.spawn(dashboard.clone().record(news));
        let socket = peer::socket::bind(&running.socket)?;
        let (registries, counted) = (engine.origin().registries().clone(), engine.metrics().clone());
        let drivers = Drivers::new(preheats.clone(), preheat_rules, registries, counted);
        running.tasks.spawn(drivers.clone().run());
        let parts = api::Parts { hub, engine, dashboard, preheats, schedules, drivers };
        let open = api::router(parts.clone(), Door::Open);
        running.tasks.serve(socket, open);
        let router = api::router(parts, door);
        match tls {
            Some((certificate, identity)) => {
                running.tasks.serve(TlsListener::new(listener, certificate, &identity)?, router);
            }
            None => running.tasks.serve(listener, router),
        }
        Ok(running)
    }

    /// The UDP address that was bound.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// The HTTP address that was bound.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The file with the first join token.
    pub fn token(&self) -> &std::path::Path {
        &self.token
    }

    /// The seed's engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends open requests, then everything, and flushes the store.
    pub async fn close(self) {
        self.tasks.close(GRACE).await;
        self.engine.close().await;
        self.transport.close().await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Who checks what strangers show.
fn verifiers(
    kubernetes: Option<JoinOptions>,
    (book, authority): (&Arc<TokenBook>, &Arc<Authority>),
    desks: &Desks,
) -> Result<Vec<Box<dyn Verifier>>, DaemonError> {
    let mut verifiers: Vec<Box<dyn Verifier>> =
        vec![Box::new(JoinTokens::new(book.clone(), authority.clone(), desks.clone()))];
    if let Some(options) = kubernetes {
        let kubernetes = Kubernetes::open(options, desks.clone());
        verifiers.push(Box::new(kubernetes.map_err(|error| DaemonError::Part(error.into()))?));
    }
    Ok(verifiers)
}

/// The zones of nodes, which are kept up to date if they are to be.
#[cfg_attr(not(feature = "kubernetes"), expect(unused_variables, reason = "nobody keeps them up to date"))]
fn zones(access: Option<Access>, tasks: &Tasks) -> Result<Zones, DaemonError> {
    #[cfg(feature = "kubernetes")]
    if let Some(access) = access {
        let (zones, watch) = Zones::open(access).map_err(|error| DaemonError::Part(error.into()))?;
        tasks.spawn(watch);
        return Ok(zones);
    }
    Ok(Zones::default())
}

/// Who may use the API on the HTTP port.
fn door(data_dir: &Path, web: &WebOptions, listens: SocketAddr) -> Result<Door, DaemonError> {
    if listens.ip().is_loopback() && web.token_file.is_none() {
        return Ok(Door::Machine);
    }
    let path = web.token_file.clone().unwrap_or_else(|| data_dir.join(API_TOKEN));
    Ok(Door::Token(Token::open(path, web.token_file.is_none())?))
}

/// The preheat jobs, which go on where they were, and the schedules that begin some.
async fn preheats(
    engine: &Engine,
    roster: &Roster,
    logins: Logins,
    tasks: &Tasks,
) -> Result<(Preheats, Schedules), DaemonError> {
    let (store, origin) = (engine.store().clone(), engine.origin().clone());
    let metrics = engine.metrics().clone();
    let (engine, roster) = (engine.clone(), roster.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let (preheats, clerk) = Preheats::open(engine, roster, logins.clone())?;
        let means = schedules::Means { preheats: preheats.clone(), origin, logins, store, metrics };
        let (schedules, keeper) = Schedules::open(means)?;
        Ok::<_, StoreError>(((preheats, schedules), (clerk, keeper)))
    });
    let opened = opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let (opened, (clerk, keeper)) = opened?;
    tasks.spawn(clerk);
    tasks.spawn(keeper);
    Ok(opened)
}

async fn keep_time(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        hub.apply(Event::Tick);
    }
}

async fn accept(transport: Transport, engine: Engine, office: Office) {
    let mut enrolments = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            inbound = transport.accept() => match inbound {
                Some(Inbound::Member(connection)) => engine.adopt(connection),
                // Each holds one of the places that the transport has for strangers, so there are never many.
                Some(Inbound::Enrolling(enrolling)) => {
                    enrolments.spawn(office.clone().answer(enrolling));
                }
                Some(Inbound::TurnedAway { remote, reason }) => {
                    engine.metrics().turned_away.of(TurnedAway::Identity).inc();
                    tracing::warn!(%remote, "turned away: {reason}");
                }
                None => return,
            },
            Some(_) = enrolments.join_next() => {}
        }
    }
}
