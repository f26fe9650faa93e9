//! What goes into the [scheduler](super::Scheduler), what comes out of it, and what can be tuned.

use std::time::Duration;

use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use common::wire::swarm::Fault;

use crate::tracker::Member;

/// What can be tuned.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many parents a peer is given, the trunk among them.
    pub parents_per_peer: usize,
    /// How many children the seed serves at once per task.
    pub seed_slots: usize,
    /// The slots of a peer that does not say how many it has: for who makes the [`Member`].
    pub default_peer_slots: usize,
    /// How many peers of a zone may have parents outside it: two, so that one can go without a gap.
    pub gateways_per_zone: usize,
    /// After so long without a new piece a downloader is a poor parent.
    pub silence: Duration,
    /// How often a peer gets more parents of one task on demand.
    pub more_parents_every: Duration,
    /// Where the seed stands.
    pub seed_labels: Labels,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer connected. One that is connected already starts afresh.
    PeerUp(Member),
    /// A peer's connection ended.
    PeerDown(NodeId),
    /// A peer wants a task.
    Join {
        /// Which task.
        task: TaskId,
        /// Who.
        node: NodeId,
        /// How many pieces it has already.
        held: u32,
    },
    /// A peer has all of a task, and can be a parent at once.
    Hold {
        /// Which task.
        task: TaskId,
        /// Who.
        node: NodeId,
        /// How many pieces that is.
        pieces: u32,
    },
    /// A member has so many pieces now.
    Progress {
        /// Which task.
        task: TaskId,
        /// Who.
        node: NodeId,
        /// How many.
        held: u32,
    },
    /// A member wants and gives no more.
    Leave {
        /// Which task.
        task: TaskId,
        /// Who.
        node: NodeId,
    },
    /// A member's parents do not give it what it wants.
    MoreParents {
        /// Which task.
        task: TaskId,
        /// Who.
        node: NodeId,
    },
    /// A member was wronged.
    Blame {
        /// The task that it was about.
        task: TaskId,
        /// Who says so.
        by: NodeId,
        /// Who did it.
        about: NodeId,
        /// What it did.
        fault: Fault,
    },
    /// The seed knows a task's length: who waited for that gets parents now.
    SeedMeta {
        /// Which task.
        task: TaskId,
        /// How many pieces it has.
        pieces: u32,
    },
    /// The seed has so many pieces now.
    SeedProgress {
        /// Which task.
        task: TaskId,
        /// How many.
        held: u32,
    },
    /// The seed has all, and its digest is right.
    SeedProven(TaskId),
    /// The seed cannot get it, or its digest is wrong: the swarm is forgotten, without a word.
    SeedFailed(TaskId),
    /// The seed's copy is gone; peers may hold it still.
    SeedDropped(TaskId),
    /// Time went by; about once a second.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell a peer of new parents and of parents to let go. A peer that has all keeps the links that it has
    /// until both sides are done; nobody tells it to cut them.
    Parents {
        /// Whom to tell.
        to: NodeId,
        /// Of which task.
        task: TaskId,
        /// New parents, the trunk first.
        add: Vec<Contact>,
        /// Parents to let go.
        remove: Vec<NodeId>,
    },
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            parents_per_peer: 5,
            seed_slots: 16,
            default_peer_slots: 8,
            gateways_per_zone: 2,
            silence: Duration::from_secs(10),
            more_parents_every: Duration::from_secs(2),
            seed_labels: Labels::default(),
        }
    }
}
