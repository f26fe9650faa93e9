//! Which piece to show to which child, so that a burst does not make every node send every piece to everybody.
//! Pure; the download session drives it. Two styles:
//!
//! - the seed shows a new piece to one child first, in turn ([`super_seed`], after BitTorrent's super-seeding,
//!   BEP 16), since its uplink is what the whole swarm waits for;
//! - a peer shows a piece that it just got to a few neighbours first and to the others step by step ([`graded`]).
//!
//! In both, what has been around for a while is shown to everyone, so nobody starves on this node's thrift.
//!
//! # Invariants
//! - Only pieces given to [`Reveal::piece`] are ever shown, each at most once to a child.
//! - A child that stays is shown every piece that it lacks, in bounded time.

mod graded;
mod super_seed;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::{PieceIndex, PieceSet};

use graded::Graded;
use super_seed::SuperSeed;

/// How thrifty a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The supernode's seed.
    Seed,
    /// Any other node.
    Peer,
}

/// What to tell one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// Whom.
    pub to: NodeId,
    /// Pieces that it may ask for.
    pub show: Vec<PieceIndex>,
    /// Pieces that are here, but not for it yet.
    pub hold: Vec<PieceIndex>,
}

/// A neighbour on the other end of a link.
struct Child {
    shown: PieceSet,
    /// Told with [`Tell::hold`] or shown.
    told: PieceSet,
    has: PieceSet,
    /// Shown and not yet seen with it.
    outstanding: usize,
}

/// The state of one task's showing.
pub struct Reveal {
    board: Board,
    style: Rule,
}

enum Rule {
    Seed(SuperSeed),
    Peer(Graded),
}

/// What both styles know.
struct Board {
    shared: PieceSet,
    children: BTreeMap<NodeId, Child>,
    /// Whether somebody may see a piece that it has not been shown: spares a search at every call.
    stale: bool,
}

// === impl Reveal ===

impl Reveal {
    /// Nothing is shown yet, of a task of `pieces` pieces.
    pub fn new(style: Style, pieces: u32) -> Self {
        let style = match style {
            Style::Seed => Rule::Seed(SuperSeed::new(pieces)),
            Style::Peer => Rule::Peer(Graded::default()),
        };
        Self {
            board: Board { shared: PieceSet::new(pieces), children: BTreeMap::new(), stale: false },
            style,
        }
    }

    /// A piece may be shown from now on.
    pub fn piece(&mut self, index: PieceIndex, now: Instant) {
        if self.board.shared.insert(index) {
            match &mut self.style {
                Rule::Seed(rule) => self.board.stale |= rule.piece(index),
                Rule::Peer(rule) => rule.piece(index, now),
            }
        }
    }

    /// Pieces that have been here for long: nothing about them needs thrift.
    pub fn old_pieces(&mut self, pieces: &PieceSet) {
        self.board.stale = true;
        for index in pieces.iter() {
            if self.board.shared.insert(index)
                && let Rule::Seed(rule) = &mut self.style
            {
                rule.piece(index);
            }
        }
    }

    /// A link is up.
    pub fn child_up(&mut self, node: NodeId) {
        let empty = PieceSet::new(self.board.shared.pieces());
        let child = Child { shown: empty.clone(), told: empty.clone(), has: empty, outstanding: 0 };
        self.board.children.insert(node, child);
        self.board.stale = true;
    }

    /// A link is gone.
    pub fn child_down(&mut self, node: NodeId) {
        let Some(child) = self.board.children.remove(&node) else { return };
        if let Rule::Seed(rule) = &mut self.style {
            rule.child_down(&child);
        }
    }

    /// A child says that it holds pieces.
    pub fn child_has(&mut self, node: NodeId, runs: &[Range<u32>]) {
        let Some(child) = self.board.children.get_mut(&node) else { return };
        let pieces = self.board.shared.pieces();
        for index in runs.iter().flat_map(|run| run.start..run.end.min(pieces)).map(PieceIndex) {
            if child.has.insert(index) {
                if child.shown.contains(index) {
                    child.outstanding -= 1;
                }
                if let Rule::Seed(rule) = &mut self.style {
                    self.board.stale |= rule.copied(index);
                }
            }
        }
    }

    /// Whether a child holds the whole task.
    pub fn child_is_full(&self, node: NodeId) -> bool {
        self.board.children.get(&node).is_some_and(|child| child.has.is_full())
    }

    /// What is to be said now; it counts as said. `pace` is how long a piece usually takes.
    pub fn drain(&mut self, pace: Duration, now: Instant) -> Vec<Tell> {
        match &mut self.style {
            Rule::Seed(rule) => rule.drain(&mut self.board, pace, now),
            Rule::Peer(rule) => rule.drain(&mut self.board, pace, now),
        }
    }

    /// When to [`Reveal::drain`] again if nothing happens before.
    pub fn wake_at(&self, pace: Duration) -> Option<Instant> {
        match &self.style {
            Rule::Seed(rule) => rule.wake_at(pace),
            Rule::Peer(rule) => rule.wake_at(pace),
        }
    }
}

// === impl Board ===

impl Board {
    /// Shows a piece to a child, unless it was shown or the child has it already; true when the child gains by it.
    fn show(&mut self, node: NodeId, index: PieceIndex, tells: &mut Tells) -> bool {
        let Some(child) = self.children.get_mut(&node) else { return false };
        if child.has.contains(index) || !child.shown.insert(index) {
            return false;
        }
        child.told.insert(index);
        child.outstanding += 1;
        tells.entry(node).show.push(index);
        true
    }

    /// Lets a child know that a piece is here. Those that have it themselves hear it, too: who gave it to us counts
    /// on that to know that it arrived.
    fn tell(&mut self, node: NodeId, index: PieceIndex, tells: &mut Tells) {
        let Some(child) = self.children.get_mut(&node) else { return };
        if child.told.insert(index) {
            tells.entry(node).hold.push(index);
        }
    }

    /// Shows everything that is shared and not among `except`.
    fn show_all(&mut self, node: NodeId, except: impl Fn(PieceIndex) -> bool, tells: &mut Tells) {
        let Some(child) = self.children.get(&node) else { return };
        if child.told.count() == self.shared.count() && child.shown.count() == self.shared.count() {
            return;
        }
        let unseen = |index: &PieceIndex| !child.shown.contains(*index) && !except(*index);
        let new: Vec<PieceIndex> = self.shared.iter().filter(unseen).collect();
        for index in new {
            if !self.show(node, index, tells) {
                self.tell(node, index, tells);
            }
        }
    }
}

/// Collects what is to be said, a neighbour at a time.
#[derive(Default)]
struct Tells(BTreeMap<NodeId, Tell>);

impl Tells {
    fn entry(&mut self, to: NodeId) -> &mut Tell {
        self.0.entry(to).or_insert_with(|| Tell { to, show: Vec::new(), hold: Vec::new() })
    }

    fn into_vec(self) -> Vec<Tell> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
