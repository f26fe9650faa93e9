//! Places for those who are not known yet: handshakes that are under way, and strangers who wait for a certificate. Asked by the
//! [acceptor](super::accept) before anything is spent on a dialler.
//!
//! # Invariants
//! - There are never more places taken than there are.
//! - A source takes at most as many as it leaves free: one host that takes all that it can has half of them, the next a
//!   quarter, and whoever has none yet finds some.
//! - An IPv6 host has a whole /64 to dial from, so all of that is one source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of an IPv6 address that its host cannot choose.
const NETWORK: u128 = !0 << 64;

/// All places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Table>>);

/// A taken place; free again when dropped.
pub(super) struct Place {
    places: Places,
    source: Source,
}

/// Where somebody dials from, as far as it is somebody else than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

/// Who holds how many.
struct Table {
    free: usize,
    held: HashMap<Source, usize>,
}

// === impl Places ===

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { free: count, held: HashMap::new() })))
    }

    /// A place for somebody from this address, if there is one.
    pub(super) fn take(&self, from: IpAddr) -> Option<Place> {
        let source = Source::of(from);
        self.lock().take(source).then(|| Place { places: self.clone(), source })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().held.values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in between can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(self.source);
    }
}

// === impl Source ===

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()),
            address => Self(address),
        }
    }
}

// === impl Table ===

impl Table {
    fn take(&mut self, source: Source) -> bool {
        let held = self.held.get(&source).copied().unwrap_or_default();
        if held >= self.free {
            return false;
        }
        self.free -= 1;
        self.held.insert(source, held + 1);
        true
    }

    fn give_back(&mut self, source: Source) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COUNT: usize = 1024;

    /// Takes until there are none for it.
    fn crowd(places: &Places, from: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(from.parse().unwrap())).collect()
    }

    #[test]
    fn a_host_that_takes_all_it_can_keeps_no_other_out() {
        let places = Places::new(COUNT);
        let first = crowd(&places, "10.0.0.1");
        assert_eq!(first.len(), COUNT / 2);
        let more: Vec<_> = (2..8).map(|host| crowd(&places, &format!("10.0.0.{host}"))).collect();
        assert_eq!(more[0].len(), COUNT / 4);
        assert!(places.take([10, 0, 0, 1].into()).is_none());
        assert!(places.take([10, 0, 0, 99].into()).is_some(), "even beside seven greedy ones");
        drop(first);
        assert!(crowd(&places, "10.0.0.99").len() >= COUNT / 4, "what is given up is free again");
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_source_and_mapped_ones_are_ipv4() {
        let places = Places::new(COUNT);
        let taken = crowd(&places, "2001:db8::1");
        assert!(places.take("2001:db8::ffff:2".parse().unwrap()).is_none());
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_some());
        drop(taken);
        let _taken = crowd(&places, "::ffff:10.0.0.1");
        assert!(places.take([10, 0, 0, 1].into()).is_none());
        assert!(places.take("::ffff:10.0.0.2".parse().unwrap()).is_some());
    }

    proptest! {
        #[test]
        fn places_are_neither_lost_nor_made(deeds in prop::collection::vec((0u8..5, any::<bool>()), 0..200)) {
            let places = Places::new(32);
            let mut held: Vec<Place> = Vec::new();
            for (host, give_back) in deeds {
                if give_back {
                    held.pop();
                } else {
                    held.extend(places.take([10, 0, 0, host].into()));
                }
                prop_assert_eq!(places.taken(), held.len());
                prop_assert_eq!(places.lock().free + held.len(), 32);
                prop_assert!(places.take([10, 0, 1, 0].into()).is_some(), "who has none finds one");
            }
            drop(held);
            prop_assert!(places.lock().held.is_empty());
        }
    }
}
