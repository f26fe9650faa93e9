//! What a node asks of the origin: the seed, and a peer that the swarm leaves alone. The order is that of
//! `peer::origin::plan`: a first segment alone while the length is unknown, then some side by side.

use std::ops::Range;

use common::piece::{Geometry, PieceIndex, PieceSet};

/// Ranged requests side by side.
const PARALLEL: usize = 4;
const FIRST_SEGMENT: u64 = 4 << 20;
const SEGMENT: u64 = 8 << 20;
const MIN_SEGMENT: u64 = 1 << 20;
const SMALL_BLOB: u64 = 32 << 20;

/// A running fetch from the origin.
pub(crate) struct Feed {
    /// Segments that nobody reads yet, in order.
    rest: std::vec::IntoIter<Range<u32>>,
    readers: Vec<Range<u32>>,
}

// === impl Feed ===

impl Feed {
    /// What is missing, in order.
    pub(crate) fn new(geometry: Geometry, have: &PieceSet) -> Self {
        let piece = u64::from(geometry.piece_length());
        let missing = u64::from(geometry.pieces() - have.count()) * piece;
        let length = if geometry.length() < SMALL_BLOB {
            (missing / PARALLEL as u64).clamp(MIN_SEGMENT, SEGMENT)
        } else {
            SEGMENT
        };
        let (first, each) = ((FIRST_SEGMENT / piece).max(1) as u32, length.div_ceil(piece).max(1) as u32);
        let mut segments = Vec::new();
        let mut at = 0;
        while at < geometry.pieces() {
            if have.contains(PieceIndex(at)) {
                at += 1;
                continue;
            }
            let most = at + if segments.is_empty() { first } else { each };
            let end =
                (at..most.min(geometry.pieces())).take_while(|index| !have.contains(PieceIndex(*index)));
            let end = at + end.count() as u32;
            segments.push(at..end);
            at = end;
        }
        Self { rest: segments.into_iter(), readers: Vec::new() }
    }

    /// The pieces to ask for first: one, which brings the length.
    pub(crate) fn begin(&mut self) -> Option<u32> {
        self.read()
    }

    /// The pieces to ask for now that the length is known.
    pub(crate) fn spread(&mut self) -> Vec<u32> {
        (self.readers.len()..PARALLEL).filter_map(|_| self.read()).collect()
    }

    /// A piece came: what its reader asks for next.
    pub(crate) fn came(&mut self, piece: u32) -> Option<u32> {
        let reader = self.readers.iter_mut().find(|reader| reader.start == piece)?;
        reader.start += 1;
        if reader.start < reader.end {
            return Some(reader.start);
        }
        self.readers.retain(|reader| reader.start < reader.end);
        self.read()
    }

    /// The pieces that are asked for.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = u32> + '_ {
        self.readers.iter().map(|reader| reader.start)
    }

    fn read(&mut self) -> Option<u32> {
        let segment = self.rest.next()?;
        self.readers.push(segment.clone());
        Some(segment.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_piece_is_asked_for_once() {
        let geometry = Geometry::of(100 << 20).unwrap();
        let mut have = PieceSet::new(geometry.pieces());
        have.insert_range(30..77);
        let mut feed = Feed::new(geometry, &have);
        let mut asked: Vec<u32> = feed.begin().into_iter().collect();
        asked.extend(feed.spread());
        assert_eq!(asked.len(), PARALLEL);
        let mut at = 0;
        while at < asked.len() {
            asked.extend(feed.came(asked[at]));
            at += 1;
        }
        asked.sort_unstable();
        let missing: Vec<u32> = (0..30).chain(77..geometry.pieces()).collect();
        assert_eq!(asked, missing);
    }
}
