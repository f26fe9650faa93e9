//! How often a neighbour may open a link for one task. Every new link means to show it everything again, and takes back
//! what was shown on the one before; who comes over and over would keep a download busy with itself. Pure; asked by
//! [`super::mesh`].
//!
//! # Invariants
//! - A neighbour that comes for the first time, or after a while, is let in.
//! - One that keeps coming is let in ever more seldom, but within `SLOWEST`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::node::NodeId;

/// Between a neighbour's first two links: an honest one waits as long before it tries again.
const PACE: Duration = Duration::from_millis(200);
/// Between two links of one that keeps coming, or was shown the door: the longest that an honest one waits.
const SLOWEST: Duration = Duration::from_secs(5);
/// After so long, it is as if it had never come.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Who was let in of late.
#[derive(Default)]
pub(super) struct Doorstep(BTreeMap<NodeId, Visit>);

struct Visit {
    not_before: Instant,
    pace: Duration,
}

// === impl Doorstep ===

impl Doorstep {
    /// Whether a link of this neighbour may be accepted now; it counts as accepted.
    pub(super) fn admits(&mut self, node: NodeId, now: Instant) -> bool {
        self.0.retain(|_, visit| now < visit.not_before + FORGOTTEN);
        let pace = match self.0.get(&node) {
            Some(visit) if now < visit.not_before => return false,
            Some(visit) => (visit.pace * 2).min(SLOWEST),
            None => PACE,
        };
        self.0.insert(node, Visit { not_before: now + pace, pace });
        true
    }

    /// Its link was ended for what it did.
    pub(super) fn shown_the_door(&mut self, node: NodeId, now: Instant) {
        self.0.insert(node, Visit { not_before: now + SLOWEST, pace: SLOWEST });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    /// How many links of one that tries every 10 ms are accepted in so many seconds.
    fn accepted(doorstep: &mut Doorstep, begin: Instant, seconds: u64) -> usize {
        let tries = (0..seconds * 100).map(|try_| begin + Duration::from_millis(10 * try_));
        tries.filter(|now| doorstep.admits(NODE, *now)).count()
    }

    #[test]
    fn who_keeps_coming_is_let_in_ever_more_seldom() {
        let (mut doorstep, begin) = (Doorstep::default(), Instant::now());
        assert_eq!(accepted(&mut doorstep, begin, 7), 6, "at 0, 0.2, 0.6, 1.4, 3.0 and 6.2 s");
        assert!(accepted(&mut doorstep, begin + Duration::from_secs(7), 50) >= 9, "but it is let in");
        assert!(doorstep.admits(OTHER, begin), "others are not made to wait");
    }

    #[test]
    fn an_honest_reconnection_is_let_in() {
        let (mut doorstep, begin) = (Doorstep::default(), Instant::now());
        assert!(doorstep.admits(NODE, begin));
        assert!(doorstep.admits(NODE, begin + PACE));
        assert!(doorstep.admits(NODE, begin + Duration::from_secs(30)));
        assert_eq!(doorstep.0[&NODE].pace, PACE, "it was forgotten");
    }

    #[test]
    fn who_was_shown_the_door_waits() {
        let (mut doorstep, begin) = (Doorstep::default(), Instant::now());
        doorstep.shown_the_door(NODE, begin);
        assert!(!doorstep.admits(NODE, begin + PACE));
        assert!(doorstep.admits(NODE, begin + SLOWEST));
    }
}
