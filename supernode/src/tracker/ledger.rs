//! Who blamed whom for what, and what follows for the accused. The scheduler enters each blame and asks how a node
//! stands whenever it chooses parents.
//!
//! # Invariants
//! - One accuser alone never makes an [`Standing::Outcast`].
//! - An accuser has at most [`PER_ACCUSER`] accusations alive and an accused [`PER_ACCUSED`], so neither a
//!   slanderer's reach nor the memory grows with the number of messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::wire::swarm::Fault;
use serde::Serialize;
use utoipa::ToSchema;

/// A second blame of the same kind between the same two counts again only after this time.
const WINDOW: Duration = Duration::from_secs(60);
/// Penalty from which a node gets no new children while others have room: half of a fresh `WrongBytes`, so that
/// one lasts half of its life.
const QUARANTINE: u64 = 50;
/// Penalty from which a node loses its children, where more than one node accuses: more than one `WrongBytes`.
const OUTCAST: u64 = 110;
/// A node that quarrels with more neighbours than this is likelier to be the cause itself.
const PER_ACCUSER: usize = 8;
/// Enough to make an outcast several times over.
const PER_ACCUSED: usize = 8;

/// How much a node is trusted as a parent, best first. It says nothing about being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nobody complains.
    #[default]
    Good,
    /// Somebody does, of little things: others are preferred.
    Doubted,
    /// It gets no new children while others have room.
    Quarantined,
    /// Several nodes blame it: nobody's parent.
    Outcast,
}

#[derive(Debug)]
struct Accusation {
    by: NodeId,
    fault: Fault,
    at: Instant,
}

/// The accusations that are alive.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accused: BTreeMap<NodeId, Vec<Accusation>>,
    /// Whom each accuser accuses, once for each accusation alive.
    accusers: BTreeMap<NodeId, Vec<NodeId>>,
}

/// A fault's weight when it is fresh, and how long it takes to fade to nothing.
fn gravity(fault: Fault) -> (u64, Duration) {
    match fault {
        Fault::WrongBytes => (100, Duration::from_secs(30 * 60)),
        Fault::FalseClaim => (20, Duration::from_secs(10 * 60)),
        Fault::FalseSet => (40, Duration::from_secs(10 * 60)),
        Fault::Silent | Fault::Slow => (4, Duration::from_secs(2 * 60)),
    }
}

// === impl Accusation ===

impl Accusation {
    /// What is left of its weight, times 1000; 0 when it is over.
    fn weight(&self, now: Instant) -> u64 {
        let (weight, life) = gravity(self.fault);
        let left = life.saturating_sub(now.saturating_duration_since(self.at));
        weight * 1000 * left.as_millis() as u64 / life.as_millis() as u64
    }
}

// === impl Ledger ===

impl Ledger {
    /// Enters a blame, unless it is a repetition or the accuser accuses too many already.
    pub(crate) fn accuse(&mut self, by: NodeId, about: NodeId, fault: Fault, now: Instant) {
        let accusations = self.accused.entry(about).or_default();
        if let Some(old) = accusations.iter_mut().find(|old| old.by == by && old.fault == fault) {
            if now.saturating_duration_since(old.at) >= WINDOW {
                old.at = now;
            }
            return;
        }
        let others = self.accusers.entry(by).or_default();
        let fresh = Accusation { by, fault, at: now };
        if others.len() < PER_ACCUSER {
            others.push(about);
            accusations.push(fresh);
        }
        if accusations.len() > PER_ACCUSED {
            let lightest = (0..accusations.len()).min_by_key(|&index| accusations[index].weight(now));
            let gone = accusations.swap_remove(lightest.expect("invariant: more than none is not empty"));
            Self::release(&mut self.accusers, gone.by, about);
        }
        if self.accused.get(&about).is_some_and(Vec::is_empty) {
            self.accused.remove(&about);
        }
    }

    /// How a node stands now.
    pub(crate) fn standing(&self, node: NodeId, now: Instant) -> Standing {
        let Some(accusations) = self.accused.get(&node) else { return Standing::Good };
        let penalty: u64 = accusations.iter().map(|accusation| accusation.weight(now)).sum();
        let serious = |accusation: &&Accusation| {
            !matches!(accusation.fault, Fault::Silent | Fault::Slow) && accusation.weight(now) > 0
        };
        let mut by = accusations.iter().filter(serious).map(|accusation| accusation.by);
        let first = by.next();
        let several = by.any(|other| Some(other) != first);
        match penalty {
            0 => Standing::Good,
            heavy if heavy >= OUTCAST * 1000 && several => Standing::Outcast,
            heavy if heavy >= QUARANTINE * 1000 => Standing::Quarantined,
            _ => Standing::Doubted,
        }
    }

    /// Whom a node blamed and who blamed it: they are not put together again while that is alive. A few at most.
    pub(crate) fn foes(&self, node: NodeId) -> Vec<NodeId> {
        if self.accused.is_empty() {
            return Vec::new();
        }
        let blamed = self.accusers.get(&node).into_iter().flatten().copied();
        let by = self.accused.get(&node).into_iter().flatten().map(|accusation| accusation.by);
        blamed.chain(by).collect()
    }

    /// Number of accusations alive against a node.
    pub(crate) fn against(&self, node: NodeId) -> usize {
        self.accused.get(&node).map_or(0, Vec::len)
    }

    /// Number of accusations that are kept, against anybody.
    pub(crate) fn alive(&self) -> usize {
        self.accused.values().map(Vec::len).sum()
    }

    /// Forgets what is over; gives all whose standing may have changed.
    pub(crate) fn decay(&mut self, now: Instant) -> Vec<NodeId> {
        let touched = self.accused.keys().copied().collect();
        let accusers = &mut self.accusers;
        self.accused.retain(|&about, list| {
            list.retain(|accusation| {
                let alive = accusation.weight(now) > 0;
                if !alive {
                    Self::release(accusers, accusation.by, about);
                }
                alive
            });
            !list.is_empty()
        });
        touched
    }

    fn release(accusers: &mut BTreeMap<NodeId, Vec<NodeId>>, by: NodeId, about: NodeId) {
        if let Some(others) = accusers.get_mut(&by) {
            if let Some(index) = others.iter().position(|&other| other == about) {
                others.swap_remove(index);
            }
            if others.is_empty() {
                accusers.remove(&by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUILTY: NodeId = NodeId([9; 16]);

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 16])
    }

    #[test]
    fn one_accuser_quarantines_two_cast_out_and_time_heals() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for fault in [Fault::WrongBytes, Fault::FalseClaim, Fault::Silent] {
            for _ in 0..100 {
                ledger.accuse(node(1), GUILTY, fault, start);
            }
        }
        assert_eq!(ledger.standing(GUILTY, start), Standing::Quarantined);
        ledger.accuse(node(2), GUILTY, Fault::WrongBytes, start);
        assert_eq!(ledger.standing(GUILTY, start), Standing::Outcast);
        assert!(ledger.foes(GUILTY).contains(&node(1)) && !ledger.foes(GUILTY).contains(&node(3)));
        assert!(ledger.foes(node(2)).contains(&GUILTY) && ledger.foes(node(3)).is_empty());
        let later = start + Duration::from_secs(31 * 60);
        assert_eq!(ledger.decay(later), [GUILTY]);
        assert_eq!(ledger.standing(GUILTY, later), Standing::Good);
        assert!(ledger.accused.is_empty() && ledger.accusers.is_empty());
    }

    #[test]
    fn silence_alone_only_raises_doubt() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for byte in 10..50 {
            ledger.accuse(node(byte), GUILTY, Fault::Silent, now);
        }
        assert_eq!(ledger.standing(GUILTY, now), Standing::Doubted);
        assert_eq!(ledger.against(GUILTY), PER_ACCUSED);
        ledger.accuse(node(1), GUILTY, Fault::WrongBytes, now);
        assert_eq!(ledger.standing(GUILTY, now), Standing::Quarantined);
    }

    #[test]
    fn a_slanderer_reaches_only_a_few() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for byte in 10..200 {
            ledger.accuse(node(1), node(byte), Fault::WrongBytes, now);
        }
        let hit = (10..200).filter(|&byte| ledger.standing(node(byte), now) != Standing::Good).count();
        assert_eq!(hit, PER_ACCUSER);
        assert_eq!(ledger.accused.len(), PER_ACCUSER);
    }
}
