//! The last hour in numbers, for plots that are there when a page is opened. Written by the dashboard's
//! [recorder](super::Dashboard::record), read by its routes.
//!
//! # Invariants
//! Pure: time is passed in. The memory is fixed: [`KEPT`] samples. Samples are sums since the start, so one that is left out
//! of a plot takes no bytes with it.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::preheat;

/// Between two samples; also how often an open page hears something new.
pub const STEP: Duration = Duration::from_secs(2);
/// An hour of them.
const KEPT: usize = 1800;
/// Points of a plot: a screen shows no more, and a page stays light.
const SHOWN: usize = 180;
/// A speed is taken over this: of a shorter time, whole pieces make it jump.
const RECENT: Duration = Duration::from_secs(6);

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Bytes that nodes got, wherever from, as they report it.
    pub delivered: u64,
    /// Bytes that the supernode got from origins.
    pub origin: u64,
    /// Bytes that the supernode sent to nodes.
    pub seed: u64,
    /// Requests that origins answered with an error of theirs, or not at all.
    pub origin_errors: u64,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Speeds {
    /// From origins to the supernode.
    pub origin: u64,
    /// From the supernode to nodes.
    pub seed: u64,
    /// From node to node.
    pub nodes: u64,
}

/// What a plot is drawn of: `[milliseconds since the start, delivered, origin, seed]`, oldest first.
pub type Point = (u64, u64, u64, u64);

/// The samples of the last hour.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Duration, Totals)>);

// === impl Totals ===

impl Totals {
    /// What the origin did not have to send.
    pub fn saved(&self) -> u64 {
        self.delivered.saturating_sub(self.origin)
    }

    /// What came from node to node. The supernode's own count runs ahead of the nodes' reports.
    pub fn between_nodes(&self) -> u64 {
        self.delivered.saturating_sub(self.seed)
    }
}

// === impl History ===

impl History {
    /// A sample, at a time since the start.
    pub fn push(&mut self, at: Duration, totals: Totals) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((at, totals));
    }

    /// The newest sample.
    pub fn last(&self) -> Totals {
        self.0.back().map(|&(_, totals)| totals).unwrap_or_default()
    }

    /// The present speeds.
    pub fn speeds(&self) -> Speeds {
        let Some((&(now, last), (then, before))) = self.0.back().zip(self.before(RECENT)) else {
            return Speeds::default();
        };
        let over = now.saturating_sub(then).as_secs_f64();
        let speed = |last: u64, before: u64| match over > 0.0 {
            true => (last.saturating_sub(before) as f64 / over) as u64,
            false => 0,
        };
        Speeds {
            origin: speed(last.origin, before.origin),
            seed: speed(last.seed, before.seed),
            nodes: speed(last.between_nodes(), before.between_nodes()),
        }
    }

    /// The highest speeds of the hour: from origins, and to nodes.
    pub fn highest(&self) -> preheat::Speeds {
        let steps = (RECENT.as_millis() / STEP.as_millis()) as usize;
        let speed = |(then, before): &(Duration, Totals), (now, last): &(Duration, Totals)| {
            let over = now.saturating_sub(*then).as_secs_f64().max(STEP.as_secs_f64());
            let of = |before: u64, last: u64| (last.saturating_sub(before) as f64 / over) as u64;
            (of(before.origin, last.origin), of(before.delivered, last.delivered))
        };
        let speeds = self.0.iter().zip(self.0.iter().skip(steps)).map(|(before, last)| speed(before, last));
        speeds.fold(preheat::Speeds::default(), |highest, (origin, nodes)| preheat::Speeds {
            origin: highest.origin.max(origin),
            nodes: highest.nodes.max(nodes),
        })
    }

    /// Requests that failed at origins of late.
    pub fn origin_errors(&self, of_late: Duration) -> u64 {
        let before = self.before(of_late).map(|(_, totals)| totals.origin_errors);
        self.last().origin_errors - before.unwrap_or_default()
    }

    /// What a plot of the hour is drawn of.
    pub fn plot(&self) -> Vec<Point> {
        let every = self.0.len().div_ceil(SHOWN).max(1);
        // Counted from the end: the newest is always there.
        let shown = self
            .0
            .iter()
            .rev()
            .step_by(every)
            .map(|(at, totals)| (at.as_millis() as u64, totals.delivered, totals.origin, totals.seed));
        let mut points: Vec<Point> = shown.collect();
        points.reverse();
        points
    }

    /// The oldest sample that is not older than so long before the newest.
    fn before(&self, time: Duration) -> Option<(Duration, Totals)> {
        let since = self.0.back()?.0.saturating_sub(time);
        // Few are looked at: they are looked for from the end.
        self.0.iter().rev().take_while(|(at, _)| *at >= since).last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(delivered: u64, origin: u64, seed: u64) -> Totals {
        Totals { delivered, origin, seed, origin_errors: 0 }
    }

    #[test]
    fn speeds_are_those_of_the_last_seconds() {
        let mut history = History::default();
        assert_eq!(history.speeds(), Speeds::default());
        history.push(Duration::from_secs(1), totals(5000, 0, 0));
        assert_eq!(history.speeds(), Speeds::default(), "one sample has no speed");
        for second in 0..10 {
            history.push(
                Duration::from_secs(100 + second),
                totals(5000 + second * 100, second * 10, second * 20),
            );
        }
        assert_eq!(history.speeds(), Speeds { origin: 10, seed: 20, nodes: 80 });
    }

    #[test]
    fn the_highest_speeds_are_those_of_some_seconds_and_may_be_long_ago() {
        let mut history = History::default();
        assert_eq!(history.highest(), preheat::Speeds::default());
        let (mut delivered, mut origin) = (0, 0);
        for sample in 0..100_u64 {
            history.push(Duration::from_secs(2 * sample), totals(delivered, origin, 0));
            delivered += if (40..45).contains(&sample) { 2000 } else { 2 };
            origin += if sample == 70 { 600 } else { 0 };
        }
        assert_eq!(history.highest(), preheat::Speeds { origin: 100, nodes: 1000 });
    }

    #[test]
    fn an_hour_is_kept_and_a_plot_has_few_points_with_the_newest_among_them() {
        let mut history = History::default();
        for second in 0..10 * KEPT as u64 {
            history.push(Duration::from_secs(second), totals(second, 0, 0));
        }
        assert_eq!(history.0.len(), KEPT);
        let plot = history.plot();
        assert!(plot.len() <= SHOWN && plot.len() > SHOWN / 2, "{}", plot.len());
        assert_eq!(plot.last().unwrap().1, 10 * KEPT as u64 - 1);
        assert!(plot.is_sorted());
    }

    #[test]
    fn errors_are_counted_over_the_time_asked_for() {
        let mut history = History::default();
        for second in 0..20 {
            history.push(Duration::from_secs(second), Totals { origin_errors: second, ..Totals::default() });
        }
        assert_eq!(history.origin_errors(Duration::from_secs(5)), 5);
    }

    #[test]
    fn what_the_supernode_sent_before_it_was_reported_is_no_debt() {
        assert_eq!(totals(10, 20, 30).saved(), 0);
        assert_eq!(totals(10, 20, 30).between_nodes(), 0);
        assert_eq!(totals(100, 20, 30).saved(), 80);
    }
}
