//! How much a supernode takes on. Beyond that it says so ("busy, retry in …") instead of growing slow for all: peers have
//! another way, and the sessions that are there go on. Pure; asked by the sessions, which pass the time in.
//!
//! # Invariants
//! - What is fetched ahead of need is turned away while half of the room is left, so that pulls find some.
//! - One peer's joins take no more than its own share, whatever it sends.

use std::time::{Duration, Instant};

use common::wire::swarm::{Failure, Priority};

/// A bucket holds the joins of so many seconds: a burst of a deployment passes, a flood does not.
const BURST: f64 = 4.0;
/// No peer has more than this share of all joins.
const SHARE: f64 = 0.25;
/// Sooner it would be as busy.
const SOONEST: Duration = Duration::from_millis(500);
/// Later, a peer would rather ask the origin.
const LATEST: Duration = Duration::from_secs(10);

/// What an operator lets a supernode do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Peers with a session at once.
    pub sessions: usize,
    /// Joins a second, over all peers.
    pub joins: u32,
}

/// Joins that may still be taken. One is kept for all peers, and one for each.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    rate: f64,
    room: f64,
    filled: Instant,
}

// === impl Capacity ===

impl Default for Capacity {
    fn default() -> Self {
        // Far above what one supernode has been measured to need for ten thousand peers.
        Self { sessions: 20_000, joins: 5_000 }
    }
}

// === impl Admission ===

impl Admission {
    /// Over all peers.
    pub fn of_all(capacity: &Capacity, now: Instant) -> Self {
        Self::new(f64::from(capacity.joins.max(1)), now)
    }

    /// Of one peer.
    pub fn of_one(capacity: &Capacity, now: Instant) -> Self {
        Self::new((f64::from(capacity.joins) * SHARE).max(1.0), now)
    }

    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, room: rate * BURST, filled: now }
    }

    /// Takes one join on.
    ///
    /// # Errors
    /// How long to wait before asking again, when there is no room for it.
    pub fn take(&mut self, priority: Priority, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.room = (self.room + passed * self.rate).min(self.rate * BURST);
        let reserved = match priority {
            Priority::Pull => 0.0,
            Priority::Preheat => self.rate * BURST / 2.0,
        };
        if self.room < reserved + 1.0 {
            let wait = Duration::from_secs_f64((reserved + 1.0 - self.room) / self.rate);
            return Err(wait.clamp(SOONEST, LATEST));
        }
        self.room -= 1.0;
        Ok(())
    }

    /// Gives one join back that was not taken on after all.
    pub fn give_back(&mut self) {
        self.room = (self.room + 1.0).min(self.rate * BURST);
    }
}

/// The word for it.
pub fn busy(wait: Duration) -> Failure {
    Failure::Busy { retry_after_millis: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { sessions: 10, joins: 100 };

    fn taken(admission: &mut Admission, priority: Priority, now: Instant) -> usize {
        (0..10_000).take_while(|_| admission.take(priority, now).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_a_flood_is_told_when_to_come_again() {
        let start = Instant::now();
        let mut all = Admission::of_all(&CAPACITY, start);
        assert_eq!(taken(&mut all, Priority::Pull, start), 400);
        let wait = all.take(Priority::Pull, start).unwrap_err();
        assert!(wait >= SOONEST && wait <= LATEST);
        let second = start + Duration::from_secs(1);
        assert_eq!(taken(&mut all, Priority::Pull, second), 100, "the rate goes on");
    }

    #[test]
    fn what_is_fetched_ahead_of_need_leaves_room_for_pulls() {
        let start = Instant::now();
        let mut all = Admission::of_all(&CAPACITY, start);
        assert_eq!(taken(&mut all, Priority::Preheat, start), 200);
        assert_eq!(taken(&mut all, Priority::Pull, start), 200);
    }

    #[test]
    fn one_peer_has_its_share_and_no_more() {
        let start = Instant::now();
        let mut one = Admission::of_one(&CAPACITY, start);
        assert_eq!(taken(&mut one, Priority::Pull, start), 100);
        one.give_back();
        assert_eq!(taken(&mut one, Priority::Pull, start), 1);
    }
}
