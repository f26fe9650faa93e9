//! A neighbour on the other end of a link, and what it has, was shown and was told of.

use common::piece::{PieceIndex, PieceSet};

use super::Tell;

/// What may be true of a piece and a child.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    /// The child says that it has it.
    Has,
    /// It may ask us for it.
    Shown,
    /// It was told that we have it, shown or not.
    Told,
}

/// A child.
pub(super) struct Child {
    /// The marks of 64 pieces each, side by side, for they are looked at together.
    words: Vec<[u64; 3]>,
    counts: [u32; 3],
    pieces: u32,
    /// Shown and not yet seen with it.
    pub(super) outstanding: usize,
    /// Those of them that are not waited for any more.
    given_up: Vec<PieceIndex>,
    /// What it has itself and is not told of yet.
    pub(super) late: Vec<PieceIndex>,
}

// === impl Child ===

impl Child {
    /// A child of which nothing is known, of a task of so many pieces.
    pub(super) fn new(pieces: u32) -> Self {
        let words = vec![[0; 3]; pieces.div_ceil(64) as usize];
        Self { words, counts: [0; 3], pieces, outstanding: 0, given_up: Vec::new(), late: Vec::new() }
    }

    /// Whether a mark is there.
    pub(super) fn is(&self, mark: Mark, index: PieceIndex) -> bool {
        let words = self.words.get((index.0 / 64) as usize);
        words.is_some_and(|words| words[mark as usize] & (1 << (index.0 % 64)) != 0)
    }

    fn mark(&mut self, mark: Mark, index: PieceIndex) -> bool {
        let new = index.0 < self.pieces && !self.is(mark, index);
        if new {
            self.words[(index.0 / 64) as usize][mark as usize] |= 1 << (index.0 % 64);
            self.counts[mark as usize] += 1;
        }
        new
    }

    /// The pieces with a mark, in order.
    pub(super) fn all(&self, mark: Mark) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.pieces).map(PieceIndex).filter(move |index| self.is(mark, *index))
    }

    /// The child has a piece; false when that was known.
    pub(super) fn got(&mut self, index: PieceIndex) -> bool {
        let new = self.mark(Mark::Has, index);
        if new && self.is(Mark::Shown, index) {
            self.outstanding -= 1;
            self.given_up.retain(|other| *other != index);
        }
        new
    }

    /// A piece that was shown to it, and that it has not taken, is not waited for any more.
    pub(super) fn give_up(&mut self, index: PieceIndex) {
        let lacked = self.is(Mark::Shown, index) && !self.is(Mark::Has, index);
        if lacked && !self.given_up.contains(&index) {
            self.given_up.push(index);
        }
    }

    /// How many of the pieces that it was shown it can be expected to take soon.
    pub(super) fn expected(&self) -> usize {
        self.outstanding - self.given_up.len()
    }

    /// Whether it has all.
    pub(super) fn is_full(&self) -> bool {
        self.counts[Mark::Has as usize] == self.pieces
    }

    /// Whether a piece would be news to it.
    pub(super) fn lacks(&self, index: PieceIndex) -> bool {
        !self.is(Mark::Has, index) && !self.is(Mark::Shown, index)
    }

    /// Shows a piece, unless it was shown or the child has it already; true when the child gains by it.
    pub(super) fn show(&mut self, index: PieceIndex, tell: &mut Tell) -> bool {
        if self.is(Mark::Has, index) || !self.mark(Mark::Shown, index) {
            return false;
        }
        self.mark(Mark::Told, index);
        self.outstanding += 1;
        tell.show.push(index);
        true
    }

    /// Shows a piece to a child that lacks it. Who has it itself hears of it, too: who gave it to us counts on that
    /// to know that it arrived.
    pub(super) fn show_or_tell(&mut self, index: PieceIndex, tell: &mut Tell) {
        if !self.show(index, tell) && self.mark(Mark::Told, index) {
            tell.hold.push(index);
        }
    }

    /// Shows everything that is shared.
    pub(super) fn show_all(&mut self, shared: &PieceSet, tell: &mut Tell) {
        if self.counts[Mark::Told as usize] < shared.count() {
            shared.iter().for_each(|index| self.show_or_tell(index, tell));
        }
    }
}
