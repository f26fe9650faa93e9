//! Which byte ranges of a task are asked for, in which order, and what an origin says about a range. Pure; used by
//! [`super::ranges`] and [`super::segment`].

use common::piece::{ByteRange, Geometry, MAX_PIECE_LENGTH, PieceIndex, PieceSet};

/// What is asked for first, while the length is unknown: a whole number of pieces whatever the piece length turns out to
/// be, and enough to finish most blobs in one request.
pub(super) const FIRST_SEGMENT: u64 = MAX_PIECE_LENGTH as u64;
/// A request costs about as much as half a megabyte; at 8 MiB that no longer shows.
const SEGMENT: u64 = 8 << 20;
/// Below it a request costs more than its bytes.
const MIN_SEGMENT: u64 = 1 << 20;
/// Shorter blobs are cut finer, so that all parallel readers have work.
const SMALL_BLOB: u64 = 32 << 20;

/// The runs of missing pieces in ascending order, cut into segments.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    geometry: Geometry,
    have: PieceSet,
    next: u32,
    pieces_each: u32,
}

/// What `Content-Range` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The bytes in the body; `None` in a 416.
    pub(super) range: Option<ByteRange>,
    /// The length of the whole, where the origin knows it.
    pub(super) total: Option<u64>,
}

/// From the first missing byte to the last; `None` when nothing is missing.
pub(super) fn hull(geometry: Geometry, have: &PieceSet) -> Option<ByteRange> {
    let first = have.first_missing(0)?;
    let last = (first.0..geometry.pieces()).rev().find(|index| !have.contains(PieceIndex(*index)))?;
    Some(ByteRange::new(geometry.range(first).start, geometry.range(PieceIndex(last)).end))
}

// === impl Segments ===

impl Segments {
    /// The segments of what is not in `have`, for `parallel` readers.
    pub(crate) fn new(geometry: Geometry, have: PieceSet, parallel: usize) -> Self {
        let piece = u64::from(geometry.piece_length());
        let missing = u64::from(geometry.pieces() - have.count()) * piece;
        let wanted = if geometry.length() < SMALL_BLOB {
            missing.div_ceil(parallel.max(1) as u64).clamp(MIN_SEGMENT, SEGMENT)
        } else {
            SEGMENT
        };
        let pieces_each = wanted.div_ceil(piece).max(1) as u32;
        Self { geometry, have, next: 0, pieces_each }
    }
}

impl Iterator for Segments {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let first = self.have.first_missing(self.next)?;
        let limit = (first.0 + self.pieces_each).min(self.geometry.pieces());
        let end = (first.0..limit).find(|index| self.have.contains(PieceIndex(*index))).unwrap_or(limit);
        self.next = end;
        let last = self.geometry.range(PieceIndex(end - 1));
        Some(ByteRange::new(self.geometry.range(first).start, last.end))
    }
}

// === impl ContentRange ===

impl ContentRange {
    /// Reads `bytes 0-9/100`, `bytes 0-9/*` and `bytes */100` (RFC 9110, section 14.4).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let range = match range.split_once('-') {
            None if range == "*" => None,
            Some((first, last)) => Some(ByteRange::new(number(first)?, number(last)?.checked_add(1)?)),
            None => return None,
        };
        let fits = range.is_none_or(|r| !r.is_empty() && total.is_none_or(|total| r.end <= total));
        (unit.eq_ignore_ascii_case("bytes") && fits).then_some(Self { range, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_not() {
        let read = |text| ContentRange::parse(text).map(|r| (r.range.map(|r| (r.start, r.end)), r.total));
        assert_eq!(read("bytes 0-9/100"), Some((Some((0, 10)), Some(100))));
        assert_eq!(read("Bytes 5-5/*"), Some((Some((5, 6)), None)));
        assert_eq!(read("bytes */0"), Some((None, Some(0))));
        for bad in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "lines 0-9/10",
            "bytes -9/10",
            "bytes 0-/10",
            "bytes +0-9/10",
            "bytes 0-18446744073709551615/*",
            "bytes x/10",
            "bytes 0-9/ten",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn segments_cover_the_missing_pieces_once_and_in_order(
            length in 0u64..(200 << 20), held in prop::collection::vec(0u32..800, 0..60), parallel in 0usize..9,
        ) {
            let geometry = Geometry::of(length).unwrap();
            let mut have = PieceSet::new(geometry.pieces());
            for index in held {
                have.insert(PieceIndex(index));
            }
            let mut covered = Vec::new();
            let mut at = 0;
            for segment in Segments::new(geometry, have.clone(), parallel) {
                prop_assert!(segment.start >= at && !segment.is_empty());
                prop_assert!(segment.len() <= SEGMENT.max(u64::from(geometry.piece_length())));
                prop_assert_eq!(segment.start % u64::from(geometry.piece_length()), 0);
                at = segment.end;
                covered.extend(geometry.pieces_of(segment));
            }
            let missing = PieceSet::full(geometry.pieces()).minus(&have);
            prop_assert_eq!(&covered, &missing.iter().map(|index| index.0).collect::<Vec<_>>());
            let hull = hull(geometry, &have);
            prop_assert_eq!(hull.is_none(), covered.is_empty());
            if let Some(hull) = hull {
                let pieces = geometry.pieces_of(hull);
                prop_assert_eq!((pieces.start, pieces.end - 1), (covered[0], *covered.last().unwrap()));
            }
        }

        #[test]
        fn any_header_is_read_or_refused_without_panic(text in ".{0,60}") {
            let _ = ContentRange::parse(&text);
        }
    }
}
