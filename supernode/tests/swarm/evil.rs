//! A member that cheats: it has a real certificate and a real session, says that it holds tasks whole, and so is
//! handed out as a parent; but what it gives is garbage, or half a piece and then silence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::identity::{Admits, Identity};
use common::node::{NodeId, Role};
use common::piece::{Geometry, PieceSet};
use common::task::TaskId;
use common::transport::{self, Connection, Inbound, Transport, TransportOptions};
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::{Link, Opening, PieceReply};
use common::wire::swarm::{ToPeer, ToSupernode};
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, loopback, until};

/// How it cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Every piece is other bytes; and after the first it opens a fresh link, as if nothing had happened.
    Garbage,
    /// Half of every piece, and then nothing.
    Silent,
}

pub(crate) struct Evil {
    node: NodeId,
    shared: Arc<Shared>,
    session: tokio::sync::Mutex<SendStream>,
    _tasks: JoinSet<()>,
}

struct Shared {
    manner: Manner,
    claims: Mutex<BTreeMap<TaskId, Geometry>>,
    /// How many pieces each node asked of it.
    asked: Mutex<BTreeMap<NodeId, usize>>,
}

// === impl Evil ===

impl Evil {
    /// Becomes a member, as a peer does.
    pub(crate) async fn join(cluster: &Cluster, manner: Manner) -> Self {
        let identity = Identity::ephemeral().unwrap();
        let address = cluster.supernode.quic();
        transport::enrol(address, &cluster.token, &identity).await.unwrap();
        let mut hello = transport::hello(identity.node(), Role::Peer);
        hello.slots = 8;
        let node = identity.node();
        let options = TransportOptions { listen: loopback(), identity, admits: Admits::Members, hello };
        let transport = Transport::bind(options).unwrap();
        let connection = transport.dial_supernode(address).await.unwrap();
        let (mut send, receive) = connection.open().await.unwrap();
        codec::send(&mut send, &Opening::Session).await.unwrap();
        let shared = Arc::new(Shared { manner, claims: Mutex::default(), asked: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(receive));
        tasks.spawn(shared.clone().serve(connection));
        tasks.spawn(shared.clone().accept(transport));
        Self { node, shared, session: tokio::sync::Mutex::new(send), _tasks: tasks }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Says that it holds a task; returns once the supernode believes it.
    pub(crate) async fn claim(&self, cluster: &Cluster, task: TaskId, geometry: Geometry) {
        self.shared.claims.lock().unwrap().insert(task, geometry);
        let holdings = ToSupernode::Holdings(vec![(task, geometry)]);
        codec::send(&mut *self.session.lock().await, &holdings).await.unwrap();
        let claimed = self.shared.claims.lock().unwrap().len() as u64;
        until("the supernode believes it", async || cluster.seen(self.node).await["tasks"] == claimed).await;
    }

    /// How many pieces each node asked of it.
    pub(crate) fn asked(&self) -> BTreeMap<NodeId, usize> {
        self.shared.asked.lock().unwrap().clone()
    }
}

// === impl Shared ===

impl Shared {
    async fn accept(self: Arc<Self>, transport: Transport) {
        let mut connections = JoinSet::new();
        while let Some(inbound) = transport.accept().await {
            if let Inbound::Member(connection) = inbound {
                connections.spawn(self.clone().serve(connection));
            }
        }
    }

    async fn serve(self: Arc<Self>, connection: Connection) {
        let mut streams = JoinSet::new();
        while let Ok((send, receive)) = connection.accept().await {
            streams.spawn(self.clone().stream(connection.clone(), send, receive));
        }
    }

    async fn stream(self: Arc<Self>, connection: Connection, send: SendStream, receive: RecvStream) {
        let mut reader = FrameReader::new(receive);
        // Whatever breaks is the other side's defence.
        let _ = match reader.expect::<Opening>().await {
            Ok(Opening::Link { geometry, .. }) => boast(send, reader, geometry, true).await,
            Ok(Opening::Piece { task, .. }) => self.piece(connection, send, task).await,
            _ => Ok(()),
        };
    }

    async fn piece(
        &self,
        connection: Connection,
        mut send: SendStream,
        task: TaskId,
    ) -> Result<(), codec::CodecError> {
        let first = {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry(connection.node()).or_default();
            *count += 1;
            *count == 1
        };
        let Some(geometry) = self.claims.lock().unwrap().get(&task).copied() else { return Ok(()) };
        let length = geometry.piece_length();
        codec::send(&mut send, &PieceReply::Data { length }).await?;
        let garbage = Bytes::from(vec![0xbd; length as usize]);
        if self.manner == Manner::Silent {
            let _ = send.write_chunk(garbage.slice(..length as usize / 2)).await;
            let _ = send.stopped().await;
            return Ok(());
        }
        let _ = send.write_chunk(garbage).await;
        let _ = send.finish();
        if first && let Ok((mut send, receive)) = connection.open().await {
            codec::send(&mut send, &Opening::Link { task, geometry }).await?;
            boast(send, FrameReader::new(receive), geometry, false).await?;
        }
        Ok(())
    }
}

/// Claims everything on a link, for as long as the other side listens.
async fn boast(
    mut send: SendStream,
    mut reader: FrameReader<RecvStream>,
    geometry: Geometry,
    accept: bool,
) -> Result<(), codec::CodecError> {
    if accept {
        codec::send(&mut send, &Link::Accepted).await?;
    }
    codec::send(&mut send, &Link::Have(PieceSet::full(geometry.pieces()).runs())).await?;
    while reader.next::<Link>().await?.is_some() {}
    Ok(())
}

async fn listen(receive: RecvStream) {
    let mut reader = FrameReader::new(receive);
    while let Ok(Some(_)) = reader.next::<ToPeer>().await {}
}
