//! Upload and download limits: a token bucket whose arithmetic is pure ([`Bucket`]) behind a handle that waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket holds so much: short bursts pass, the average stays.
const BURST: Duration = Duration::from_millis(100);

/// Tokens are bytes; debt is allowed, so that a piece longer than the bucket passes and is waited for afterwards.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes a second.
    rate: f64,
    tokens: f64,
    filled: Instant,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket.
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        let rate = bytes_per_second.max(1) as f64;
        Self { rate, tokens: rate * BURST.as_secs_f64(), filled: now }
    }

    /// Takes `bytes` out and returns how long to wait before they may pass.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate * BURST.as_secs_f64()) - bytes as f64;
        Duration::from_secs_f64((-self.tokens / self.rate).max(0.0))
    }
}

/// A limit that many tasks share; cheap to clone.
#[derive(Clone, Debug)]
pub struct Limiter(Option<Arc<Mutex<Bucket>>>);

// === impl Limiter ===

impl Limiter {
    /// A limit in bytes a second; none when `None`.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self(bytes_per_second.map(|rate| Arc::new(Mutex::new(Bucket::new(rate, Instant::now())))))
    }

    /// Waits until `bytes` may pass.
    pub async fn pass(&self, bytes: u64) {
        let Some(bucket) = &self.0 else { return };
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_average_never_exceeds_the_rate(
            rate in 1_000u64..10_000_000,
            asks in prop::collection::vec((1u64..1_000_000, 0u64..200), 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, start);
            let (mut now, mut passed) = (start, 0u64);
            for (bytes, pause) in asks {
                now += Duration::from_millis(pause);
                now += bucket.take(bytes, now);
                passed += bytes;
                let allowed = rate as f64 * ((now - start) + BURST).as_secs_f64();
                prop_assert!(passed as f64 <= allowed + 1.0 + rate as f64 * 1e-6, "{passed} of {allowed}");
            }
        }
    }
}
