//! The books of the store: which tasks there are, how many bytes of each are present, which are in somebody's
//! hands, and who has to go when room is wanted. Pure: [`super::gc`] carries out what is decided here.
//!
//! # Invariants
//! - `used` is the sum of all slots' bytes and of what is reserved for writes under way.
//! - A task with a live handle, or one that is pinned, is never chosen to go, and nobody gets a handle on one that
//!   is going.
//! - An adopted task takes no room of ours: it counts nothing, and is never chosen to go.

use std::collections::HashMap;
use std::sync::Weak;

use common::task::TaskId;

/// What a slot's task is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// At rest or in use.
    Settled,
    /// One thread is opening or making it; others wait.
    Opening,
    /// One thread is removing it; others wait.
    Leaving,
}

/// One task.
pub(super) struct Slot<B> {
    /// Bytes of the pieces present.
    pub(super) bytes: u64,
    /// Unix milliseconds.
    pub(super) last_used: u64,
    /// The handle that is out, if any: it keeps the task.
    pub(super) live: Weak<B>,
    pub(super) stage: Stage,
    /// The length of the foreign file that has the bytes, where there is one.
    pub(super) adopted: Option<u64>,
    /// Somebody wants it kept.
    pub(super) pinned: bool,
}

/// All tasks.
pub(super) struct Shelf<B> {
    pub(super) slots: HashMap<TaskId, Slot<B>>,
    pub(super) used: u64,
}

/// How room is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// There is enough.
    Enough,
    /// These go; they are marked as leaving.
    Evict(Vec<TaskId>),
    /// What is leaving already will do: wait for it.
    Wait,
    /// Everything that could go would not be enough (nothing is marked).
    Impossible,
}

/// Whether half the room is worth an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// All that is wanted or nothing: a cache is not emptied for a blob that will not fit.
    Exact,
    /// As much as there is: others share the disk, so what will be free is not known.
    Best,
}

// === impl Slot ===

impl<B> Slot<B> {
    /// A task that nobody has in hand.
    pub(super) fn new(bytes: u64, last_used: u64) -> Self {
        Self { bytes, last_used, live: Weak::new(), stage: Stage::Settled, adopted: None, pinned: false }
    }

    /// The same for one whose `length` bytes are in a foreign file.
    pub(super) fn adopted(length: u64, last_used: u64) -> Self {
        Self { adopted: Some(length), ..Self::new(0, last_used) }
    }

    fn can_go(&self) -> bool {
        self.stage == Stage::Settled
            && self.live.strong_count() == 0
            && self.adopted.is_none()
            && !self.pinned
    }
}

// === impl Shelf ===

impl<B> Shelf<B> {
    /// Books of the tasks found at the start.
    pub(super) fn new(slots: HashMap<TaskId, Slot<B>>) -> Self {
        let used = slots.values().map(|slot| slot.bytes).sum();
        Self { slots, used }
    }

    /// Takes a task off the books.
    pub(super) fn remove(&mut self, task: TaskId) {
        if let Some(slot) = self.slots.remove(&task) {
            self.used = self.used.saturating_sub(slot.bytes);
        }
    }

    /// The task's `length` bytes are in a foreign file from now on, and ours are free.
    pub(super) fn adopt(&mut self, task: TaskId, length: u64) {
        if let Some(slot) = self.slots.get_mut(&task) {
            self.used = self.used.saturating_sub(std::mem::take(&mut slot.bytes));
            slot.adopted = Some(length);
        }
    }

    /// Chooses who goes so that `needed` more bytes become free: least recently used first.
    pub(super) fn plan(&mut self, needed: u64, effort: Effort) -> Plan {
        if needed == 0 {
            return Plan::Enough;
        }
        let leaving: u64 =
            self.slots.values().filter(|slot| slot.stage == Stage::Leaving).map(|slot| slot.bytes).sum();
        if leaving >= needed {
            return Plan::Wait;
        }
        let mut idle: Vec<_> = self.slots.iter().filter(|(_, slot)| slot.can_go()).collect();
        idle.sort_unstable_by_key(|(task, slot)| (slot.last_used, **task));
        let (mut freed, mut chosen) = (leaving, Vec::new());
        for (task, slot) in idle {
            if freed >= needed {
                break;
            }
            freed += slot.bytes;
            chosen.push(*task);
        }
        if freed == 0 || (freed < needed && effort == Effort::Exact) {
            return Plan::Impossible;
        }
        if chosen.is_empty() {
            return Plan::Wait;
        }
        self.leave(&chosen);
        Plan::Evict(chosen)
    }

    /// Chooses up to `most` tasks that nobody used since `before`, the oldest first; they are marked as leaving.
    pub(super) fn expired(&mut self, before: u64, most: usize) -> Vec<TaskId> {
        let old = |slot: &Slot<B>| slot.can_go() && slot.last_used < before;
        let mut idle: Vec<_> = self.slots.iter().filter(|(_, slot)| old(slot)).collect();
        idle.sort_unstable_by_key(|(task, slot)| (slot.last_used, **task));
        let chosen: Vec<_> = idle.into_iter().take(most).map(|(task, _)| *task).collect();
        self.leave(&chosen);
        chosen
    }

    fn leave(&mut self, tasks: &[TaskId]) {
        for task in tasks {
            if let Some(slot) = self.slots.get_mut(task) {
                slot.stage = Stage::Leaving;
            }
        }
    }

    /// What could become free at most: all that is on its way out or could be.
    pub(super) fn idle(&self) -> u64 {
        let goes = |slot: &&Slot<B>| slot.stage == Stage::Leaving || slot.can_go();
        self.slots.values().filter(goes).map(|slot| slot.bytes).sum()
    }

    /// How many tasks are pinned, and their bytes.
    pub(super) fn pinned(&self) -> (u64, u64) {
        let pinned = self.slots.values().filter(|slot| slot.pinned);
        pinned.fold((0, 0), |(count, bytes), slot| (count + 1, bytes + slot.bytes))
    }

    /// The bytes of every task.
    pub(super) fn bytes(&self) -> HashMap<TaskId, u64> {
        self.slots.iter().map(|(task, slot)| (*task, slot.bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;

    fn id(n: usize) -> TaskId {
        TaskId([n as u8; 32])
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_needed() {
        let slots = [(1, 10, 300), (2, 10, 100), (3, 10, 200)];
        let mut shelf: Shelf<()> =
            Shelf::new(slots.map(|(n, bytes, used)| (id(n), Slot::new(bytes, used))).into());
        assert_eq!(shelf.plan(0, Effort::Exact), Plan::Enough);
        assert_eq!(shelf.plan(31, Effort::Exact), Plan::Impossible);
        assert_eq!(shelf.plan(11, Effort::Exact), Plan::Evict(vec![id(2), id(3)]));
        assert_eq!(shelf.plan(20, Effort::Exact), Plan::Wait, "two are on their way out");
        assert_eq!(shelf.plan(40, Effort::Best), Plan::Evict(vec![id(1)]));
        assert_eq!(shelf.plan(40, Effort::Best), Plan::Wait);
        (1..4).for_each(|n| shelf.remove(id(n)));
        assert_eq!(shelf.used, 0);
        assert_eq!(shelf.plan(1, Effort::Best), Plan::Impossible);
    }

    #[test]
    fn an_adopted_task_counts_nothing_and_stays() {
        let slots = [(id(1), Slot::adopted(1000, 1)), (id(2), Slot::new(10, 2))];
        let mut shelf: Shelf<()> = Shelf::new(slots.into());
        assert_eq!(shelf.used, 10);
        assert_eq!(shelf.plan(1, Effort::Best), Plan::Evict(vec![id(2)]), "the older one gives no room");
        shelf.remove(id(2));
        assert_eq!(shelf.plan(1, Effort::Best), Plan::Impossible);
        shelf.slots.insert(id(3), Slot::new(7, 3));
        shelf.used += 7;
        shelf.adopt(id(3), 7);
        assert_eq!((shelf.used, shelf.slots[&id(3)].adopted), (0, Some(7)));
        shelf.remove(id(3));
        assert_eq!(shelf.used, 0);
    }

    /// Tasks that are free to go, in somebody's hand, or pinned.
    fn shelf_of(tasks: &[(u64, u64, u8)], hand: &Arc<()>) -> Shelf<()> {
        let mut slots = HashMap::new();
        for (n, &(bytes, last_used, kind)) in tasks.iter().enumerate() {
            let mut slot = Slot { pinned: kind == 2, ..Slot::new(bytes, last_used) };
            if kind == 1 {
                slot.live = Arc::downgrade(hand);
            }
            slots.insert(id(n), slot);
        }
        Shelf::new(slots)
    }

    proptest! {
        #[test]
        fn what_nobody_used_for_long_goes_and_nothing_else(
            tasks in prop::collection::vec((0u64..100, 0u64..50, 0u8..3), 0..20),
            before in 0u64..60,
            most in 0usize..25,
        ) {
            let hand = Arc::new(());
            let mut shelf = shelf_of(&tasks, &hand);
            let chosen = shelf.expired(before, most);
            let of = |task: &TaskId| tasks[task.0[0] as usize];
            prop_assert!(chosen.iter().all(|task| of(task).2 == 0 && of(task).1 < before));
            let old = tasks.iter().filter(|task| task.2 == 0 && task.1 < before).count();
            prop_assert_eq!(chosen.len(), old.min(most));
            prop_assert!(chosen.is_sorted_by_key(|task| of(task).1), "the oldest first");
            let rest = shelf.expired(before, usize::MAX);
            prop_assert_eq!(rest.len(), old - chosen.len(), "nobody goes twice");
        }

        #[test]
        fn tasks_in_use_or_pinned_stay_and_a_plan_keeps_its_word(
            tasks in prop::collection::vec((0u64..100, 0u64..50, 0u8..3), 0..20),
            needed in 0u64..800,
            best: bool,
        ) {
            let hand = Arc::new(());
            let mut shelf = shelf_of(&tasks, &hand);
            let idle: u64 = tasks.iter().filter(|task| task.2 == 0).map(|task| task.0).sum();
            prop_assert_eq!(shelf.idle(), idle);
            let effort = if best { Effort::Best } else { Effort::Exact };
            match shelf.plan(needed, effort) {
                Plan::Enough => prop_assert_eq!(needed, 0),
                Plan::Wait => prop_assert!(false, "nothing was leaving"),
                Plan::Impossible => prop_assert!(idle < needed && (!best || idle == 0)),
                Plan::Evict(chosen) => {
                    let of = |task: &TaskId| tasks[task.0[0] as usize];
                    prop_assert!(chosen.iter().all(|task| of(task).2 == 0));
                    let freed: u64 = chosen.iter().map(|task| of(task).0).sum();
                    prop_assert!(freed >= needed || best);
                    let but_last: u64 = chosen[..chosen.len() - 1].iter().map(|task| of(task).0).sum();
                    prop_assert!(but_last < needed, "one fewer would not have done");
                    let newest = chosen.iter().map(|task| of(task).1).max().unwrap_or(0);
                    let older_left = tasks.iter().enumerate().any(|(n, task)| {
                        task.2 == 0 && task.1 < newest && !chosen.contains(&id(n))
                    });
                    prop_assert!(!older_left, "nobody older was passed over");
                }
            }
        }
    }
}
