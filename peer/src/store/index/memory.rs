//! The index of an engine that lives for one download, and of tests: gone with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Index, Visit};
use crate::store::error::IndexError;

/// An index in memory.
#[derive(Default)]
pub(in crate::store) struct MemoryIndex(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

// === impl MemoryIndex ===

impl MemoryIndex {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.map().get(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, IndexError> {
        Ok(self.map().insert(key.to_vec(), value.to_vec()).is_none())
    }

    fn delete(&self, key: &[u8]) -> Result<bool, IndexError> {
        Ok(self.map().remove(key).is_some())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let map = self.map();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        for (key, value) in map.range::<[u8], _>(from).take_while(|(key, _)| key.starts_with(prefix)) {
            visit(key, value);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_every_index_holds() {
        crate::store::index::suite::holds(&|| Box::new(MemoryIndex::default()), false);
    }
}
