//! Which node a key belongs to, so that all machines agree without asking each other: highest random weight hashing. Each
//! node has a weight for each key, and the heaviest one has the key. Peers find the supernode of a task by it.
//!
//! # Invariants
//! - The order depends on the key and on who is there, and on nothing else: not on the machine, the release or the time.
//! - When a node goes, only its own keys move; when one comes, only those that move to it.

use crate::digest::Hasher;
use crate::node::NodeId;

/// The nodes in the order in which they are to have the key: the first one, the next one should that be away, and so on.
pub fn order(key: &[u8; 32], nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ranked: Vec<_> = nodes.into_iter().map(|node| (rank(key, node), node)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// The node that is to have the key.
pub fn first(key: &[u8; 32], nodes: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
    nodes.into_iter().min_by_key(|node| (rank(key, *node), *node))
}

/// Least first, like the ids that decide between equal weights.
fn rank(key: &[u8; 32], node: NodeId) -> u64 {
    let mut hasher = Hasher::new();
    hasher.update(key);
    hasher.update(&node.0);
    let mut weight = [0; 8];
    weight.copy_from_slice(&hasher.finish().0[..8]);
    u64::MAX - u64::from_be_bytes(weight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> [u8; 32] {
        crate::digest::Digest::of(&number.to_le_bytes()).0
    }

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    #[test]
    fn the_order_is_the_same_on_every_machine_and_in_every_release() {
        let shown =
            |number| order(&key(number), (1..=5).map(node)).iter().map(|node| node.0[0]).collect::<Vec<_>>();
        assert_eq!((0..4).map(shown).collect::<Vec<_>>(), GOLDEN);
    }

    /// Peers of different releases must agree: these lines may never change.
    const GOLDEN: [[u8; 5]; 4] = [[4, 1, 5, 2, 3], [1, 4, 3, 2, 5], [3, 1, 5, 4, 2], [1, 4, 2, 3, 5]];

    #[test]
    fn nobody_has_what_there_is_nobody_for() {
        assert_eq!(first(&key(1), []), None);
        assert_eq!(order(&key(1), []), []);
    }

    #[test]
    fn the_shares_are_even() {
        let (nodes, keys) = (8, 16_000);
        let mut shares = BTreeMap::<NodeId, u64>::new();
        for number in 0..keys {
            *shares.entry(first(&key(number), (0..nodes).map(node)).unwrap()).or_default() += 1;
        }
        // The deviation of a share is 42; six of them is beyond all chance.
        let fair = keys / u64::from(nodes);
        assert!(shares.len() == 8 && shares.values().all(|share| share.abs_diff(fair) < 250), "{shares:?}");
    }

    proptest! {
        #[test]
        fn who_goes_takes_along_only_its_own(number: u64, ids in proptest::collection::btree_set(any::<u8>(), 1..12), which: usize) {
            let nodes: Vec<_> = ids.into_iter().map(node).collect();
            let gone = nodes[which % nodes.len()];
            let before = order(&key(number), nodes.iter().copied());
            let after = order(&key(number), nodes.iter().copied().filter(|node| *node != gone));
            let rest: Vec<_> = before.iter().copied().filter(|node| *node != gone).collect();
            // Read the other way round, it is what happens when a node comes.
            prop_assert_eq!(after, rest);
            prop_assert_eq!(first(&key(number), nodes.iter().rev().copied()), Some(before[0]));
        }

        #[test]
        fn a_node_that_is_named_twice_is_one(number: u64, ids in proptest::collection::vec(any::<u8>(), 0..12)) {
            let once = order(&key(number), ids.iter().copied().map(node));
            let twice = order(&key(number), ids.iter().chain(&ids).copied().map(node));
            prop_assert_eq!(once, twice);
        }
    }
}
