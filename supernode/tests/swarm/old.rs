//! A member of the release before: it says hello with version 1 and knows no message that came later, so one that does is
//! an error to it. It takes pieces and gives them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::digest::Digest;
use common::identity::{Admits, Identity};
use common::node::{Contact, NodeId, Role};
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::task::{OriginFailure, Source, TaskId};
use common::transport::{self, Connection, Inbound, Transport, TransportOptions};
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::{Link, Opening, PieceReply};
use common::wire::hello::Hello;
use common::wire::inquiry::Answered;
use quinn::{RecvStream, SendStream};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, loopback};

/// What version 1 has of [`common::wire::swarm::ToPeer`].
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it must be read, and not all of it is looked at")]
pub(crate) enum ToPeer {
    Joined { task: TaskId, geometry: Geometry, inline: Option<Vec<u8>> },
    Digests { task: TaskId, first: PieceIndex, digests: Vec<Digest> },
    Parents { task: TaskId, add: Vec<Contact>, remove: Vec<NodeId> },
    Proven(TaskId),
    Poisoned(TaskId),
    Failed { task: TaskId, failure: Failure },
    Renewed(Vec<Vec<u8>>),
    RenewalRefused(String),
}

/// What it has of [`common::wire::swarm::Failure`].
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it must be read, and not all of it is looked at")]
pub(crate) enum Failure {
    Origin(OriginFailure),
    Refused(String),
    Unavailable(String),
}

/// What it has of [`common::wire::inquiry::Inquired`].
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it must be read, and not all of it is looked at")]
pub(crate) enum Inquired {
    Answered(Answered),
    Unable(Failure),
}

pub(crate) struct Old {
    pub(crate) transport: Transport,
    pub(crate) supernode: Connection,
    send: SendStream,
    reader: FrameReader<RecvStream>,
    holds: Arc<Holds>,
    tasks: JoinSet<()>,
}

/// What it has, and shows to whoever opens a link.
#[derive(Default)]
struct Holds {
    pieces: Mutex<BTreeMap<u32, Bytes>>,
    news: Notify,
    given: Mutex<usize>,
}

// === impl Old ===

/// A member that says what `hello` makes of the usual one.
pub(crate) async fn member(cluster: &Cluster, hello: impl FnOnce(&mut Hello)) -> Transport {
    let identity = Identity::ephemeral().unwrap();
    transport::enrol(cluster.supernode.quic(), &cluster.token, &identity).await.unwrap();
    let mut said = transport::hello(identity.node(), Role::Peer);
    said.slots = 8;
    hello(&mut said);
    Transport::bind(TransportOptions { listen: loopback(), identity, admits: Admits::Members, hello: said })
        .unwrap()
}

impl Old {
    /// Has a session with the supernode, and takes in whoever comes.
    pub(crate) async fn join(cluster: &Cluster) -> Self {
        let transport = member(cluster, |hello| (hello.version, hello.min_version) = (1, 1)).await;
        let supernode = transport.dial_supernode(cluster.supernode.quic()).await.unwrap();
        assert_eq!(supernode.version(), 1);
        let (mut send, receive) = supernode.open().await.unwrap();
        codec::send(&mut send, &Opening::Session).await.unwrap();
        let (holds, mut tasks) = (Arc::new(Holds::default()), JoinSet::new());
        tasks.spawn(serve(supernode.clone(), holds.clone()));
        tasks.spawn(accept(transport.clone(), holds.clone()));
        Self { transport, supernode, send, reader: FrameReader::new(receive), holds, tasks }
    }

    pub(crate) async fn say(&mut self, message: &common::wire::swarm::ToSupernode) {
        codec::send(&mut self.send, message).await.unwrap();
    }

    /// What it is told next; panics on a word that version 1 does not have.
    pub(crate) async fn hear(&mut self) -> ToPeer {
        self.reader.expect::<ToPeer>().await.expect("a word of version 1")
    }

    /// Pieces that others took from it.
    pub(crate) fn given(&self) -> usize {
        *self.holds.given.lock().unwrap()
    }

    /// Joins a task that is new to it and takes all its pieces from the parents that it is given.
    pub(crate) async fn pull(&mut self, source: &Source) -> Digest {
        let join = common::wire::swarm::Join {
            source: source.clone(),
            credentials: common::task::Credentials::none(),
            held: 0,
        };
        self.say(&common::wire::swarm::ToSupernode::Join(join)).await;
        let (shown, mut news) = mpsc::channel(64);
        let (mut geometry, mut digests, mut proven) = (None, BTreeMap::new(), false);
        loop {
            tokio::select! {
                told = self.reader.expect::<ToPeer>() => match told.expect("a word of version 1") {
                    ToPeer::Joined { geometry: cut, inline: None, .. } => geometry = Some(cut),
                    ToPeer::Digests { first, digests: new, .. } => digests.extend((first.0..).zip(new)),
                    ToPeer::Parents { add, .. } => for parent in add {
                        let cut = geometry.expect("told before parents");
                        let neighbour = Neighbour { supernode: self.supernode.clone(), transport: self.transport.clone(), parent };
                        self.tasks.spawn(neighbour.listen(source.task(), cut, shown.clone()));
                    },
                    ToPeer::Proven(_) => proven = true,
                    other => panic!("{other:?}"),
                },
                Some((connection, runs)) = news.recv() => for index in runs.into_iter().flatten() {
                    let (vouched, had) = (digests.get(&index), self.holds.pieces.lock().unwrap().contains_key(&index));
                    if let (Some(vouched), false) = (vouched, had)
                        && let Some(bytes) = piece(&connection, source.task(), PieceIndex(index)).await
                    {
                        assert_eq!(Digest::of(&bytes), *vouched);
                        self.holds.pieces.lock().unwrap().insert(index, bytes);
                        self.holds.news.notify_waiters();
                    }
                },
            }
            let pieces = self.holds.pieces.lock().unwrap();
            if proven && geometry.is_some_and(|geometry| geometry.pieces() as usize == pieces.len()) {
                return Digest::of(&pieces.values().flatten().copied().collect::<Vec<u8>>());
            }
        }
    }
}

/// A parent of its.
struct Neighbour {
    supernode: Connection,
    transport: Transport,
    parent: Contact,
}

impl Neighbour {
    /// Says what the parent shows, again and again: a digest may come after its piece was shown.
    async fn listen(
        self,
        task: TaskId,
        geometry: Geometry,
        shown: mpsc::Sender<(Connection, Vec<std::ops::Range<u32>>)>,
    ) {
        let seed = self.parent.id == self.supernode.node();
        let connection =
            if seed { self.supernode.clone() } else { self.transport.dial(&self.parent).await.unwrap() };
        assert_eq!(connection.version(), 1);
        let (mut send, receive) = connection.open().await.unwrap();
        codec::send(&mut send, &Opening::Link { task, geometry }).await.unwrap();
        let mut all = PieceSet::new(geometry.pieces());
        let mut reader = FrameReader::new(receive);
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            tokio::select! {
                said = reader.next::<Link>() => match said {
                    Ok(Some(Link::Have(runs))) => runs.into_iter().for_each(|run| all.insert_range(run)),
                    Ok(Some(Link::Accepted | Link::Hold(_))) => {}
                    _ => return,
                },
                _ = looks.tick() => if shown.send((connection.clone(), all.runs())).await.is_err() {
                    return;
                },
            }
        }
    }
}

async fn piece(connection: &Connection, task: TaskId, index: PieceIndex) -> Option<Bytes> {
    let (mut send, receive) = connection.open().await.ok()?;
    codec::send(&mut send, &Opening::Piece { task, index }).await.ok()?;
    let mut reader = FrameReader::new(receive);
    let PieceReply::Data { length } = reader.expect().await.ok()? else { return None };
    let (mut stream, first) = reader.into_parts();
    let mut bytes = first.to_vec();
    bytes.extend(stream.read_to_end(length as usize).await.ok()?);
    (bytes.len() == length as usize).then(|| bytes.into())
}

async fn accept(transport: Transport, holds: Arc<Holds>) {
    let mut connections = JoinSet::new();
    while let Some(inbound) = transport.accept().await {
        if let Inbound::Member(connection) = inbound {
            assert_eq!(connection.version(), 1);
            connections.spawn(serve(connection, holds.clone()));
        }
    }
}

async fn serve(connection: Connection, holds: Arc<Holds>) {
    let mut streams = JoinSet::new();
    while let Ok((send, receive)) = connection.accept().await {
        streams.spawn(stream(send, receive, holds.clone()));
    }
}

async fn stream(mut send: SendStream, receive: RecvStream, holds: Arc<Holds>) {
    let mut reader = FrameReader::new(receive);
    match reader.expect::<Opening>().await {
        Ok(Opening::Link { .. }) => {
            let _ = codec::send(&mut send, &Link::Accepted).await;
            let mut told = 0;
            loop {
                let news = holds.news.notified();
                let runs: Vec<_> =
                    holds.pieces.lock().unwrap().keys().map(|index| *index..index + 1).collect();
                if runs.len() > told && codec::send(&mut send, &Link::Have(runs.clone())).await.is_err() {
                    return;
                }
                told = runs.len();
                news.await;
            }
        }
        Ok(Opening::Piece { index, .. }) => {
            let piece = holds.pieces.lock().unwrap().get(&index.0).cloned();
            let Some(piece) = piece else { return };
            let _ = codec::send(&mut send, &PieceReply::Data { length: piece.len() as u32 }).await;
            *holds.given.lock().unwrap() += usize::from(send.write_chunk(piece).await.is_ok());
            let _ = send.finish();
        }
        _ => {}
    }
}
