//! Who is in the cluster: every connected peer with its place, its tasks and what others say about it. The
//! [scheduler](crate::scheduler) owns the one tracker and asks it; nobody else does.
//!
//! # Invariants
//! Pure: no clock, no I/O. The memory grows with connected peers, their tasks and the accusations still alive; of tasks a
//! peer has a limited number, whatever it claims.

mod ledger;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;

pub(crate) use ledger::Ledger;
pub use ledger::Standing;

/// Tasks that one peer is known to hold: those of some thousand images. Who holds more is a parent of these.
const MAX_HELD: usize = 16_384;
/// And those that it joins beside them.
const MAX_TASKS: usize = 2 * MAX_HELD;

/// A connected peer, as its hello describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is and where it is dialled.
    pub contact: Contact,
    /// Where it stands.
    pub labels: Labels,
    /// How many children it serves at once per task; a peer with none is never a parent.
    pub slots: u16,
}

/// [`Labels`] boiled down to numbers that are cheap to keep and to compare; 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The zone; unlabelled nodes share the zone 0.
    pub(crate) zone: u64,
    /// The rack within the zone.
    pub(crate) rack: u64,
    /// The machine within the zone.
    pub(crate) host: u64,
}

/// How near two nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// In different zones.
    Far,
    /// In one zone.
    Zone,
    /// In one rack.
    Rack,
    /// On one machine.
    Host,
}

/// A connected peer and the tasks that it wants or holds.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) member: Member,
    pub(crate) place: Place,
    /// How it stood when it was last judged: in all its swarms alike.
    pub(crate) standing: Standing,
    tasks: HashSet<TaskId>,
}

/// The connected peers, and the ledger of what they did.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// Looked up; in order only where people look at it.
    nodes: HashMap<NodeId, Known>,
    /// Connected peers per zone.
    zones: BTreeMap<u64, usize>,
    pub(crate) ledger: Ledger,
}

// === impl Place ===

impl Place {
    pub(crate) fn of(labels: &Labels) -> Self {
        Self {
            zone: number(&[&labels.zone]),
            rack: number(&[&labels.rack, &labels.zone]),
            host: number(&[&labels.host, &labels.zone]),
        }
    }

    pub(crate) fn nearness(&self, other: &Self) -> Nearness {
        if self.zone != other.zone {
            Nearness::Far
        } else if self.host != 0 && self.host == other.host {
            Nearness::Host
        } else if self.rack != 0 && self.rack == other.rack {
            Nearness::Rack
        } else {
            Nearness::Zone
        }
    }
}

/// A number for a label within others, 0 when the label is empty. `DefaultHasher::new` has fixed keys, so the
/// same labels give the same decisions; a collision would only make two places look near.
fn number(path: &[&String]) -> u64 {
    if path[0].is_empty() {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish().max(1)
}

// === impl Known ===

impl Known {
    /// It wants a task, or holds it unasked; false when that is one too many.
    pub(crate) fn enlist(&mut self, task: TaskId, wanted: bool) -> bool {
        let most = if wanted { MAX_TASKS } else { MAX_HELD };
        self.tasks.contains(&task) || self.tasks.len() < most && self.tasks.insert(task)
    }

    /// It does no more.
    pub(crate) fn delist(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    /// Number of tasks that it wants or holds.
    pub(crate) fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// The tasks that it wants or holds, always in the same order.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = self.tasks.iter().copied().collect();
        tasks.sort_unstable();
        tasks
    }
}

// === impl Tracker ===

impl Tracker {
    /// A peer came. One that was there already must have been [taken out](Self::take) before.
    pub(crate) fn insert(&mut self, member: Member, now: Instant) {
        let standing = self.ledger.standing(member.contact.id, now);
        let place = Place::of(&member.labels);
        *self.zones.entry(place.zone).or_default() += 1;
        self.nodes.insert(member.contact.id, Known { member, place, standing, tasks: HashSet::new() });
    }

    /// A peer went; what it did stays in the ledger, so that a reconnect washes nothing off.
    pub(crate) fn take(&mut self, node: NodeId) -> Option<Known> {
        let known = self.nodes.remove(&node)?;
        if let Some(count) = self.zones.get_mut(&known.place.zone) {
            *count -= 1;
            if *count == 0 {
                self.zones.remove(&known.place.zone);
            }
        }
        Some(known)
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Known> {
        self.nodes.get_mut(&node)
    }

    /// All, by id.
    pub(crate) fn sorted(&self) -> Vec<(NodeId, &Known)> {
        let mut all: Vec<_> = self.nodes.iter().map(|(&node, known)| (node, known)).collect();
        all.sort_unstable_by_key(|&(node, _)| node);
        all
    }

    /// Number of zones that connected peers are in.
    pub(crate) fn zones(&self) -> usize {
        self.zones.len()
    }

    /// Whether the zone labels say nothing: all connected peers are in one.
    pub(crate) fn single_zone(&self) -> bool {
        self.zones.len() <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(zone: &str, rack: &str, host: &str) -> Place {
        Place::of(&Labels { zone: zone.into(), rack: rack.into(), host: host.into() })
    }

    #[test]
    fn near_means_host_then_rack_then_zone_and_empty_means_unknown() {
        let here = place("a", "r1", "h1");
        assert_eq!(here.nearness(&place("a", "r1", "h1")), Nearness::Host);
        assert_eq!(here.nearness(&place("a", "r1", "h2")), Nearness::Rack);
        assert_eq!(here.nearness(&place("a", "r2", "h2")), Nearness::Zone);
        assert_eq!(here.nearness(&place("b", "r1", "h1")), Nearness::Far);
        assert_eq!(place("", "", "").nearness(&place("", "", "")), Nearness::Zone);
    }

    #[test]
    fn zones_are_those_of_the_connected() {
        let mut tracker = Tracker::default();
        for (byte, zone) in [(1, "a"), (2, "b"), (3, "b")] {
            let contact = Contact { id: NodeId([byte; 16]), address: ([10, 0, 0, byte], 7710).into() };
            let labels = Labels { zone: zone.into(), ..Labels::default() };
            tracker.insert(Member { contact, labels, slots: 8 }, Instant::now());
        }
        assert!(!tracker.single_zone());
        assert!(tracker.take(NodeId([1; 16])).is_some());
        assert!(tracker.single_zone());
        assert!(tracker.take(NodeId([1; 16])).is_none());
    }
}
