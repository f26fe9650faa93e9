//! When a bucket that fails is asked again. Pure; one for reading and one for writing, since a policy may allow the one
//! and not the other. Used by the bucket and `uploads`.
//!
//! # Invariants
//! - While it fails, one question at a time goes there, and none before the wait is over.
//! - One outage doubles the wait once, however many questions were under way.

use std::time::{Duration, Instant};

/// The first wait: a server that restarts is back in it.
const FIRST: Duration = Duration::from_secs(5);
/// The longest one: an outage is noticed to be over in a minute.
const LONGEST: Duration = Duration::from_secs(60);
/// A question that is put on trial is answered, or has failed, within this.
const TRIAL: Duration = Duration::from_secs(3);

/// How a bucket has done lately.
#[derive(Debug, Default)]
pub(super) struct Health(Option<Bad>);

#[derive(Debug)]
struct Bad {
    cause: String,
    wait: Duration,
    /// It may be tried then.
    again: Instant,
    /// A question is there to find out whether it is over.
    trial: bool,
}

// === impl Health ===

impl Health {
    /// Whether a question may go there now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            None => true,
            Some(bad) if bad.again <= now => {
                // Should it never be answered, the next one is the trial.
                (bad.trial, bad.again) = (true, now + TRIAL);
                true
            }
            Some(_) => false,
        }
    }

    /// How long to wait for that.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |bad| bad.again.saturating_duration_since(now))
    }

    /// It answered. True when that is news.
    pub(super) fn worked(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// It failed. True when that is news: the first time, and with each other cause.
    pub(super) fn failed(&mut self, cause: &str, now: Instant) -> bool {
        let Some(bad) = &mut self.0 else {
            let cause = cause.to_owned();
            self.0 = Some(Bad { cause, wait: FIRST, again: now + FIRST, trial: false });
            return true;
        };
        if bad.trial || bad.again <= now {
            bad.wait = (bad.wait * 2).min(LONGEST);
            (bad.trial, bad.again) = (false, now + bad.wait);
        }
        let news = bad.cause != cause;
        cause.clone_into(&mut bad.cause);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_bucket_is_asked_ever_less_and_told_of_once_a_cause() {
        let (mut health, start) = (Health::default(), Instant::now());
        let (mut now, mut asked, mut told) = (start, 0, 0);
        while now < start + Duration::from_secs(600) {
            if health.allows(now) {
                asked += 1;
                // Some that were under way fail with it.
                told += (0..4).filter(|_| health.failed("refused", now)).count();
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(told, 1);
        assert!((10..=14).contains(&asked), "5, 10, 20, 40 and then 60 seconds apart: {asked}");
        assert!(health.failed("denied", now), "another cause is news");
        assert!(health.worked() && !health.worked());
        assert!(health.allows(now));
    }

    #[test]
    fn a_trial_that_is_never_answered_is_followed_by_another() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.failed("refused", start);
        let later = start + FIRST;
        assert!(health.allows(later) && !health.allows(later));
        assert!(health.allows(later + TRIAL));
        assert_eq!(health.wait(later + TRIAL), TRIAL);
    }
}
