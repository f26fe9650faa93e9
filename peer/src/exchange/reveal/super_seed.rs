//! The seed's thrift: each piece goes out to one child first, in turn, and the children swap. Only a piece that
//! did not spread within some patience is shown to more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;

use super::{Board, Child, Tell, Tells};

/// Pieces shown to a child that it has not got yet: enough to keep its requests flowing, few enough that a slow
/// child does not sit on many.
const ALLOWANCE: usize = 8;
/// A piece needs some hops to reach everybody; below this a busy machine would look like a stuck swarm.
const MIN_PATIENCE: Duration = Duration::from_secs(2);
/// The same, in usual piece times.
const PATIENCE: u32 = 16;

pub(super) struct SuperSeed {
    /// Shared, and shown to nobody.
    fresh: BTreeSet<PieceIndex>,
    /// Shown to somebody, since when; leaves once shown to all.
    young: BTreeMap<PieceIndex, Instant>,
    /// Shown long ago: anybody may see them.
    old: BTreeSet<PieceIndex>,
    /// How many children are known to hold each piece.
    copies: Vec<u16>,
    /// The child that was served last, so that turns are fair.
    last: Option<NodeId>,
}

// === impl SuperSeed ===

impl SuperSeed {
    pub(super) fn new(pieces: u32) -> Self {
        Self {
            fresh: BTreeSet::new(),
            young: BTreeMap::new(),
            old: BTreeSet::new(),
            copies: vec![0; pieces as usize],
            last: None,
        }
    }

    /// A piece is here; true when anybody may see it at once.
    pub(super) fn piece(&mut self, index: PieceIndex) -> bool {
        let spread = self.copies[index.0 as usize] > 0;
        if spread {
            self.old.insert(index)
        } else {
            self.fresh.insert(index)
        };
        spread
    }

    /// A child has a piece; true when anybody may see it from now on: what spread by other ways needs no thrift.
    pub(super) fn copied(&mut self, index: PieceIndex) -> bool {
        self.copies[index.0 as usize] += 1;
        let spread = self.fresh.remove(&index);
        if spread {
            self.old.insert(index);
        }
        spread
    }

    /// What only the lost child was shown, or held, goes out again.
    pub(super) fn child_down(&mut self, child: &Child) {
        for index in child.has.iter() {
            self.copies[index.0 as usize] -= 1;
        }
        for index in child.shown.iter().filter(|index| self.copies[index.0 as usize] == 0) {
            if self.young.remove(&index).is_some() || self.old.remove(&index) {
                self.fresh.insert(index);
            }
        }
    }

    pub(super) fn drain(&mut self, board: &mut Board, pace: Duration, now: Instant) -> Vec<Tell> {
        let mut tells = Tells::default();
        let patience = patience(pace);
        let grown: Vec<PieceIndex> = self
            .young
            .iter()
            .filter(|(_, since)| **since + patience <= now)
            .map(|(index, _)| *index)
            .collect();
        for index in grown {
            self.young.remove(&index);
            self.old.insert(index);
            board.stale = true;
        }
        let nodes: Vec<NodeId> = board.children.keys().copied().collect();
        if let [only] = nodes[..] {
            self.old.append(&mut self.fresh);
            self.young.clear();
            board.show_all(only, |_| false, &mut tells);
            return tells.into_vec();
        }
        if std::mem::take(&mut board.stale) {
            let (young, fresh) = (&self.young, &self.fresh);
            for node in &nodes {
                board.show_all(
                    *node,
                    |index| young.contains_key(&index) || fresh.contains(&index),
                    &mut tells,
                );
            }
        }
        self.deal(board, &nodes, now, &mut tells);
        tells.into_vec()
    }

    /// Deals fresh pieces, lowest first, one a turn.
    fn deal(&mut self, board: &mut Board, nodes: &[NodeId], now: Instant, tells: &mut Tells) {
        let mut at = self.last.map_or(0, |last| nodes.partition_point(|node| *node <= last));
        let mut passed = 0;
        while passed < nodes.len() && !self.fresh.is_empty() {
            let node = nodes[at % nodes.len()];
            at += 1;
            passed += 1;
            let Some(child) = board.children.get(&node).filter(|child| child.outstanding < ALLOWANCE) else {
                continue;
            };
            let lacks = |index: &&PieceIndex| !child.has.contains(**index) && !child.shown.contains(**index);
            let Some(index) = self.fresh.iter().find(lacks).copied() else { continue };
            if board.show(node, index, tells) {
                self.fresh.remove(&index);
                self.young.insert(index, now);
                self.last = Some(node);
                passed = 0;
            }
        }
    }

    pub(super) fn wake_at(&self, pace: Duration) -> Option<Instant> {
        self.young.values().min().map(|since| *since + patience(pace))
    }
}

fn patience(pace: Duration) -> Duration {
    (pace * PATIENCE).max(MIN_PATIENCE)
}
