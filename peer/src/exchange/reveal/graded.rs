//! A peer's thrift: a new piece is shown to a few neighbours at once, then to twice as many with every step, so
//! that the first copies are made in a chain and not all from here. The others hear that the piece is here, which
//! is what their rarity counts need.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;

use super::{Board, Tell, Tells};

/// Neighbours that see a new piece at once.
const FIRST: usize = 2;
/// Bounds of a step, which is otherwise the usual time of a piece.
const MIN_STEP: Duration = Duration::from_millis(20);
const MAX_STEP: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Graded {
    /// Pieces that not everybody sees yet: since when they are here, and to how many neighbours they were shown.
    young: BTreeMap<PieceIndex, (Instant, usize)>,
    turn: usize,
    /// When the steps were last looked at.
    drained: Option<Instant>,
}

// === impl Graded ===

impl Graded {
    pub(super) fn piece(&mut self, index: PieceIndex, now: Instant) {
        self.young.insert(index, (now, 0));
    }

    pub(super) fn drain(&mut self, board: &mut Board, pace: Duration, now: Instant) -> Vec<Tell> {
        self.drained = Some(now);
        let mut tells = Tells::default();
        let nodes: Vec<NodeId> = board.children.keys().copied().collect();
        let step = pace.clamp(MIN_STEP, MAX_STEP);
        let mut turn = self.turn;
        let mut stale = board.stale;
        self.young.retain(|index, (since, shown)| {
            let steps = (now.saturating_duration_since(*since).as_nanos() / step.as_nanos()).min(16) as u32;
            let allowed = FIRST << steps;
            if allowed >= nodes.len() {
                stale = true;
                return false;
            }
            // A new starting neighbour for every piece, so that all of them get some pieces early.
            turn += 1;
            for offset in 0..nodes.len() {
                if *shown >= allowed {
                    break;
                }
                *shown += usize::from(board.show(nodes[(turn + offset) % nodes.len()], *index, &mut tells));
            }
            true
        });
        self.turn = turn % nodes.len().max(1);
        board.stale = false;
        for node in nodes.iter().filter(|_| stale) {
            board.show_all(*node, |index| self.young.contains_key(&index), &mut tells);
        }
        for index in self.young.keys() {
            for node in &nodes {
                board.tell(*node, *index, &mut tells);
            }
        }
        tells.into_vec()
    }

    /// The next step of the youngest rule; never the past, or the caller would turn in circles.
    pub(super) fn wake_at(&self, pace: Duration) -> Option<Instant> {
        let step = pace.clamp(MIN_STEP, MAX_STEP);
        let next = |since: Instant| {
            let passed =
                self.drained.map_or(Duration::ZERO, |drained| drained.saturating_duration_since(since));
            let steps = passed.as_nanos() / step.as_nanos();
            since + step * (steps.min(16) as u32 + 1)
        };
        self.young.values().map(|(since, _)| next(*since)).min()
    }
}
