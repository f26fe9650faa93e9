//! What came out, from what was counted.

use std::time::Duration;

use super::World;
use crate::hub::Hub;
use crate::outcome::Outcome;

// === impl World ===

impl World<'_> {
    pub(super) fn outcome(self, wall: Duration) -> Outcome {
        let counts = self.out.counts;
        let blob = self.scenario.size as f64;
        let pieces = blob * (1.0 + self.scenario.overhead);
        let span = |steps: u64| self.fixed.step.mul_f64(steps as f64);
        let pairs = self.finished.iter().zip(&self.came);
        let ended: Vec<(u64, u64)> = pairs.filter_map(|(end, came)| Some(((*end)?, *came))).collect();
        let mut times: Vec<_> = ended.iter().map(|(end, came)| span(end - came)).collect();
        let mut finished_at: Vec<_> = ended.iter().map(|(end, _)| span(*end)).collect();
        times.sort_unstable();
        finished_at.sort_unstable();
        let of = |what: fn(&Hub) -> f64| self.hubs.iter().map(what).sum::<f64>();
        let sent = &self.network.sent;
        let by_all: f64 = sent[..sent.len() - 1].iter().sum();
        Outcome {
            bound: self.scenario.bound(),
            unfinished: self.unfinished,
            seed_factor: sent[..self.hubs.len()].iter().sum::<f64>() / pieces,
            origin_factor: sent[self.fixed.origin as usize] / pieces,
            zone_factors: self.network.crossed.iter().map(|bytes| bytes / pieces).collect(),
            sent_factor: by_all / pieces / (times.len() as f64).max(1.0),
            hedges: counts.hedges,
            fallbacks: counts.fallbacks,
            cries: counts.cries,
            control_factors: (of(|hub| hub.said) / blob, of(|hub| hub.heard) / blob),
            most_links: counts.most_links,
            events: self.hubs.iter().map(|hub| hub.events).sum(),
            commands: self.hubs.iter().map(|hub| hub.commands).sum(),
            pieces: counts.pieces,
            tells: counts.tells,
            scheduler_time: self.hubs.iter().map(|hub| hub.time).sum(),
            times,
            finished_at,
            wall,
        }
    }
}
