//! The books of the store: which tasks there are, how many bytes of each are present, which are in somebody's
//! hands, and who has to go when room is wanted. Pure: [`super::gc`] carries out what is decided here.
//!
//! # Invariants
//! - `used` is the sum of all slots' bytes and of what is reserved for writes under way.
//! - A task with a live handle is never chosen to go, and nobody gets a handle on one that is going.
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
    /// The handle that is out, if any: it pins the task.
    pub(super) live: Weak<B>,
    pub(super) stage: Stage,
    /// The length of the foreign file that has the bytes, where there is one.
    pub(super) adopted: Option<u64>,
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
        Self { bytes, last_used, live: Weak::new(), stage: Stage::Settled, adopted: None }
    }

    /// The same for one whose `length` bytes are in a foreign file.
    pub(super) fn adopted(length: u64, last_used: u64) -> Self {
        Self { adopted: Some(length), ..Self::new(0, last_used) }
    }

    fn can_go(&self) -> bool {
        self.stage == Stage::Settled && self.live.strong_count() == 0 && self.adopted.is_none()
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
        for task in &chosen {
            if let Some(slot) = self.slots.get_mut(task) {
                slot.stage = Stage::Leaving;
            }
        }
        Plan::Evict(chosen)
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

    proptest! {
        #[test]
        fn pinned_tasks_stay_and_a_plan_keeps_its_word(
            tasks in prop::collection::vec((0u64..100, 0u64..50, any::<bool>()), 0..20),
            needed in 0u64..800,
            best: bool,
        ) {
            let hand = Arc::new(());
            let mut shelf = Shelf::new(HashMap::new());
            for (n, (bytes, last_used, pinned)) in tasks.iter().enumerate() {
                let mut slot = Slot::new(*bytes, *last_used);
                if *pinned {
                    slot.live = Arc::downgrade(&hand);
                }
                shelf.slots.insert(id(n), slot);
            }
            let idle: u64 = tasks.iter().filter(|task| !task.2).map(|task| task.0).sum();
            let effort = if best { Effort::Best } else { Effort::Exact };
            match shelf.plan(needed, effort) {
                Plan::Enough => prop_assert_eq!(needed, 0),
                Plan::Wait => prop_assert!(false, "nothing was leaving"),
                Plan::Impossible => prop_assert!(idle < needed && (!best || idle == 0)),
                Plan::Evict(chosen) => {
                    let of = |task: &TaskId| tasks[task.0[0] as usize];
                    prop_assert!(chosen.iter().all(|task| !of(task).2));
                    let freed: u64 = chosen.iter().map(|task| of(task).0).sum();
                    prop_assert!(freed >= needed || best);
                    let but_last: u64 = chosen[..chosen.len() - 1].iter().map(|task| of(task).0).sum();
                    prop_assert!(but_last < needed, "one fewer would not have done");
                    let newest = chosen.iter().map(|task| of(task).1).max().unwrap_or(0);
                    let older_left = tasks.iter().enumerate().any(|(n, task)| {
                        !task.2 && task.1 < newest && !chosen.contains(&id(n))
                    });
                    prop_assert!(!older_left, "nobody older was passed over");
                }
            }
        }
    }
}
