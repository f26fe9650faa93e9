//! Upload and download limits: a token bucket whose arithmetic is pure ([`Bucket`]) behind a handle that waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket holds so much: short bursts pass, the average stays.
const BURST: Duration = Duration::from_millis(100);

/// Waiting for less would be turning in circles.
const GRAIN: Duration = Duration::from_millis(1);

/// Tokens are bytes. One piece may be longer than the bucket: it leaves a debt, and nothing passes until that is paid.
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

    /// Takes `bytes` out if there is no debt.
    ///
    /// # Errors
    /// Takes nothing, and says how long to wait before asking again.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate * BURST.as_secs_f64());
        if self.tokens < 0.0 {
            return Err(Duration::from_secs_f64(-self.tokens / self.rate) + GRAIN);
        }
        self.tokens -= bytes as f64;
        Ok(())
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

    /// Lets `bytes` pass if they may pass now.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn try_pass(&self, bytes: u64) -> Result<(), Duration> {
        let Some(bucket) = &self.0 else { return Ok(()) };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now())
    }

    /// Waits until `bytes` may pass.
    pub async fn pass(&self, bytes: u64) {
        while let Err(wait) = self.try_pass(bytes) {
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
                while let Err(wait) = bucket.take(bytes, now) {
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
