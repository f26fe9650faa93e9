//! The seed: the peer's engine with the origin behind it. Its coordinator is the tracker itself: every download is
//! told to ask the origin, and what it says of its progress becomes events of the scheduler.

use std::sync::Arc;

use common::node::NodeId;
use common::task::TaskId;
use peer::coordinator::{Coordinator, Membership, NOTICES, Notice, Notices, ORDERS, Order, Wish};
use tokio::sync::mpsc;

use crate::hub::Hub;
use crate::scheduler::Event;

/// What the seed's downloads see of the supernode.
pub struct SeedCoordinator {
    node: NodeId,
    notices: mpsc::Sender<(TaskId, Notice)>,
}

// === impl SeedCoordinator ===

impl SeedCoordinator {
    /// The coordinator of this node's seed, and what its downloads will say, to be given to [`listen`].
    pub fn new(node: NodeId) -> (Self, mpsc::Receiver<(TaskId, Notice)>) {
        let (notices, receiver) = mpsc::channel(NOTICES);
        (Self { node, notices }, receiver)
    }
}

impl Coordinator for SeedCoordinator {
    fn join(&self, task: TaskId, _: Wish) -> Membership {
        let (sender, orders) = mpsc::channel(ORDERS);
        sender.try_send(Order::GoToOrigin).expect("invariant: the channel is new");
        // The seed has no supernode to lose: a closed channel would mean that.
        let notices = Notices::new(task, self.notices.clone());
        Membership { orders, notices }
    }

    fn is_seed(&self, node: NodeId) -> bool {
        node == self.node
    }
}

/// Turns what the downloads say into events, until the engine is gone.
pub async fn listen(hub: Arc<Hub>, mut notices: mpsc::Receiver<(TaskId, Notice)>) {
    while let Some((task, notice)) = notices.recv().await {
        match notice {
            Notice::Known(geometry) => hub.apply(Event::SeedMeta { task, pieces: geometry.pieces() }),
            Notice::Progress(held) => hub.apply(Event::SeedProgress { task, held }),
            Notice::Proven(geometry) => {
                hub.apply(Event::SeedMeta { task, pieces: geometry.pieces() });
                hub.apply(Event::SeedProven(task));
            }
            Notice::Failed => hub.apply(Event::SeedFailed(task)),
            // The seed has no parents of its own.
            Notice::Blame { .. } | Notice::MoreParents | Notice::Left => {}
        }
    }
}
