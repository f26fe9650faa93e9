//! Which members are turned out, as each supernode said it last. A list replaces the one before of the same supernode, so
//! that a node is let in again as soon as every supernode that turned it out has taken it back, or its time is over.
//! [`super::standing`] keeps it on disk.

use std::collections::HashMap;
use std::time::SystemTime;

use common::identity::{Revocation, Seal};
use common::node::NodeId;
use common::wire::swarm::MAX_ENTRIES;
use serde::{Deserialize, Serialize};

/// Supernodes whose lists are kept: all of them fit into the 4 MiB that are read of a file here. The one that has been
/// silent longest goes first.
const MOST: usize = 6;

/// The lists.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    /// The supernode that spoke last comes last.
    lists: Vec<(NodeId, Vec<Revocation>)>,
}

/// As it is written down.
#[derive(Serialize, Deserialize)]
struct Page {
    supernodes: Vec<Said>,
}

#[derive(Serialize, Deserialize)]
struct Said {
    by: String,
    nodes: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    node: String,
    until: u64,
    seal: String,
}

// === impl Hearsay ===

impl Hearsay {
    /// A supernode says who is turned out; says whether that is other than before.
    pub(super) fn said(&mut self, by: NodeId, mut list: Vec<Revocation>) -> bool {
        list.truncate(MAX_ENTRIES);
        let before = self.lists.iter().position(|(supernode, _)| *supernode == by);
        let before = before.map(|at| self.lists.remove(at).1).unwrap_or_default();
        let news = before != list;
        if !list.is_empty() {
            if self.lists.len() >= MOST {
                self.lists.remove(0);
            }
            self.lists.push((by, list));
        }
        news
    }

    /// Who is turned out, each until its time.
    pub(super) fn turned_out(&self, now: SystemTime) -> HashMap<NodeId, u64> {
        let mut turned_out = HashMap::new();
        for revocation in self.alive(now) {
            let until = turned_out.entry(revocation.node).or_default();
            *until = revocation.until.max(*until);
        }
        turned_out
    }

    /// What supernodes other than this one said: at most [`MAX_ENTRIES`], each node once.
    pub(super) fn for_another(&self, supernode: NodeId, now: SystemTime) -> Vec<Revocation> {
        let mut latest: HashMap<NodeId, Revocation> = HashMap::new();
        for (_, list) in self.lists.iter().filter(|(by, _)| *by != supernode) {
            for revocation in list.iter().filter(|revocation| revocation.is_alive(now)) {
                let kept = latest.entry(revocation.node).or_insert(*revocation);
                if kept.until < revocation.until {
                    *kept = *revocation;
                }
            }
        }
        latest.into_values().take(MAX_ENTRIES).collect()
    }

    fn alive(&self, now: SystemTime) -> impl Iterator<Item = &Revocation> {
        self.lists.iter().flat_map(|(_, list)| list).filter(move |revocation| revocation.is_alive(now))
    }

    /// As text.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let record = |revocation: &Revocation| Record {
            node: revocation.node.to_string(),
            until: revocation.until,
            seal: hex::encode(revocation.seal.0),
        };
        let said = |(by, list): &(NodeId, Vec<Revocation>)| Said {
            by: by.to_string(),
            nodes: list.iter().map(record).collect(),
        };
        let page = Page { supernodes: self.lists.iter().map(said).collect() };
        serde_json::to_vec(&page).expect("invariant: strings and numbers make JSON")
    }

    /// Reads what [`Hearsay::to_json`] wrote; `None` when it is something else.
    pub(super) fn from_json(text: &[u8]) -> Option<Self> {
        let page: Page = serde_json::from_slice(text).ok()?;
        let mut hearsay = Self::default();
        for said in page.supernodes {
            let revocation = |record: &Record| {
                let mut seal = [0; 32];
                hex::decode_to_slice(&record.seal, &mut seal).ok()?;
                Some(Revocation { node: record.node.parse().ok()?, until: record.until, seal: Seal(seal) })
            };
            let list = said.nodes.iter().map(revocation).collect::<Option<Vec<_>>>()?;
            hearsay.said(said.by.parse().ok()?, list);
        }
        Some(hearsay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn out(number: u8, until: u64) -> Revocation {
        Revocation { node: node(number), until, seal: Seal([number; 32]) }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_let_in_again_when_all_who_turned_it_out_have_taken_it_back() {
        let (one, two) = (node(201), node(202));
        let mut hearsay = Hearsay::default();
        assert!(hearsay.said(one, vec![out(1, 100), out(2, 100)]));
        assert!(!hearsay.said(one, vec![out(1, 100), out(2, 100)]), "no news");
        assert!(hearsay.said(two, vec![out(1, 200)]));
        assert_eq!(hearsay.turned_out(at(50)), HashMap::from([(node(1), 200), (node(2), 100)]));
        assert_eq!(hearsay.for_another(one, at(50)), [out(1, 200)]);
        assert!(hearsay.said(one, vec![]));
        assert_eq!(hearsay.turned_out(at(50)), HashMap::from([(node(1), 200)]));
        assert!(hearsay.turned_out(at(200)).is_empty(), "its time is over");
        assert!(hearsay.said(two, vec![]) && hearsay.turned_out(at(50)).is_empty());
    }

    #[test]
    fn no_more_is_kept_than_can_be_read_again() {
        let mut hearsay = Hearsay::default();
        for supernode in 0..10 {
            let list = (0..2 * MAX_ENTRIES).map(|_| out(supernode, u64::MAX));
            hearsay.said(node(supernode), list.collect());
        }
        let text = hearsay.to_json();
        assert!(text.len() < 4 << 20, "{}", text.len());
        let turned_out = Hearsay::from_json(&text).unwrap().turned_out(at(1));
        assert!(turned_out.contains_key(&node(9)) && !turned_out.contains_key(&node(0)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(lists: Vec<(u8, Vec<(u8, u64)>)>, garbage: Vec<u8>) {
            let mut hearsay = Hearsay::default();
            for (by, list) in lists {
                hearsay.said(node(by), list.into_iter().map(|(number, until)| out(number, until)).collect());
            }
            let again = Hearsay::from_json(&hearsay.to_json()).unwrap();
            prop_assert_eq!(again.lists, hearsay.lists);
            prop_assert!(Hearsay::from_json(&garbage).is_none());
        }
    }
}
