//! What [`Select`] looks at when it chooses: which parents may be asked, and what each of them could give.

use std::ops::Range;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;
use rand::Rng as _;

use super::{Flight, MAX_ASKS, MAX_PATIENCE, MIN_PATIENCE, Select, WINDOW};

// === impl Select ===

impl Select {
    /// Parents that may be asked: those that failed last behind the others, so that nobody can sit on a piece for
    /// ever; the seed first while it alone has what it shows, for the whole swarm waits for that, and serving many it looks
    /// slow to each; then the fastest; those of equal speed at random.
    pub(super) fn able(&mut self, now: Instant) -> Vec<NodeId> {
        let mut able = Vec::with_capacity(self.parents.len());
        let scarce = self.seed.filter(|seed| self.has_alone(*seed));
        self.resting = false;
        for (node, parent) in &mut self.parents {
            if parent.rests_until.is_some_and(|until| until <= now) {
                parent.rests_until = None;
            }
            self.resting |= parent.rests_until.is_some();
            if !self.banned.contains(node) && parent.rests_until.is_none() && parent.shows {
                let cost = parent.cost.unwrap_or_default().as_millis() as u64 / 50;
                let later = scarce != Some(*node);
                able.push((parent.failures, later, cost, self.rng.random::<u32>(), *node));
            }
        }
        able.sort_unstable();
        able.into_iter().map(|(.., node)| node).collect()
    }

    /// Whether a parent shows a piece that no other parent has.
    pub(super) fn has_alone(&self, node: NodeId) -> bool {
        let (Some(parent), Some(first)) = (self.parents.get(&node), self.have.first_missing(0)) else {
            return false;
        };
        let end = (first.0 + WINDOW).min(self.geometry.pieces());
        self.open.shown(&parent.pieces, first.0..end).any(|index| self.holders[index.0 as usize] <= 1)
    }

    /// The first missing piece, unless it is under way, once all parents have it: a client waits for it, and nobody would
    /// gain by our taking another. Of those who can give it, the one with the fewest requests.
    pub(super) fn front(&self, able: &[NodeId]) -> Option<(NodeId, PieceIndex)> {
        let first = self.have.first_missing(0)?;
        if usize::from(self.holders[first.0 as usize]) < self.parents.len() {
            return None;
        }
        let shows = |node: &&NodeId| {
            self.open.shown(&self.parents[*node].pieces, first.0..first.0 + 1).next().is_some()
        };
        let node = able.iter().filter(shows).min_by_key(|node| self.parents[*node].flights)?;
        Some((*node, first))
    }

    /// The piece with the fewest holders that this parent can give; of several, each is as likely. Beyond the window only
    /// if there is none within it: to wait for the front with an idle line helps nobody, and a seed deals on only when what
    /// it dealt is taken.
    pub(super) fn rarest(&mut self, node: NodeId) -> Option<PieceIndex> {
        let (first, pieces) = (self.have.first_missing(0)?.0, self.geometry.pieces());
        let end = first.saturating_add(WINDOW).min(pieces);
        self.rarest_in(node, first..end).or_else(|| self.rarest_in(node, end..pieces))
    }

    fn rarest_in(&mut self, node: NodeId, range: Range<u32>) -> Option<PieceIndex> {
        let pieces = &self.parents[&node].pieces;
        let (mut best, mut fewest, mut ties) = (None, u16::MAX, 0);
        for index in self.open.shown(pieces, range) {
            let holders = self.holders[index.0 as usize];
            if holders > fewest {
                continue;
            }
            ties = if holders < fewest { 1 } else { ties + 1 };
            if ties == 1 || self.rng.random_range(0..ties) == 0 {
                (best, fewest) = (Some(index), holders);
            }
        }
        best
    }

    /// How many requests for a piece are under way.
    pub(super) fn asks(&self, index: PieceIndex) -> usize {
        self.flights.iter().filter(|flight| flight.index == index).count()
    }

    /// Whether a request was made before `before`, and another for its piece may be made.
    pub(super) fn is_late(&self, flight: &Flight, before: Option<Instant>) -> bool {
        before.is_some_and(|before| flight.since <= before) && self.asks(flight.index) < MAX_ASKS
    }

    /// The piece in flight that waits longest beyond our patience and that this parent could give as well.
    pub(super) fn overdue(&self, node: NodeId, before: Option<Instant>) -> Option<PieceIndex> {
        let pieces = &self.parents[&node].pieces;
        let gives = |flight: &&Flight| flight.node != node && pieces.shows(flight.index);
        let mut given = self.flights.iter().filter(gives);
        given.find(|flight| self.is_late(flight, before)).map(|flight| flight.index)
    }

    /// How long a request may take before a second parent is asked: short in the end-game, where an idle parent
    /// costs nothing and the slowest piece is all that is waited for.
    pub(super) fn patience(&self) -> Duration {
        let missing = self.geometry.pieces() - self.have.count();
        let end_game = missing as usize <= self.flights.len();
        let factor = if end_game { 3 } else { 8 };
        (self.usual * factor / 2).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }
}
