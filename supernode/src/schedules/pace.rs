//! How often registries are asked what tags mean, over all schedules. Pure: the time is passed in.
//!
//! # Invariants
//! - A registry is asked at most [`BURST`] times at once and [`A_MINUTE`] times a minute in the long run, and not at all before the
//!   time that it has asked for.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

/// Looks at one registry a minute.
const A_MINUTE: i64 = 30;
/// Looks at one registry that may come together.
const BURST: i32 = 10;
/// The longest rest that a registry is granted: a word that means years is a mistake.
const MAX_REST: Duration = Duration::DAY;

/// What is known of the registries that were asked.
#[derive(Debug, Default)]
pub(super) struct Pace(HashMap<String, Asked>);

#[derive(Debug)]
struct Asked {
    /// When as many looks as can come together may come again.
    rested: OffsetDateTime,
    /// Not before.
    rest: OffsetDateTime,
}

/// How long a look uses up.
const COST: Duration = Duration::milliseconds(60_000 / A_MINUTE);

// === impl Pace ===

impl Pace {
    /// Takes a look at a registry.
    ///
    /// # Errors
    /// With when it may be looked at; nothing is taken then.
    pub(super) fn take(&mut self, registry: &str, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        self.0.retain(|_, asked| asked.rested > now || asked.rest > now);
        let asked = self.0.entry(registry.to_owned()).or_insert(Asked { rested: now, rest: now });
        // A clock that was put back grants no more and no less than a full rest.
        asked.rested = asked.rested.min(now + COST * BURST);
        asked.rest = asked.rest.min(now + MAX_REST);
        let rested = asked.rested.max(now) + COST;
        let from = (rested - COST * BURST).max(asked.rest);
        if from > now {
            return Err(from);
        }
        asked.rested = rested;
        Ok(())
    }

    /// A registry wants rest.
    pub(super) fn rest(&mut self, registry: &str, rest: Duration, now: OffsetDateTime) {
        let until = now + rest.min(MAX_REST);
        let asked = self.0.entry(registry.to_owned()).or_insert(Asked { rested: now, rest: until });
        asked.rest = asked.rest.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn so_many_at_once_and_so_many_a_minute() {
        let mut pace = Pace::default();
        let mut taken = Vec::new();
        for second in 0..600 {
            for _ in 0..5 {
                let now = NOW + Duration::seconds(second);
                match pace.take("quay.io", now) {
                    Ok(()) => taken.push(second),
                    Err(from) => assert!(from > now && from <= now + COST, "{from}"),
                }
            }
        }
        assert_eq!(taken.iter().filter(|second| **second < 2).count(), BURST as usize);
        let most = BURST as usize + 10 * A_MINUTE as usize;
        assert!(taken.len() <= most && taken.len() + 2 >= most, "{}", taken.len());
        assert_eq!(pace.take("ghcr.io", NOW), Ok(()), "another registry has its own");
    }

    #[test]
    fn a_registry_rests_as_long_as_it_asks_within_reason_and_is_forgotten_then() {
        let mut pace = Pace::default();
        pace.rest("quay.io", Duration::seconds(90), NOW);
        pace.rest("quay.io", Duration::seconds(30), NOW);
        assert_eq!(pace.take("quay.io", NOW), Err(NOW + Duration::seconds(90)));
        assert_eq!(pace.take("quay.io", NOW + Duration::seconds(90)), Ok(()));
        pace.rest("ghcr.io", Duration::days(4000), NOW);
        assert_eq!(pace.take("ghcr.io", NOW), Err(NOW + MAX_REST));
        // The clock is put back by years.
        let early = NOW - Duration::days(3000);
        assert_eq!(pace.take("ghcr.io", early), Err(early + MAX_REST));
        let late = NOW + Duration::days(5000);
        assert_eq!(pace.take("other", late), Ok(()));
        assert_eq!(pace.0.len(), 1);
    }
}
