//! The short time in which the supernodes are given a chance to answer, before tasks are joined at those that did: who
//! joined at once would begin at whichever is quickest, and each node at another. Part of [`super::fleet`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Enough for a healthy supernode to be dialled, and no more than a client does not notice.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose word is awaited, and until when at most.
pub(super) struct Muster {
    awaited: BTreeSet<String>,
    ends: Instant,
}

// === impl Muster ===

impl Muster {
    /// Begins; it is over at once unless somebody is expected.
    pub(super) fn begin(now: Instant) -> Self {
        Self { awaited: BTreeSet::new(), ends: now + PATIENCE }
    }

    /// One more to wait for.
    pub(super) fn expect(&mut self, whom: String) {
        self.awaited.insert(whom);
    }

    /// One less.
    pub(super) fn answered(&mut self, who: &str) {
        self.awaited.remove(who);
    }

    /// Whether there is nobody to wait for any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.awaited.is_empty() || self.ends <= now
    }

    /// When it ends at the latest, if somebody is awaited.
    pub(super) fn ends(&self) -> Option<Instant> {
        (!self.awaited.is_empty()).then_some(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_last_answer_or_with_patience() {
        let now = Instant::now();
        let mut muster = Muster::begin(now);
        assert!(muster.is_over(now) && muster.ends().is_none());
        muster.expect("a".into());
        muster.expect("b".into());
        muster.answered("a");
        assert!(!muster.is_over(now) && muster.is_over(now + PATIENCE));
        muster.answered("b");
        assert!(muster.is_over(now));
    }
}
