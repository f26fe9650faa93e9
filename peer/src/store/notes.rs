//! What a daemon wants to find again after a restart beside its blobs: short texts by name, in the index. The supernode's
//! preheat jobs are such.
//!
//! # Invariants
//! - A note that was written is there after every restart with a sound index; who needs one more than that keeps it elsewhere.

use super::Store;
use super::error::StoreError;
use super::index::{NOTE, note_key};

/// The longest note: sled is made for small values. A preheat job for as many nodes as a supernode takes (20,000), all with a
/// reason why they failed, is 11 MiB.
pub const MAX_NOTE: usize = 16 * 1024 * 1024;

// === impl Store ===

impl Store {
    /// Writes a note, or writes it anew. Blocks.
    ///
    /// # Errors
    /// When the index fails.
    pub fn write_note(&self, name: &str, text: &[u8]) -> Result<(), StoreError> {
        debug_assert!(text.len() <= MAX_NOTE, "{name} is too long");
        let index = &self.0.index;
        index.durably(|| Ok(index.put(&note_key(name), text).map(drop)?))
    }

    /// Removes a note; that there is none is no error. Blocks.
    ///
    /// # Errors
    /// When the index fails.
    pub fn remove_note(&self, name: &str) -> Result<(), StoreError> {
        let index = &self.0.index;
        index.durably(|| Ok(index.delete(&note_key(name)).map(drop)?))
    }

    /// The notes whose names begin so, by name. Blocks.
    ///
    /// # Errors
    /// When the index fails.
    pub fn notes(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut notes = Vec::new();
        self.0.index.scan(&note_key(prefix), &mut |key, text| {
            if let Some(name) = key.strip_prefix(&[NOTE]).and_then(|name| std::str::from_utf8(name).ok()) {
                notes.push((name.to_owned(), text.to_vec()));
            }
        })?;
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn notes_outlive_the_process_and_are_found_by_their_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { durable: true, ..StoreOptions::default() };
        let store = Store::open(dir.path(), options).unwrap();
        store.write_note("job/1", b"one").unwrap();
        store.write_note("job/2", b"two").unwrap();
        store.write_note("job/1", b"uno").unwrap();
        store.write_note("other", b"x").unwrap();
        store.remove_note("job/2").unwrap();
        store.remove_note("never").unwrap();
        store.write_note("longest", &vec![7; MAX_NOTE]).unwrap();
        drop(store);
        let store = Store::open(dir.path(), options).unwrap();
        assert_eq!(store.notes("job/").unwrap(), [("job/1".to_owned(), b"uno".to_vec())]);
        assert!(store.notes("longest").unwrap() == [("longest".to_owned(), vec![7; MAX_NOTE])]);
        assert_eq!(store.notes("").unwrap().len(), 3);
    }
}
