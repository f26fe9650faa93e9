//! How much a store may keep, and what is too much of it. Pure: sizes of the disk are passed in. The settings hold a
//! [`Limits`]; [`super::gc`] asks the [`Bounds`] that they make on a disk before it writes, [`super::tend`] in the
//! background.
//!
//! # Invariants
//! - What is to go in the background is no more than brings the store down to the low watermark, and the disk up to
//!   a fifth more than must stay free.
//! - Between the watermarks nothing is begun, so that a store that lives at its limit does not evict all the time.

use std::time::Duration;

use common::config::{Percent, Share};
use common::telemetry::Eviction;

/// The store of a node that pulls now and then has room for a layer without evicting first.
const HIGH: Percent = Percent::new(95);
/// A tenth of the quota at a time: enough for the next image, not so much that the cache is gone.
const LOW: Percent = Percent::new(85);
/// The disk is eased before it has only what must stay free, so that a pull need not wait for evictions.
const EASE_FROM: Percent = Percent::new(10);
const EASE_TO: Percent = Percent::new(20);

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most that the data folder may take, as a part of its disk or in bytes; `None` leaves it to the disk.
    pub quota: Option<Share>,
    /// Above this part of the quota the least recently used tasks go,
    pub high: Percent,
    /// down to this.
    pub low: Percent,
    /// What the disk has to have free, whoever uses the rest.
    pub keep_free: Share,
    /// Tasks that nobody used for so long go.
    pub ttl: Option<Duration>,
}

/// The same in bytes, on a disk of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// `u64::MAX` is none.
    pub(super) quota: u64,
    pub(super) keep_free: u64,
    high: u64,
    low: u64,
    ease_from: u64,
    ease_to: u64,
}

// === impl Limits ===

impl Limits {
    /// As much as the disk takes.
    pub const NONE: Self = Self { quota: None, high: HIGH, low: LOW, keep_free: Share::Bytes(0), ttl: None };

    /// No more than `bytes`, and otherwise no limit.
    pub fn quota(bytes: u64) -> Self {
        Self { quota: Some(Share::Bytes(bytes)), ..Self::NONE }
    }

    /// What this means on a disk of `total` bytes; 0 where the file system does not tell.
    pub(super) fn on(&self, total: u64) -> Bounds {
        let quota = match self.quota {
            Some(Share::Percent(_)) if total == 0 => u64::MAX,
            Some(share) => share.of(total),
            None => u64::MAX,
        };
        let keep_free = self.keep_free.of(total);
        let most = total.max(keep_free);
        let (high, low) = match quota {
            u64::MAX => (u64::MAX, u64::MAX),
            quota => (self.high.of(quota), self.low.min(self.high).of(quota)),
        };
        Bounds {
            quota,
            keep_free,
            high,
            low,
            ease_from: keep_free.saturating_add(EASE_FROM.of(keep_free)).min(most),
            ease_to: keep_free.saturating_add(EASE_TO.of(keep_free)).min(most),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

// === impl Bounds ===

impl Bounds {
    /// How many of the `overhead` bytes that the folder takes beside its blobs count against the quota: not more than
    /// half of it, so that the smallest quota still leaves room for blobs.
    pub(super) fn counted(&self, overhead: u64) -> u64 {
        overhead.min(self.quota / 2)
    }

    /// Whether tasks have to go in the background, and for which limit.
    pub(super) fn begins(&self, usage: u64, free: u64) -> Option<Eviction> {
        match (usage > self.high, free < self.ease_from) {
            (true, _) => Some(Eviction::Quota),
            (_, true) => Some(Eviction::Disk),
            _ => None,
        }
    }

    /// How many bytes have to go yet, once it was begun.
    pub(super) fn excess(&self, reason: Eviction, usage: u64, free: u64) -> u64 {
        match reason {
            Eviction::Quota => usage.saturating_sub(self.low),
            Eviction::Disk => self.ease_to.saturating_sub(free),
            Eviction::Ttl | Eviction::Request => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn percentages_are_of_the_disk_and_watermarks_of_the_quota() {
        let limits = Limits {
            quota: Some("80%".parse().unwrap()),
            keep_free: "15%".parse().unwrap(),
            ..Limits::default()
        };
        let bounds = limits.on(100 * GIB);
        assert_eq!((bounds.quota, bounds.keep_free), (80 * GIB, 15 * GIB));
        assert_eq!((bounds.high, bounds.low), (76 * GIB, 68 * GIB));
        assert_eq!((bounds.ease_from, bounds.ease_to), (15 * GIB + 3 * GIB / 2, 18 * GIB));
        let unknown = limits.on(0);
        assert_eq!((unknown.quota, unknown.keep_free), (u64::MAX, 0));
        assert_eq!(unknown.begins(u64::MAX, 0), None);
    }

    #[test]
    fn a_small_quota_leaves_half_of_itself_to_blobs() {
        let bounds = Limits::quota(10).on(100);
        assert_eq!((bounds.counted(3), bounds.counted(30)), (3, 5));
    }

    proptest! {
        #[test]
        fn what_goes_is_neither_too_little_nor_too_much(
            quota in prop::option::of(1..100 * GIB),
            keep in 0..100 * GIB,
            marks in (0u16..=100, 0u16..=100),
            total in 0..100 * GIB,
            usage in 0..100 * GIB,
            free in 0..100 * GIB,
        ) {
            let limits = Limits {
                quota: quota.map(Share::Bytes),
                keep_free: Share::Bytes(keep),
                high: Percent::new(marks.0),
                low: Percent::new(marks.1),
                ttl: None,
            };
            let bounds = limits.on(total);
            match bounds.begins(usage, free) {
                None => prop_assert!(usage <= bounds.high && free >= keep),
                Some(reason) => {
                    prop_assert!(usage > bounds.high || free < bounds.ease_from);
                    let bytes = bounds.excess(reason, usage, free);
                    prop_assert!(bytes > 0, "what is begun has something to do");
                    let after = |gone: u64| (usage.saturating_sub(gone), free + gone);
                    prop_assert_eq!(bounds.excess(reason, after(bytes).0, after(bytes).1), 0);
                    prop_assert_eq!(bounds.excess(reason, after(bytes - 1).0, after(bytes - 1).1), 1);
                    let again = bounds.begins(after(bytes).0, after(bytes).1);
                    prop_assert!(again != Some(reason), "and need not be begun again");
                }
            }
        }
    }
}
