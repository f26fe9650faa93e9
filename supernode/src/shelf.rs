//! Things that have a number, kept as notes in the seed's index: jobs of [`crate::preheat`] and [`crate::schedules`] for them.
//!
//! # Invariants
//! - No number is given twice, even after what had it was forgotten.
//! - What cannot be read stays where it is: another release may read it.

use std::collections::BTreeMap;

use peer::store::{Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where things of a kind are, and what they are called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// For people.
    pub(crate) word: &'static str,
    /// What the names of their notes begin with.
    pub(crate) one: &'static str,
    /// The note with the last number that was given.
    pub(crate) last: &'static str,
}

/// The things of a kind. Everything blocks, and fails when the index does.
#[derive(Clone)]
pub(crate) struct Shelf {
    store: Store,
    kind: Kind,
}

// === impl Kind ===

impl Kind {
    fn name(self, number: u64) -> String {
        format!("{}{number:020}", self.one)
    }
}

// === impl Shelf ===

impl Shelf {
    /// In this store.
    pub(crate) fn new(store: Store, kind: Kind) -> Self {
        Self { store, kind }
    }

    /// All things by their numbers, and the last number given; none where nothing was ever written.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<(BTreeMap<u64, T>, Option<u64>), StoreError> {
        let Kind { word, one, last } = self.kind;
        let (mut things, mut highest) = (BTreeMap::new(), None);
        for (name, text) in self.store.notes(one)? {
            let number = name.strip_prefix(one).and_then(|number| number.parse().ok());
            highest = highest.max(number);
            match (number, serde_json::from_slice(&text)) {
                (Some(number), Ok(thing)) => drop(things.insert(number, thing)),
                (None, _) => tracing::warn!("the {word} {name:?} has no number and rests"),
                (_, Err(error)) => tracing::warn!("the {word} {name:?} cannot be read and rests: {error}"),
            }
        }
        let notes = self.store.notes(last)?.into_iter();
        let last = notes.filter_map(|(_, text)| String::from_utf8(text).ok()?.parse().ok()).next();
        Ok((things, last.max(highest)))
    }

    /// Notes that a number is given.
    pub(crate) fn give(&self, number: u64) -> Result<(), StoreError> {
        self.store.write_note(self.kind.last, number.to_string().as_bytes())
    }

    /// Writes one down.
    pub(crate) fn write(&self, number: u64, thing: &impl Serialize) -> Result<(), StoreError> {
        let text = serde_json::to_vec(thing).expect("invariant: what is kept is JSON");
        self.store.write_note(&self.kind.name(number), &text)
    }

    /// Forgets one.
    pub(crate) fn forget(&self, number: u64) -> Result<(), StoreError> {
        self.store.remove_note(&self.kind.name(number))
    }
}

#[cfg(test)]
mod tests {
    use peer::store::StoreOptions;

    use super::*;

    const KIND: Kind = Kind { word: "thing", one: "test/thing/", last: "test/last" };

    #[test]
    fn things_outlive_the_process_and_numbers_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            || Store::open(dir.path(), StoreOptions { durable: true, ..StoreOptions::default() }).unwrap();
        let read = |kind| Shelf::new(open(), kind).read::<String>().unwrap();
        let shelf = Shelf::new(open(), KIND);
        shelf.give(12).unwrap();
        shelf.write(2, &"two").unwrap();
        shelf.write(12, &"twelve").unwrap();
        shelf.forget(12).unwrap();
        shelf.store.write_note("test/thing/x", b"\"no number\"").unwrap();
        drop(shelf);
        assert_eq!(read(KIND), (BTreeMap::from([(2, "two".to_owned())]), Some(12)));
        // What this release cannot read has its number all the same, and stays.
        Shelf::new(open(), KIND).write(14, &14).unwrap();
        assert_eq!(read(KIND), (BTreeMap::from([(2, "two".to_owned())]), Some(14)));
        assert_eq!(Shelf::new(open(), KIND).store.notes(KIND.one).unwrap().len(), 3);
        assert_eq!(read(Kind { one: "test/other/", last: "test/others", ..KIND }), (BTreeMap::new(), None));
    }
}
