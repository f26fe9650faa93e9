//! When to ask an origin again, and how long all requests leave an origin alone that asked for it. Pure: the time and
//! the dice are passed in. Used by [`super::client`] for requests and by [`super::segment`] for bodies that break off.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use rand::Rng;

/// How often one thing is asked for before the origin's own answer is final.
const ATTEMPTS: u32 = 5;
/// And so often more once it has begun to answer.
const PERSISTENCE: u32 = 4;
/// The first wait: a hiccup of a load balancer is over by then.
const BASE: Duration = Duration::from_millis(200);
/// The longest wait of our own making.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is waited for. Whoever asks for more gets no second request, and the client gets the
/// answer at once: a pull that hangs for minutes helps nobody.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Origins that are remembered as wanting rest; more than a cluster pulls from.
const MAX_COOLING: usize = 1024;

/// How patient the asker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; at least one is made.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each.
    pub base: Duration,
    /// The longest `Retry-After` that is waited for; an answer that asks for more is final.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: ATTEMPTS, base: BASE, patience: MAX_RETRY_AFTER }
    }
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// The same for an origin that has begun to give: with the default's waits some 20 s in all, a restart of a registry.
    pub fn persistent(self) -> Self {
        Self { attempts: self.attempts + PERSISTENCE, ..self }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer, or one that broke off.
    Broken,
    /// An answer.
    Answered {
        /// Its status.
        status: StatusCode,
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
}

/// The attempts at one thing.
#[derive(Debug, Clone)]
pub struct Retry {
    policy: RetryPolicy,
    failures: u32,
}

/// Whether an answer may be better next time.
pub fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// What a `Retry-After` header asks for: seconds, or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

// === impl Retry ===

impl Retry {
    /// No attempt made yet.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Takes note of an attempt's end: how long to wait before the next, or `None` when this end is final.
    pub fn next(&mut self, outcome: Outcome, rng: &mut impl Rng) -> Option<Duration> {
        let asked = match outcome {
            Outcome::Broken => Duration::ZERO,
            Outcome::Answered { status, retry_after } if is_passing(status) => {
                retry_after.unwrap_or_default()
            }
            Outcome::Answered { .. } => return None,
        };
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.policy.attempts || asked > self.policy.patience {
            return None;
        }
        let doubled = self.policy.base.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_BACK_OFF);
        // Half of it at random, so that many nodes that failed together do not come back together.
        let back_off = doubled.mul_f64(rng.random_range(0.5..=1.0));
        Some(if asked.is_zero() { back_off } else { asked + back_off.min(self.policy.base) })
    }

    /// Something new arrived: the count of failures starts again.
    pub fn progressed(&mut self) {
        self.failures = 0;
    }
}

/// Which origins are to be left alone, and until when.
#[derive(Debug, Default)]
pub struct CoolOffs {
    until: HashMap<String, Instant>,
}

// === impl CoolOffs ===

impl CoolOffs {
    /// An answer of `place` (`host:port`) asked for rest. Nothing is noted for a wish beyond [`MAX_RETRY_AFTER`].
    pub fn note(&mut self, place: &str, rest: Duration, now: Instant) {
        if rest.is_zero() || rest > MAX_RETRY_AFTER {
            return;
        }
        self.until.retain(|_, until| *until > now);
        if let Some(until) = self.until.get_mut(place) {
            *until = (*until).max(now + rest);
        } else if self.until.len() < MAX_COOLING {
            self.until.insert(place.to_owned(), now + rest);
        }
    }

    /// How long `place` is still to be left alone.
    pub fn left(&self, place: &str, now: Instant) -> Duration {
        self.until.get(place).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    fn answered(status: u16, retry_after: Option<u64>) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        Outcome::Answered { status, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(77)));
        assert_eq!(retry_after("Tue, 06 Nov 1984 08:49:37 GMT", now), Some(Duration::ZERO));
        for bad in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn too_long_a_rest_is_neither_waited_for_nor_noted() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut retry = Retry::new(RetryPolicy::default());
        assert_eq!(retry.next(answered(429, Some(3600)), &mut rng), None);
        let (mut cool, now) = (CoolOffs::default(), Instant::now());
        cool.note("h:443", Duration::from_secs(3600), now);
        assert_eq!(cool.left("h:443", now), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn only_what_may_pass_is_asked_again(status in 200u16..600, seed: u64) {
            let mut rng = StdRng::seed_from_u64(seed);
            let again = Retry::new(RetryPolicy::default()).next(answered(status, None), &mut rng).is_some();
            prop_assert_eq!(again, status == 408 || status == 429 || status >= 500);
        }

        #[test]
        fn waits_grow_within_bounds_and_end(
            seed: u64, attempts in 0u32..12, base in 1u64..2000, asked in 0u64..=60,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let base = Duration::from_millis(base);
            let mut retry = Retry::new(RetryPolicy { attempts, base, ..RetryPolicy::default() });
            let asked_for = Duration::from_secs(asked);
            for failure in 1..attempts.max(1) {
                let wait = retry.next(answered(503, Some(asked)), &mut rng).unwrap();
                if asked == 0 {
                    let full = (base * (1 << (failure - 1))).min(MAX_BACK_OFF);
                    prop_assert!(wait >= full / 2 && wait <= full);
                } else {
                    prop_assert!(wait > asked_for && wait <= asked_for + base);
                }
            }
            prop_assert_eq!(retry.next(Outcome::Broken, &mut rng), None);
            if attempts > 1 {
                retry.progressed();
                prop_assert!(retry.next(Outcome::Broken, &mut rng).is_some());
            }
        }

        #[test]
        fn cool_offs_only_grow_while_they_last_and_stay_few(
            notes in prop::collection::vec((0u32..3000, 0u64..90, 0u64..30), 0..400),
        ) {
            let (mut cool, mut now) = (CoolOffs::default(), Instant::now());
            for (place, rest, step) in notes {
                let (place, rest) = (format!("h{place}:443"), Duration::from_secs(rest));
                let before = cool.left(&place, now);
                cool.note(&place, rest, now);
                let after = cool.left(&place, now);
                prop_assert!(after >= before && after <= MAX_RETRY_AFTER);
                if rest <= MAX_RETRY_AFTER && cool.until.len() < MAX_COOLING {
                    prop_assert_eq!(after, before.max(rest));
                }
                prop_assert!(cool.until.len() <= MAX_COOLING);
                now += Duration::from_secs(step);
            }
        }
    }
}
