//! The seed: the peer's engine with the origin behind it. Its coordinator is the tracker itself: every download is
//! told to ask the origin, and what it says of its progress becomes events of the scheduler. Where another supernode had
//! begun the task and is lost, the download is told first what that one vouched for ([`Memory`]): its pieces are with the
//! peers, and only the rest is the origin's to give.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::node::NodeId;
use common::task::TaskId;
use common::wire::swarm::Testimony;
use peer::coordinator::{Coordinator, Membership, NOTICES, Notice, Notices, ORDERS, Order, Wish};
use tokio::sync::mpsc;

use crate::hub::Hub;
use crate::scheduler::Event;
use crate::testimony::{Recalled, Recollection};

/// Downloads in the table from which on those that have ended are looked for.
const LOOK_FROM: usize = 1024;

/// What the seed's downloads see of the supernode.
pub struct SeedCoordinator {
    node: NodeId,
    notices: mpsc::Sender<(TaskId, Notice)>,
    memory: Memory,
}

/// What other supernodes vouched for, and the downloads that can make use of it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    recollection: Recollection,
    downloads: HashMap<TaskId, mpsc::Sender<Order>>,
}

// === impl SeedCoordinator ===

impl SeedCoordinator {
    /// The coordinator of this node's seed, and what its downloads will say, to be given to [`listen`].
    pub fn new(node: NodeId) -> (Self, mpsc::Receiver<(TaskId, Notice)>) {
        let (notices, receiver) = mpsc::channel(NOTICES);
        (Self { node, notices, memory: Memory::default() }, receiver)
    }

    /// What its downloads are told of other supernodes' work.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }
}

impl Coordinator for SeedCoordinator {
    fn join(&self, task: TaskId, _: Wish) -> Membership {
        let (sender, orders) = mpsc::channel(ORDERS);
        let mut state = self.memory.lock();
        let recalled = state.recollection.of(task, Instant::now()).map(order);
        for order in recalled.into_iter().chain([Order::GoToOrigin]) {
            sender.try_send(order).expect("invariant: the channel is new");
        }
        if state.downloads.len() >= LOOK_FROM {
            // A download's last word is lost when too many speak at once.
            state.downloads.retain(|_, download| !download.is_closed());
        }
        state.downloads.insert(task, sender);
        Membership { orders, notices: Notices::new(task, self.notices.clone()) }
    }

    fn is_seed(&self, node: NodeId) -> bool {
        node == self.node
    }
}

// === impl Memory ===

impl Memory {
    /// A peer showed what another supernode vouched for.
    pub fn learn(&self, said: &Testimony) {
        let (mut state, now) = (self.lock(), Instant::now());
        if !state.recollection.learn(said, now) {
            return;
        }
        let (recalled, download) = (state.recollection.of(said.task, now), state.downloads.get(&said.task));
        if let (Some(recalled), Some(download)) = (recalled, download) {
            // A download that does not listen gets the rest from the origin.
            let _ = download.try_send(order(recalled));
        }
    }

    fn ended(&self, task: TaskId) {
        let mut state = self.lock();
        // A new download of the task may have begun since: then its orders are open.
        if state.downloads.get(&task).is_some_and(mpsc::Sender::is_closed) {
            state.downloads.remove(&task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between would leave a table that is still the best there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn order(recalled: &Recalled) -> Order {
    Order::Recalled { geometry: recalled.geometry, digests: recalled.digests.clone() }
}

/// Turns what the downloads say into events, until the engine is gone.
pub async fn listen(hub: Arc<Hub>, memory: Memory, mut notices: mpsc::Receiver<(TaskId, Notice)>) {
    while let Some((task, notice)) = notices.recv().await {
        match notice {
            Notice::Known(geometry) => {
                hub.apply(Event::SeedMeta { task, pieces: geometry.pieces() });
                hub.know(task, geometry);
            }
            Notice::Progress(held) => hub.apply(Event::SeedProgress { task, held }),
            Notice::Proven(geometry) => {
                hub.apply(Event::SeedMeta { task, pieces: geometry.pieces() });
                hub.apply(Event::SeedProven(task));
            }
            Notice::Failed { poisoned } => {
                if poisoned {
                    memory.lock().recollection.refute(task, Instant::now());
                }
                hub.apply(Event::SeedFailed(task));
            }
            Notice::Left => memory.ended(task),
            // The seed asks nobody for parents; whom it takes pieces from came to it.
            Notice::Blame { .. } | Notice::MoreParents => {}
        }
    }
}
