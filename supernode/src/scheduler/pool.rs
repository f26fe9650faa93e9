//! Bags of seats to draw candidates from: who could be a trunk, by depth, and who has slots left for the mesh, by
//! place. The [swarm](super::swarm) keeps them; [`tree`](super::tree) and [`parents`](super::parents) draw.
//!
//! They are why a join costs the same in a swarm of 10 and of 100,000: a draw looks at a few seats, never at all. A
//! sitter looks its groups up when it comes and knows them by number from then on.

use std::collections::{BTreeMap, HashMap};

use rand::Rng;
use rand::rngs::SmallRng;

use super::sitter::Seat;
use crate::tracker::Place;

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those with slots left for mesh children on one host.
    Host,
    /// In one rack.
    Rack,
    /// In one zone.
    Zone,
    /// Anywhere.
    All,
    /// Those with room for a trunk child in one zone, by rank.
    TrunkZone,
    /// The same over all zones.
    TrunkAll,
}

/// Number of [`Kind`]s.
pub(super) const KINDS: usize = 6;

/// Ranks below this have their pools in a row.
const SHALLOW: u32 = 32;

/// The number of a host, rack or zone within a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(u32);

/// The group of everybody.
const EVERYBODY: Group = Group(0);

/// Whom a sitter is grouped with: on its host, in its rack, in its zone; none where the label is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    host: Option<Group>,
    rack: Option<Group>,
    zone: Group,
}

/// Which pool: `rank` orders the trunk pools, best first, and is 0 for the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) group: Group,
    pub(super) rank: u32,
}

/// The pools of one group.
#[derive(Debug, Default)]
struct Pooled {
    label: (u8, u64),
    /// Sitters that are of this group; without any it is forgotten.
    users: u32,
    mesh: Vec<Seat>,
    trunks: Ranked,
}

/// Trunk pools by rank. Nearly all ranks are small depths.
#[derive(Debug, Default)]
struct Ranked {
    shallow: Vec<Vec<Seat>>,
    /// The deep and the quarantined; an empty one is not kept.
    rest: BTreeMap<u32, Vec<Seat>>,
}

/// All pools of a swarm.
#[derive(Debug)]
pub(super) struct Pools {
    groups: Vec<Pooled>,
    free: Vec<Group>,
    /// By kind and label. Looked up, never walked: its order decides nothing.
    numbers: HashMap<(u8, u64), Group>,
}

// === impl Groups ===

impl Groups {
    /// Of somebody who is nowhere in particular.
    pub(super) const NONE: Self = Self { host: None, rack: None, zone: EVERYBODY };

    /// The group whose pool of a kind this is, if there is one.
    pub(super) fn of(&self, kind: Kind) -> Option<Group> {
        match kind {
            Kind::TrunkZone | Kind::Zone => Some(self.zone),
            Kind::TrunkAll | Kind::All => Some(EVERYBODY),
            Kind::Rack => self.rack,
            Kind::Host => self.host,
        }
    }
}

// === impl Ranked ===

impl Ranked {
    fn pool(&mut self, rank: u32) -> &mut Vec<Seat> {
        if rank >= SHALLOW {
            return self.rest.entry(rank).or_default();
        }
        let index = rank as usize;
        if index >= self.shallow.len() {
            self.shallow.resize_with(index + 1, Vec::new);
        }
        &mut self.shallow[index]
    }

    /// Those with anybody in them, best rank first.
    fn pools(&self) -> impl Iterator<Item = (u32, &[Seat])> {
        let shallow = (0..).zip(&self.shallow).filter(|(_, pool)| !pool.is_empty());
        shallow.chain(self.rest.iter().map(|(&rank, pool)| (rank, pool))).map(|(rank, pool)| (rank, &**pool))
    }
}

// === impl Pools ===

impl Default for Pools {
    fn default() -> Self {
        // Everybody, and the one zone that most swarms have.
        let mut groups = Vec::with_capacity(2);
        groups.push(Pooled::default());
        Self { groups, free: Vec::new(), numbers: HashMap::new() }
    }
}

impl Pools {
    /// Number of groups that there is room for, those that nobody is in any more among them.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The groups of a newcomer at a place.
    pub(super) fn enter(&mut self, place: Place) -> Groups {
        let mut known = |kind: Kind, label: u64| (label != 0).then(|| self.group((kind as u8, label)));
        let (host, rack) = (known(Kind::Host, place.host), known(Kind::Rack, place.rack));
        // Unlabelled nodes share a zone.
        Groups { host, rack, zone: self.group((Kind::Zone as u8, place.zone)) }
    }

    /// Somebody who is in no pool any more goes.
    pub(super) fn leave(&mut self, groups: Groups) {
        for group in [groups.host, groups.rack, Some(groups.zone)].into_iter().flatten() {
            let pooled = &mut self.groups[group.0 as usize];
            pooled.users -= 1;
            if pooled.users == 0 {
                debug_assert!(pooled.mesh.is_empty() && pooled.trunks.pools().next().is_none());
                self.numbers.remove(&pooled.label);
                *pooled = Pooled::default();
                self.free.push(group);
            }
        }
    }

    fn group(&mut self, label: (u8, u64)) -> Group {
        let group = *self.numbers.entry(label).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.groups.push(Pooled::default());
                Group(self.groups.len() as u32 - 1)
            })
        });
        let pooled = &mut self.groups[group.0 as usize];
        pooled.label = label;
        pooled.users += 1;
        group
    }

    /// Puts a seat in; gives the spot that it must be taken from.
    pub(super) fn put(&mut self, Key { kind, group, rank }: Key, seat: Seat) -> u32 {
        let pooled = &mut self.groups[group.0 as usize];
        let pool = match kind {
            Kind::TrunkZone | Kind::TrunkAll => pooled.trunks.pool(rank),
            _ => &mut pooled.mesh,
        };
        pool.push(seat);
        pool.len() as u32 - 1
    }

    /// Takes the seat at a spot out; gives the seat that moved there in its stead.
    pub(super) fn take(&mut self, Key { kind, group, rank }: Key, spot: u32) -> Option<Seat> {
        let Pooled { mesh, trunks, .. } = &mut self.groups[group.0 as usize];
        let ranked = matches!(kind, Kind::TrunkZone | Kind::TrunkAll);
        let pool = if ranked { trunks.pool(rank) } else { mesh };
        pool.swap_remove(spot as usize);
        let moved = pool.get(spot as usize).copied();
        if ranked && rank >= SHALLOW && pool.is_empty() {
            trunks.rest.remove(&rank);
        }
        moved
    }

    /// The trunk pools of a group, best rank first.
    pub(super) fn ranks(&self, group: Group) -> impl Iterator<Item = (u32, &[Seat])> {
        self.groups[group.0 as usize].trunks.pools()
    }

    /// Whether anybody anywhere has room for a trunk child.
    pub(super) fn any_trunk(&self) -> bool {
        self.ranks(EVERYBODY).next().is_some()
    }

    /// Draws up to `count` of a group that have slots left for mesh children into `drawn`.
    pub(super) fn draw(&self, group: Group, count: usize, rng: &mut SmallRng, drawn: &mut Vec<Seat>) {
        draw(&self.groups[group.0 as usize].mesh, count, rng, drawn);
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
    fn taking_out_tells_who_moved_and_groups_without_anybody_are_forgotten() {
        let mut pools = Pools::default();
        let place = Place { zone: 0, rack: 0, host: 7 };
        let (groups, again) = (pools.enter(place), pools.enter(place));
        assert_eq!((groups.of(Kind::Rack), groups.of(Kind::Host)), (None, again.of(Kind::Host)));
        let key = Key { kind: Kind::Host, group: groups.host.unwrap(), rank: 0 };
        assert_eq!((pools.put(key, Seat(1)), pools.put(key, Seat(2))), (0, 1));
        assert_eq!(pools.take(key, 0), Some(Seat(2)));
        assert_eq!(pools.take(key, 0), None);
        for rank in [3, SHALLOW, 3] {
            let key = Key { kind: Kind::TrunkAll, group: EVERYBODY, rank };
            pools.put(key, Seat(1));
            assert_eq!(pools.ranks(EVERYBODY).collect::<Vec<_>>(), [(rank, &[Seat(1)][..])]);
            assert!(pools.any_trunk() && pools.take(key, 0).is_none() && !pools.any_trunk());
        }
        pools.leave(groups);
        assert_eq!(pools.numbers.len(), 2);
        pools.leave(again);
        assert!(pools.numbers.is_empty() && pools.free.len() == 2);
    }
}
