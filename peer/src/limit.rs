//! Limits that an operator sets, and may change while the node runs: bytes a second out, in, and from origins, of the node
//! and of each task, and uploads at once. A token bucket whose arithmetic is pure ([`Bucket`]) behind handles that wait.
//! The engine keeps one [`Limits`]; the daemons set it at the start and on SIGHUP.
//!
//! # Invariants
//! - A changed rate holds from the next byte on; who waits for a slower one looks again within [`LOOK`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bucket holds so much: short bursts pass, the average stays.
const BURST: Duration = Duration::from_millis(100);
/// Waiting for less would be turning in circles.
const GRAIN: Duration = Duration::from_millis(1);
/// Nobody waits longer without a look at the rate, which may be another by now.
const LOOK: Duration = Duration::from_secs(1);

/// Tokens are bytes. One piece may be longer than the bucket: it leaves a debt, and nothing passes until that is paid.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    filled: Option<Instant>,
}

/// Bytes a second, to be had at each use: it may change. Clones are one rate.
#[derive(Clone, Debug, Default)]
struct Rate(Arc<AtomicU64>);

/// What is limited by one rate. Clones draw on one bucket.
#[derive(Clone, Debug)]
struct Limiter {
    rate: Rate,
    bucket: Arc<Mutex<Bucket>>,
}

/// A limit of the node, and the one of each task below it.
#[derive(Clone, Debug)]
pub struct Lane {
    node: Limiter,
    each: Rate,
}

/// What one task may take of a [`Lane`]. Clones are the same task's.
#[derive(Clone, Debug)]
pub struct Allowance {
    node: Limiter,
    own: Limiter,
}

/// What an operator asked for; none is no limit. Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// To neighbours.
    pub upload: Option<u64>,
    /// From neighbours and origins.
    pub download: Option<u64>,
    /// From origins.
    pub origin: Option<u64>,
    /// To neighbours, of each task.
    pub task_upload: Option<u64>,
    /// From neighbours and origins, of each task.
    pub task_download: Option<u64>,
    /// From origins, of each task.
    pub task_origin: Option<u64>,
    /// Pieces on their way to neighbours at once.
    pub uploads: Option<u64>,
}

/// All limits of a node, as they are now. Clones are the same limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// To neighbours.
    pub upload: Lane,
    /// From neighbours and origins.
    pub download: Lane,
    /// From origins.
    pub origin: Lane,
    uploads: Arc<AtomicU64>,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket.
    pub fn new() -> Self {
        Self { tokens: 0.0, filled: None }
    }

    /// Fills up, then says how long to wait before something may pass; nothing to wait for is zero.
    fn debt(&mut self, bytes_per_second: u64, now: Instant) -> Duration {
        let rate = bytes_per_second.max(1) as f64;
        let most = rate * BURST.as_secs_f64();
        let filled = self.filled.replace(now);
        let passed = filled.map_or(BURST, |filled| now.saturating_duration_since(filled));
        self.tokens = (self.tokens + passed.as_secs_f64() * rate).min(most);
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / rate).unwrap_or(Duration::MAX).saturating_add(GRAIN)
    }

    /// Takes `bytes` out if there is no debt.
    ///
    /// # Errors
    /// Takes nothing, and says how long to wait before asking again.
    pub fn take(&mut self, bytes: u64, bytes_per_second: u64, now: Instant) -> Result<(), Duration> {
        let debt = self.debt(bytes_per_second, now);
        if debt > Duration::ZERO {
            return Err(debt);
        }
        self.tokens -= bytes as f64;
        Ok(())
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Rate ===

impl Rate {
    fn set(&self, bytes_per_second: Option<u64>) {
        self.0.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

// === impl Limiter ===

impl Limiter {
    fn new(rate: Rate) -> Self {
        Self { rate, bucket: Arc::default() }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Nothing in between can panic halfway.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lane ===

impl Lane {
    fn new() -> Self {
        Self { node: Limiter::new(Rate::default()), each: Rate::default() }
    }

    fn set(&self, node: Option<u64>, each: Option<u64>) {
        self.node.rate.set(node);
        self.each.set(each);
    }

    /// Whether each task has a limit of its own.
    pub fn limits_tasks(&self) -> bool {
        self.each.get().is_some()
    }

    /// What a task may take that has taken nothing yet.
    pub fn allowance(&self) -> Allowance {
        Allowance { node: self.node.clone(), own: Limiter::new(self.each.clone()) }
    }
}

// === impl Allowance ===

impl Allowance {
    /// Lets `bytes` pass if they may pass now, by the task's limit and by the node's.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn try_pass(&self, bytes: u64) -> Result<(), Duration> {
        let (node, own) = (self.node.rate.get(), self.own.rate.get());
        if node.is_none() && own.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        // Always in this order; the node's debt is known before anything is taken out of the task's bucket.
        let (mut own_bucket, mut node_bucket) = (self.own.bucket(), self.node.bucket());
        let debt = node.map_or(Duration::ZERO, |rate| node_bucket.debt(rate, now));
        if debt > Duration::ZERO {
            return Err(debt.min(LOOK));
        }
        if let Some(rate) = own {
            own_bucket.take(bytes, rate, now).map_err(|wait| wait.min(LOOK))?;
        }
        if let Some(rate) = node {
            node_bucket.take(bytes, rate, now).map_err(|wait| wait.min(LOOK))?;
        }
        Ok(())
    }

    /// Waits until `bytes` may pass.
    pub async fn pass(&self, bytes: u64) {
        while let Err(wait) = self.try_pass(bytes) {
            tokio::time::sleep(wait).await;
        }
    }
}

// === impl Limits ===

impl Limits {
    /// The limits that were asked for.
    pub fn new(rates: &Rates) -> Self {
        let (upload, download, origin) = (Lane::new(), Lane::new(), Lane::new());
        let limits = Self { upload, download, origin, uploads: Arc::default() };
        limits.set(rates);
        limits
    }

    /// Changes them under way.
    pub fn set(&self, rates: &Rates) {
        self.upload.set(rates.upload, rates.task_upload);
        self.download.set(rates.download, rates.task_download);
        self.origin.set(rates.origin, rates.task_origin);
        self.uploads.store(rates.uploads.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Pieces that may be on their way to neighbours at once.
    pub fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_changes_under_way_and_may_end() {
        let limits = Limits::new(&Rates { upload: Some(1), ..Rates::default() });
        let task = limits.upload.allowance();
        assert!(task.try_pass(1_000_000).is_ok() && task.try_pass(1).is_err(), "a debt of days");
        limits.set(&Rates::default());
        assert!(task.try_pass(u64::MAX).is_ok(), "no limit any more");
        limits.set(&Rates { task_upload: Some(1), uploads: Some(3), ..Rates::default() });
        assert!(task.try_pass(9).is_ok() && task.try_pass(9).is_err());
        assert!(limits.upload.allowance().try_pass(9).is_ok(), "another task has its own");
        assert_eq!(limits.uploads(), 3);
    }

    #[test]
    fn what_the_node_may_not_costs_the_task_nothing() {
        let limits = Limits::new(&Rates { download: Some(1_000_000), ..Rates::default() });
        let (one, two) = (limits.download.allowance(), limits.download.allowance());
        assert!(one.try_pass(50_000_000).is_ok());
        limits.set(&Rates { download: Some(1_000_000), task_download: Some(1_000), ..Rates::default() });
        assert!(two.try_pass(900).is_err(), "the node is in debt");
        limits.set(&Rates { task_download: Some(1_000), ..Rates::default() });
        assert!(two.try_pass(900).is_ok());
    }

    proptest! {
        #[test]
        fn the_average_never_exceeds_the_rate(
            rate in 1_000u64..10_000_000,
            asks in prop::collection::vec((1u64..1_000_000, 0u64..200), 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new();
            let (mut now, mut passed) = (start, 0u64);
            for (bytes, pause) in asks {
                now += Duration::from_millis(pause);
                while let Err(wait) = bucket.take(bytes, rate, now) {
                    now += wait;
                }
                // What went before this one was paid for.
                let allowed = rate as f64 * ((now - start) + BURST).as_secs_f64();
                prop_assert!(passed as f64 <= allowed + 1.0 + rate as f64 * 1e-6, "{passed} of {allowed}");
                passed += bytes;
            }
        }
    }
}
