//! A member of the cluster that means ill: it enrols, joins the swarm of a blob as everybody does, says that it holds
//! all of it, and then wrongs whoever believes it, in one of four ways ([`Kind`]). The measurement starts one beside
//! honest peers and sees how much later the last of them is done.
//!
//! It speaks the wire by itself: the engine would not lie for it.

mod answers;
mod flood;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::digest::Digest;
use common::identity::{Admits, Identity, JoinToken};
use common::node::{Contact, NodeId, Role};
use common::piece::Geometry;
use common::task::{Credentials, Source, TaskId};
use common::transport::{self, Connection, Inbound, Transport, TransportOptions};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::{Link, Opening};
use common::wire::swarm::{Join, ToPeer, ToSupernode};
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The most children that a supernode gives a peer.
const SLOTS: u16 = 64;
/// How often it boasts to the supernode, and asks for more whom it may harm.
const BOAST: Duration = Duration::from_millis(500);
/// A slow one moves a byte in this.
const DRIP: Duration = Duration::from_secs(1);
/// Requests that a slow one makes of a neighbour and does not take the answers of.
const SLOW_REQUESTS: usize = 64;
/// Connections that a flood opens to each neighbour: with the one that the neighbour dialled, as many as it may have.
const FLOOD_CONNECTIONS: usize = 3;

/// How it harms.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Shows pieces that it has not; refuses them, or sends other bytes, in turn.
    Liar,
    /// Gives and takes a byte a second.
    Slow,
    /// Takes every request and answers none.
    Silent,
    /// Asks, links and boasts as fast as it can.
    Flood,
}

/// What it is to harm, and how.
pub(crate) struct HostileOptions {
    /// How.
    pub(crate) kind: Kind,
    /// Whose cluster.
    pub(crate) supernode: SocketAddr,
    /// What lets it in.
    pub(crate) join_token_file: PathBuf,
    /// Where its key is kept.
    pub(crate) data_dir: PathBuf,
    /// Whose swarm.
    pub(crate) blob: Digest,
    /// The registry's `HOST:PORT` or URL, should it be the first to want the blob.
    pub(crate) registry: String,
    /// The blob's repository.
    pub(crate) repository: String,
}

/// What all of its deeds need.
struct Villain {
    kind: Kind,
    task: TaskId,
    geometry: Geometry,
    transport: Transport,
    /// Those it has gone to.
    attacked: Mutex<BTreeSet<NodeId>>,
    /// Requests that it was asked, and made.
    asked: AtomicU64,
    made: AtomicU64,
}

/// Does harm until it is killed.
pub(crate) async fn run(options: HostileOptions) {
    let transport = enter(&options).await;
    loop {
        if let Err(error) = live(&options, &transport).await {
            eprintln!("hostile {:?}: no session: {error}", options.kind);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Becomes a member.
async fn enter(options: &HostileOptions) -> Transport {
    let identity = Identity::open(&options.data_dir.join("identity")).unwrap();
    if !identity.is_valid(SystemTime::now()) {
        let token = JoinToken::read(&options.join_token_file).unwrap();
        transport::enrol(options.supernode, &token, &identity).await.unwrap();
    }
    let mut hello = transport::hello(identity.node(), Role::Peer);
    hello.slots = SLOTS;
    let listen = ([0, 0, 0, 0], 0).into();
    Transport::bind(TransportOptions { listen, identity, admits: Admits::Members, hello }).unwrap()
}

/// One session with the supernode, and all the harm that comes of it.
async fn live(options: &HostileOptions, transport: &Transport) -> Result<(), Box<dyn std::error::Error>> {
    let supernode = transport.dial_supernode(options.supernode).await?;
    let (mut send, receive) = supernode.open().await?;
    let source = source(options);
    let task = source.task();
    codec::send(&mut send, &Opening::Session).await?;
    let join = Join { source, credentials: Credentials::none(), held: 0 };
    codec::send(&mut send, &ToSupernode::Join(join)).await?;
    let mut session = FrameReader::new(receive);
    let geometry = loop {
        match session.expect().await? {
            ToPeer::Joined { geometry, .. } => break geometry,
            ToPeer::Failed { failure, .. } => return Err(failure.to_string().into()),
            _ => {}
        }
    };
    let villain = Arc::new(Villain {
        kind: options.kind,
        task,
        geometry,
        transport: transport.clone(),
        attacked: Mutex::new(BTreeSet::new()),
        asked: AtomicU64::new(0),
        made: AtomicU64::new(0),
    });
    eprintln!("hostile {:?}: {} in a swarm of {} pieces", options.kind, transport.node(), geometry.pieces());
    let mut deeds = JoinSet::new();
    deeds.spawn(villain.clone().meet(supernode, false));
    let mut boasts = interval(BOAST);
    boasts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = session.expect::<ToPeer>() => {
                if let ToPeer::Parents { add, .. } = message? {
                    add.into_iter().for_each(|contact| villain.attack(contact, &mut deeds));
                }
            }
            inbound = transport.accept() => match inbound {
                Some(Inbound::Member(connection)) => { deeds.spawn(villain.clone().meet(connection, false)); }
                Some(_) => {}
                None => return Ok(()),
            },
            _ = boasts.tick() => villain.boast(&mut send).await?,
            Some(_) = deeds.join_next() => {}
        }
    }
}

fn source(options: &HostileOptions) -> Source {
    let HostileOptions { registry, repository, blob, .. } = options;
    let base = if registry.contains("://") { registry.clone() } else { format!("http://{registry}") };
    Source::of_digest(format!("{base}/v2/{repository}/blobs/{blob}"), *blob)
}

// === impl Villain ===

impl Villain {
    /// Tells the supernode of pieces that are not there, so that it is handed out as a parent. Who lacks one is given
    /// neighbours, who has all is believed to be a source: so the one, then the other.
    async fn boast(&self, send: &mut SendStream) -> Result<(), CodecError> {
        let pieces = self.geometry.pieces();
        codec::send(send, &ToSupernode::Progress(vec![(self.task, pieces.saturating_sub(1))])).await?;
        codec::send(send, &ToSupernode::MoreParents(self.task)).await?;
        if self.kind != Kind::Flood {
            codec::send(send, &ToSupernode::Holdings(vec![(self.task, self.geometry)])).await?;
        }
        let (asked, made) = (self.asked.load(Ordering::Relaxed), self.made.load(Ordering::Relaxed));
        tracing::info!(asked, made, "hostile");
        Ok(())
    }

    /// Goes to a neighbour that the supernode named, unless it is there already.
    fn attack(self: &Arc<Self>, contact: Contact, deeds: &mut JoinSet<()>) {
        if !self.attacked.lock().unwrap().insert(contact.id) {
            return;
        }
        let connections = if self.kind == Kind::Flood { FLOOD_CONNECTIONS } else { 1 };
        for _ in 0..connections {
            let (villain, contact) = (self.clone(), contact.clone());
            deeds.spawn(async move {
                if let Ok(connection) = villain.transport.dial(&contact).await {
                    villain.clone().meet(connection, true).await;
                }
                villain.attacked.lock().unwrap().remove(&contact.id);
            });
        }
    }

    /// All that it does to a neighbour, until the connection is gone.
    async fn meet(self: Arc<Self>, connection: Connection, dialled: bool) {
        let mut deeds = JoinSet::new();
        match self.kind {
            Kind::Flood => flood::begin(&self, &connection, &mut deeds),
            Kind::Slow => {
                for _ in 0..SLOW_REQUESTS {
                    deeds.spawn(self.clone().take_slowly(connection.clone()));
                }
            }
            Kind::Liar | Kind::Silent => {}
        }
        if dialled && self.kind != Kind::Flood {
            let (villain, connection) = (self.clone(), connection.clone());
            deeds.spawn(async move {
                if let Ok((mut send, receive)) = connection.open().await {
                    let opening = Opening::Link { task: villain.task, geometry: villain.geometry };
                    let _ = codec::send(&mut send, &opening).await;
                    villain.link(send, receive).await;
                }
            });
        }
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Ok((send, receive)) = accepted else { return };
                    deeds.spawn(self.clone().answer(send, receive));
                }
                Some(_) = deeds.join_next() => {}
            }
        }
    }

    /// The claim to have it all.
    fn everything(&self) -> Link {
        Link::Have(std::iter::once(0..self.geometry.pieces()).collect())
    }

    /// A link, from the moment when both sides want it: shows everything.
    async fn link(&self, mut send: SendStream, receive: RecvStream) {
        let all = self.everything();
        let _ = codec::send(&mut send, &all).await;
        match self.kind {
            Kind::Slow => drip_in(receive).await,
            // What is not read waits at the neighbour.
            Kind::Silent | Kind::Flood => std::future::pending().await,
            Kind::Liar => {
                let mut reader = FrameReader::new(receive);
                while let Ok(Some(_)) = reader.next::<Link>().await {
                    let _ = codec::send(&mut send, &all).await;
                }
            }
        }
    }

    /// Asks for a piece and takes the answer a byte a second.
    async fn take_slowly(self: Arc<Self>, connection: Connection) {
        while connection.is_open() {
            if let Ok(receive) = self.ask(&connection).await {
                drip_in(receive).await;
            }
            sleep(DRIP).await;
        }
    }

    /// Asks for any piece.
    async fn ask(
        &self,
        connection: &Connection,
    ) -> Result<RecvStream, Box<dyn std::error::Error + Send + Sync>> {
        let (mut send, receive) = connection.open().await?;
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        let index = common::piece::PieceIndex(made as u32 % self.geometry.pieces().max(1));
        codec::send(&mut send, &Opening::Piece { task: self.task, index }).await?;
        send.finish()?;
        Ok(receive)
    }
}

/// Reads a byte a second.
async fn drip_in(mut receive: RecvStream) {
    let mut byte = [0];
    while let Ok(Some(_)) = receive.read(&mut byte).await {
        sleep(DRIP).await;
    }
}
