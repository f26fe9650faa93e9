//! How a task is cut into pieces, and sets of pieces. Both ends of a link compute the same [`Geometry`] from the
//! same length, so no layout travels on the wire.
//!
//! Pieces are small on purpose: in a burst the tail costs (hops × time of one piece).

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The smallest piece: below it, headers and round trips cost more than the tail gains.
pub const MIN_PIECE_LENGTH: u32 = 256 * 1024;
/// The largest piece: it is held in memory whole while it arrives.
pub const MAX_PIECE_LENGTH: u32 = 4 * 1024 * 1024;
/// The longest task: what [`PieceIndex`] can number at the largest piece length, cut to a size no disk holds.
pub const MAX_TASK_LENGTH: u64 = 1 << 44;

/// The number of a piece within its task, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PieceIndex(pub u32);

/// A half-open range of bytes, `start..end`, within a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte; never below `start`.
    pub end: u64,
}

// === impl ByteRange ===

impl ByteRange {
    /// `start..end`; an end before the start makes an empty range.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

/// How a task of a known length is cut into pieces. One that breaks the rules cannot be read from a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, u32)", into = "(u64, u32)")]
pub struct Geometry {
    length: u64,
    piece_length: u32,
}

/// A length or piece length that no honest neighbour sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("impossible geometry: {length} bytes in pieces of {piece_length}")]
pub struct GeometryError {
    length: u64,
    piece_length: u32,
}

// === impl Geometry ===

impl TryFrom<(u64, u32)> for Geometry {
    type Error = GeometryError;

    fn try_from((length, piece_length): (u64, u32)) -> Result<Self, GeometryError> {
        Self::with(length, piece_length)
    }
}

impl From<Geometry> for (u64, u32) {
    fn from(geometry: Geometry) -> Self {
        (geometry.length, geometry.piece_length)
    }
}

impl Geometry {
    /// The cut of a task of `length` bytes: pieces of `clamp(next_power_of_two(length / 1024), 256 KiB, 4 MiB)`.
    ///
    /// # Errors
    /// When `length` is above [`MAX_TASK_LENGTH`].
    pub fn of(length: u64) -> Result<Self, GeometryError> {
        let wanted = (length / 1024).clamp(u64::from(MIN_PIECE_LENGTH), u64::from(MAX_PIECE_LENGTH));
        Self::with(length, wanted.next_power_of_two() as u32)
    }

    /// A cut that a neighbour or the disk names.
    ///
    /// # Errors
    /// When the piece length is not a power of two within the limits, or the length is above the limit.
    pub fn with(length: u64, piece_length: u32) -> Result<Self, GeometryError> {
        let fits = (MIN_PIECE_LENGTH..=MAX_PIECE_LENGTH).contains(&piece_length);
        if length > MAX_TASK_LENGTH || !fits || !piece_length.is_power_of_two() {
            return Err(GeometryError { length, piece_length });
        }
        Ok(Self { length, piece_length })
    }

    /// Bytes in the whole task.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes in every piece but perhaps the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces; 0 for an empty task.
    pub fn pieces(&self) -> u32 {
        self.length.div_ceil(u64::from(self.piece_length)) as u32
    }

    /// The bytes of one piece; empty when there is no such piece.
    pub fn range(&self, index: PieceIndex) -> ByteRange {
        let start = (u64::from(index.0) * u64::from(self.piece_length)).min(self.length);
        ByteRange::new(start, (start + u64::from(self.piece_length)).min(self.length))
    }

    /// The piece that byte `offset` lies in.
    pub fn piece_at(&self, offset: u64) -> PieceIndex {
        PieceIndex((offset / u64::from(self.piece_length)) as u32)
    }

    /// The pieces that `range` touches.
    pub fn pieces_of(&self, range: ByteRange) -> Range<u32> {
        let end = range.end.min(self.length);
        if range.start >= end {
            return 0..0;
        }
        self.piece_at(range.start).0..self.piece_at(end - 1).0 + 1
    }
}

/// A set of pieces of one task, as a bit map.
///
/// Invariant: no bit at or above `pieces` is ever set, so `count == pieces` means complete.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PieceSet {
    words: Vec<u64>,
    pieces: u32,
    count: u32,
}

// === impl PieceSet ===

impl PieceSet {
    /// The empty set over a task of `pieces` pieces.
    pub fn new(pieces: u32) -> Self {
        Self { words: vec![0; pieces.div_ceil(64) as usize], pieces, count: 0 }
    }

    /// The set of all pieces.
    pub fn full(pieces: u32) -> Self {
        let mut set = Self::new(pieces);
        set.insert_range(0..pieces);
        set
    }

    /// Number of pieces in the task.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Number of pieces in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every piece is in the set (true for a task of no pieces).
    pub fn is_full(&self) -> bool {
        self.count == self.pieces
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: PieceIndex) -> bool {
        index.0 < self.pieces && self.words[(index.0 / 64) as usize] & (1 << (index.0 % 64)) != 0
    }

    /// Adds a piece; false when it was there or the task has no such piece.
    pub fn insert(&mut self, index: PieceIndex) -> bool {
        if index.0 >= self.pieces || self.contains(index) {
            return false;
        }
        self.words[(index.0 / 64) as usize] |= 1 << (index.0 % 64);
        self.count += 1;
        true
    }

    /// Takes a piece out; false when it was not there.
    pub fn remove(&mut self, index: PieceIndex) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[(index.0 / 64) as usize] &= !(1 << (index.0 % 64));
        self.count -= 1;
        true
    }

    /// Adds every piece of `range` that the task has.
    pub fn insert_range(&mut self, range: Range<u32>) {
        for index in range.start..range.end.min(self.pieces) {
            self.insert(PieceIndex(index));
        }
    }

    /// The first piece at or after `from` that is not in the set.
    pub fn first_missing(&self, from: u32) -> Option<PieceIndex> {
        let mut index = from;
        while index < self.pieces {
            let free = !self.words[(index / 64) as usize] >> (index % 64);
            if free != 0 {
                let found = index + free.trailing_zeros();
                return (found < self.pieces).then_some(PieceIndex(found));
            }
            index = (index / 64 + 1) * 64;
        }
        None
    }

    /// The pieces of the set in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    PieceIndex(at as u32 * 64 + bit)
                })
            })
        })
    }

    /// The pieces of the set that are not in `other`.
    pub fn minus(&self, other: &PieceSet) -> PieceSet {
        let mut left = PieceSet::new(self.pieces);
        for index in self.iter().filter(|index| !other.contains(*index)) {
            left.insert(index);
        }
        left
    }

    /// The set as ascending runs, the form that travels on the wire.
    pub fn runs(&self) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for PieceIndex(index) in self.iter() {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }
}

impl std::fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {:?}", self.count, self.pieces, self.runs())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn piece_lengths_follow_the_rule() {
        for (length, piece_length) in [
            (0, 256 << 10),
            (1, 256 << 10),
            (64 << 20, 256 << 10),
            (257 << 20, 512 << 10),
            (694 << 20, 1 << 20),
            (40 << 30, 4 << 20),
        ] {
            assert_eq!(Geometry::of(length).unwrap().piece_length(), piece_length, "{length}");
        }
        assert!(Geometry::of(1 << 60).is_err());
        assert!(Geometry::with(10, 3000).is_err());
    }

    proptest! {
        #[test]
        fn pieces_tile_the_task(length in 0u64..(64 << 20)) {
            let geometry = Geometry::of(length).unwrap();
            let mut at = 0;
            for index in 0..geometry.pieces() {
                let range = geometry.range(PieceIndex(index));
                prop_assert_eq!(range.start, at);
                prop_assert!(!range.is_empty());
                prop_assert_eq!(geometry.piece_at(range.start), PieceIndex(index));
                at = range.end;
            }
            prop_assert_eq!(at, length);
            prop_assert!(geometry.range(PieceIndex(geometry.pieces())).is_empty());
        }

        #[test]
        fn a_set_behaves_like_a_set(
            pieces in 0u32..300,
            ops in prop::collection::vec((any::<bool>(), 0u32..320), 0..200),
        ) {
            let mut set = PieceSet::new(pieces);
            let mut model = BTreeSet::new();
            for (add, index) in ops {
                if add && index < pieces {
                    prop_assert_eq!(set.insert(PieceIndex(index)), model.insert(index));
                } else if !add {
                    prop_assert_eq!(set.remove(PieceIndex(index)), model.remove(&index));
                } else {
                    prop_assert!(!set.insert(PieceIndex(index)));
                }
            }
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(set.iter().map(|i| i.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.runs().into_iter().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let missing = (0..pieces).find(|i| !model.contains(i)).map(PieceIndex);
            prop_assert_eq!(set.first_missing(0), missing);
        }
    }
}
