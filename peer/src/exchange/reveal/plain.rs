//! A peer's way: a new piece is shown to everybody who lacks it, at once. To show it to a few first and to the others
//! step by step was tried and is slower (`docs/simulation.md`): neighbours that may not ask leave lines idle.
//!
//! Who has the piece already hears of it, too: at once where few have it, for its giver is among them, and a seed deals on
//! when it hears that; otherwise some pieces at a time.

use std::time::{Duration, Instant};

use common::piece::PieceIndex;

use super::child::Mark;
use super::{Board, Tell};

/// A piece that no more neighbours have is news to them: the giver, and perhaps the seed.
const NEWS: usize = 2;
/// Others are told so many at a time; fewer than a seed lets be out at a child, which would wait for each other else.
const TOGETHER: usize = 4;
/// But nobody waits longer for that.
const LATEST: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Plain {
    /// Not told to anybody yet.
    fresh: Vec<PieceIndex>,
    /// When what was put off is told at the latest.
    due: Option<Instant>,
}

// === impl Plain ===

impl Plain {
    pub(super) fn piece(&mut self, index: PieceIndex) {
        self.fresh.push(index);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn drain(&mut self, board: &mut Board, now: Instant) -> Vec<Tell> {
        let stale = std::mem::take(&mut board.stale);
        let due = self.due.take_if(|due| *due <= now).is_some();
        if !stale && !due && self.fresh.is_empty() {
            return Vec::new();
        }
        for child in board.children.values_mut().filter(|_| stale) {
            child.late.clear();
        }
        let holders = |index: &PieceIndex| {
            let had = board.children.values().filter(|child| child.is(Mark::Has, *index)).count();
            (*index, had)
        };
        let fresh: Vec<(PieceIndex, usize)> = self.fresh.drain(..).map(|index| holders(&index)).collect();
        let mut tells = Vec::with_capacity(board.children.len());
        for (node, child) in &mut board.children {
            let mut tell = Tell { to: *node, show: Vec::new(), hold: Vec::new() };
            if stale {
                child.show_all(&board.shared, &mut tell);
            }
            for (index, holders) in &fresh {
                if *holders > NEWS && child.is(Mark::Has, *index) && !child.is(Mark::Told, *index) {
                    child.late.push(*index);
                } else {
                    child.show_or_tell(*index, &mut tell);
                }
            }
            if due || child.late.len() >= TOGETHER {
                let late = std::mem::take(&mut child.late);
                late.into_iter().for_each(|index| child.show_or_tell(index, &mut tell));
            } else if !child.late.is_empty() {
                self.due = self.due.or(Some(now + LATEST));
            }
            if !tell.show.is_empty() || !tell.hold.is_empty() {
                tells.push(tell);
            }
        }
        tells
    }
}
