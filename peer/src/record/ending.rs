//! How a pull ends, and how it looks before it has. Part of [`Record`].

use std::time::{Duration, Instant};

use common::piece::PieceIndex;

use super::reading::{Reading, Turn};
use super::trace::NEVER;
use super::{Cause, End, GRACE, Mark, Record};

// === impl Record ===

impl Record {
    /// The download is over.
    pub fn end(&mut self, end: End, now: Instant) {
        self.fed(now);
        if self.ended.is_none() {
            if end == End::Ok {
                self.mark(Mark::Proven, now);
            }
            self.ended = Some((now, end));
        }
    }

    /// When the record may be closed, if it is not: nobody reads any more.
    pub fn close_due(&self) -> Option<Instant> {
        let (ended, end) = self.ended.as_ref().filter(|_| self.closed.is_none() && self.active.is_empty())?;
        let waits = self.readings == 0 && *end == End::Ok;
        Some(*ended + if waits { GRACE } else { Duration::ZERO })
    }

    /// Nothing more will happen: what was kept to find causes by can go.
    pub fn close(&mut self) {
        if self.closed.is_some() {
            return;
        }
        let ended = self.ended.as_ref().map_or(self.last, |(ended, _)| *ended);
        if self.readings == 0 {
            self.read_quickly(ended);
        }
        self.closed = Some(if self.readings == 0 { ended } else { self.last.max(ended) });
        self.traces = Vec::new();
    }

    /// As if a client that takes no time had read it all.
    pub(super) fn read_quickly(&mut self, until: Instant) {
        self.wait_for_length(self.start, self.known.unwrap_or(until).min(until));
        let mut at = self.known.unwrap_or(until).min(until);
        for index in 0..self.traces.len() {
            let kept = self.traces[index].kept;
            let kept = if kept == NEVER { until } else { self.instant(kept).min(until) };
            if kept > at {
                self.wait(PieceIndex(index as u32), at, kept);
                at = kept;
            }
        }
        self.spend(Turn::Own(Cause::Proof), at, until);
    }

    /// The record as it would be if everything stopped now.
    pub fn settled(&self, now: Instant) -> Self {
        let mut settled = self.clone();
        for Reading { doing, since, .. } in std::mem::take(&mut settled.active) {
            settled.spent(doing, since, now);
        }
        for giver in settled.givers.iter_mut().filter(|giver| giver.flying > 0) {
            giver.busy += now.saturating_duration_since(giver.since).as_micros() as u64;
        }
        if settled.closed.is_none() && settled.readings == 0 {
            let until = settled.ended.as_ref().map_or(now, |(ended, _)| *ended);
            settled.read_quickly(until);
        }
        settled
    }

    /// Whether no content was asked for.
    pub(super) fn is_question(&self) -> bool {
        self.closed.is_some()
            && self.geometry.is_none()
            && self.ended.as_ref().is_some_and(|(_, end)| *end == End::Ok)
    }

    /// Whether it ended in a way that an operator should know of.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self.ended, Some((_, End::Failed { trouble: true, .. })))
    }

    /// When it was over, or now.
    pub(super) fn until(&self, now: Instant) -> Instant {
        self.closed.unwrap_or(match (&self.ended, self.active.is_empty()) {
            (Some((ended, _)), true) => self.last.max(*ended),
            _ => now,
        })
    }
}
