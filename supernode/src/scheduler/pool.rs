//! Bags of seats to draw candidates from: who could be a trunk, by depth, and who has slots left for the mesh, by
//! place. The [swarm](super::swarm) keeps them; [`tree`](super::tree) and [`parents`](super::parents) draw.
//!
//! They are why a join costs the same in a swarm of 10 and of 100,000: a draw looks at a few seats, never at all.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

use super::sitter::Seat;

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Those with room for a trunk child in one zone, one pool per rank.
    TrunkZone,
    /// The same over all zones.
    TrunkAll,
    /// Those with slots left for mesh children on one host.
    Host,
    /// In one rack.
    Rack,
    /// In one zone.
    Zone,
    /// Anywhere.
    All,
}

/// Number of [`Kind`]s.
pub(super) const KINDS: usize = 6;

/// Which pool: `group` is the label's number, `rank` orders the trunk pools, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) group: u64,
    pub(super) rank: u32,
}

/// All pools of a swarm; an empty one is not kept.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<Key, Vec<Seat>>);

// === impl Pools ===

impl Pools {
    /// Puts a seat in; gives the spot that it must be taken from.
    pub(super) fn put(&mut self, key: Key, seat: Seat) -> u32 {
        let pool = self.0.entry(key).or_default();
        pool.push(seat);
        pool.len() as u32 - 1
    }

    /// Takes the seat at a spot out; gives the seat that moved there in its stead.
    pub(super) fn take(&mut self, key: Key, spot: u32) -> Option<Seat> {
        let pool = self.0.get_mut(&key).expect("invariant: a shelved seat's pool exists");
        pool.swap_remove(spot as usize);
        let moved = pool.get(spot as usize).copied();
        if pool.is_empty() {
            self.0.remove(&key);
        }
        moved
    }

    /// The pools of a group, best rank first.
    pub(super) fn ranks(&self, kind: Kind, group: u64) -> impl Iterator<Item = (u32, &[Seat])> {
        let key = |rank| Key { kind, group, rank };
        self.0.range(key(0)..=key(u32::MAX)).map(|(key, pool)| (key.rank, pool.as_slice()))
    }

    /// Whether anybody anywhere has room for a trunk child.
    pub(super) fn any_trunk(&self) -> bool {
        self.ranks(Kind::TrunkAll, 0).next().is_some()
    }

    /// Draws up to `count` seats of an unranked pool into `drawn`.
    pub(super) fn draw(
        &self,
        kind: Kind,
        group: u64,
        count: usize,
        rng: &mut SmallRng,
        drawn: &mut Vec<Seat>,
    ) {
        if let Some(pool) = self.0.get(&Key { kind, group, rank: 0 }) {
            draw(pool, count, rng, drawn);
        }
    }
}

/// Draws up to `count` different seats of a pool at random, without a set or a shuffle.
pub(super) fn draw(pool: &[Seat], count: usize, rng: &mut SmallRng, drawn: &mut Vec<Seat>) {
    if pool.is_empty() {
        return;
    }
    if pool.len() <= count {
        let start = rng.random_range(0..pool.len());
        drawn.extend_from_slice(&pool[start..]);
        drawn.extend_from_slice(&pool[..start]);
        return;
    }
    // A stratum each: different by construction, and every seat is equally likely.
    for part in 0..count {
        let (from, to) = (part * pool.len() / count, (part + 1) * pool.len() / count);
        drawn.push(pool[rng.random_range(from..to)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_draw_gives_different_seats_and_reaches_all() {
        let pool: Vec<Seat> = (1..=50).map(Seat).collect();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for count in (0..60).chain([8; 200]) {
            let mut drawn = Vec::new();
            draw(&pool, count, &mut rng, &mut drawn);
            assert_eq!(drawn.len(), count.min(50));
            let different: std::collections::BTreeSet<_> = drawn.iter().copied().collect();
            assert_eq!(different.len(), drawn.len());
            seen.extend(different);
        }
        assert_eq!(seen.len(), 50);
    }

    #[test]
    fn taking_out_tells_who_moved_and_drops_empty_pools() {
        let key = Key { kind: Kind::All, group: 0, rank: 0 };
        let mut pools = Pools::default();
        assert_eq!((pools.put(key, Seat(1)), pools.put(key, Seat(2))), (0, 1));
        assert_eq!(pools.take(key, 0), Some(Seat(2)));
        assert_eq!(pools.take(key, 0), None);
        assert!(pools.0.is_empty());
    }
}
