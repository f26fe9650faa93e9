//! How what is fetched ahead of need gives way to what somebody waits for: while a node's pulls move, its preheats take one byte in
//! [`ONE_IN`] of what the pulls get. Not nothing: a node that always pulls would never be preheated. While pulls do not move, for
//! they wait for somebody else, a piece a [`STALLED`] goes.
//!
//! It is done where bytes are asked for, at the origin and of neighbours, for what is asked for comes. All of a node's tasks share
//! one [`Courtesy`].
//!
//! # Invariants
//! - The [`Purse`] is pure. What was taken is paid for before more is: pieces may be longer than what is in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Line, Share};

/// A preheat's part, while pulls move.
const ONE_IN: i64 = 25;
/// What may be saved up for later.
const SAVED: i64 = 256 * 1024;
/// Pulls that got nothing for so long wait for something else than this node's line.
const STALLED: Duration = Duration::from_secs(1);
/// Who has to wait looks again after this.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A node's manners. Clones are the same node's.
#[derive(Clone, Debug, Default)]
pub struct Courtesy {
    /// The downloads that somebody waits for.
    pulls: Line,
    purse: Arc<Mutex<Purse>>,
}

/// What preheats may take.
#[derive(Debug, Default)]
struct Purse {
    /// Bytes; below zero they are owed.
    credit: i64,
    /// When pulls got something, or a preheat was let pass because they did not.
    moved: Option<Instant>,
}

// === impl Courtesy ===

impl Courtesy {
    /// A download's part: set to one while somebody waits for it.
    pub fn share(&self) -> Share {
        self.pulls.share()
    }

    /// Whether somebody waits for any download.
    pub fn is_due(&self) -> bool {
        self.pulls.total() > 0
    }

    /// A download that somebody waits for got so many bytes.
    pub fn earned(&self, bytes: u64, now: Instant) {
        self.purse().earned(bytes, now);
    }

    /// Whether a preheat may ask for something.
    pub fn lets_pass(&self, now: Instant) -> bool {
        !self.is_due() || self.purse().lets_pass(now)
    }

    /// A preheat has asked for so many bytes.
    pub fn charge(&self, bytes: u64) {
        if self.is_due() {
            self.purse().charge(bytes);
        }
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        // A panic between two sums leaves a purse that is a piece off.
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Purse ===

impl Purse {
    fn earned(&mut self, bytes: u64, now: Instant) {
        let share = i64::try_from(bytes).unwrap_or(i64::MAX) / ONE_IN;
        self.credit = self.credit.saturating_add(share).min(SAVED);
        self.moved = Some(now);
    }

    fn lets_pass(&mut self, now: Instant) -> bool {
        if self.moved.is_none_or(|moved| now.saturating_duration_since(moved) >= STALLED) {
            (self.credit, self.moved) = (0, Some(now));
            return true;
        }
        self.credit > 0
    }

    fn charge(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 1 << 20;

    #[test]
    fn without_pulls_everything_passes() {
        let (courtesy, now) = (Courtesy::default(), Instant::now());
        for _ in 0..100 {
            assert!(courtesy.lets_pass(now));
            courtesy.charge(PIECE);
        }
        let mut pull = courtesy.share();
        pull.set(1);
        assert!(courtesy.lets_pass(now), "what was taken before is not owed");
    }

    #[test]
    fn while_pulls_move_a_small_part_passes_whatever_a_piece_is() {
        for piece in [PIECE / 4, 4 * PIECE] {
            let (mut purse, mut now, mut taken, mut pulled) = (Purse::default(), Instant::now(), 0, 0);
            purse.earned(0, now);
            for _ in 0..100_000 {
                now += Duration::from_millis(10);
                purse.earned(PIECE / 8, now);
                pulled += PIECE / 8;
                while purse.lets_pass(now) {
                    purse.charge(piece);
                    taken += piece;
                }
            }
            let part = taken as f64 * ONE_IN as f64 / pulled as f64;
            assert!((0.99..1.01).contains(&part), "{part} of a preheat's part, in pieces of {piece}");
        }
    }

    #[test]
    fn pulls_that_wait_for_others_hold_nobody_up_for_long() {
        let (mut purse, mut now) = (Purse::default(), Instant::now());
        purse.earned(PIECE, now);
        purse.charge(100 * PIECE);
        assert!(!purse.lets_pass(now));
        for _ in 0..3 {
            now += STALLED;
            assert!(purse.lets_pass(now));
            purse.charge(PIECE);
            assert!(!purse.lets_pass(now), "one piece at a time");
        }
    }
}
