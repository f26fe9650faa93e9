//! A bit a piece, in words: two sets are compared 64 pieces at a time. [`Select`](super::Select) asks each parent's set
//! after every event, so this is what a download's choices cost.

use std::ops::Range;

use common::piece::PieceIndex;

/// A set of pieces.
pub(super) struct Bits(Vec<u64>);

/// What a parent shows and holds, side by side: they are read and written together.
pub(super) struct Known(Vec<[u64; 2]>);

// === impl Bits ===

impl Bits {
    /// The empty set over so many pieces.
    pub(super) fn new(pieces: u32) -> Self {
        Self(vec![0; pieces.div_ceil(64) as usize])
    }

    /// Adds a piece that the task has; false when it was there.
    pub(super) fn insert(&mut self, index: PieceIndex) -> bool {
        let (word, bit) = place(index);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Takes a piece out.
    pub(super) fn remove(&mut self, index: PieceIndex) {
        let (word, bit) = place(index);
        self.0[word] &= !bit;
    }

    /// Whether a piece that the task has is in the set.
    pub(super) fn contains(&self, index: PieceIndex) -> bool {
        let (word, bit) = place(index);
        self.0[word] & bit != 0
    }

    /// The pieces of the set within a range that a parent shows, in order.
    pub(super) fn shown<'a>(
        &'a self,
        parent: &'a Known,
        range: Range<u32>,
    ) -> impl Iterator<Item = PieceIndex> + 'a {
        let words = range.start / 64..range.end.div_ceil(64).min(self.0.len() as u32);
        let word = move |at: u32| {
            let mut word = self.0[at as usize] & parent.0[at as usize][0];
            if at == range.start / 64 {
                word &= u64::MAX << (range.start % 64);
            }
            if at == range.end / 64 {
                word &= (1 << (range.end % 64)) - 1;
            }
            word
        };
        pieces(words, word)
    }
}

// === impl Known ===

impl Known {
    /// Nothing, of so many pieces.
    pub(super) fn new(pieces: u32) -> Self {
        Self(vec![[0; 2]; pieces.div_ceil(64) as usize])
    }

    /// Notes a piece that the task has as held, perhaps as shown; false when it was known to be held.
    pub(super) fn learn(&mut self, index: PieceIndex, shown: bool) -> bool {
        let (word, bit) = place(index);
        let [shows, holds] = &mut self.0[word];
        let new = *holds & bit == 0;
        *holds |= bit;
        *shows |= if shown { bit } else { 0 };
        new
    }

    /// Notes that a piece may not be asked for.
    pub(super) fn hide(&mut self, index: PieceIndex) {
        let (word, bit) = place(index);
        self.0[word][0] &= !bit;
    }

    /// Whether a piece may be asked for.
    pub(super) fn shows(&self, index: PieceIndex) -> bool {
        let (word, bit) = place(index);
        self.0[word][0] & bit != 0
    }

    /// What is held, in order.
    pub(super) fn held(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        pieces(0..self.0.len() as u32, |at| self.0[at as usize][1])
    }
}

/// The word and the bit of a piece.
fn place(index: PieceIndex) -> (usize, u64) {
    ((index.0 / 64) as usize, 1 << (index.0 % 64))
}

/// The pieces whose bits are set in some words.
fn pieces(words: Range<u32>, word: impl Fn(u32) -> u64) -> impl Iterator<Item = PieceIndex> {
    let mut at = words.start;
    let mut left = if words.is_empty() { 0 } else { word(at) };
    std::iter::from_fn(move || {
        while left == 0 {
            at += 1;
            if at >= words.end {
                return None;
            }
            left = word(at);
        }
        let bit = left.trailing_zeros();
        left &= left - 1;
        Some(PieceIndex(at * 64 + bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_of_what_a_parent_shows_is_what_both_have(
            one in prop::collection::btree_set(0u32..200, 0..120),
            shown in prop::collection::btree_set(0u32..200, 0..120),
            only_held in prop::collection::btree_set(0u32..200, 0..20),
            (a, b) in (0u32..201, 0u32..201),
        ) {
            let mut bits = Bits::new(200);
            one.iter().for_each(|index| assert!(bits.insert(PieceIndex(*index))));
            let mut known = Known::new(200);
            shown.iter().for_each(|index| assert!(known.learn(PieceIndex(*index), true)));
            for index in &only_held {
                assert_eq!(known.learn(PieceIndex(*index), false), !shown.contains(index));
            }
            let range = a.min(b)..a.max(b);
            let expected: Vec<u32> = one.intersection(&shown).copied().filter(|at| range.contains(at)).collect();
            prop_assert!(bits.shown(&known, range).map(|index| index.0).eq(expected));
            prop_assert!(known.held().map(|index| index.0).eq(shown.union(&only_held).copied()));
            for index in (0..200).map(PieceIndex) {
                prop_assert_eq!(bits.contains(index), one.contains(&index.0));
                prop_assert_eq!(known.shows(index), shown.contains(&index.0));
                bits.remove(index);
                known.hide(index);
                prop_assert!(!bits.contains(index) && !known.shows(index));
            }
        }
    }
}
