//! What may be said at most once in a while, however often it happens: a full disk meets every piece of every pull.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Often enough for who looks at the log later, and not so often that it drowns the rest.
const PAUSE: Duration = Duration::from_secs(60);

/// When it was last said.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

// === impl Seldom ===

impl Seldom {
    /// Whether it is to be said `now`; it is then taken as said.
    pub(super) fn due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now >= last + PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_and_then_not_for_a_while() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.due(now));
        assert!(!seldom.due(now + PAUSE / 2));
        assert!(seldom.due(now + PAUSE));
        assert!(!seldom.due(now + PAUSE));
    }
}
