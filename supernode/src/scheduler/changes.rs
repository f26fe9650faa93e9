//! What happened to the edges during one event, boiled down to what the children must hear.

use super::sitter::Seat;

/// So much room is kept between events; the rest, needed when a whole swarm starts at once, is given back.
const KEPT: usize = 256;

/// An edge that was made or cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) child: Seat,
    pub(super) parent: Seat,
    pub(super) added: bool,
    news: bool,
}

/// Edges made and cut since they were last cleared, in order.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Change>);

// === impl Changes ===

impl Changes {
    /// Notes that a child got a parent, or lost it.
    pub(super) fn note(&mut self, child: Seat, parent: Seat, added: bool) {
        self.0.push(Change { child, parent, added, news: true });
    }

    /// What is left in the end, child by child; an edge that was cut and made again is no news.
    pub(super) fn boil_down(&mut self) -> impl Iterator<Item = &[Change]> {
        self.0.sort_by_key(|change| change.child);
        for noted in self.0.chunk_by_mut(|one, other| one.child == other.child) {
            for index in 0..noted.len() {
                let Change { parent, added, .. } = noted[index];
                let same = |other: &&Change| other.parent == parent;
                let first = !noted[..index].iter().any(|other| same(&other));
                let last = noted[index..].iter().rev().find(same).map(|other| other.added);
                noted[index].news = first && last == Some(added);
            }
        }
        self.0.retain(|change| change.news);
        self.0.chunk_by(|one, other| one.child == other.child)
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_in_the_end_is_told() {
        let [child, one, two, three] = [1, 2, 3, 4].map(Seat);
        let mut changes = Changes::default();
        changes.note(one, two, true);
        changes.note(child, one, false);
        changes.note(child, two, true);
        changes.note(child, three, false);
        changes.note(child, one, true);
        changes.note(one, two, false);
        let told: Vec<Vec<_>> = changes
            .boil_down()
            .map(|news| news.iter().map(|c| (c.child, c.parent, c.added)).collect())
            .collect();
        assert_eq!(told, [[(child, two, true), (child, three, false)]]);
        changes.clear();
        assert_eq!(changes.boil_down().count(), 0);
    }
}
