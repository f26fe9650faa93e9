//! What happens to pieces: who is asked, who gives, and when they lie on the disk. Part of [`Record`]; the session and its mesh
//! tell.

use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::PieceIndex;

use super::chart::Chart;
use super::trace::{NEVER, NOBODY};
use super::{Mark, Meter, Record, Who};

/// Somebody that gave pieces, or was asked for them.
#[derive(Clone, Debug)]
pub(super) struct Giver {
    pub(super) who: Who,
    pub(super) bytes: u64,
    pub(super) pieces: u32,
    pub(super) failed: u32,
    /// Requests under way, and since when there are any.
    pub(super) flying: u32,
    pub(super) since: Instant,
    /// Microseconds in which requests were under way.
    pub(super) busy: u64,
    pub(super) last: Instant,
    pub(super) sent: Chart,
    pub(super) waited: Meter,
}

// === impl Record ===

impl Record {
    /// The digest of a piece can be relied on: it may be asked for.
    pub fn vouched(&mut self, index: PieceIndex, now: Instant) {
        let now = self.moment(now);
        if let Some(trace) = self.trace(index).filter(|trace| trace.vouched == NEVER) {
            trace.vouched = now;
        }
    }

    /// The node's own limit lets no request for it pass.
    pub fn withheld(&mut self, index: PieceIndex, now: Instant) {
        let now = self.moment(now);
        if let Some(trace) = self.trace(index).filter(|trace| trace.withheld == NEVER) {
            trace.withheld = now;
        }
    }

    /// A neighbour is asked for a piece.
    pub fn asked(&mut self, index: PieceIndex, who: Who, now: Instant) {
        let (giver, moment) = (self.giver(who, now), self.moment(now));
        self.givers[usize::from(giver)].takes_off(now);
        if let Some(trace) = self.trace(index) {
            trace.ask(giver, moment);
        }
    }

    /// A request came to nothing, for a fault of the neighbour's or not.
    pub fn gave_up(&mut self, who: Who, fault: bool, now: Instant) {
        let giver = self.giver(who, now);
        let giver = &mut self.givers[usize::from(giver)];
        giver.failed += u32::from(fault);
        giver.lands(now);
    }

    /// A neighbour gave a piece.
    pub fn came(&mut self, index: PieceIndex, who: Who, bytes: u64, now: Instant) {
        let giver = self.giver(who, now);
        let asked =
            self.trace(index).map(|trace| if trace.first == giver { trace.asked } else { trace.again });
        let since = asked.filter(|asked| *asked != NEVER).map_or(now, |asked| self.instant(asked));
        self.givers[usize::from(giver)].lands(now);
        self.gift(index, giver, (since, now), bytes);
    }

    /// The origin, or the cache, is asked for what is missing.
    pub fn feeding(&mut self, who: Who, now: Instant) {
        self.fed(now);
        if who == Who::Origin {
            self.mark(Mark::ToOrigin, now);
        }
        let giver = self.giver(who, now);
        let entry = &mut self.givers[usize::from(giver)];
        entry.takes_off(now);
        entry.last = now;
        self.feeding = Some(giver);
    }

    /// It gave a piece.
    pub fn poured(&mut self, index: PieceIndex, who: Who, bytes: u64, now: Instant) {
        let giver = self.giver(who, now);
        if self.feeding != Some(giver) {
            // The cache has given what it has, and the origin goes on.
            self.feeding(who, now);
        }
        let (since, last) = {
            let giver = &self.givers[usize::from(giver)];
            (self.moment(giver.since), giver.last)
        };
        if let Some(trace) = self.trace(index) {
            trace.ask(giver, since);
        }
        self.gift(index, giver, (last, now), bytes);
    }

    /// It is not asked any more.
    pub fn fed(&mut self, now: Instant) {
        if let Some(giver) = self.feeding.take() {
            self.givers[usize::from(giver)].lands(now);
        }
    }

    /// A piece lies on the disk; so long the node's own limit held it back before.
    pub fn kept(&mut self, index: PieceIndex, limited: Duration, now: Instant) {
        let (kept, pieces) = (self.moment(now), self.traces.len());
        let Some(trace) = self.traces.get(index.0 as usize) else { return };
        let free = if trace.came == NEVER { kept } else { self.moment(self.instant(trace.came) + limited) };
        let Some(trace) = self.trace(index) else { return };
        let found = trace.giver == NOBODY;
        let first = trace.kept == NEVER;
        (trace.free, trace.kept) = (free, kept);
        if found {
            // It was on the disk before.
            let bytes = self.geometry.map_or(0, |geometry| geometry.range(index).len());
            let giver = self.giver(Who::Store, now);
            self.gift(index, giver, (now, now), bytes);
        }
        self.held += u32::from(first);
        if first && self.held as usize == pieces {
            self.mark(Mark::Whole, now);
        }
    }

    /// A piece lies on the disk, if that was not said yet.
    pub fn kept_before(&mut self, index: PieceIndex, now: Instant) {
        if self.trace(index).is_some_and(|trace| trace.kept == NEVER) {
            self.kept(index, Duration::ZERO, now);
        }
    }

    /// The supernode that was joined, as who gives what came with its answer.
    pub fn supernode(&self) -> Who {
        Who::Seed(self.supernode.unwrap_or(NodeId([0; 16])))
    }

    fn gift(&mut self, index: PieceIndex, giver: u8, (since, now): (Instant, Instant), bytes: u64) {
        let (moment, from, to) = (self.moment(now), self.offset(since), self.offset(now));
        self.reach(to);
        if let Some(trace) = self.trace(index) {
            (trace.giver, trace.came, trace.free) = (giver, moment, moment);
        }
        let (axis, giver) = (self.axis, &mut self.givers[usize::from(giver)]);
        giver.bytes += bytes;
        giver.pieces += 1;
        giver.last = now;
        giver.sent.spread(axis, from, to, bytes as f64);
        self.last = self.last.max(now);
    }
}

// === impl Giver ===

impl Giver {
    pub(super) fn new(who: Who, now: Instant) -> Self {
        Self {
            who,
            bytes: 0,
            pieces: 0,
            failed: 0,
            flying: 0,
            since: now,
            busy: 0,
            last: now,
            sent: Chart::default(),
            waited: Meter::default(),
        }
    }

    pub(super) fn takes_off(&mut self, now: Instant) {
        if self.flying == 0 {
            self.since = now;
        }
        self.flying += 1;
    }

    pub(super) fn lands(&mut self, now: Instant) {
        if self.flying == 1 {
            self.busy += now.saturating_duration_since(self.since).as_micros() as u64;
        }
        self.flying = self.flying.saturating_sub(1);
    }
}
