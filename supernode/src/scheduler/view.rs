//! The scheduler's state for people and programs: what the HTTP API and `longshore status` show.
//! Read-only copies; nothing here is kept.

use std::time::Instant;

use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::Scheduler;
use super::lone::Lone;
use super::sitter::{DETACHED, SEED, Seat, Sitter, Stage};
use super::swarm::{Copy, Swarm};
use crate::tracker::Standing;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// All swarms, by task.
    pub tasks: Vec<TaskView>,
    /// All connected peers, by id.
    pub peers: Vec<PeerView>,
}

/// What the seed has of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeedView {
    /// Nothing.
    None,
    /// It fetches.
    Growing,
    /// All of it.
    Whole,
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StageView {
    /// It waits until the length is known.
    Waiting,
    /// It downloads.
    Wanting,
    /// It has all.
    Complete,
}

/// A swarm in numbers, cheap whatever its size.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskSummary {
    /// Which task.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub task: TaskId,
    /// Number of pieces, once known.
    pub pieces: Option<u32>,
    /// What the seed has.
    pub seed: SeedView,
    /// How many pieces the seed has.
    pub seed_held: u32,
    /// How many peers take pieces from the seed.
    pub seed_children: usize,
    /// Number of peers that want or have it.
    pub members: usize,
    /// Number of peers that have all of it.
    pub complete: usize,
}

/// A swarm with its members.
#[derive(Clone, Debug, Serialize)]
pub struct TaskView {
    /// The numbers.
    pub summary: TaskSummary,
    /// The members, by id.
    pub members: Vec<MemberView>,
}

/// A member of a swarm.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberView {
    /// Who.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub node: NodeId,
    /// How far.
    pub stage: StageView,
    /// How many pieces it has.
    pub held: u32,
    /// The parent that ties it to a source.
    #[serde(serialize_with = "as_optional_text")]
    #[schema(value_type = Option<String>)]
    pub trunk: Option<NodeId>,
    /// All its parents, the trunk first.
    #[serde(serialize_with = "as_texts")]
    #[schema(value_type = Vec<String>)]
    pub parents: Vec<NodeId>,
    /// How many children it has.
    pub children: usize,
    /// How many it may have.
    pub slots: usize,
    /// Hops to its source, the seed or a complete member; a source has none.
    pub depth: Option<u32>,
    /// How it stands.
    pub standing: Standing,
}

/// A connected peer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PeerView {
    /// Who, and where.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Its QUIC address.
    #[schema(value_type = String)]
    pub address: std::net::SocketAddr,
    /// Where it stands.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// Its slots per task.
    pub slots: u16,
    /// Number of tasks that it wants or has.
    pub tasks: usize,
    /// Accusations alive against it.
    pub blames: usize,
    /// How it stands for that.
    pub standing: Standing,
}

/// How much the scheduler keeps. Its memory follows from these numbers, so whoever runs it for long can see that it does not
/// grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connected peers.
    pub peers: usize,
    /// Tasks on their lists, over all of them.
    pub listed: usize,
    /// Swarms, those of tasks that one peer has and nobody wants aside.
    pub swarms: usize,
    /// Such tasks.
    pub lone: usize,
    /// The swarms' members, the seed aside.
    pub members: usize,
    /// Their seats: those of members, and those that are free again.
    pub seats: usize,
    /// Hosts, racks and zones that parents are drawn from, over all swarms.
    pub groups: usize,
    /// Accusations, whoever is connected.
    pub accusations: usize,
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<S: Serializer>(value: &Option<NodeId>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|node| node.to_string()).serialize(serializer)
}

fn as_texts<S: Serializer>(values: &[NodeId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(NodeId::to_string))
}

// === impl Scheduler ===

impl Scheduler {
    /// All of it. In a big cluster that is much: the accessors give less.
    pub fn view(&self, now: Instant) -> View {
        let mut tasks: Vec<_> = self.tasks().filter_map(|summary| self.task(summary.task)).collect();
        tasks.sort_by_key(|view| view.summary.task);
        View { tasks, peers: self.peers(now).collect() }
    }

    /// How much there is of everything.
    pub fn counts(&self) -> Counts {
        let swarms = || self.swarms.values();
        Counts {
            peers: self.tracker.sorted().len(),
            listed: self.tracker.sorted().iter().map(|(_, known)| known.task_count()).sum(),
            swarms: self.swarms.len(),
            lone: self.lone.len(),
            members: swarms().map(Swarm::population).sum(),
            seats: swarms().map(|swarm| swarm.sitters.len() - 1).sum(),
            groups: swarms().map(|swarm| swarm.pools.groups()).sum(),
            accusations: self.tracker.ledger.alive(),
        }
    }

    /// The swarms in numbers; after all others those of one peer that has all, and each by task.
    pub fn tasks(&self) -> impl Iterator<Item = TaskSummary> + '_ {
        let lone = self.lone.iter().map(|(&task, lone)| lone.summed(task));
        self.swarms.iter().map(|(&task, swarm)| summed(task, swarm)).chain(lone)
    }

    /// One swarm with its members.
    pub fn task(&self, task: TaskId) -> Option<TaskView> {
        let lone = || {
            let lone = self.lone.get(&task)?;
            Some(TaskView { summary: lone.summed(task), members: self.alone(*lone).into_iter().collect() })
        };
        self.swarms.get(&task).map(|swarm| detailed(task, swarm)).or_else(lone)
    }

    /// One swarm in numbers.
    pub fn summary(&self, task: TaskId) -> Option<TaskSummary> {
        let lone = || self.lone.get(&task).map(|lone| lone.summed(task));
        self.swarms.get(&task).map(|swarm| summed(task, swarm)).or_else(lone)
    }

    /// How many pieces of a task a member has.
    pub fn held(&self, task: TaskId, node: NodeId) -> Option<u32> {
        if let Some(lone) = self.lone.get(&task) {
            return (lone.node == node).then_some(lone.pieces);
        }
        let swarm = self.swarms.get(&task)?;
        swarm.seat_of(node).map(|seat| swarm.at(seat).held)
    }

    fn alone(&self, lone: Lone) -> Option<MemberView> {
        let known = self.tracker.get(lone.node)?;
        Some(MemberView {
            node: lone.node,
            stage: StageView::Complete,
            held: lone.pieces,
            trunk: None,
            parents: Vec::new(),
            children: 0,
            slots: usize::from(known.member.slots),
            depth: Some(0),
            standing: known.standing,
        })
    }

    /// Where a connected peer stands.
    pub fn labels(&self, node: NodeId) -> Option<&Labels> {
        self.tracker.get(node).map(|known| &known.member.labels)
    }

    /// Number of zones that connected peers are in.
    pub fn zones(&self) -> usize {
        self.tracker.zones()
    }

    /// Number of connected peers that are quarantined or worse.
    pub fn distrusted(&self, now: Instant) -> usize {
        self.peers(now).filter(|peer| peer.standing >= Standing::Quarantined).count()
    }

    /// The connected peers, by id.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerView> + '_ {
        let ledger = &self.tracker.ledger;
        self.tracker.sorted().into_iter().map(move |(node, known)| {
            let member = &known.member;
            let Contact { address, .. } = member.contact;
            let labels = member.labels.clone();
            PeerView {
                node,
                address,
                labels,
                slots: member.slots,
                tasks: known.task_count(),
                blames: ledger.against(node),
                standing: ledger.standing(node, now),
            }
        })
    }
}

// === impl Lone ===

impl Lone {
    fn summed(&self, task: TaskId) -> TaskSummary {
        TaskSummary {
            task,
            pieces: Some(self.pieces),
            seed: SeedView::None,
            seed_held: 0,
            seed_children: 0,
            members: 1,
            complete: 1,
        }
    }
}

fn summed(task: TaskId, swarm: &Swarm) -> TaskSummary {
    let seed = swarm.at(SEED);
    TaskSummary {
        task,
        pieces: swarm.pieces,
        seed: match swarm.copy {
            Copy::None => SeedView::None,
            Copy::Growing => SeedView::Growing,
            Copy::Whole => SeedView::Whole,
        },
        seed_held: seed.held,
        seed_children: seed.children(),
        members: swarm.population(),
        complete: swarm.zones.values().map(|zone| zone.complete).sum(),
    }
}

fn detailed(task: TaskId, swarm: &Swarm) -> TaskView {
    let mut members: Vec<_> = swarm.taken().filter_map(|seat| seen(swarm, swarm.at(seat))).collect();
    members.sort_by_key(|member| member.node);
    TaskView { summary: summed(task, swarm), members }
}

fn seen(swarm: &Swarm, sitter: &Sitter) -> Option<MemberView> {
    let name = |seat: Seat| swarm.at(seat).node;
    Some(MemberView {
        node: sitter.node,
        stage: match sitter.stage {
            Stage::Waiting => StageView::Waiting,
            Stage::Wanting => StageView::Wanting,
            Stage::Complete => StageView::Complete,
            Stage::Vacant | Stage::Seed => return None,
        },
        held: sitter.held,
        trunk: sitter.trunk.map(name),
        parents: sitter.parents().map(name).collect(),
        children: sitter.children(),
        slots: sitter.slots,
        depth: (sitter.depth != DETACHED).then_some(sitter.depth),
        standing: sitter.standing,
    })
}
