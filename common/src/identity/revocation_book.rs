//! The cluster's list of members that are turned out, `revoked.json` in the cluster's folder. `longshore node` changes
//! it; every supernode of the folder reads it, and writes down what it hears of others. Calls are short but touch the
//! disk: keep them off the async threads.
//!
//! Entries carry no seal here: the CA's key lies beside them, so who can write this file could seal as well, and a seal
//! would have to be made anew at every rotation. [`super::Revocation`] is made when an entry is told.
//!
//! # Taking a revocation back
//! An entry that was taken back stays, as a note that whatever revokes the node *up to its time* is void; otherwise the
//! next peer that heard of it would bring it back. A new revocation of the node ends later than that, and so counts.
//! Supernodes with copies of the folder do not see each other's notes: take it back at each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{IdentityError, files};
use crate::node::NodeId;
use crate::wire::swarm::MAX_ENTRIES;

/// The book's name in the cluster's folder.
const NAME: &str = "revoked.json";

/// The cluster's revocations.
#[derive(Clone, Debug)]
pub struct RevocationBook {
    path: PathBuf,
    lock: PathBuf,
}

/// What the book says of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationEntry {
    /// Who.
    pub node: NodeId,
    /// Until when, in seconds since 1970.
    pub until: u64,
    /// Whether it was taken back.
    pub allowed: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    nodes: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    node: String,
    until: u64,
    #[serde(default)]
    allowed: bool,
}

type Entries = HashMap<NodeId, RevocationEntry>;

// === impl RevocationBook ===

impl RevocationBook {
    /// The book in a cluster's folder; without a file it is empty.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(NAME), lock: dir.join("revoked.lock") }
    }

    /// All entries, in the order of the nodes.
    ///
    /// # Errors
    /// When the book cannot be read.
    pub fn list(&self) -> Result<Vec<RevocationEntry>, IdentityError> {
        let mut entries: Vec<_> = self.read()?.into_values().collect();
        entries.sort_by_key(|entry| entry.node);
        Ok(entries)
    }

    /// Turns a node out until `until`, or later if it was before; gives the time.
    ///
    /// # Errors
    /// When the book is full, or cannot be read or written.
    pub fn revoke(&self, node: NodeId, until: SystemTime, now: SystemTime) -> Result<u64, IdentityError> {
        self.change(now, |entries| {
            let wanted = seconds(until);
            let until = match entries.get(&node) {
                // Later than what was taken back, or it would be void.
                Some(old) if old.allowed => wanted.max(old.until + 1),
                Some(old) => wanted.max(old.until),
                None => wanted,
            };
            entries.insert(node, RevocationEntry { node, until, allowed: false });
            Ok(until)
        })
    }

    /// Takes a node's revocation back.
    ///
    /// # Errors
    /// When it is not turned out, or the book cannot be read or written.
    pub fn allow(&self, node: NodeId, now: SystemTime) -> Result<(), IdentityError> {
        self.change(now, |entries| match entries.get_mut(&node) {
            Some(entry) if !entry.allowed => {
                entry.allowed = true;
                Ok(())
            }
            _ => Err(IdentityError::NotRevoked(node)),
        })
    }

    /// Writes down what was heard of other supernodes, as far as it is news.
    ///
    /// # Errors
    /// When the book is full, or cannot be read or written.
    pub fn take_in(&self, heard: &[(NodeId, u64)], now: SystemTime) -> Result<(), IdentityError> {
        if !heard.is_empty() {
            self.change(now, |entries| {
                for &(node, until) in heard {
                    if entries.get(&node).is_none_or(|old| old.until < until) {
                        entries.insert(node, RevocationEntry { node, until, allowed: false });
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn change<T>(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut Entries) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        let _lock = files::lock(&self.lock)?;
        let mut entries = self.read()?;
        entries.retain(|_, entry| seconds(now) < entry.until);
        let changed = change(&mut entries)?;
        // The whole list is one message to each peer.
        if entries.len() > MAX_ENTRIES {
            return Err(IdentityError::TooManyRevoked);
        }
        let mut nodes: Vec<_> = entries.into_values().map(Record::from).collect();
        nodes.sort_by(|one, two| one.node.cmp(&two.node));
        let text =
            serde_json::to_vec_pretty(&Page { nodes }).expect("invariant: strings and numbers make JSON");
        files::write_secret(&self.path, &text)?;
        Ok(changed)
    }

    fn read(&self) -> Result<Entries, IdentityError> {
        let Some(bytes) = files::read(&self.path)? else { return Ok(Entries::new()) };
        let damaged = || IdentityError::Damaged {
            path: self.path.clone(),
            what: "list of revoked nodes of this release",
            way_out: "restore it from a backup, or move it aside and revoke the nodes again",
        };
        let page: Page = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let entries = page.nodes.iter().take(MAX_ENTRIES).map(|record| {
            let node: NodeId = record.node.parse().map_err(|_| damaged())?;
            Ok((node, RevocationEntry { node, until: record.until, allowed: record.allowed }))
        });
        entries.collect()
    }
}

impl From<RevocationEntry> for Record {
    fn from(entry: RevocationEntry) -> Self {
        let RevocationEntry { node, until, allowed } = entry;
        Self { node: node.to_string(), until, allowed }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NODE: NodeId = NodeId([7; 16]);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn out(book: &RevocationBook) -> Vec<(u64, bool)> {
        book.list().unwrap().iter().map(|entry| (entry.until, entry.allowed)).collect()
    }

    #[test]
    fn what_was_taken_back_is_not_brought_back_by_hearsay_but_by_a_new_revocation() {
        let dir = tempfile::tempdir().unwrap();
        let book = RevocationBook::new(dir.path());
        assert!(out(&book).is_empty());
        assert!(matches!(book.allow(NODE, at(1)), Err(IdentityError::NotRevoked(_))));
        assert_eq!(book.revoke(NODE, at(100), at(1)).unwrap(), 100);
        book.allow(NODE, at(2)).unwrap();
        book.take_in(&[(NODE, 100)], at(3)).unwrap();
        assert_eq!(out(&book), [(100, true)]);
        assert_eq!(book.revoke(NODE, at(50), at(4)).unwrap(), 101, "later than what was taken back");
        book.take_in(&[(NODE, 90)], at(5)).unwrap();
        assert_eq!(out(&book), [(101, false)]);
        book.allow(NODE, at(6)).unwrap();
        book.take_in(&[(NODE, 102)], at(7)).unwrap();
        assert_eq!(out(&RevocationBook::new(dir.path())), [(102, false)], "another supernode said it later");
    }

    #[test]
    fn entries_end_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let book = RevocationBook::new(dir.path());
        book.revoke(NODE, at(100), at(1)).unwrap();
        book.revoke(NodeId([8; 16]), at(300), at(200)).unwrap();
        assert_eq!(out(&book), [(300, false)]);
        std::fs::write(dir.path().join(NAME), b"{}").unwrap();
        assert!(book.list().unwrap_err().to_string().contains(NAME));
    }

    #[test]
    fn a_full_book_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let book = RevocationBook::new(dir.path());
        let node = |number: usize| NodeId((number as u128).to_le_bytes());
        let many: Vec<_> = (0..MAX_ENTRIES).map(|number| (node(number), 100)).collect();
        book.take_in(&many, at(1)).unwrap();
        assert!(matches!(book.revoke(node(MAX_ENTRIES), at(100), at(1)), Err(IdentityError::TooManyRevoked)));
        assert_eq!(out(&book).len(), MAX_ENTRIES);
    }
}
