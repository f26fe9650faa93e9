//! Which piece to ask of which parent. Pure: the download session tells what happens and when, and asks for the
//! next requests; the simulator and the property tests run the same code.
//!
//! Within a window that slides from the first missing piece the rarest piece goes first, ties at random, so that
//! siblings take different pieces and swap. A parent is asked for few pieces at a time and many parents at once.
//! A piece that takes far longer than usual is asked of a second parent, and so are the last ones; the first
//! answer wins.
//!
//! # Invariants
//! - Only pieces are asked for that are missing, vouched for (their digest is known) and shown by that parent.
//! - No piece is asked of more than [`MAX_ASKS`] parents at once, nor twice of one.
//! - The pieces in flight never exceed the budget.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::{Geometry, PieceIndex, PieceSet};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Wide enough that siblings find different pieces, narrow enough that the front keeps moving.
const WINDOW: u32 = 256;
/// The first request and one hedge.
const MAX_ASKS: usize = 2;
/// Requests at once over all parents when they are few: one at a time each would leave the line idle in between.
const PIPELINE: usize = 6;
/// Most bytes in flight in one download.
const MAX_FLIGHT: u64 = 32 * 1024 * 1024;
/// What is taken for usual before anything was measured.
const FIRST_GUESS: Duration = Duration::from_millis(400);
/// Hedging sooner would only double the load.
const MIN_PATIENCE: Duration = Duration::from_millis(250);
/// Hedging later would break the promise of another parent within two seconds.
const MAX_PATIENCE: Duration = Duration::from_millis(1900);
/// Rest of a parent that failed once; doubles with each failure in a row.
const REST: Duration = Duration::from_millis(250);
const MAX_REST: Duration = Duration::from_secs(30);

/// A request to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Of whom.
    pub node: NodeId,
    /// For what.
    pub index: PieceIndex,
    /// Whether another parent was asked for it before.
    pub hedge: bool,
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// Another parent was faster, or the session had no room: nobody's fault.
    Withdrawn,
    /// The parent says that it has no such piece.
    NotThere,
    /// It is busy.
    Busy,
    /// It fell silent or cannot be reached.
    Silent,
    /// It sent other bytes: it is not asked again.
    WrongBytes,
}

struct Flight {
    node: NodeId,
    since: Instant,
}

struct Parent {
    /// What it may be asked for.
    shown: PieceSet,
    /// What it is known to hold, shown or not: counted for rarity.
    held: PieceSet,
    flights: usize,
    failures: u32,
    rests_until: Option<Instant>,
    cost: Option<Duration>,
}

/// The state of one download's choices.
pub struct Select {
    geometry: Geometry,
    have: PieceSet,
    vouched: PieceSet,
    holders: Vec<u16>,
    parents: BTreeMap<NodeId, Parent>,
    /// Who sent wrong bytes; a new link washes nothing off.
    banned: BTreeSet<NodeId>,
    in_flight: BTreeMap<PieceIndex, Vec<Flight>>,
    flights: usize,
    usual: Duration,
    rng: SmallRng,
}

// === impl Select ===

impl Select {
    /// Choices for a task of which `have` is there already.
    pub fn new(geometry: Geometry, have: PieceSet, seed: u64) -> Self {
        Self {
            geometry,
            have,
            vouched: PieceSet::new(geometry.pieces()),
            holders: vec![0; geometry.pieces() as usize],
            parents: BTreeMap::new(),
            banned: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            flights: 0,
            usual: FIRST_GUESS,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The digest of a piece is known.
    pub fn vouch(&mut self, index: PieceIndex) {
        self.vouched.insert(index);
    }

    /// A parent is there; it shows nothing yet.
    pub fn parent_up(&mut self, node: NodeId) {
        let empty = PieceSet::new(self.geometry.pieces());
        // Requests outlive a link that is replaced by another between the same nodes.
        let flights = self.in_flight.values().flatten().filter(|flight| flight.node == node).count();
        self.parents.entry(node).or_insert_with(|| Parent {
            shown: empty.clone(),
            held: empty,
            flights,
            failures: 0,
            rests_until: None,
            cost: None,
        });
    }

    /// A parent is gone; its requests in flight are reported with [`Select::setback`] by whoever made them.
    pub fn parent_down(&mut self, node: NodeId) {
        if let Some(parent) = self.parents.remove(&node) {
            for index in parent.held.iter() {
                self.holders[index.0 as usize] -= 1;
            }
        }
    }

    /// A parent holds pieces and, if `shown`, may be asked for them.
    pub fn parent_has(&mut self, node: NodeId, runs: &[Range<u32>], shown: bool) {
        let Some(parent) = self.parents.get_mut(&node) else { return };
        for index in runs.iter().flat_map(|run| run.start..run.end.min(self.geometry.pieces())) {
            if parent.held.insert(PieceIndex(index)) {
                self.holders[index as usize] = self.holders[index as usize].saturating_add(1);
            }
            if shown {
                parent.shown.insert(PieceIndex(index));
            }
        }
    }

    /// A piece is there, wherever it came from. Returns the parents whose requests for it are now needless.
    pub fn arrived(&mut self, index: PieceIndex, from: Option<NodeId>, now: Instant) -> Vec<NodeId> {
        self.have.insert(index);
        let flights = self.in_flight.remove(&index).unwrap_or_default();
        self.flights -= flights.len();
        let mut needless = Vec::new();
        for flight in flights {
            let Some(parent) = self.parents.get_mut(&flight.node) else { continue };
            parent.flights -= 1;
            if Some(flight.node) == from {
                let cost = now.saturating_duration_since(flight.since);
                parent.failures = 0;
                parent.cost = Some(parent.cost.map_or(cost, |old| (old * 3 + cost) / 4));
                self.usual = (self.usual * 7 + cost) / 8;
            } else {
                needless.push(flight.node);
            }
        }
        needless
    }

    /// A request came to nothing.
    pub fn setback(&mut self, ask: (NodeId, PieceIndex), why: Setback, now: Instant) {
        let (node, index) = ask;
        if let Some(flights) = self.in_flight.get_mut(&index) {
            let before = flights.len();
            flights.retain(|flight| flight.node != node);
            let gone = before - flights.len();
            self.flights -= gone;
            if flights.is_empty() {
                self.in_flight.remove(&index);
            }
            if let Some(parent) = self.parents.get_mut(&node) {
                parent.flights -= gone;
            }
        }
        if why == Setback::WrongBytes {
            self.banned.insert(node);
        }
        let Some(parent) = self.parents.get_mut(&node) else { return };
        match why {
            Setback::Withdrawn | Setback::WrongBytes => return,
            // A slot is free again soon, and being asked by many is no failing.
            Setback::Busy => {
                parent.rests_until = Some(now + REST);
                return;
            }
            Setback::NotThere => {
                parent.shown.remove(index);
            }
            Setback::Silent => {}
        }
        let rest = (REST * 2u32.saturating_pow(parent.failures.min(8))).min(MAX_REST);
        parent.failures += 1;
        parent.rests_until = Some(now + rest);
    }

    /// The requests to make now; they count as made.
    pub fn poll(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        let budget = (MAX_FLIGHT / u64::from(self.geometry.piece_length())).clamp(4, 64) as usize;
        let able: Vec<NodeId> = self.able(now);
        let depth = PIPELINE.div_ceil(able.len().max(1));
        // Round by round, so that no parent gets its second request before another has its first.
        for round in 1..=depth {
            for node in &able {
                if self.flights >= budget {
                    return asks;
                }
                if self.parents[node].flights >= round {
                    continue;
                }
                if let Some(index) = self.rarest(*node) {
                    asks.push(self.make(*node, index, now));
                } else if let Some(index) = self.overdue(*node, now) {
                    asks.push(self.make(*node, index, now));
                }
            }
        }
        asks
    }

    /// When to [`Select::poll`] again if nothing happens before. What is due already has been looked at: it waits
    /// for a parent, not for the time.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let hedges = self.in_flight.values().filter(|flights| flights.len() < MAX_ASKS);
        let due = |flights: &Vec<Flight>| Some(flights.first()?.since + self.patience());
        let hedge = hedges.filter_map(due).filter(|at| *at > now).min();
        let rest = self.parents.values().filter_map(|parent| parent.rests_until).filter(|at| *at > now).min();
        hedge.into_iter().chain(rest).min()
    }

    /// Whether nothing is being waited for.
    pub fn is_idle(&self) -> bool {
        self.flights == 0
    }

    /// How long a piece usually takes.
    pub fn usual(&self) -> Duration {
        self.usual
    }

    /// The number of parents that show something that is still missing and may be asked for.
    pub fn useful_parents(&self) -> usize {
        let end = self.have.first_missing(0).map_or(0, |first| first.0 + WINDOW);
        let wanted =
            |index: PieceIndex| index.0 < end && !self.have.contains(index) && self.vouched.contains(index);
        let missing = |set: &PieceSet| set.iter().any(wanted);
        let trusted = self.parents.iter().filter(|(node, _)| !self.banned.contains(node));
        trusted.filter(|(_, parent)| missing(&parent.shown)).count()
    }

    /// Parents that may be asked: those that failed last behind the others, so that nobody can sit on a piece for
    /// ever; the fastest first; those of equal speed at random.
    fn able(&mut self, now: Instant) -> Vec<NodeId> {
        let mut able = Vec::with_capacity(self.parents.len());
        for (node, parent) in &mut self.parents {
            if parent.rests_until.is_some_and(|until| until <= now) {
                parent.rests_until = None;
            }
            if !self.banned.contains(node) && parent.rests_until.is_none() && !parent.shown.is_empty() {
                let cost = parent.cost.unwrap_or_default().as_millis() as u64 / 50;
                able.push((parent.failures, cost, self.rng.random::<u32>(), *node));
            }
        }
        able.sort_unstable();
        able.into_iter().map(|(_, _, _, node)| node).collect()
    }

    fn rarest(&mut self, node: NodeId) -> Option<PieceIndex> {
        let first = self.have.first_missing(0)?.0;
        let parent = &self.parents[&node];
        let mut best: Option<(u16, u32, PieceIndex)> = None;
        for index in (first..(first + WINDOW).min(self.geometry.pieces())).map(PieceIndex) {
            let wanted = !self.have.contains(index) && self.vouched.contains(index);
            if !wanted || !parent.shown.contains(index) || self.in_flight.contains_key(&index) {
                continue;
            }
            let key = (self.holders[index.0 as usize], self.rng.random::<u32>(), index);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        best.map(|(_, _, index)| index)
    }

    /// The piece in flight that waits longest beyond our patience and that this parent could give as well.
    fn overdue(&self, node: NodeId, now: Instant) -> Option<PieceIndex> {
        let shown = &self.parents[&node].shown;
        let patience = self.patience();
        self.in_flight
            .iter()
            .filter(|(index, flights)| {
                flights.len() < MAX_ASKS
                    && shown.contains(**index)
                    && flights.iter().all(|flight| flight.node != node && flight.since + patience <= now)
            })
            .min_by_key(|(_, flights)| flights.first().map(|flight| flight.since))
            .map(|(index, _)| *index)
    }

    /// How long a request may take before a second parent is asked: short in the end-game, where an idle parent
    /// costs nothing and the slowest piece is all that is waited for.
    fn patience(&self) -> Duration {
        let missing = self.geometry.pieces() - self.have.count();
        let end_game = missing as usize <= self.in_flight.len();
        let factor = if end_game { 3 } else { 8 };
        (self.usual * factor / 2).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    fn make(&mut self, node: NodeId, index: PieceIndex, now: Instant) -> Ask {
        let flights = self.in_flight.entry(index).or_default();
        let hedge = !flights.is_empty();
        flights.push(Flight { node, since: now });
        self.flights += 1;
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.flights += 1;
        }
        Ask { node, index, hedge }
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
