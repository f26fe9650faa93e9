//! How much each neighbour may ask for over time, whatever it sends and however often it connects anew: a bucket a node.
//! Pure; the time is passed in. Asked by [`crate::exchange`] for questions, and by the supernode for a session's words and for
//! strangers, who are told apart by where they dial from.
//!
//! # Invariants
//! - Over any time a node is given at most a burst, and what the rate brings meanwhile.
//! - The memory is bounded by the nodes that were here within the time that a bucket takes to fill.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use common::node::NodeId;

/// Buckets from which on those that are full again are looked for.
const LOOK_FROM: usize = 1024;

/// The buckets of all nodes, or of all that `K` tells apart; who is without one has a full one.
#[derive(Debug)]
pub struct Paces<K = NodeId> {
    /// How long one unit takes to come back.
    unit: Duration,
    /// How long a full bucket lasts.
    burst: Duration,
    /// When a node's bucket is full again.
    full: HashMap<K, Instant>,
    look_from: usize,
}

// === impl Paces ===

impl<K: Copy + Eq + Hash> Paces<K> {
    /// Buckets of so many units that fill with so many a second.
    pub fn new(burst: u32, rate: u32) -> Self {
        let unit = Duration::from_secs(1) / rate.max(1);
        Self { unit, burst: unit * burst, full: HashMap::new(), look_from: LOOK_FROM }
    }

    /// Takes what a node has done already; gives how long it must rest before it may do more.
    pub fn charge(&mut self, node: K, units: u32, now: Instant) -> Duration {
        let full = self.after(node, units, now);
        self.put(node, full, now);
        full.saturating_duration_since(now + self.burst)
    }

    /// Takes what a node would do.
    ///
    /// # Errors
    /// When there is not so much in its bucket: how long until there is. Nothing is taken then.
    pub fn ask(&mut self, node: K, units: u32, now: Instant) -> Result<(), Duration> {
        let full = self.after(node, units, now);
        match full.saturating_duration_since(now + self.burst) {
            Duration::ZERO => {
                self.put(node, full, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    fn after(&self, node: K, units: u32, now: Instant) -> Instant {
        self.full.get(&node).copied().unwrap_or(now).max(now) + self.unit * units
    }

    fn put(&mut self, node: K, full: Instant, now: Instant) {
        if self.full.len() >= self.look_from {
            self.full.retain(|_, full| *full > now);
            self.look_from = LOOK_FROM.max(2 * self.full.len());
        }
        self.full.insert(node, full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(number: u16) -> NodeId {
        NodeId::of_public_key(&number.to_le_bytes())
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds_and_each_node_has_its_own() {
        let (mut paces, start) = (Paces::new(100, 10), Instant::now());
        assert_eq!((0..1000).take_while(|_| paces.ask(node(1), 1, start).is_ok()).count(), 100);
        assert_eq!(paces.ask(node(1), 1, start), Err(Duration::from_millis(100)));
        assert_eq!(paces.ask(node(2), 100, start), Ok(()), "another's bucket is full");
        let later = start + Duration::from_secs(3);
        assert_eq!((0..1000).take_while(|_| paces.ask(node(1), 1, later).is_ok()).count(), 30);
        assert_eq!(paces.charge(node(1), 20, later), Duration::from_secs(2), "done already, so it rests");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_a_burst_and_the_rate(deeds in prop::collection::vec((0u64..500, 1u32..40), 1..200)) {
            let (mut paces, start, mut now) = (Paces::new(50, 100), Instant::now(), Instant::now());
            let mut got = 0;
            for (millis, units) in deeds {
                now += Duration::from_millis(millis);
                got += if paces.ask(node(1), units, now).is_ok() { u64::from(units) } else { 0 };
                let most = 50 + now.duration_since(start).as_millis() as u64 / 10 + 1;
                prop_assert!(got <= most, "{got} of {most}");
            }
        }

        #[test]
        fn a_crowd_that_comes_and_goes_takes_bounded_room(steps in 1u64..20) {
            let (mut paces, start) = (Paces::new(1, 1000), Instant::now());
            for number in 0..u16::MAX {
                let now = start + Duration::from_micros(u64::from(number) * steps * 10);
                let _ = paces.ask(node(number), 1, now);
            }
            prop_assert!(paces.full.len() <= 2 * LOOK_FROM, "{}", paces.full.len());
        }
    }
}
