//! What became of one piece, and what whoever waited for it was waiting for. Pure; used by [`super::Record`], which keeps one
//! for each piece while the pull goes on.

use std::time::Duration;

/// A moment, in tenths of a millisecond from when the record was made: four bytes last five days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u32);

/// It has not happened.
pub(super) const NEVER: Moment = Moment(u32::MAX);
/// Microseconds in a step of a [`Moment`].
const STEP: u64 = 100;

/// Stands for nobody in [`Trace`].
pub(super) const NOBODY: u8 = u8::MAX;

/// One piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    /// Its digest was vouched for: from here on somebody could be asked for it.
    pub(super) vouched: Moment,
    /// The node's own limit held it back.
    pub(super) withheld: Moment,
    /// It was asked for first, and last.
    pub(super) asked: Moment,
    pub(super) again: Moment,
    /// It came, whole and right.
    pub(super) came: Moment,
    /// The node's own limit let it pass.
    pub(super) free: Moment,
    /// It lies on the disk.
    pub(super) kept: Moment,
    /// Who was asked first, who was asked last, and who gave it: places in the record's table of givers.
    pub(super) first: u8,
    pub(super) last: u8,
    pub(super) giver: u8,
}

/// What a reader waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The supernode, which had not told of the piece.
    Upstream,
    /// A neighbour that has the piece and is free.
    Swarm,
    /// Somebody that was asked for it.
    Giver(u8),
    /// The node's own limits.
    Limit,
    /// This node, to write it.
    Disk,
    /// Whatever comes after the piece.
    Rest,
}

// === impl Moment ===

impl Moment {
    /// So long after the record was made.
    pub(super) fn after(time: Duration) -> Self {
        Self(u32::try_from(time.as_micros() as u64 / STEP).unwrap_or(u32::MAX - 1).min(u32::MAX - 1))
    }

    /// How long after the record was made.
    pub(super) fn since(self) -> Duration {
        Duration::from_micros(u64::from(self.0) * STEP)
    }

    /// Microseconds since the record was made; the end of all time if it has not happened.
    fn micros(self) -> u64 {
        if self == NEVER { u64::MAX } else { u64::from(self.0) * STEP }
    }
}

// === impl Trace ===

impl Trace {
    /// Nothing has happened.
    pub(super) const NEW: Self = Self {
        vouched: NEVER,
        withheld: NEVER,
        asked: NEVER,
        again: NEVER,
        came: NEVER,
        free: NEVER,
        kept: NEVER,
        first: NOBODY,
        last: NOBODY,
        giver: NOBODY,
    };

    /// Somebody is asked for it.
    pub(super) fn ask(&mut self, who: u8, now: Moment) {
        if self.asked == NEVER {
            (self.asked, self.first) = (now, who);
        }
        (self.again, self.last) = (now, who);
    }

    /// Cuts a wait for the piece, in microseconds since the record was made, into what was waited for: ascending, and without
    /// gaps.
    pub(super) fn blame(&self, from: u64, to: u64, mut found: impl FnMut(Part, u64, u64)) {
        let giver = if self.giver == NOBODY { self.last } else { self.giver };
        // Whoever was asked first and gave it in the end had it all the while.
        let again = if giver == self.first { self.asked } else { self.again };
        let vouched = self.vouched.min(self.withheld).min(self.asked).min(self.came);
        let sought = self.withheld.min(self.asked).min(self.came);
        let stages = [
            (Part::Upstream, vouched.micros()),
            (Part::Swarm, sought.micros()),
            (Part::Limit, self.asked.min(self.came).micros()),
            (Part::Giver(self.first), again.min(self.came).micros()),
            (Part::Giver(giver), self.came.micros()),
            (Part::Limit, self.free.min(self.kept).micros()),
            (Part::Disk, self.kept.micros()),
            (Part::Rest, u64::MAX),
        ];
        let mut at = from;
        for (part, until) in stages {
            let end = until.min(to);
            if end > at {
                found(part, at, end);
                at = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(at: u64) -> Moment {
        Moment::after(Duration::from_millis(at))
    }

    fn blamed(trace: &Trace, from: u64, to: u64) -> Vec<(Part, u64)> {
        let mut all = Vec::new();
        trace.blame(from * 1000, to * 1000, |part, from, to| all.push((part, (to - from) / 1000)));
        all
    }

    #[test]
    fn a_wait_is_laid_at_the_door_of_whom_it_was_for() {
        let mut trace = Trace { vouched: ms(10), ..Trace::NEW };
        trace.ask(1, ms(30));
        assert_eq!(
            blamed(&trace, 0, 40),
            [(Part::Upstream, 10), (Part::Swarm, 20), (Part::Giver(1), 10)],
            "it has not come yet"
        );
        trace.ask(2, ms(80));
        (trace.came, trace.free, trace.kept, trace.giver) = (ms(90), ms(90), ms(95), 2);
        let parts =
            [(Part::Swarm, 10), (Part::Giver(1), 50), (Part::Giver(2), 10), (Part::Disk, 5), (Part::Rest, 5)];
        assert_eq!(blamed(&trace, 20, 100), parts);
        trace.giver = 1;
        assert_eq!(
            blamed(&trace, 20, 90),
            [(Part::Swarm, 10), (Part::Giver(1), 60)],
            "the hedge was in vain"
        );
    }

    #[test]
    fn what_the_own_limit_held_back_is_nobody_elses_fault() {
        let mut trace = Trace { vouched: ms(10), withheld: ms(20), ..Trace::NEW };
        trace.ask(0, ms(70));
        assert_eq!(blamed(&trace, 10, 80), [(Part::Swarm, 10), (Part::Limit, 50), (Part::Giver(0), 10)]);
        let origin = Trace {
            asked: ms(0),
            first: 0,
            came: ms(10),
            giver: 0,
            free: ms(40),
            kept: ms(50),
            ..Trace::NEW
        };
        assert_eq!(blamed(&origin, 0, 50), [(Part::Giver(0), 10), (Part::Limit, 30), (Part::Disk, 10)]);
    }

    proptest! {
        #[test]
        fn a_wait_is_cut_without_gaps(moments in prop::array::uniform7(0u64..100), holes: u8, from in 0u64..100, length in 0u64..100) {
            let at = |n: usize| if holes >> n & 1 == 1 { NEVER } else { ms(moments[n]) };
            let trace = Trace {
                vouched: at(0), withheld: at(1), asked: at(2), again: at(3), came: at(4), free: at(5), kept: at(6), first: 0, last: 1, giver: 1,
            };
            let all = blamed(&trace, from, from + length);
            prop_assert_eq!(all.iter().map(|(_, length)| length).sum::<u64>(), length);
        }
    }
}
