//! The seed's thrift: each piece goes out to one child first, in turn, and the children swap. Pieces that have been out
//! for a while are dealt again, those with the fewest copies first, while the seed has little else to send: what it
//! sends twice it cannot send anew, and the whole swarm waits for the new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;

use super::child::{Child, Mark};
use super::{Board, Tell, Tells};

/// Pieces shown to a child that it has not got yet: enough to keep its requests flowing, few enough that a slow
/// child does not sit on many.
const ALLOWANCE: usize = 6;
/// Pieces that are out and not taken yet, over all children, while they are taken slowly: enough to keep the line busy.
/// With more, all of them take longer, and the children have nothing to swap meanwhile.
const FEW: usize = 12;
/// The same on the fastest line.
const MOST: usize = 256;
/// One more may be out for each that is taken sooner than this, one less for each that takes longer than that.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_millis(400);
/// A piece is dealt again only while fewer than this are out and not taken yet, over all children.
const SPARE: usize = 4;
/// A piece that was dealt longer ago is dealt again if nobody took it, or if there is room; below this a busy machine
/// would look like a stuck swarm.
const MIN_PATIENCE: Duration = Duration::from_secs(2);
/// The same, in usual times from deal to copy: on a slow line those are many seconds, and what is dealt again too
/// early costs the line as much as a new piece.
const PATIENCE: u32 = 4;

pub(super) struct SuperSeed {
    /// Shared, and dealt to nobody.
    fresh: BTreeSet<PieceIndex>,
    /// Dealt lately: when, and to whom.
    young: BTreeMap<PieceIndex, (Instant, NodeId)>,
    /// Dealt long ago, or spread by other ways: may be dealt again.
    old: BTreeSet<PieceIndex>,
    /// How many children are known to hold each piece.
    copies: Vec<u16>,
    /// The child that was served last, so that turns are fair.
    last: Option<NodeId>,
    /// When pieces were dealt that somebody has got since the last look.
    taken: Vec<Instant>,
    /// How long it usually takes from the deal to a child's copy.
    usual: Duration,
    /// How many may be out.
    most: usize,
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
            taken: Vec::new(),
            usual: Duration::ZERO,
            most: FEW,
        }
    }

    /// A piece is here.
    pub(super) fn piece(&mut self, index: PieceIndex) {
        let spread = self.copies[index.0 as usize] > 0;
        if spread {
            self.old.insert(index)
        } else {
            self.fresh.insert(index)
        };
    }

    /// A child has a piece: what spread by other ways needs not be dealt.
    pub(super) fn copied(&mut self, index: PieceIndex) {
        self.copies[index.0 as usize] += 1;
        let dealt = self.young.get(&index).filter(|_| self.copies[index.0 as usize] == 1);
        self.taken.extend(dealt.map(|(since, _)| *since));
        if self.fresh.remove(&index) {
            self.old.insert(index);
        }
    }

    /// What only the lost child was shown, or held, goes out again.
    pub(super) fn child_down(&mut self, child: &Child) {
        for index in child.all(Mark::Has) {
            self.copies[index.0 as usize] -= 1;
        }
        for index in child.all(Mark::Shown).filter(|index| self.copies[index.0 as usize] == 0) {
            if self.young.remove(&index).is_some() || self.old.remove(&index) {
                self.fresh.insert(index);
            }
        }
    }

    pub(super) fn drain(&mut self, board: &mut Board, now: Instant) -> Vec<Tell> {
        let mut tells = Tells::default();
        for dealt in self.taken.drain(..) {
            let took = now.saturating_duration_since(dealt);
            self.usual = (self.usual * 7 + took) / 8;
            match took {
                took if took < QUICK => self.most = (self.most + 1).min(MOST),
                took if took > SLOW => self.most = (self.most - 1).max(FEW),
                _ => {}
            }
        }
        let patience = self.patience();
        let (fresh, old, copies) = (&mut self.fresh, &mut self.old, &self.copies);
        self.young.retain(|index, (since, to)| {
            let young = *since + patience > now;
            if !young {
                // Nobody took it: it is as good as new.
                let next = if copies[index.0 as usize] == 0 { &mut *fresh } else { &mut *old };
                next.insert(*index);
                if let Some(child) = board.children.get_mut(to) {
                    child.give_up(*index);
                }
            }
            young
        });
        if board.children.len() == 1 {
            // Nobody to swap with.
            self.old.append(&mut self.fresh);
            self.old.extend(std::mem::take(&mut self.young).into_keys());
            for (node, child) in &mut board.children {
                child.show_all(&board.shared, tells.entry(*node));
            }
            return tells.into_vec();
        }
        let nodes: Vec<NodeId> = board.children.keys().copied().collect();
        self.deal(board, &nodes, now, &mut tells);
        tells.into_vec()
    }

    /// Deals pieces, one a turn: fresh ones, lowest first, then perhaps old ones.
    fn deal(&mut self, board: &mut Board, nodes: &[NodeId], now: Instant, tells: &mut Tells) {
        let mut at = self.last.map_or(0, |last| nodes.partition_point(|node| *node <= last));
        let mut out: usize = board.children.values().map(Child::expected).sum();
        let mut passed = 0;
        while passed < nodes.len() && out < self.most && (!self.fresh.is_empty() || out < SPARE) {
            let node = nodes[at % nodes.len()];
            at += 1;
            passed += 1;
            let child = board.children.get_mut(&node).filter(|child| child.outstanding < ALLOWANCE);
            let Some(child) = child else { continue };
            let Some(index) = self.next(child, out) else { continue };
            if child.show(index, tells.entry(node)) {
                self.fresh.remove(&index);
                self.old.remove(&index);
                self.young.insert(index, (now, node));
                self.last = Some(node);
                out += 1;
                passed = 0;
            }
        }
    }

    /// What a child gets next, with so many pieces out.
    fn next(&self, child: &Child, out: usize) -> Option<PieceIndex> {
        let lacks = |index: &PieceIndex| child.lacks(*index);
        let fresh = self.fresh.iter().copied().find(lacks);
        if fresh.is_some() || out >= SPARE {
            return fresh;
        }
        let old = self.old.iter().copied().filter(lacks);
        old.min_by_key(|index| self.copies[index.0 as usize])
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.young.values().min().map(|(since, _)| *since + self.patience())
    }

    fn patience(&self) -> Duration {
        (self.usual * PATIENCE).max(MIN_PATIENCE)
    }
}
