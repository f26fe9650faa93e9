//! What a supernode vouched for, kept with its seals for as long as the download runs: should the task move, the next
//! supernode is shown it and need not fetch the task anew to vouch for the same. Kept by [`super::driver`].

use std::collections::BTreeMap;

use common::digest::Digest;
use common::identity::Seal;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use common::wire::swarm::{MAX_DIGESTS, Testimony};

/// The sealed digests of one task.
#[derive(Default)]
pub(super) struct Vouched {
    geometry: Option<Geometry>,
    /// Digests whose seal has not come yet. Without one they are worth nothing to anybody else.
    bare: Option<(PieceIndex, Vec<Digest>)>,
    sealed: BTreeMap<PieceIndex, (Vec<Digest>, Seal)>,
}

// === impl Vouched ===

impl Vouched {
    /// The length is known.
    pub(super) fn joined(&mut self, geometry: Geometry) {
        if self.geometry != Some(geometry) {
            *self = Self { geometry: Some(geometry), ..Self::default() };
        }
    }

    /// Digests came; their seal comes next.
    pub(super) fn digests(&mut self, first: PieceIndex, digests: &[Digest]) {
        let fits = |geometry: Geometry| {
            (first.0 as usize).saturating_add(digests.len()) <= geometry.pieces() as usize
        };
        let keep = self.geometry.is_some_and(fits) && !digests.is_empty() && digests.len() <= MAX_DIGESTS;
        self.bare = keep.then(|| (first, digests.to_vec()));
    }

    /// The seal came. What it covers replaces what earlier seals said of the same pieces, so that each is kept once.
    pub(super) fn seal(&mut self, first: PieceIndex, count: u32, seal: Seal) {
        let Some((of, digests)) = self.bare.take() else { return };
        if of != first || digests.len() != count as usize {
            return;
        }
        let end = |first: &PieceIndex, digests: &[Digest]| first.0 as usize + digests.len();
        let (start, stop) = (first, end(&first, &digests));
        self.sealed.retain(|first, (digests, _)| *first < start || end(first, digests) > stop);
        self.sealed.insert(first, (digests, seal));
    }

    /// All of it, to be shown to another supernode.
    pub(super) fn testimonies(&self, task: TaskId) -> impl Iterator<Item = Testimony> + '_ {
        let of = move |geometry| {
            self.sealed.iter().map(move |(first, (digests, seal))| Testimony {
                task,
                geometry,
                first: *first,
                digests: digests.clone(),
                seal: *seal,
            })
        };
        self.geometry.into_iter().flat_map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId([1; 32]);

    fn digests(range: std::ops::Range<u8>) -> Vec<Digest> {
        range.map(|number| Digest([number; 32])).collect()
    }

    fn shown(vouched: &Vouched) -> Vec<(u32, usize, u8)> {
        let of = |testimony: Testimony| (testimony.first.0, testimony.digests.len(), testimony.seal.0[0]);
        vouched.testimonies(TASK).map(of).collect()
    }

    #[test]
    fn only_what_is_sealed_is_shown_and_each_piece_once() {
        let mut vouched = Vouched::default();
        vouched.digests(PieceIndex(0), &digests(0..2));
        vouched.seal(PieceIndex(0), 2, Seal([9; 32]));
        assert_eq!(shown(&vouched), [], "before the length is known");

        vouched.joined(Geometry::of(8 * 256 * 1024).unwrap());
        vouched.digests(PieceIndex(0), &digests(0..2));
        vouched.seal(PieceIndex(0), 2, Seal([1; 32]));
        vouched.digests(PieceIndex(2), &digests(2..3));
        vouched.digests(PieceIndex(3), &digests(3..5));
        vouched.seal(PieceIndex(3), 2, Seal([2; 32]));
        vouched.digests(PieceIndex(5), &digests(5..6));
        vouched.seal(PieceIndex(5), 2, Seal([3; 32]));
        vouched.seal(PieceIndex(5), 1, Seal([3; 32]));
        assert_eq!(shown(&vouched), [(0, 2, 1), (3, 2, 2)]);

        // Another supernode vouches for all of it in one go.
        vouched.digests(PieceIndex(0), &digests(0..8));
        vouched.seal(PieceIndex(0), 8, Seal([4; 32]));
        assert_eq!(shown(&vouched), [(0, 8, 4)]);
    }

    #[test]
    fn what_is_beyond_the_end_or_of_another_length_is_not_kept() {
        let mut vouched = Vouched::default();
        vouched.joined(Geometry::of(4 * 256 * 1024).unwrap());
        vouched.digests(PieceIndex(3), &digests(0..2));
        vouched.seal(PieceIndex(3), 2, Seal([1; 32]));
        assert_eq!(shown(&vouched), []);
        vouched.digests(PieceIndex(2), &digests(0..2));
        vouched.seal(PieceIndex(2), 2, Seal([1; 32]));
        assert_eq!(shown(&vouched), [(2, 2, 1)]);
        vouched.joined(Geometry::of(5 * 256 * 1024).unwrap());
        assert_eq!(shown(&vouched), []);
    }
}
