//! Who of several supernodes works on the resources: whoever holds a Lease of the Kubernetes API. Pure; [`super::lease`] asks.
//!
//! # Invariants
//! - Whoever leads ends its work before another may begin: it counts from before its last successful request, the others from when
//!   they see that request's result, and [`HOLD`] is shorter than [`DURATION`].
//! - Clocks of other machines are not believed: a Lease is stale when *we* have seen it unchanged for its duration.

use std::time::{Duration, Instant};

/// A Lease that nobody renews for so long is anybody's. The figures are those of Kubernetes's own controllers.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// So long after the last renewal whoever leads stops.
pub(super) const HOLD: Duration = Duration::from_secs(10);
/// Between two looks.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// What a Lease says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Who holds it; empty is nobody.
    pub(super) holder: String,
    /// How long it lasts, as its holder has it.
    pub(super) duration: Duration,
    /// Changes with each renewal; not read as a time.
    pub(super) renewed: String,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none: make it.
    Create,
    /// It is ours, or stale, or nobody's: write ourselves into it. `new` is whether somebody else had it.
    Hold {
        /// Whether it changes hands.
        new: bool,
    },
    /// Another one leads.
    Follow,
}

/// What one supernode knows of the Lease.
pub(super) struct Elector {
    me: String,
    seen: Option<(Record, Instant)>,
    held: Option<Instant>,
}

// === impl Elector ===

impl Elector {
    /// Of this name, which no other has, and which stays over restarts where the data folder does.
    pub(super) fn new(me: String) -> Self {
        Self { me, seen: None, held: None }
    }

    /// The name.
    pub(super) fn me(&self) -> &str {
        &self.me
    }

    /// The Lease was looked at.
    pub(super) fn look(&mut self, record: Option<Record>, now: Instant) -> Step {
        let Some(record) = record else { return Step::Create };
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != record) {
            self.seen = Some((record.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if record.holder == self.me {
            return Step::Hold { new: false };
        }
        let stale = record.holder.is_empty() || now.saturating_duration_since(since) >= record.duration;
        if stale { Step::Hold { new: true } } else { Step::Follow }
    }

    /// A request that was begun then has written us into the Lease.
    pub(super) fn held(&mut self, begun: Instant) {
        self.held = Some(begun);
    }

    /// Another one has it.
    pub(super) fn lost(&mut self) {
        self.held = None;
    }

    /// Until when we lead, unless it is renewed.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.held.map(|begun| begun + HOLD)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(holder: &str, renewed: u64) -> Record {
        Record { holder: holder.into(), duration: DURATION, renewed: renewed.to_string() }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_nobodys_or_stale_by_our_own_clock() {
        let start = Instant::now();
        let mut elector = Elector::new("b".into());
        assert_eq!(elector.look(None, start), Step::Create);
        assert_eq!(elector.look(Some(record("", 0)), start), Step::Hold { new: true });
        // However old it says that it is: it was seen just now.
        assert_eq!(elector.look(Some(record("a", 1)), start), Step::Follow);
        let later = start + DURATION - Duration::from_millis(1);
        assert_eq!(elector.look(Some(record("a", 1)), later), Step::Follow);
        assert_eq!(elector.look(Some(record("a", 2)), start + DURATION), Step::Follow);
        assert_eq!(elector.look(Some(record("a", 2)), start + DURATION * 2), Step::Hold { new: true });
        assert_eq!(elector.look(Some(record("b", 3)), start), Step::Hold { new: false });
    }

    #[test]
    fn whoever_cannot_renew_stops_in_time() {
        let start = Instant::now();
        let mut elector = Elector::new("a".into());
        assert_eq!(elector.leads_until(), None);
        elector.held(start);
        assert_eq!(elector.leads_until(), Some(start + HOLD));
        elector.lost();
        assert_eq!(elector.leads_until(), None);
    }

    proptest! {
        /// Several electors, a Lease with optimistic writes, pauses at any place: never do two lead.
        #[test]
        fn two_never_lead(steps in prop::collection::vec((0_usize..3, 0_u64..6_000, 0_u64..6_000, any::<bool>()), 1..200)) {
            let mut now = Instant::now();
            let mut electors = ["a", "b", "c"].map(|name| Elector::new(name.into()));
            let (mut lease, mut version) = (None::<Record>, 0_u64);
            for (who, pause, request, arrives) in steps {
                now += Duration::from_millis(pause);
                let elector = &mut electors[who];
                let step = elector.look(lease.clone(), now);
                let begun = now;
                now += Duration::from_millis(request);
                match step {
                    Step::Follow => elector.lost(),
                    Step::Create | Step::Hold { .. } if arrives => {
                        version += 1;
                        lease = Some(record(&elector.me, version));
                        elector.held(begun);
                    }
                    Step::Create | Step::Hold { .. } => {}
                }
                let leaders = electors.iter().filter(|one| one.leads_until().is_some_and(|until| now < until)).count();
                prop_assert!(leaders <= 1, "{leaders} lead");
            }
        }
    }
}
