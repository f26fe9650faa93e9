//! Which piece to show to which child, so that a burst does not make the seed send every piece to everybody.
//! Pure; the download session drives it. Two styles:
//!
//! - the seed shows a new piece to one child first, in turn ([`super_seed`], after BitTorrent's super-seeding,
//!   BEP 16), since its uplink is what the whole swarm waits for;
//! - a peer shows a piece that it just got to all neighbours that lack it ([`plain`]).
//!
//! # Invariants
//! - Only pieces given to [`Reveal::piece`] are ever shown, each at most once to a child.
//! - A child that stays and takes what it is shown is shown every piece that it lacks, in bounded time.

mod child;
mod plain;
mod super_seed;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use common::node::NodeId;
use common::piece::{PieceIndex, PieceSet};

use child::Child;
use plain::Plain;
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

/// The state of one task's showing.
pub struct Reveal {
    board: Board,
    style: Rule,
}

enum Rule {
    Seed(SuperSeed),
    Peer(Plain),
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
            Style::Peer => Rule::Peer(Plain::default()),
        };
        Self {
            board: Board { shared: PieceSet::new(pieces), children: BTreeMap::new(), stale: false },
            style,
        }
    }

    /// A piece may be shown from now on.
    pub fn piece(&mut self, index: PieceIndex, _now: Instant) {
        if self.board.shared.insert(index) {
            match &mut self.style {
                Rule::Seed(rule) => rule.piece(index),
                Rule::Peer(rule) => rule.piece(index),
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
        let child = Child::new(self.board.shared.pieces());
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
            if child.got(index)
                && let Rule::Seed(rule) = &mut self.style
            {
                rule.copied(index);
            }
        }
    }

    /// Whether a child holds the whole task.
    pub fn child_is_full(&self, node: NodeId) -> bool {
        self.board.children.get(&node).is_some_and(|child| child.is_full())
    }

    /// What is to be said now; it counts as said. `others` is what this node's other tasks have [`Reveal::out`].
    pub fn drain(&mut self, others: usize, now: Instant) -> Vec<Tell> {
        match &mut self.style {
            Rule::Seed(rule) => rule.drain(&mut self.board, others, now),
            Rule::Peer(rule) => rule.drain(&mut self.board, now),
        }
    }

    /// Pieces that a seed has shown and that are about to be taken; a peer does not count.
    pub fn out(&self) -> usize {
        match &self.style {
            Rule::Seed(_) => SuperSeed::out(&self.board),
            Rule::Peer(_) => 0,
        }
    }

    /// When to [`Reveal::drain`] again if nothing happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.style {
            Rule::Seed(rule) => rule.wake_at(),
            Rule::Peer(rule) => rule.wake_at(),
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
        self.0.into_values().filter(|tell| !tell.show.is_empty() || !tell.hold.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests;
