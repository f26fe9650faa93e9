//! What this node's neighbours did to it, over all tasks, and whom it takes nothing from for a while. Pure, but for the lock
//! in [`Trust`]; the downloads tell what happens and ask before they take a parent. The supernode is told as well and keeps
//! a ledger of its own, in which one accuser alone counts for little: here one's own eyes are believed.
//!
//! # Invariants
//! - Only a neighbour's own deeds count against it: a piece is verified before it is handed on, so nobody passes on in
//!   good faith what a liar gave it.
//! - Penalties fade: whoever is barred is taken back after a while, on probation.
//! - The memory is bounded, whatever neighbours come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::telemetry::{FaultKind, Metrics};
use common::wire::swarm::Fault;

/// From this penalty on nothing is taken from a neighbour.
const BARRED: f64 = 100.0;
/// A barred neighbour's penalty falls to half of that within this; then it is tried again, and little is needed to bar it.
const HALF_LIFE: Duration = Duration::from_secs(300);
/// However much it did: it is barred for about an hour at most.
const MOST: f64 = BARRED * 4096.0;
/// Neighbours that are remembered.
const MAX_NEIGHBOURS: usize = 4096;

/// What a neighbour did, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who.
    pub node: NodeId,
    /// How often, by the kind of fault.
    pub faults: Vec<(FaultKind, u64)>,
    /// Whether nothing is taken from it now.
    pub barred: bool,
}

/// Everybody's deeds.
#[derive(Debug, Default)]
pub struct Deeds {
    neighbours: HashMap<NodeId, Deed>,
}

#[derive(Debug)]
struct Deed {
    counts: [u64; FaultKind::COUNT],
    penalty: f64,
    at: Instant,
    barred: bool,
}

/// A node's trust in its neighbours.
#[derive(Default)]
pub struct Trust {
    deeds: Mutex<Deeds>,
    /// Changes when somebody is barred.
    barrings: AtomicU64,
}

/// How heavily a fault weighs: wrong bytes bar at once, words that are not kept after some, and what a busy or distant node
/// does in good faith only if there is much of it.
fn weight(fault: Fault) -> f64 {
    match fault {
        Fault::WrongBytes => 150.0,
        Fault::FalseSet => 60.0,
        Fault::Silent | Fault::Slow => 8.0,
        Fault::FalseClaim => 4.0,
    }
}

fn kind(fault: Fault) -> FaultKind {
    match fault {
        Fault::WrongBytes => FaultKind::WrongBytes,
        Fault::FalseClaim => FaultKind::FalseClaim,
        Fault::FalseSet => FaultKind::FalseSet,
        Fault::Silent => FaultKind::Silent,
        Fault::Slow => FaultKind::Slow,
    }
}

// === impl Deeds ===

impl Deeds {
    /// Notes a fault; says whether the neighbour is barred by it.
    pub fn note(&mut self, node: NodeId, fault: Fault, now: Instant) -> bool {
        if self.neighbours.len() >= MAX_NEIGHBOURS && !self.neighbours.contains_key(&node) {
            self.neighbours.retain(|_, deed| deed.faded(now) >= 1.0);
            if self.neighbours.len() >= MAX_NEIGHBOURS {
                return false;
            }
        }
        let fresh = || Deed { counts: Default::default(), penalty: 0.0, at: now, barred: false };
        let deed = self.neighbours.entry(node).or_insert_with(fresh);
        let was = deed.is_barred(now);
        deed.penalty = (deed.faded(now) + weight(fault)).min(MOST);
        deed.at = now;
        deed.counts[kind(fault) as usize] += 1;
        deed.barred = was || deed.penalty >= BARRED;
        deed.barred && !was
    }

    /// Whether nothing is to be taken from a neighbour.
    pub fn is_barred(&self, node: NodeId, now: Instant) -> bool {
        self.neighbours.get(&node).is_some_and(|deed| deed.is_barred(now))
    }

    /// What is remembered, worst first.
    pub fn records(&self, now: Instant) -> Vec<Record> {
        let mut all: Vec<_> =
            self.neighbours.iter().map(|(node, deed)| (deed.faded(now), *node, deed)).collect();
        all.sort_by(|(one, a, _), (other, b, _)| other.total_cmp(one).then(a.cmp(b)));
        let record = |(_, node, deed): (f64, NodeId, &Deed)| {
            let counted = FaultKind::each().zip(deed.counts).filter(|(_, count)| *count > 0);
            Record { node, faults: counted.collect(), barred: deed.is_barred(now) }
        };
        all.into_iter().map(record).collect()
    }
}

// === impl Deed ===

impl Deed {
    /// What is left of the penalty.
    fn faded(&self, now: Instant) -> f64 {
        let lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.penalty * 0.5f64.powf(lives)
    }

    /// Once barred, until half of what bars is left.
    fn is_barred(&self, now: Instant) -> bool {
        self.barred && self.faded(now) >= BARRED / 2.0
    }
}

// === impl Trust ===

impl Trust {
    /// Notes a fault of a neighbour's.
    pub fn note(&self, node: NodeId, fault: Fault, metrics: &Metrics) {
        metrics.neighbour_faults.of(kind(fault)).inc();
        if self.deeds().note(node, fault, Instant::now()) {
            tracing::warn!(%node, ?fault, "a neighbour is not trusted: nothing is taken from it for some minutes");
            self.barrings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nothing is to be taken from a neighbour.
    pub fn is_barred(&self, node: NodeId) -> bool {
        self.deeds().is_barred(node, Instant::now())
    }

    /// A number that changes when somebody is barred.
    pub fn barrings(&self) -> u64 {
        self.barrings.load(Ordering::Relaxed)
    }

    /// What is remembered, worst first.
    pub fn records(&self) -> Vec<Record> {
        self.deeds().records(Instant::now())
    }

    fn deeds(&self) -> MutexGuard<'_, Deeds> {
        // A panic in between would leave numbers that are still the best there are.
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIAR: NodeId = NodeId([1; 16]);
    const HONEST: NodeId = NodeId([2; 16]);

    #[test]
    fn wrong_bytes_bar_at_once_and_time_heals() {
        let (mut deeds, start) = (Deeds::default(), Instant::now());
        assert!(deeds.note(LIAR, Fault::WrongBytes, start));
        assert!(deeds.is_barred(LIAR, start) && !deeds.is_barred(HONEST, start));
        assert!(!deeds.note(LIAR, Fault::WrongBytes, start), "it is barred already");
        let later = start + HALF_LIFE * 3;
        assert!(!deeds.is_barred(LIAR, later), "tried again");
        assert!(
            deeds.note(LIAR, Fault::FalseSet, later + HALF_LIFE / 100)
                || deeds.note(LIAR, Fault::FalseSet, later)
        );
        assert!(deeds.records(later)[0].barred, "and little is needed");
    }

    #[test]
    fn what_happens_to_honest_nodes_now_and_then_does_not_bar() {
        let (mut deeds, start) = (Deeds::default(), Instant::now());
        for minute in 0..600 {
            let now = start + Duration::from_secs(60 * minute);
            deeds.note(HONEST, [Fault::Silent, Fault::FalseClaim, Fault::Slow][minute as usize % 3], now);
            assert!(!deeds.is_barred(HONEST, now), "minute {minute}");
        }
        let silent = (0..20).any(|_| deeds.note(LIAR, Fault::Silent, start));
        assert!(silent, "twenty silences in a row do");
    }

    #[test]
    fn the_records_say_who_did_what_worst_first() {
        let (mut deeds, now) = (Deeds::default(), Instant::now());
        deeds.note(HONEST, Fault::Silent, now);
        deeds.note(LIAR, Fault::WrongBytes, now);
        deeds.note(LIAR, Fault::FalseClaim, now);
        let records = deeds.records(now);
        assert_eq!(records[0].faults, [(FaultKind::WrongBytes, 1), (FaultKind::FalseClaim, 1)]);
        assert!(records[0].barred && records[0].node == LIAR);
        assert_eq!((records[1].node, records[1].barred), (HONEST, false));
    }

    proptest! {
        #[test]
        fn a_crowd_of_neighbours_takes_bounded_room(seeds in prop::collection::vec(any::<u16>(), 0..6000)) {
            let (mut deeds, now) = (Deeds::default(), Instant::now());
            for (at, seed) in seeds.into_iter().enumerate() {
                let mut id = [0; 16];
                id[..2].copy_from_slice(&seed.to_le_bytes());
                id[2..4].copy_from_slice(&(at as u16).to_le_bytes());
                deeds.note(NodeId(id), Fault::Silent, now);
            }
            prop_assert!(deeds.neighbours.len() <= MAX_NEIGHBOURS);
        }
    }
}
