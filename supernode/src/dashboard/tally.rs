//! How many bytes the nodes got, as they report it: the scheduler counts pieces, and this knows how long they are. Fed by the
//! [hub](crate::hub) with every event, read by the dashboard.
//!
//! # Invariants
//! Pure: time is passed in. What a node had before it joined is not counted, and nothing is counted twice; a node that
//! claims more than it got makes only its own figures wrong. The memory grows with the connected nodes and the swarms.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use common::node::NodeId;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;

/// A speed is that of about so many seconds: reports come ten times a second, pieces by the megabyte.
const MEMORY: f64 = 4.0;
/// Ticks between two looks for swarms that are gone: it costs a walk over all of them.
const TIDY: u32 = 64;

/// A sum of bytes and how fast it grows.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    total: u64,
    /// Bytes a second at `at`; it fades from there on.
    rate: f64,
    at: Instant,
}

/// What the nodes got, over all and each.
#[derive(Debug, Default)]
pub struct Tally {
    cuts: HashMap<TaskId, Geometry>,
    nodes: HashMap<NodeId, Meter>,
    delivered: u64,
    ticks: u32,
}

// === impl Meter ===

impl Meter {
    /// Nothing so far.
    pub fn new(now: Instant) -> Self {
        Self { total: 0, rate: 0.0, at: now }
    }

    /// So many more bytes.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.rate = self.faded(now) + bytes as f64 / MEMORY;
        self.at = now;
        self.total += bytes;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes a second of late.
    pub fn rate(&self, now: Instant) -> u64 {
        self.faded(now) as u64
    }

    fn faded(&self, now: Instant) -> f64 {
        let past = now.saturating_duration_since(self.at).as_secs_f64();
        self.rate * (-past / MEMORY).exp()
    }
}

// === impl Tally ===

impl Tally {
    /// A node connected.
    pub fn enter(&mut self, node: NodeId, now: Instant) {
        self.nodes.insert(node, Meter::new(now));
    }

    /// A node went; what it got stays in the sum.
    pub fn leave(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// How a task is cut.
    pub fn know(&mut self, task: TaskId, cut: Geometry) {
        self.cuts.insert(task, cut);
    }

    /// How it is, if that is known.
    pub fn cut(&self, task: TaskId) -> Option<Geometry> {
        self.cuts.get(&task).copied()
    }

    /// A node that had the first number of pieces of a task has the second now.
    pub fn gain(&mut self, task: TaskId, node: NodeId, pieces: Range<u32>, now: Instant) {
        let Some(cut) = self.cut(task) else { return };
        let upto = |count: u32| cut.range(PieceIndex(count)).start;
        self.give(node, upto(pieces.end).saturating_sub(upto(pieces.start)), now);
    }

    /// A node got so many bytes.
    pub fn give(&mut self, node: NodeId, bytes: u64, now: Instant) {
        self.delivered += bytes;
        if let Some(meter) = self.nodes.get_mut(&node) {
            meter.add(bytes, now);
        }
    }

    /// What all nodes got since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What a connected node got, and how fast.
    pub fn of(&self, node: NodeId) -> Option<&Meter> {
        self.nodes.get(&node)
    }

    /// A second went by: now and then the cuts of swarms that are gone are forgotten.
    pub fn tick(&mut self, exists: impl Fn(TaskId) -> bool) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(TIDY) {
            self.cuts.retain(|&task, _| exists(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TASK: TaskId = TaskId([7; 32]);
    const NODE: NodeId = NodeId([1; 16]);
    const MIB: u64 = 1 << 20;

    #[test]
    fn pieces_become_bytes_and_the_last_one_is_shorter() {
        let (mut tally, now) = (Tally::default(), Instant::now());
        tally.enter(NODE, now);
        tally.gain(TASK, NODE, 0..1, now);
        assert_eq!(tally.delivered(), 0, "nobody knows how long its pieces are");
        let cut = Geometry::of(MIB + 5).unwrap();
        tally.know(TASK, cut);
        tally.gain(TASK, NODE, 0..2, now);
        assert_eq!(tally.delivered(), 2 * u64::from(cut.piece_length()));
        tally.gain(TASK, NODE, 2..cut.pieces(), now);
        assert_eq!(tally.delivered(), MIB + 5);
        tally.gain(TASK, NODE, cut.pieces()..1, now);
        assert_eq!(tally.delivered(), MIB + 5, "what is lost again was delivered all the same");
        assert_eq!(tally.of(NODE).unwrap().total(), MIB + 5);
        tally.leave(NODE);
        tally.give(NODE, 1, now);
        assert_eq!(tally.delivered(), MIB + 6);
        assert!(tally.of(NODE).is_none());
    }

    #[test]
    fn the_cuts_of_swarms_that_are_gone_are_forgotten() {
        let mut tally = Tally::default();
        tally.know(TASK, Geometry::of(1).unwrap());
        (0..TIDY).for_each(|_| tally.tick(|_| true));
        assert!(tally.cut(TASK).is_some());
        (0..TIDY).for_each(|_| tally.tick(|_| false));
        assert!(tally.cut(TASK).is_none());
    }

    #[test]
    fn a_steady_stream_shows_its_speed_and_then_fades() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        for _ in 0..600 {
            now += Duration::from_millis(100);
            meter.add(MIB, now);
        }
        let (rate, wanted) = (meter.rate(now) as f64, 10.0 * MIB as f64);
        assert!((rate / wanted - 1.0).abs() < 0.05, "{rate} of {wanted}");
        assert!(meter.rate(now + Duration::from_secs(60)) < 100, "nothing came for a minute");
        assert_eq!(meter.total(), 600 * MIB);
    }
}
