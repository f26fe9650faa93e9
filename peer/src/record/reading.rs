//! Who reads, and what for it waits meanwhile. Part of [`Record`]; the readers of [`crate::handle`] tell.

use std::time::{Duration, Instant};

use common::piece::PieceIndex;

use super::trace::{NOBODY, Part};
use super::{By, Cause, Doing, MAX_READINGS, Mark, Record, Who};

/// A client that reads.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) id: u32,
    pub(super) doing: Doing,
    pub(super) since: Instant,
}

/// Whose time it was.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    Own(Cause),
    Giver(u8),
}

// === impl Record ===

impl Record {
    /// A client begins to read. Its number, by which the reading goes on.
    pub fn begin_reading(&mut self, by: &By, now: Instant) -> u32 {
        self.rebase(by.asked);
        self.by.get_or_insert_with(|| by.clone());
        self.mark(Mark::Asked, by.asked);
        self.mark(Mark::Permitted, by.permitted);
        self.spend(Turn::Own(Cause::Permission), by.asked, by.permitted);
        if self.stored {
            self.spend(Turn::Own(Cause::Disk), by.permitted, now);
        } else {
            // To open a task is to wait for its length.
            let known = self.known.unwrap_or(now).clamp(by.permitted, now.max(by.permitted));
            self.wait_for_length(by.permitted, known);
            self.spend(Turn::Own(Cause::Disk), known, now);
        }
        self.closed = None;
        self.readings += 1;
        if self.active.len() < MAX_READINGS {
            self.active.push(Reading { id: self.readings, doing: Doing::Reads, since: now });
        }
        self.readings
    }

    /// A reader does something else from now on; so many bytes were given to the client.
    pub fn turn(&mut self, id: u32, doing: Doing, bytes: u64, now: Instant) {
        let Some(at) = self.active.iter().position(|reading| reading.id == id) else { return };
        let before = Reading { id, doing, since: now };
        let Reading { doing: did, since, .. } = std::mem::replace(&mut self.active[at], before);
        self.spent(did, since, now);
        self.last = self.last.max(now);
        if doing != Doing::Gave {
            return;
        }
        self.read += bytes;
        if self.first_byte.is_none() {
            self.first_byte = Some(now);
            self.mark(Mark::FirstByte, now);
        }
        if self.stored {
            let (from, to) = (self.offset(since), self.offset(now));
            self.reach(to);
            let (giver, axis) = (usize::from(self.giver(Who::Store, now)), self.axis);
            let giver = &mut self.givers[giver];
            giver.bytes += bytes;
            giver.busy += to - from;
            giver.sent.spread(axis, from, to, bytes as f64);
        }
    }

    /// A client has read all that it wanted, or has gone.
    pub fn end_reading(&mut self, id: u32, now: Instant) {
        self.turn(id, Doing::Reads, 0, now);
        self.active.retain(|reading| reading.id != id);
    }

    pub(super) fn spent(&mut self, doing: Doing, since: Instant, now: Instant) {
        match doing {
            Doing::Waits(index) => self.wait(index, since, now),
            Doing::Reads => self.spend(Turn::Own(Cause::Disk), since, now),
            Doing::Gave => self.spend(Turn::Own(Cause::Client), since, now),
        }
    }

    /// Lays a wait for a piece at the doors of whom it was for.
    pub(super) fn wait(&mut self, index: PieceIndex, from: Instant, to: Instant) {
        let known = self.known.unwrap_or(to).clamp(from, to);
        self.wait_for_length(from, known);
        let Some(trace) = self.traces.get(index.0 as usize).copied() else {
            return self.spend(Turn::Own(Cause::Disk), known, to);
        };
        let last = index.0 as usize + 1 == self.traces.len();
        let micros = |at: Instant| at.saturating_duration_since(self.born).as_micros() as u64;
        let (begin, end, born) = (micros(known), micros(to), self.born);
        trace.blame(begin, end, |part, from, to| {
            let turn = match part {
                Part::Upstream => Turn::Own(Cause::Upstream),
                Part::Swarm => Turn::Own(Cause::Swarm),
                Part::Giver(NOBODY) => Turn::Own(Cause::Swarm),
                Part::Giver(giver) => Turn::Giver(giver),
                Part::Limit => Turn::Own(Cause::Limit),
                Part::Rest if last => Turn::Own(Cause::Proof),
                Part::Disk | Part::Rest => Turn::Own(Cause::Disk),
            };
            let at = |micros| born + Duration::from_micros(micros);
            self.spend(self.instead(turn), at(from), at(to));
        });
    }

    /// While the origin is asked from here, what nobody has told of is the origin's to give.
    fn instead(&self, turn: Turn) -> Turn {
        match (turn, self.feeding) {
            (Turn::Own(Cause::Upstream | Cause::Swarm), Some(feeding)) => Turn::Giver(feeding),
            _ => turn,
        }
    }

    /// The length is the supernode's to tell, or, where it is asked, the origin's.
    pub(super) fn wait_for_length(&mut self, from: Instant, to: Instant) {
        let Some((opener, asked)) = self.opener.or_else(|| self.opener_now()) else {
            return self.spend(Turn::Own(Cause::Supernode), from, to);
        };
        let asked = asked.clamp(from, to.max(from));
        self.spend(Turn::Own(Cause::Supernode), from, asked);
        self.spend(Turn::Giver(opener), asked, to);
    }

    pub(super) fn opener_now(&self) -> Option<(u8, Instant)> {
        self.feeding.map(|feeding| (feeding, self.givers[usize::from(feeding)].since))
    }

    pub(super) fn spend(&mut self, turn: Turn, from: Instant, to: Instant) {
        let (from, to) = (self.offset(from), self.offset(to));
        if to <= from {
            return;
        }
        self.reach(to);
        let meter = match turn {
            Turn::Own(cause) => &mut self.causes[cause as usize],
            Turn::Giver(giver) => &mut self.givers[usize::from(giver)].waited,
        };
        meter.total += to - from;
        meter.chart.spread(self.axis, from, to, (to - from) as f64);
    }
}
