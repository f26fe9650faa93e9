//! A member with a session and nothing behind it, made of the parts that the peer's own session is made of. All
//! members dial from one endpoint, where the daemons have a port and a thread each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::identity::{self, Identity};
use common::node::Role;
use common::task::Source;
use common::transport;
use common::wire::codec::{self, FrameReader};
use common::wire::exchange::Opening;
use common::wire::hello::Reply;
use common::wire::swarm::{Join, ToPeer, ToSupernode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use tokio::sync::Mutex;

/// The daemons' slots.
const SLOTS: u16 = 8;
/// A join that is not answered to its end within this never will be.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dials the supernode.
pub(crate) struct Dialler {
    endpoint: Endpoint,
    supernode: SocketAddr,
    transport: Arc<quinn::TransportConfig>,
}

/// A member with an open session.
pub(crate) struct Member {
    send: Mutex<SendStream>,
    reader: Mutex<FrameReader<RecvStream>>,
    _connection: Connection,
}

/// What a member heard after a join, each with the time since it began to say it.
pub(crate) struct Answers {
    pub(crate) joined: Duration,
    pub(crate) parents: Duration,
    pub(crate) proven: Duration,
    pub(crate) messages: u32,
}

// === impl Dialler ===

impl Dialler {
    pub(crate) fn new(supernode: SocketAddr) -> Self {
        let socket = transport::udp_socket(([127, 0, 0, 1], 0).into()).unwrap();
        let config = transport::endpoint_config();
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime)).unwrap();
        Self { endpoint, supernode, transport: Arc::new(transport::transport_config()) }
    }

    /// Opens one member's session.
    pub(crate) async fn open(&self, identity: &Identity) -> Member {
        let tls = QuicClientConfig::try_from(identity.client_config().unwrap()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        let dialling = self.endpoint.connect_with(config, self.supernode, identity::SUPERNODE_NAME);
        let connection = dialling.unwrap().await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let mut hello = transport::hello(identity.node(), Role::Peer);
        hello.slots = SLOTS;
        codec::send(&mut send, &hello).await.unwrap();
        let reply = FrameReader::new(receive).expect::<Reply>().await.unwrap();
        assert!(matches!(reply, Reply::Welcome(_)), "not welcome: {reply:?}");
        let (mut send, receive) = connection.open_bi().await.unwrap();
        codec::send(&mut send, &Opening::Session).await.unwrap();
        let reader = Mutex::new(FrameReader::new(receive));
        Member { send: Mutex::new(send), reader, _connection: connection }
    }
}

// === impl Member ===

impl Member {
    pub(crate) async fn say(&self, message: &ToSupernode) {
        codec::send(&mut *self.send.lock().await, message).await.unwrap();
    }

    /// Joins, and listens until all is said.
    pub(crate) async fn join(&self, source: &Source) -> Answers {
        let (source, task) = (source.clone(), source.task());
        let credentials = common::task::Credentials::none();
        let message = ToSupernode::Join(Join { source, credentials, held: 0 });
        let begun = Instant::now();
        self.say(&message).await;
        let (mut joined, mut parents, mut proven, mut messages) = (None, None, None, 0);
        let mut reader = self.reader.lock().await;
        let listening = async {
            while joined.is_none() || parents.is_none() || proven.is_none() {
                let heard = reader.expect::<ToPeer>().await.unwrap();
                messages += 1;
                let at = match &heard {
                    ToPeer::Joined { task: of, .. } if *of == task => &mut joined,
                    ToPeer::Parents { task: of, .. } if *of == task => &mut parents,
                    ToPeer::Proven(of) if *of == task => &mut proven,
                    ToPeer::Failed { failure, .. } => panic!("{failure}"),
                    _ => continue,
                };
                at.get_or_insert_with(|| begun.elapsed());
            }
        };
        let heard = tokio::time::timeout(PATIENCE, listening).await;
        heard.expect("a join is answered, with parents and proof");
        let all = joined.zip(parents).zip(proven);
        let ((joined, parents), proven) = all.expect("invariant: the loop ends with all three");
        Answers { joined, parents, proven, messages }
    }
}
