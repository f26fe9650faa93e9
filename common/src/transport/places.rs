//! Places for those who are not known yet: handshakes that are under way, and strangers who wait for a certificate. Asked by the
//! [acceptor](super::accept) before anything is spent on a dialler.
//!
//! While there are places, whoever comes gets one. When all are taken, the part of the network that holds most loses its
//! youngest to whoever holds fewer: first of the wide networks, then of the networks in them, then of the hosts. So a crowd of
//! diallers from one place, however many addresses it has there, keeps out its own kind first.
//!
//! # Invariants
//! - There are never more places taken than there are.
//! - Who holds two places less than another, at any of these levels, gets one of that other's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Bits that are alike in a wide network, a network and a host: what a site is given, a LAN, an address.
const IPV6: [u8; 3] = [48, 64, 128];
/// The same of IPv4, written as a mapped IPv6 address.
const IPV4: [u8; 3] = [96 + 16, 96 + 24, 128];

/// All places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Table>>);

/// A taken place; free again when dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    lost: CancellationToken,
}

/// A part of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    level: usize,
    prefix: u8,
    bits: u128,
}

/// Who holds a place.
struct Holder {
    parts: [Part; 3],
    lost: CancellationToken,
}

/// Who holds how many.
struct Table {
    count: usize,
    next: u64,
    /// Oldest first.
    holders: BTreeMap<u64, Holder>,
    held: HashMap<Part, usize>,
}

// === impl Places ===

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let (holders, held) = (BTreeMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Table { count, next: 0, holders, held })))
    }

    /// A place for somebody from this address, if there is one.
    pub(super) fn take(&self, from: IpAddr) -> Option<Place> {
        let (number, lost) = self.lock().take(from)?;
        Some(Place { places: self.clone(), number, lost })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().holders.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in between can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place {
    /// Waits until the place is somebody else's.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(self.number);
    }
}

// === impl Part ===

impl Part {
    fn of(address: IpAddr) -> [Self; 3] {
        let (bits, prefixes) = match address.to_canonical() {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), IPV4),
            IpAddr::V6(address) => (address.to_bits(), IPV6),
        };
        [0, 1, 2].map(|level| {
            let prefix = prefixes[level];
            Self { level, prefix, bits: masked(bits, prefix) }
        })
    }

    fn holds(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && masked(other.bits, self.prefix) == self.bits
    }
}

/// Where somebody dials from, as far as it is not its own to choose: an IPv4 address, or the network of an IPv6 one.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(masked(address.to_bits(), IPV6[1])).into(),
        address => address,
    }
}

fn masked(bits: u128, prefix: u8) -> u128 {
    bits & (!0 << (128 - u32::from(prefix)))
}

// === impl Table ===

impl Table {
    fn take(&mut self, from: IpAddr) -> Option<(u64, CancellationToken)> {
        let parts = Part::of(from);
        if self.holders.len() >= self.count {
            let victim = self.victim(&parts)?;
            self.give_back(victim)?.lost.cancel();
        }
        let (number, lost) = (self.next, CancellationToken::new());
        self.next += 1;
        parts.iter().for_each(|part| *self.held.entry(*part).or_default() += 1);
        self.holders.insert(number, Holder { parts, lost: lost.clone() });
        Some((number, lost))
    }

    /// Whose place goes to somebody from there: from wide to narrow, whoever holds most.
    fn victim(&self, newcomer: &[Part; 3]) -> Option<u64> {
        let (mut within, mut elsewhere): (Option<Part>, bool) = (None, false);
        for own in newcomer {
            let most = self.most(own.level, within)?;
            elsewhere |= self.held[&most] > self.held.get(own).copied().unwrap_or_default() + 1;
            within = Some(if elsewhere { most } else { *own });
        }
        let host = within.filter(|_| elsewhere)?;
        self.holders.iter().rev().find(|(_, holder)| holder.parts[2] == host).map(|(number, _)| *number)
    }

    /// The part at a level, within a wider one, that holds most.
    fn most(&self, level: usize, within: Option<Part>) -> Option<Part> {
        let parts = self.held.iter().filter(|(part, _)| part.level == level);
        let parts = parts.filter(|(part, _)| within.is_none_or(|wide| wide.holds(part)));
        parts.max_by_key(|(part, held)| (**held, part.bits)).map(|(part, _)| *part)
    }

    fn give_back(&mut self, number: u64) -> Option<Holder> {
        let holder = self.holders.remove(&number)?;
        for part in &holder.parts {
            if let Some(held) = self.held.get_mut(part) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(part);
                }
            }
        }
        Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    const COUNT: usize = 1024;

    fn take(places: &Places, from: &str) -> Option<Place> {
        places.take(from.parse().unwrap())
    }

    /// Takes all that it gets, and as many times more in vain.
    fn crowd(places: &Places, mut from: impl FnMut(usize) -> IpAddr) -> Vec<Place> {
        (0..2 * COUNT).filter_map(|number| places.take(from(number))).collect()
    }

    fn kept(places: &[Place]) -> usize {
        places.iter().filter(|place| !place.lost.is_cancelled()).count()
    }

    #[test]
    fn a_host_that_takes_all_keeps_no_other_out_and_loses_its_youngest() {
        let places = Places::new(COUNT);
        let greedy = crowd(&places, |_| [10, 0, 0, 1].into());
        assert_eq!((greedy.len(), places.taken()), (COUNT, COUNT));
        let honest: Vec<_> = (2..200).map(|host| take(&places, &format!("10.0.0.{host}")).unwrap()).collect();
        assert_eq!((kept(&greedy), kept(&honest)), (COUNT - 198, 198));
        assert!(!greedy[0].lost.is_cancelled() && greedy[COUNT - 1].lost.is_cancelled());
        assert!(take(&places, "10.0.0.1").is_none(), "it takes nothing from others");
        drop(greedy);
        assert_eq!(places.taken(), 198);
    }

    #[test]
    fn a_site_with_many_networks_keeps_no_other_site_out() {
        let places = Places::new(COUNT);
        // A host may choose 64 bits itself, and a site 16 more.
        let many = |number: usize| {
            Ipv6Addr::from_bits(0x2001_0db8_0001_0000_0000_0000_0000_0000 + ((number as u128) << 64)).into()
        };
        let greedy = crowd(&places, many);
        let honest: Vec<_> =
            (2..400).map(|site| take(&places, &format!("2001:db8:{site:x}::1")).unwrap()).collect();
        assert_eq!(kept(&honest), 398);
        let neighbour = take(&places, "192.0.2.1").unwrap();
        assert!(!neighbour.lost.is_cancelled() && kept(&greedy) == COUNT - 399);
    }

    #[test]
    fn neighbours_in_one_network_have_their_own_shares() {
        let places = Places::new(COUNT);
        let greedy = crowd(&places, |_| "2001:db8::1".parse().unwrap());
        let near: Vec<_> =
            (2..100).map(|host| take(&places, &format!("2001:db8::{host:x}")).unwrap()).collect();
        assert_eq!((kept(&near), kept(&greedy)), (98, COUNT - 98));
        let mapped = take(&places, "::ffff:10.0.0.1").unwrap();
        assert_eq!(mapped.places.lock().held[&Part::of([10, 0, 0, 1].into())[2]], 1, "written either way");
    }

    proptest! {
        #[test]
        fn places_are_neither_lost_nor_made_and_who_has_none_finds_one(
            deeds in prop::collection::vec((any::<u8>(), 0u8..40, any::<bool>()), 0..300),
        ) {
            let places = Places::new(32);
            let mut held: Vec<Place> = Vec::new();
            for (network, host, give_back) in deeds {
                if give_back {
                    held.pop();
                } else {
                    held.extend(places.take([10, 0, network % 3, host].into()));
                }
                prop_assert_eq!(places.taken(), kept(&held));
                let most = places.lock().held.iter().filter(|(part, _)| part.level == 0).map(|(_, held)| *held).max();
                let stranger = places.take([192, 0, 2, 1].into());
                prop_assert!(stranger.is_some() || most.unwrap_or_default() < 2);
            }
            drop(held);
            let table = places.lock();
            prop_assert!(table.held.is_empty() && table.holders.is_empty());
        }
    }
}
