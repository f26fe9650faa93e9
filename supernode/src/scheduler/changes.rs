//! What happened to the edges during one event, boiled down to what the children must hear.

use common::node::NodeId;

/// Edges made and cut since the last drain, in order.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(NodeId, NodeId, bool)>);

/// One child's news.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) child: NodeId,
    pub(super) add: Vec<NodeId>,
    pub(super) remove: Vec<NodeId>,
}

// === impl Changes ===

impl Changes {
    /// Notes that a child got a parent, or lost it.
    pub(super) fn note(&mut self, child: NodeId, parent: NodeId, added: bool) {
        self.0.push((child, parent, added));
    }

    /// The news by child, in the order of node ids. An edge that was cut and made again is no news.
    pub(super) fn drain(&mut self) -> Vec<News> {
        self.0.sort_by_key(|&(child, ..)| child);
        let mut all = Vec::new();
        for noted in self.0.chunk_by(|one, other| one.0 == other.0) {
            let mut news = News { child: noted[0].0, add: Vec::new(), remove: Vec::new() };
            for (index, &(_, parent, added)) in noted.iter().enumerate() {
                let same = |other: &&(NodeId, NodeId, bool)| other.1 == parent;
                let first = !noted[..index].iter().any(|other| same(&other));
                let last = noted[index..].iter().rev().find(same).map(|other| other.2);
                if first && last == Some(added) {
                    if added { news.add.push(parent) } else { news.remove.push(parent) }
                }
            }
            if !news.add.is_empty() || !news.remove.is_empty() {
                all.push(news);
            }
        }
        self.0.clear();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_in_the_end_is_told() {
        let [child, one, two, three] = [1, 2, 3, 4].map(|byte| NodeId([byte; 16]));
        let mut changes = Changes::default();
        changes.note(child, one, false);
        changes.note(child, two, true);
        changes.note(child, three, false);
        changes.note(child, one, true);
        changes.note(one, two, true);
        changes.note(one, two, false);
        let news = News { child, add: vec![two], remove: vec![three] };
        assert_eq!(changes.drain(), [news]);
        assert_eq!(changes.drain(), []);
    }
}
