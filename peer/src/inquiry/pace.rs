//! How often one question may be put to an origin. Pure: the time is passed in. Used by [`super::Desk`].

use std::time::{Duration, Instant};

/// Questions that need not wait: one client's pull asks for its tag two or three times in a row.
const FREE: u32 = 4;
/// Beyond them one question in so long: what a client hardly notices, and few requests however many clients there are.
const PAUSE: Duration = Duration::from_millis(250);

/// The pace of one question.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all free questions are there again; each takes a [`PAUSE`] to come back.
    full: Instant,
}

// === impl Pace ===

impl Pace {
    /// Nothing was asked yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Counts one more question, and says how long it has to wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        self.full = self.full.max(now) + PAUSE;
        self.full.saturating_duration_since(now).saturating_sub(FREE * PAUSE)
    }

    /// A question was not put after all.
    pub(super) fn give_back(&mut self) {
        self.full -= PAUSE;
    }

    /// Whether it is as good as new.
    pub(super) fn is_rested(&self, now: Instant) -> bool {
        self.full <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_questions_are_free_and_come_back() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        (0..FREE).for_each(|_| assert_eq!(pace.take(now), Duration::ZERO));
        assert_eq!(pace.take(now), PAUSE);
        assert_eq!(pace.take(now + PAUSE), PAUSE);
        assert!(!pace.is_rested(now + PAUSE));
        assert!(pace.is_rested(now + (FREE + 2) * PAUSE));
        assert_eq!(pace.take(now + (FREE + 2) * PAUSE), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_more_pass_in_any_time_than_the_pace_allows(gaps in prop::collection::vec(0u64..600, 1..200)) {
            let begin = Instant::now();
            let (mut pace, mut now, mut sent) = (Pace::new(begin), begin, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                sent.push(now + pace.take(now));
            }
            for (at, first) in sent.iter().enumerate() {
                let within = sent[at..].iter().take_while(|time| **time < *first + 4 * PAUSE).count();
                prop_assert!(within <= 2 * FREE as usize + 1, "{within}");
            }
        }
    }
}
