//! The seed's thrift: each piece goes out to one child first, in turn, and the children swap. Pieces that have been out
//! for a while are dealt again, those with the fewest copies first, while the seed has little else to send: what it
//! sends twice it cannot send anew, and the whole swarm waits for the new. All of a seed's tasks share its line, so each
//! counts what the others have out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;

use super::child::{Child, Mark};
use super::{Board, Tell, Tells};

/// Pieces shown to a child that it has not got yet: enough to keep its requests flowing, few enough that a slow
/// child does not sit on many; more where few children share what may be out.
const ALLOWANCE: usize = 6;
/// Pieces that are out and not taken yet, over all children, while they are taken slowly: enough to keep the line busy.
/// With more, all of them take longer, and the children have nothing to swap meanwhile.
const FEW: usize = 12;
/// The same on the fastest line.
const MOST: usize = 256;
/// One more may be out for each that is taken sooner than this, one less for each that takes longer than that.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_millis(400);
/// A piece is dealt again only while fewer than this are out and not taken yet, over all children and all tasks: what
/// goes out twice delays what nobody has.
const SPARE: usize = 3;
/// Of each task this many may be out, however busy others keep the line.
const LEAST: usize = 2;
/// So often a piece is dealt again though other tasks keep the line busy: a child may know nobody else who has it.
const GRUDGE: Duration = Duration::from_secs(4);
/// While other tasks keep pieces back, look so often whether they still do.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
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
    /// When a piece was last dealt again.
    grudged: Option<Instant>,
    /// When to look whether other tasks still keep pieces back.
    again: Option<Instant>,
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
            grudged: None,
            again: None,
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

    /// With so many pieces out for other tasks.
    pub(super) fn drain(&mut self, board: &mut Board, others: usize, now: Instant) -> Vec<Tell> {
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
        let nodes: Vec<NodeId> = board.children.keys().copied().collect();
        let held_back = self.deal(board, &nodes, (others, now), &mut tells);
        self.again = held_back.then_some(now + LOOK_AGAIN);
        tells.into_vec()
    }

    /// Deals pieces, one a turn: fresh ones, lowest first, then perhaps old ones. Whether other tasks are why there are
    /// not more.
    fn deal(
        &mut self,
        board: &mut Board,
        nodes: &[NodeId],
        (others, now): (usize, Instant),
        tells: &mut Tells,
    ) -> bool {
        let mut at = self.last.map_or(0, |last| nodes.partition_point(|node| *node <= last));
        let mut out: usize = board.children.values().map(Child::expected).sum();
        let most = self.most.saturating_sub(others).max(LEAST);
        let each = ALLOWANCE.max(self.most / nodes.len().max(1));
        // An only child may know nobody else who has what was dealt before.
        let spare = if nodes.len() == 1 { most } else { SPARE };
        let mut passed = 0;
        while passed < nodes.len() {
            let fresh = !self.fresh.is_empty() && out < most;
            let old =
                out < spare && (out + others < spare || self.grudged.is_none_or(|at| at + GRUDGE <= now));
            if !fresh && !old {
                let more = !self.fresh.is_empty() && out < self.most || !self.old.is_empty() && out < spare;
                return others > 0 && more;
            }
            let node = nodes[at % nodes.len()];
            at += 1;
            passed += 1;
            let child = board.children.get_mut(&node).filter(|child| child.outstanding < each);
            let Some(child) = child else { continue };
            let Some(index) = self.next(child, fresh, old) else { continue };
            if child.show(index, tells.entry(node)) {
                let new = self.fresh.remove(&index);
                self.grudged = if new { self.grudged } else { Some(now) };
                self.old.remove(&index);
                self.young.insert(index, (now, node));
                self.last = Some(node);
                out += 1;
                passed = 0;
            }
        }
        false
    }

    /// What a child gets next, if a fresh or an old piece may be dealt.
    fn next(&self, child: &Child, fresh: bool, old: bool) -> Option<PieceIndex> {
        let lacks = |index: &PieceIndex| child.lacks(*index);
        let next = self.fresh.iter().copied().filter(|_| fresh).find(lacks);
        if next.is_some() || !old {
            return next;
        }
        let old = self.old.iter().copied().filter(lacks);
        old.min_by_key(|index| self.copies[index.0 as usize])
    }

    /// What it counts as for other tasks.
    pub(super) fn out(board: &Board) -> usize {
        board.children.values().map(Child::expected).sum()
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        let untaken = self.young.values().min().map(|(since, _)| *since + self.patience());
        untaken.into_iter().chain(self.again).min()
    }

    fn patience(&self) -> Duration {
        (self.usual * PATIENCE).max(MIN_PATIENCE)
    }
}
