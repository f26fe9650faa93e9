//! What the hub knows, for people and programs: copies, made under its lock in one go. Asked by [`crate::dashboard`].

use std::time::Instant;

use common::node::{Labels, NodeId};
use common::task::TaskId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Hub, State};
use crate::scheduler::{MemberView, PeerView, TaskSummary};

/// The cluster in numbers.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Census {
    /// Connected nodes.
    pub nodes: usize,
    /// Zones that they are in.
    pub zones: usize,
    /// Those of them that are quarantined or worse.
    pub distrusted: usize,
    /// Swarms.
    pub swarms: usize,
    /// Those of them in which somebody still wants something.
    pub active: usize,
    /// The swarms with the most nodes that want something, then with the most nodes.
    pub busiest: Vec<SwarmRow>,
}

/// A swarm in numbers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SwarmRow {
    /// As the scheduler counts.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// Its length in bytes, once known.
    pub length: Option<u64>,
    /// The length of a piece.
    pub piece_length: Option<u32>,
}

/// A connected node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NodeRow {
    /// As the scheduler sees it.
    #[serde(flatten)]
    pub peer: PeerView,
    /// Bytes that it got since it connected, as it reports it.
    pub received: u64,
    /// Bytes a second of late.
    pub speed: u64,
    /// Seconds since it connected.
    pub connected: u64,
}

/// A member of a swarm.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberRow {
    /// As the scheduler sees it.
    #[serde(flatten)]
    pub member: MemberView,
    /// Where it stands.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// Bytes a second of late, over all its tasks.
    pub speed: u64,
}

// === impl Hub ===

impl Hub {
    /// What all nodes got since the start, in bytes.
    pub fn delivered(&self) -> u64 {
        self.lock().tally.delivered()
    }

    /// How many pieces of a task each of these nodes holds, as far as is known.
    pub fn held(&self, task: TaskId, nodes: &[NodeId]) -> Vec<u32> {
        let state = self.lock();
        nodes.iter().map(|&node| state.scheduler.held(task, node).unwrap_or_default()).collect()
    }

    /// The cluster in numbers, with so many of its busiest swarms.
    pub fn census(&self, busiest: usize) -> Census {
        let state = self.lock();
        let scheduler = &state.scheduler;
        let mut census = Census {
            nodes: state.sessions.len(),
            zones: scheduler.zones(),
            distrusted: scheduler.distrusted(Instant::now()),
            ..Census::default()
        };
        let mut top: Vec<TaskSummary> = Vec::with_capacity(busiest + 1);
        for task in scheduler.tasks() {
            census.swarms += 1;
            census.active += usize::from(task.complete < task.members);
            // There may be very many: only the first few are kept in order.
            let place = top.partition_point(|other| rank(other) >= rank(&task));
            if place < busiest {
                top.insert(place, task);
                top.truncate(busiest);
            }
        }
        census.busiest = top.into_iter().map(|summary| state.row(summary)).collect();
        census
    }

    /// How many nodes are connected, and so many of them, by id.
    pub fn nodes(&self, most: usize) -> (usize, Vec<NodeRow>) {
        let (state, now) = (self.lock(), Instant::now());
        let row = |peer: PeerView| {
            let meter = state.tally.of(peer.node);
            let line = state.sessions.get(&peer.node);
            NodeRow {
                received: meter.map_or(0, |meter| meter.total()),
                speed: meter.map_or(0, |meter| meter.rate(now)),
                connected: line.map_or(0, |line| now.saturating_duration_since(line.since).as_secs()),
                peer,
            }
        };
        let nodes = state.scheduler.peers(now).take(most).map(row).collect();
        (state.sessions.len(), nodes)
    }

    /// How many swarms there are, and so many of them, the busiest first.
    pub fn swarms(&self, most: usize) -> (usize, Vec<SwarmRow>) {
        let state = self.lock();
        let mut tasks: Vec<TaskSummary> = state.scheduler.tasks().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse(rank(task)));
        let total = tasks.len();
        tasks.truncate(most);
        (total, tasks.into_iter().map(|summary| state.row(summary)).collect())
    }

    /// A swarm, and so many of its members, by id.
    pub fn swarm(&self, task: TaskId, most: usize) -> Option<(SwarmRow, Vec<MemberRow>)> {
        let (state, now) = (self.lock(), Instant::now());
        let view = state.scheduler.task(task)?;
        let row = |member: MemberView| MemberRow {
            labels: state.scheduler.labels(member.node).cloned().unwrap_or_default(),
            speed: state.tally.of(member.node).map_or(0, |meter| meter.rate(now)),
            member,
        };
        let members = view.members.into_iter().take(most).map(row).collect();
        Some((state.row(view.summary), members))
    }

    /// How many connected nodes have all of each task.
    pub fn copies(&self, tasks: impl Iterator<Item = TaskId>) -> Vec<usize> {
        let state = self.lock();
        tasks.map(|task| state.scheduler.summary(task).map_or(0, |summary| summary.complete)).collect()
    }
}

// === impl State ===

impl State {
    fn row(&self, summary: TaskSummary) -> SwarmRow {
        let cut = self.tally.cut(summary.task);
        let (length, piece_length) = (cut.map(|cut| cut.length()), cut.map(|cut| cut.piece_length()));
        SwarmRow { summary, length, piece_length }
    }
}

/// How busy a swarm is.
fn rank(task: &TaskSummary) -> (usize, usize) {
    (task.members - task.complete, task.members)
}

#[cfg(test)]
mod tests {
    use common::node::Contact;
    use common::piece::Geometry;
    use common::telemetry::Metrics;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::outbox::Outbox;
    use crate::scheduler::{Event, Member, Settings};

    const MIB: u64 = 1 << 20;

    fn node(byte: u8) -> Contact {
        Contact { id: NodeId([byte; 16]), address: ([127, 0, 0, 1], u16::from(byte)).into() }
    }

    fn task(byte: u8) -> TaskId {
        TaskId([byte; 32])
    }

    #[test]
    fn bytes_are_counted_once_and_not_those_that_a_node_brought() {
        let hub = Hub::new(node(9), Settings::default(), Metrics::new());
        let enter = |byte| {
            let member = Member { contact: node(byte), labels: Labels::default(), slots: 8 };
            hub.enter(member, Outbox::new().0, CancellationToken::new())
        };
        let (_one, two) = (enter(1), enter(2));
        let (task, cut) = (task(1), Geometry::of(8 * MIB).unwrap());
        let pieces = cut.pieces();
        let (first, second) = (node(1).id, node(2).id);
        hub.apply(Event::Join { task, node: first, held: 4 });
        hub.apply(Event::SeedMeta { task, pieces });
        hub.know(task, cut);
        hub.apply(Event::Progress { task, node: first, held: 8 });
        assert_eq!(hub.delivered(), MIB, "four pieces, and four that it had");
        hub.apply(Event::Hold { task, node: first, pieces });
        hub.apply(Event::Hold { task, node: first, pieces });
        assert_eq!(hub.delivered(), 7 * MIB);
        hub.apply(Event::Hold { task, node: second, pieces });
        assert_eq!(hub.delivered(), 7 * MIB, "it had all of it before");
        hub.gave(second, 5);
        let (total, nodes) = hub.nodes(10);
        assert_eq!((total, nodes[0].received, nodes[1].received), (2, 7 * MIB, 5));
        assert_eq!(hub.copies([task].into_iter()), [2]);
        drop(two);
        assert_eq!((hub.nodes(10).0, hub.delivered()), (1, 7 * MIB + 5));
        let (swarm, members) = hub.swarm(task, 10).unwrap();
        assert_eq!((swarm.length, members.len()), (Some(8 * MIB), 1));
    }

    #[test]
    fn the_busiest_swarms_come_first_and_only_they() {
        let hub = Hub::new(node(9), Settings::default(), Metrics::new());
        let places: Vec<_> = (1..=5)
            .map(|byte| {
                let member = Member { contact: node(byte), labels: Labels::default(), slots: 8 };
                hub.enter(member, Outbox::new().0, CancellationToken::new())
            })
            .collect();
        for swarm in 1..=5_u8 {
            hub.apply(Event::SeedMeta { task: task(swarm), pieces: 8 });
            (1..=swarm).for_each(|byte| {
                hub.apply(Event::Join { task: task(swarm), node: node(byte).id, held: 0 });
            });
        }
        // The largest is done: the others are busier.
        (1..=5).for_each(|byte| hub.apply(Event::Hold { task: task(5), node: node(byte).id, pieces: 8 }));
        let census = hub.census(3);
        let top: Vec<_> = census.busiest.iter().map(|row| row.summary.task).collect();
        assert_eq!((census.nodes, census.swarms, census.active), (5, 5, 4));
        assert_eq!(top, [task(4), task(3), task(2)]);
        let (total, all) = hub.swarms(2);
        assert_eq!((total, all.len(), all[0].summary.task), (5, 2, task(4)));
        drop(places);
        assert_eq!(hub.census(3).nodes, 0);
    }
}
