//! The connections of a peer's present sessions, for questions that are put to the supernodes beside them: as with tasks,
//! all peers put one question to one supernode. Kept by [`super::driver`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use common::digest::Digest;
use common::node::NodeId;
use common::rendezvous;
use common::telemetry::trace::TraceContext;
use common::transport::{CONTROL_PRIORITY, Connection, TransportError};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::Opening;
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::Failure;
use tokio::time::timeout;

/// The supernode asks an origin for so long at most before this node does it itself: a little longer than it tries.
const INQUIRY_TIMEOUT: Duration = Duration::from_secs(10);
/// The first protocol version that can say which trace a question is part of.
const TRACED: u16 = 3;

/// The connections of the sessions that there are.
#[derive(Default)]
pub(super) struct Line(RwLock<Ends>);

#[derive(Default)]
struct Ends {
    connections: BTreeMap<NodeId, Connection>,
    /// Every supernode that there was a session with: what still comes from one that is lost is a seed's.
    supernodes: BTreeSet<NodeId>,
}

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

// === impl Line ===

impl Line {
    /// A session has begun.
    pub(super) fn begun(&self, connection: Connection) {
        let mut ends = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ends.supernodes.insert(connection.node());
        ends.connections.insert(connection.node(), connection);
    }

    /// A session has ended.
    pub(super) fn ended(&self, node: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).connections.remove(&node);
    }

    /// Whether the node is a supernode.
    pub(super) fn is_supernode(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).supernodes.contains(&node)
    }

    /// Has a supernode ask; `None` when none can be asked to.
    pub(super) async fn inquire(&self, inquiry: Inquiry, trace: Option<TraceContext>) -> Option<Inquired> {
        match timeout(INQUIRY_TIMEOUT, self.inquire_any(inquiry, trace)).await {
            Ok(inquired) => inquired,
            // It would take as long for the next question.
            Err(_) => Some(Inquired::Unable(Failure::Unavailable("the supernode takes too long".to_owned()))),
        }
    }

    /// The one whose question it is, or the next, should that one be lost meanwhile.
    async fn inquire_any(&self, inquiry: Inquiry, trace: Option<TraceContext>) -> Option<Inquired> {
        for connection in self.in_order(&inquiry.url) {
            match inquire(&connection, inquiry.clone(), trace).await {
                Ok(inquired) => return Some(inquired),
                Err(error) => tracing::debug!("the supernode does not ask for us: {error}"),
            }
        }
        None
    }

    fn in_order(&self, url: &str) -> Vec<Connection> {
        let ends = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let order = rendezvous::order(&Digest::of(url.as_bytes()).0, ends.connections.keys().copied());
        order.iter().filter_map(|node| ends.connections.get(node).cloned()).collect()
    }
}

async fn inquire(
    connection: &Connection,
    inquiry: Inquiry,
    trace: Option<TraceContext>,
) -> Result<Inquired, LineError> {
    let opening = match trace.filter(|_| connection.version() >= TRACED) {
        Some(trace) => Opening::InquiryTraced(inquiry, trace),
        None => Opening::Inquiry(inquiry),
    };
    let (mut send, receive) = connection.open().await?;
    let _ = send.set_priority(CONTROL_PRIORITY);
    codec::send(&mut send, &opening).await?;
    Ok(FrameReader::new(receive).expect::<Inquired>().await?)
}
