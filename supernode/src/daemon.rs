//! A supernode as a process: opens the data folder, makes or loads the cluster's CA, and runs the seed, the
//! sessions, the enrolment office and the HTTP API over one QUIC port and one TCP port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::identity::{
    self, Admits, Authority, Identity, IdentityError, JoinToken, TokenBook, TokenOptions,
};
use common::node::{Contact, Labels, Role};
use common::telemetry::{Metrics, TurnedAway};
use common::transport::{self, Inbound, Transport, TransportOptions};
use peer::daemon::{DaemonError, listen};
use peer::engine::{Engine, EngineOptions};
use peer::exchange::reveal::Style;
use peer::origin::{OriginClient, OriginOptions};
use peer::store::{Store, StoreOptions};
use peer::tasks::Tasks;
use tokio::sync::mpsc;

use crate::api;
use crate::bulletin::Bulletins;
use crate::enrolment::Office;
use crate::hub::Hub;
use crate::membership::{self, Membership};
use crate::scheduler::{Event, Settings};
use crate::seed::{self, SeedCoordinator};
use crate::sessions::Sessions;

/// The first join token's file in the data folder.
pub const JOIN_TOKEN: &str = "join-token";
/// The scheduler's clock.
const TICK: Duration = Duration::from_secs(1);
/// How many looks at the cluster's folder lie between two counts of tokens' uses.
const LOOKS: usize = 5;
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
    /// Bytes to keep; none is as much as the disk holds.
    pub quota: Option<u64>,
    /// Where the cluster's CA, tokens and revocations are, if not beside the supernode's own key.
    pub cluster_dir: Option<PathBuf>,
    /// How long certificates last, in tests; none is as long as they do.
    pub certificate_life: Option<Duration>,
}

/// A running supernode.
pub struct Supernode {
    engine: Engine,
    transport: Transport,
    quic: SocketAddr,
    http: SocketAddr,
    token: PathBuf,
    tasks: Tasks,
}

// === impl Supernode ===

impl Supernode {
    /// Starts a supernode on the present runtime.
    ///
    /// # Errors
    /// When the folder, the ports or the settings cannot be used.
    pub async fn start(options: SupernodeOptions) -> Result<Self, DaemonError> {
        let SupernodeOptions { data_dir, quic_listen, http_listen, advertise, origin, quota, .. } = options;
        let store_dir = data_dir.clone();
        let store_options = StoreOptions { quota, durable: true };
        let opened = tokio::task::spawn_blocking(move || Store::open(&store_dir, store_options)).await;
        let store = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let identity_dir = data_dir.join("identity");
        let cluster_dir = options.cluster_dir.unwrap_or_else(|| identity_dir.clone());
        let life = options.certificate_life.unwrap_or(identity::LIFETIME);
        let authority = Arc::new(Authority::open(&cluster_dir)?.with_lifetime(life));
        let tokens = Arc::new(TokenBook::open(&cluster_dir)?);
        let token = data_dir.join(JOIN_TOKEN);
        first_token(&token, &tokens, &authority)?;
        let identity = Identity::open(&identity_dir)?;
        let membership = Arc::new(Membership::open(authority.clone(), identity.clone(), &cluster_dir)?);

        let metrics = Metrics::new();
        let mut hello = transport::hello(identity.node(), Role::Supernode);
        hello.advertise = advertise;
        let admits = Admits::MembersAndStrangers;
        let bind = TransportOptions { listen: quic_listen, identity: identity.clone(), admits, hello };
        let transport = Transport::bind(bind)?;
        let quic = transport.local_addr().unwrap_or(quic_listen);
        let listener = listen(http_listen, "the API, metrics and health", "--http-listen").await?;
        let http = listener.local_addr().unwrap_or(http_listen);

        let (coordinator, notices) = SeedCoordinator::new(identity.node());
        let (sessions, streams) = mpsc::channel(64);
        let engine = Engine::start(EngineOptions {
            store,
            transport: Some(transport.clone()),
            coordinator: Arc::new(coordinator),
            origin: OriginClient::new(origin)?.with_mark(&authority.fingerprint().hex()[..12]),
            metrics: metrics.clone(),
            style: Style::Seed,
            sessions: Some(sessions),
            upload_limit: None,
            download_limit: None,
        });
        let contact = Contact { id: identity.node(), address: advertise.unwrap_or(quic) };
        let settings = Settings { seed_labels: Labels::default(), ..Settings::default() };
        let hub = Arc::new(Hub::new(contact, settings, metrics.clone()));
        let roll = identity.roll().clone();
        let office = Office::new(authority.clone(), tokens.clone(), roll, metrics);
        let running = Self {
            engine: engine.clone(),
            transport: transport.clone(),
            quic,
            http,
            token: token.clone(),
            tasks: Tasks::default(),
        };
        running.tasks.spawn(seed::listen(hub.clone(), notices));
        let bulletins = Bulletins::default();
        let shared =
            Sessions { engine: engine.clone(), hub: hub.clone(), membership: membership.clone(), bulletins };
        running.tasks.spawn(shared.run(streams));
        running.tasks.spawn(accept(transport, engine.clone(), office));
        running.tasks.spawn(keep_time(hub.clone()));
        running.tasks.spawn(watch_cluster(membership, Tokens { book: tokens, file: token, authority }));
        running.tasks.serve(listener, api::router(hub, engine));
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
    }
}

/// The first start makes a token that does not end, so that a peer needs a file and an address and nothing else; after
/// a rotation of the CA another takes its place. Where the cluster's folder cannot be written, who made it made tokens.
fn first_token(path: &std::path::Path, tokens: &TokenBook, authority: &Authority) -> Result<(), DaemonError> {
    let ours = |token: &JoinToken| token.ca() == authority.fingerprint();
    let usable = path.exists() && JoinToken::read(path).is_ok_and(|token| ours(&token));
    // Somebody who took the file away after all had joined does not want another.
    let taken_away = !path.exists() && !tokens.list()?.is_empty();
    let brought = tokens.plain(|ca| authority.is_ours(ca))?.is_some();
    if usable || taken_away || brought {
        return Ok(());
    }
    let note = if path.exists() { "made when the CA changed" } else { "made at the first start" };
    let options = TokenOptions { note: note.into(), ..TokenOptions::default() };
    match tokens.create(authority.fingerprint(), options, SystemTime::now()) {
        Ok(token) => identity::write_secret(path, format!("{token}\n").as_bytes())?,
        Err(error @ IdentityError::File { .. }) => tracing::warn!("no join token is made here: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The join tokens, and the file with the first one.
struct Tokens {
    book: Arc<TokenBook>,
    file: PathBuf,
    authority: Arc<Authority>,
}

/// Looks at the cluster's folder, and writes down how often tokens were used.
async fn watch_cluster(membership: Arc<Membership>, tokens: Tokens) {
    let tokens = Arc::new(tokens);
    let mut looks = tokio::time::interval(membership::LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_usize.. {
        looks.tick().await;
        let (membership, tokens) = (membership.clone(), tokens.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if membership.look(SystemTime::now()) {
                tracing::info!("the cluster's CA has changed");
                if let Err(error) = first_token(&tokens.file, &tokens.book, &tokens.authority) {
                    tracing::error!("no join token for the cluster's present CA: {error}");
                }
            }
            if number % LOOKS == 0
                && let Err(error) = tokens.book.flush()
            {
                tracing::debug!("uses of join tokens are not written down: {error}");
            }
        });
        if let Err(error) = looked.await {
            tracing::error!("the look at the cluster's folder failed: {error}");
        }
    }
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
