//! Which piece to ask of which parent. Pure: the download session tells what happens and when, and asks for the
//! next requests; the simulator and the property tests run the same code.
//!
//! Within a window that slides from the first missing piece the rarest piece goes first, ties at random, so that siblings
//! take different pieces and swap; what lies beyond it comes when there is nothing within. Once all parents have the first
//! missing piece, which a client waits for, that goes before all others. A parent is asked for few pieces at a time and many
//! parents at once, the seed before the others; on a
//! slow line no more than [`FEW`] pieces are under way over all of a node's downloads, since all of them share it, and a piece that comes sooner is handed
//! on sooner. A piece that takes far longer than usual is asked of a second parent, and so are the last ones; the first
//! answer wins.
//!
//! # Invariants
//! - Only pieces are asked for that are missing, vouched for (their digest is known) and shown by that parent.
//! - No piece is asked of more than [`MAX_ASKS`] parents at once, nor twice of one.
//! - The pieces in flight never exceed the budget.

mod bits;
mod choice;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::{Geometry, PieceIndex, PieceSet};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use bits::{Bits, Known};

/// Wide enough that siblings find different pieces, narrow enough that the front keeps moving.
const WINDOW: u32 = 256;
/// The first request and one hedge.
const MAX_ASKS: usize = 2;
/// Requests at once over all parents while pieces take long, whether the parents are one or many: with fewer a line
/// runs dry, with more every piece takes longer and nothing is gained.
const FEW: usize = 6;
/// However much the node's other downloads have under way, of one these are.
const LEAST: usize = 2;
/// While they have much, look so often whether they still do.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A request more while pieces take less than this, for on a fast line the way there and back is what costs.
const QUICK: Duration = Duration::from_millis(60);
/// A request fewer when they take more than this.
const SLOW: Duration = Duration::from_millis(120);
/// Most bytes in flight in one download.
const MAX_FLIGHT: u64 = 32 * 1024 * 1024;
/// Most requests in flight in one download, however small the pieces.
const MOST: usize = 64;
/// What is taken for usual before anything was measured.
const FIRST_GUESS: Duration = Duration::from_millis(400);
/// Hedging sooner would only double the load.
const MIN_PATIENCE: Duration = Duration::from_millis(250);
/// Hedging later would break the promise of another parent within two seconds.
const MAX_PATIENCE: Duration = Duration::from_millis(1900);
/// Rest of a parent that failed once; doubles with each failure in a row.
const REST: Duration = Duration::from_millis(250);
const MAX_REST: Duration = Duration::from_secs(30);
/// Rest of a parent that is busy: it will be free again within the time of a piece, and others are asked meanwhile.
const BUSY_REST: Duration = Duration::from_millis(25);

/// A parent that was outrun so often more than it delivered is called slow.
const OUTRUN: u32 = 6;

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
    index: PieceIndex,
    since: Instant,
}

struct Parent {
    /// What it may be asked for, and what it is known to hold, shown or not: counted for rarity.
    pieces: Known,
    /// Whether it ever showed anything.
    shows: bool,
    flights: usize,
    failures: u32,
    rests_until: Option<Instant>,
    cost: Option<Duration>,
    /// How often of late another was asked in its place, and was there first.
    outrun: u32,
}

/// The state of one download's choices.
pub struct Select {
    geometry: Geometry,
    have: PieceSet,
    /// Missing and vouched for.
    lacking: Bits,
    /// The same, and not in flight.
    open: Bits,
    holders: Vec<u16>,
    parents: BTreeMap<NodeId, Parent>,
    seed: Option<NodeId>,
    /// Who sent wrong bytes; a new link washes nothing off.
    banned: BTreeSet<NodeId>,
    /// Who was outrun too often, to be taken away by [`Select::slow`].
    slow: Vec<NodeId>,
    /// Oldest first.
    flights: Vec<Flight>,
    /// Most requests at once.
    quota: usize,
    /// Whether a parent may be resting: spares a search after every event.
    resting: bool,
    usual: Duration,
    /// When to look whether other downloads still have much under way.
    again: Option<Instant>,
    rng: SmallRng,
}

// === impl Select ===

impl Select {
    /// Choices for a task of which `have` is there already.
    pub fn new(geometry: Geometry, have: PieceSet, seed: u64) -> Self {
        Self {
            geometry,
            have,
            lacking: Bits::new(geometry.pieces()),
            open: Bits::new(geometry.pieces()),
            holders: vec![0; geometry.pieces() as usize],
            parents: BTreeMap::new(),
            seed: None,
            banned: BTreeSet::new(),
            slow: Vec::new(),
            flights: Vec::new(),
            quota: FEW,
            resting: false,
            usual: FIRST_GUESS,
            again: None,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The digest of a piece is known.
    pub fn vouch(&mut self, index: PieceIndex) {
        if index.0 < self.geometry.pieces() && !self.have.contains(index) && self.lacking.insert(index) {
            self.open.insert(index);
        }
    }

    /// Who the seed is, if it is among the parents or comes to be.
    pub fn seed_is(&mut self, node: NodeId) {
        self.seed = Some(node);
    }

    /// A parent is there; it shows nothing yet.
    pub fn parent_up(&mut self, node: NodeId) {
        let pieces = self.geometry.pieces();
        // Requests outlive a link that is replaced by another between the same nodes.
        let flights = self.flights.iter().filter(|flight| flight.node == node).count();
        self.parents.entry(node).or_insert_with(|| Parent {
            pieces: Known::new(pieces),
            shows: false,
            flights,
            failures: 0,
            rests_until: None,
            cost: None,
            outrun: 0,
        });
    }

    /// A parent is gone; its requests in flight are reported with [`Select::setback`] by whoever made them.
    pub fn parent_down(&mut self, node: NodeId) {
        if let Some(parent) = self.parents.remove(&node) {
            for index in parent.pieces.held() {
                self.holders[index.0 as usize] -= 1;
            }
        }
    }

    /// A parent holds pieces and, if `shown`, may be asked for them.
    pub fn parent_has(&mut self, node: NodeId, runs: &[Range<u32>], shown: bool) {
        let Some(parent) = self.parents.get_mut(&node) else { return };
        for index in runs.iter().flat_map(|run| run.start..run.end.min(self.geometry.pieces())) {
            if parent.pieces.learn(PieceIndex(index), shown) {
                self.holders[index as usize] = self.holders[index as usize].saturating_add(1);
            }
            parent.shows |= shown;
        }
    }

    /// A piece is there, wherever it came from. Returns the parents whose requests for it are now needless.
    pub fn arrived(&mut self, index: PieceIndex, from: Option<NodeId>, now: Instant) -> Vec<NodeId> {
        if self.have.insert(index) {
            self.lacking.remove(index);
            self.open.remove(index);
        }
        let mut needless = Vec::new();
        let before = now.checked_sub(self.patience());
        for flight in self.flights.extract_if(.., |flight| flight.index == index) {
            let Some(parent) = self.parents.get_mut(&flight.node) else { continue };
            parent.flights -= 1;
            if Some(flight.node) == from {
                let cost = now.saturating_duration_since(flight.since);
                parent.failures = 0;
                parent.outrun = parent.outrun.saturating_sub(1);
                parent.cost = Some(parent.cost.map_or(cost, |old| (old * 3 + cost) / 4));
                self.usual = (self.usual * 7 + cost) / 8;
                match cost {
                    cost if cost < QUICK => self.quota = (self.quota + 1).min(MOST),
                    cost if cost > SLOW => self.quota = (self.quota - 1).max(FEW),
                    _ => {}
                }
            } else {
                needless.push(flight.node);
                if from.is_some() && before.is_some_and(|before| flight.since <= before) {
                    parent.outrun += 1;
                    if parent.outrun >= OUTRUN {
                        parent.outrun = 0;
                        self.slow.push(flight.node);
                    }
                }
            }
        }
        needless
    }

    /// Parents that were outrun by others again and again, since the last call.
    pub fn slow(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.slow)
    }

    /// Nothing more is asked of a node, whatever it shows.
    pub fn ban(&mut self, node: NodeId) {
        self.banned.insert(node);
    }

    /// A request came to nothing.
    pub fn setback(&mut self, ask: (NodeId, PieceIndex), why: Setback, now: Instant) {
        let (node, index) = ask;
        let before = self.flights.len();
        self.flights.retain(|flight| (flight.node, flight.index) != ask);
        let gone = before - self.flights.len();
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.flights -= gone;
        }
        if gone > 0 && self.asks(index) == 0 && self.lacking.contains(index) {
            self.open.insert(index);
        }
        if why == Setback::WrongBytes {
            self.banned.insert(node);
        }
        let Some(parent) = self.parents.get_mut(&node) else { return };
        match why {
            Setback::Withdrawn | Setback::WrongBytes => return,
            // A slot is free again soon, and being asked by many is no failing.
            Setback::Busy => {
                parent.rests_until = Some(now + BUSY_REST);
                self.resting = true;
                return;
            }
            Setback::NotThere => {
                parent.pieces.hide(index);
            }
            Setback::Silent => {}
        }
        let rest = (REST * 2u32.saturating_pow(parent.failures.min(8))).min(MAX_REST);
        parent.failures += 1;
        parent.rests_until = Some(now + rest);
        self.resting = true;
    }

    /// The requests to make now; they count as made. `others` is how many this node's other downloads have under way.
    pub fn poll(&mut self, others: usize, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        let budget = (MAX_FLIGHT / u64::from(self.geometry.piece_length())).clamp(4, MOST as u64) as usize;
        // What is late leaves room for others: nobody can sit on all of it.
        let before = now.checked_sub(self.patience());
        let late = self.flights.iter().filter(|flight| self.is_late(flight, before)).count();
        let quota = self.quota.saturating_sub(others).max(LEAST);
        self.again = (quota < self.quota).then_some(now + LOOK_AGAIN);
        let most = (quota + late).min(budget);
        if quota < self.quota {
            asks.extend(std::iter::from_fn(|| self.scarce(budget, now)));
        }
        if self.flights.len() >= most {
            return asks;
        }
        let able: Vec<NodeId> = self.able(now);
        if let Some((node, index)) = self.front(&able) {
            asks.push(self.make(node, index, now));
        }
        let depth = FEW.div_ceil(able.len().max(1));
        // Round by round, so that no parent gets its second request before another has its first.
        for round in 1..=depth {
            for node in &able {
                if self.flights.len() >= most {
                    return asks;
                }
                if self.parents[node].flights >= round {
                    continue;
                }
                let overdue = |select: &Self| if late > 0 { select.overdue(*node, before) } else { None };
                if let Some(index) = self.rarest(*node).or_else(|| overdue(self)) {
                    asks.push(self.make(*node, index, now));
                }
            }
        }
        asks
    }

    /// When to [`Select::poll`] again if nothing happens before. What is due already has been looked at: it waits
    /// for a parent, not for the time.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let patience = self.patience();
        let due = self.flights.iter().filter(|flight| flight.since + patience > now);
        let hedge = due
            .filter(|flight| self.asks(flight.index) < MAX_ASKS)
            .map(|flight| flight.since + patience)
            .min();
        let parents = self.parents.values().filter(|_| self.resting);
        let rest = parents.filter_map(|parent| parent.rests_until).filter(|at| *at > now).min();
        hedge.into_iter().chain(rest).chain(self.again).min()
    }

    /// The requests under way.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Whether nothing is being waited for.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// The number of parents that show something that is still missing and may be asked for.
    pub fn useful_parents(&self) -> usize {
        let first = self.have.first_missing(0).map_or(self.geometry.pieces(), |first| first.0);
        let trusted = self.parents.iter().filter(|(node, _)| !self.banned.contains(node));
        let gives = |parent: &Parent| {
            self.lacking.shown(&parent.pieces, first..self.geometry.pieces()).next().is_some()
        };
        trusted.filter(|(_, parent)| gives(parent)).count()
    }

    /// What the seed alone has is asked for even while other downloads fill the line: the seed waits for that with the next
    /// piece, and the swarm for the seed.
    fn scarce(&mut self, budget: usize, now: Instant) -> Option<Ask> {
        let seed = self.seed.filter(|seed| self.has_alone(*seed) && !self.banned.contains(seed))?;
        let parent = self.parents.get(&seed)?;
        let resting = parent.rests_until.is_some_and(|until| until > now);
        if resting || parent.flights >= LEAST || self.flights.len() >= budget {
            return None;
        }
        let index = self.rarest(seed)?;
        Some(self.make(seed, index, now))
    }

    fn make(&mut self, node: NodeId, index: PieceIndex, now: Instant) -> Ask {
        let hedge = self.asks(index) > 0;
        self.open.remove(index);
        self.flights.push(Flight { node, index, since: now });
        if let Some(parent) = self.parents.get_mut(&node) {
            parent.flights += 1;
        }
        Ask { node, index, hedge }
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
