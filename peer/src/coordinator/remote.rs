//! The supernodes as a peer's downloads see them: one coordinator, however many there are behind it. What is wished and
//! told goes through channels to [`super::driver`], which keeps the sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use common::identity::{Identity, JoinProof};
use common::node::NodeId;
use common::task::TaskId;
use common::telemetry::Metrics;
use common::telemetry::trace::TraceContext;
use common::wire::inquiry::{Inquired, Inquiry};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::directory::Resolver;
use super::driver::Driver;
use super::line::Line;
use super::standing::Standing;
use super::{Coordinator, Membership, NOTICES, Notice, Notices, ORDERS, Order, Wish};

/// Where the supernodes are and how to become a member.
pub struct RemoteOptions {
    /// `HOST:PORT`, or a DNS name with several addresses and a port.
    pub supernodes: Vec<String>,
    /// Who knows what the names mean.
    pub resolver: Arc<dyn Resolver>,
    /// Who we are.
    pub identity: Identity,
    /// What supernodes say of members and CAs, and what they are asked for.
    pub standing: Standing,
    /// What lets us in, if we have no certificate.
    pub proof: Option<Arc<dyn JoinProof>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// How it is at an address of a supernode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupernodeView {
    /// Where.
    pub address: SocketAddr,
    /// Who was last met there.
    pub node: Option<NodeId>,
    /// Whether there is a session with that node.
    pub connected: bool,
}

/// A download's wish and where its orders go.
pub(super) type Wanted = (TaskId, Wish, mpsc::Sender<Order>);

/// A node's line to its supernodes; the sessions run as [`Driver::run`].
pub struct Remote {
    joins: mpsc::Sender<Wanted>,
    notices: mpsc::Sender<(TaskId, Notice)>,
    supernodes: watch::Receiver<Vec<SupernodeView>>,
    connected: watch::Receiver<bool>,
    line: Arc<Line>,
}

/// The driver's ends of a [`Remote`].
pub(super) struct Ends {
    pub(super) joins: mpsc::Receiver<Wanted>,
    pub(super) notices: mpsc::Receiver<(TaskId, Notice)>,
    pub(super) supernodes: watch::Sender<Vec<SupernodeView>>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) line: Arc<Line>,
}

// === impl Remote ===

impl Remote {
    /// The line, and the driver to run for it.
    pub fn new(options: RemoteOptions) -> (Self, Driver) {
        // Joins have their own channel: notices may be dropped when there are too many, a join may not.
        let (joins, join_receiver) = mpsc::channel(NOTICES);
        let (notices, notice_receiver) = mpsc::channel(NOTICES);
        let (connected_sender, connected) = watch::channel(false);
        let (view, supernodes) = watch::channel(Vec::new());
        let line = Arc::<Line>::default();
        let ends = Ends {
            joins: join_receiver,
            notices: notice_receiver,
            supernodes: view,
            connected: connected_sender,
            line: line.clone(),
        };
        (Self { joins, notices, supernodes, connected, line }, Driver::new(options, ends))
    }

    /// Whether there is a session now, with any supernode.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// The addresses of the supernodes, and how it is there.
    pub fn supernodes(&self) -> watch::Receiver<Vec<SupernodeView>> {
        self.supernodes.clone()
    }
}

impl Coordinator for Remote {
    fn join(&self, task: TaskId, wish: Wish) -> Membership {
        let (sender, orders) = mpsc::channel(ORDERS);
        let notices = Notices::new(task, self.notices.clone());
        if self.joins.try_send((task, wish, sender.clone())).is_err() {
            // Thousands of joins wait already, or the sessions have ended.
            let _ = sender.try_send(Order::GoToOrigin);
        }
        Membership { orders, notices }
    }

    fn is_seed(&self, node: NodeId) -> bool {
        self.line.is_supernode(node)
    }

    fn inquire(&self, inquiry: Inquiry, trace: Option<TraceContext>) -> BoxFuture<'_, Option<Inquired>> {
        Box::pin(self.line.inquire(inquiry, trace))
    }
}
