//! The engine at both ends: real stores, real transports, one parent and one child. In the supernode's place stands
//! a [`Director`], which knows everything from the start.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::digest::Digest;
use common::identity::Admits;
use common::node::{Contact, NodeId, Role};
use common::piece::{Geometry, PieceIndex};
use common::task::{Credentials, TaskId};
use common::telemetry::Metrics;
use common::transport::{self, Inbound, Transport, TransportOptions};
use common::wire::swarm::MAX_DIGESTS;
use common::wire::swarm::Priority;
use peer::coordinator::{Coordinator, Membership, Nobody, Notices, ORDERS, Order, Wish};
use peer::engine::{Engine, EngineOptions, Request};
use peer::exchange::reveal::Style;
use peer::limit::Rates;
use peer::origin::{OriginClient, OriginOptions};
use tokio::sync::mpsc;

use crate::child::{Task, say, wait_for_end, wait_for_word};
use crate::lab::Lab;

/// A coordinator for one task that is whole at one parent. It says the length at once, and the rest when it is let.
struct Director {
    geometry: Geometry,
    digests: Vec<Digest>,
    parent: Contact,
    /// The way to the download. It is kept: a download takes a closed channel for a lost supernode.
    line: Mutex<Option<mpsc::Sender<Order>>>,
}

// === impl Director ===

impl Director {
    fn begin(&self) {
        let line = self.line.lock().unwrap();
        let say = |order| line.as_ref().expect("nobody joined").try_send(order).unwrap();
        let mut first = 0;
        for digests in self.digests.chunks(MAX_DIGESTS) {
            say(Order::Digests { first: PieceIndex(first), digests: digests.to_vec() });
            first += digests.len() as u32;
        }
        say(Order::Parents { add: vec![self.parent.clone()], remove: Vec::new() });
        say(Order::Proven);
    }
}

impl Coordinator for Director {
    fn join(&self, task: TaskId, _: Wish) -> Membership {
        let (sender, orders) = mpsc::channel(ORDERS);
        sender.try_send(Order::Joined { geometry: self.geometry, inline: None }).unwrap();
        *self.line.lock().unwrap() = Some(sender);
        let (notices, _) = mpsc::channel(1);
        Membership { orders, notices: Notices::new(task, notices) }
    }

    fn is_seed(&self, _: NodeId) -> bool {
        false
    }
}

pub(crate) fn serve(task: &Task) {
    runtime().block_on(async {
        let transport = bind(task, "parent");
        let engine = start(&task.lab, "parent", Some(transport.clone()), Arc::new(Nobody));
        say(transport.local_addr().unwrap());
        tokio::spawn(accept(transport.clone(), engine.clone()));
        tokio::task::spawn_blocking(wait_for_end).await.unwrap();
        engine.close().await;
        transport.close().await;
    });
}

pub(crate) fn receive(task: &Task) {
    runtime().block_on(async {
        let lab = &task.lab;
        let parent = Contact { id: lab.identity("parent").node(), address: task.other.parse().unwrap() };
        let (geometry, digests) = (lab.geometry, lab.digests());
        let director = Arc::new(Director { geometry, digests, parent, line: Mutex::default() });
        let transport = bind(task, "child");
        let engine = start(lab, "child", Some(transport.clone()), director.clone());
        // What the round before left.
        engine.store().remove(lab.task()).unwrap();
        let request = Request {
            source: lab.source(),
            credentials: Credentials::none(),
            priority: Priority::Pull,
            trace: None,
        };
        let handle = engine.open(request).await.unwrap();
        touch(&handle.path().unwrap(), geometry.length());
        say("ready");
        tokio::task::spawn_blocking(wait_for_word).await.unwrap();
        director.begin();
        handle.finished().await.unwrap();
        say("done");
        tokio::task::spawn_blocking(wait_for_end).await.unwrap();
        drop(handle);
        engine.close().await;
        transport.close().await;
    });
}

/// Fills a file, so that its pages exist: in a virtual machine the first touch of one is slow, and how many of
/// them a run meets is luck.
fn touch(path: &Path, length: u64) {
    let mut file = File::options().write(true).open(path).unwrap();
    std::io::copy(&mut std::io::repeat(1).take(length), &mut file).unwrap();
}

async fn accept(transport: Transport, engine: Engine) {
    while let Some(inbound) = transport.accept().await {
        if let Inbound::Member(connection) = inbound {
            engine.adopt(connection);
        }
    }
}

/// As the daemons have it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

pub(crate) fn bind(task: &Task, member: &str) -> Transport {
    let identity = task.lab.identity(member);
    let hello = transport::hello(identity.node(), Role::Peer);
    Transport::bind(TransportOptions { listen: task.local, identity, admits: Admits::Members, hello })
        .unwrap()
}

/// An engine over a member's store.
pub(crate) fn start(
    lab: &Lab,
    member: &str,
    transport: Option<Transport>,
    coordinator: Arc<dyn Coordinator>,
) -> Engine {
    start_with(lab, member, transport, coordinator, OriginOptions::default())
}

/// The same, with origins.
pub(crate) fn start_with(
    lab: &Lab,
    member: &str,
    transport: Option<Transport>,
    coordinator: Arc<dyn Coordinator>,
    origin: OriginOptions,
) -> Engine {
    Engine::start(EngineOptions {
        store: lab.store(member),
        transport,
        coordinator,
        origin: OriginClient::new(origin).unwrap(),
        vault: None,
        metrics: Metrics::new(),
        style: Style::Peer,
        sessions: None,
        errands: None,
        rates: Rates::default(),
    })
}
