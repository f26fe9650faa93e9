//! Which blob of a content store is attended to next, and which are withdrawn. Pure: the [watcher](super) looks and
//! carries out.
//!
//! # Invariants
//! - What the store adopted and the last look did not find, exactly so, is withdrawn.
//! - A file that was refused is not hashed again unless it changes.
//! - Small blobs go first: each is as likely to be wanted as a large one, and a hundred are offered in the time of one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::task::TaskId;

use crate::store::Foreign;

/// Our own copy of a blob is given up only when the other one has been there for so long: a runtime that is set to
/// discard layers once they are unpacked has done so by then, and the node would hold nothing.
const RIPENS: Duration = Duration::from_secs(10 * 60);

/// What is known of the blobs that were found.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeMap<TaskId, Entry>,
    looked: bool,
}

struct Entry {
    foreign: Foreign,
    stage: Stage,
    not_before: Instant,
    ripens: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Adopted,
    Refused,
}

// === impl Agenda ===

impl Agenda {
    /// Takes in what a look found and what the store has adopted; gives what is to be withdrawn.
    pub(super) fn looked(
        &mut self,
        mut found: BTreeMap<TaskId, Foreign>,
        adopted: &[(TaskId, Foreign)],
        now: Instant,
    ) -> Vec<TaskId> {
        let adopted: BTreeMap<TaskId, &Foreign> =
            adopted.iter().map(|(task, foreign)| (*task, foreign)).collect();
        let gone = adopted.iter().filter(|(task, foreign)| found.get(task) != Some(foreign));
        let gone = gone.map(|(task, _)| *task).collect();
        // What was there before us has outlived its unpacking.
        let ripens = if self.looked { now + RIPENS } else { now };
        self.looked = true;
        self.entries.retain(|task, entry| match found.get(task) {
            Some(foreign) if *foreign == entry.foreign => {
                found.remove(task);
                true
            }
            _ => false,
        });
        for (task, foreign) in found {
            self.entries.insert(task, Entry { foreign, stage: Stage::Waiting, not_before: now, ripens });
        }
        for (task, entry) in &mut self.entries {
            entry.stage = match (adopted.get(task) == Some(&&entry.foreign), entry.stage) {
                (true, _) => Stage::Adopted,
                // The store lost it on the way.
                (false, Stage::Adopted) => Stage::Waiting,
                (false, stage) => stage,
            };
        }
        gone
    }

    /// The blob to attend to now.
    pub(super) fn next(&self, now: Instant) -> Option<(TaskId, Foreign)> {
        let due = |entry: &Entry| entry.stage == Stage::Waiting && entry.not_before <= now;
        let waiting = self.entries.iter().filter(|(_, entry)| due(entry));
        let smallest = waiting.min_by_key(|(task, entry)| (entry.foreign.length(), **task));
        smallest.map(|(task, entry)| (*task, entry.foreign.clone()))
    }

    /// Whether the blob was this file at the last look.
    pub(super) fn is_of(&self, task: TaskId, foreign: &Foreign) -> bool {
        self.entries.get(&task).is_some_and(|entry| entry.foreign == *foreign)
    }

    /// When our own copy of the blob may be given up.
    pub(super) fn ripens(&self, task: TaskId) -> Option<Instant> {
        self.entries.get(&task).map(|entry| entry.ripens)
    }

    /// The store has adopted it.
    pub(super) fn adopted(&mut self, task: TaskId) {
        self.set(task, |entry| entry.stage = Stage::Adopted);
    }

    /// It is not what its name says.
    pub(super) fn refuse(&mut self, task: TaskId) {
        self.set(task, |entry| entry.stage = Stage::Refused);
    }

    /// Nothing can be done about it before.
    pub(super) fn postpone(&mut self, task: TaskId, until: Instant) {
        self.set(task, |entry| entry.not_before = until);
    }

    fn set(&mut self, task: TaskId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&task) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn task(n: u8) -> TaskId {
        TaskId([n; 32])
    }

    /// Real files, since only the system makes a [`Foreign`].
    fn files(lengths: &[(u8, usize)]) -> (tempfile::TempDir, BTreeMap<TaskId, Foreign>) {
        let dir = tempfile::tempdir().unwrap();
        let file = |&(n, length): &(u8, usize)| {
            let path = dir.path().join(n.to_string());
            std::fs::write(&path, vec![n; length]).unwrap();
            (task(n), Foreign::look(&path).unwrap().unwrap())
        };
        let found = lengths.iter().map(file).collect();
        (dir, found)
    }

    fn next(agenda: &Agenda, now: Instant) -> Option<TaskId> {
        agenda.next(now).map(|(task, _)| task)
    }

    #[test]
    fn the_smallest_that_is_due_goes_first() {
        let (_dir, found) = files(&[(1, 30), (2, 10), (3, 20)]);
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        assert!(agenda.looked(found.clone(), &[], now).is_empty());
        assert_eq!(next(&agenda, now), Some(task(2)));
        agenda.adopted(task(2));
        agenda.postpone(task(3), now + SECOND);
        assert_eq!(next(&agenda, now), Some(task(1)));
        agenda.refuse(task(1));
        assert_eq!((next(&agenda, now), next(&agenda, now + SECOND)), (None, Some(task(3))));
        let adopted = [(task(2), found[&task(2)].clone())];
        assert!(agenda.looked(found.clone(), &adopted, now).is_empty());
        assert_eq!(next(&agenda, now), None, "a look changes nothing about what stayed");
        assert!(agenda.looked(found, &[], now).is_empty());
        assert_eq!(next(&agenda, now), Some(task(2)), "the store lost it");
    }

    #[test]
    fn what_changed_or_went_is_withdrawn_and_looked_at_anew() {
        let (dir, found) = files(&[(1, 30), (2, 10)]);
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let adopted: Vec<_> = found.clone().into_iter().collect();
        agenda.looked(found.clone(), &adopted, now);
        assert_eq!(next(&agenda, now), None);
        std::fs::write(dir.path().join("1"), b"other").unwrap();
        let other = Foreign::look(&dir.path().join("1")).unwrap().unwrap();
        let left = BTreeMap::from([(task(1), other.clone())]);
        assert_eq!(agenda.looked(left, &adopted, now), [task(1), task(2)]);
        assert_eq!(agenda.next(now), Some((task(1), other)));
        assert!(!agenda.is_of(task(2), &found[&task(2)]));
    }

    #[test]
    fn only_what_was_there_before_us_is_ripe_at_once() {
        let (_dir, found) = files(&[(1, 30), (2, 10)]);
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.looked(BTreeMap::from([(task(1), found[&task(1)].clone())]), &[], now);
        agenda.looked(found, &[], now + SECOND);
        assert_eq!(agenda.ripens(task(1)), Some(now));
        assert_eq!(agenda.ripens(task(2)), Some(now + SECOND + RIPENS));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_is_adopted_and_not_found_is_withdrawn_and_nothing_else(
            rounds in prop::collection::vec((any::<[bool; 4]>(), any::<[bool; 4]>()), 1..8),
        ) {
            let (_dir, all) = files(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
            let (mut agenda, now) = (Agenda::default(), Instant::now());
            for (found, adopted) in rounds {
                let of = |flags: &[bool; 4]| -> BTreeMap<TaskId, Foreign> {
                    all.iter().zip(flags).filter(|(_, flag)| **flag).map(|((task, file), _)| (*task, file.clone())).collect()
                };
                let taken: Vec<_> = of(&adopted).into_iter().collect();
                let gone = agenda.looked(of(&found), &taken, now);
                for n in 0..4u8 {
                    let (found, adopted) = (found[usize::from(n)], adopted[usize::from(n)]);
                    prop_assert_eq!(gone.contains(&task(n)), adopted && !found);
                    prop_assert_eq!(agenda.is_of(task(n), &all[&task(n)]), found);
                }
                let first = (0..4u8).find(|n| found[usize::from(*n)] && !adopted[usize::from(*n)]).map(task);
                prop_assert_eq!(next(&agenda, now), first);
            }
        }
    }
}
