//! What came out of a simulation.

use std::time::Duration;

/// What came out. Everything but the times of the real machine follows from the scenario alone.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What no swarm is faster than.
    pub bound: Duration,
    /// How long each peer that finished took from its arrival, ascending.
    pub times: Vec<Duration>,
    /// When each of them finished, ascending.
    pub finished_at: Vec<Duration>,
    /// Peers that were there at the end and had not finished.
    pub unfinished: u32,
    /// Bytes of pieces that left the seed, in blobs.
    pub seed_factor: f64,
    /// Bytes of pieces that left the origin, in blobs.
    pub origin_factor: f64,
    /// Bytes that came into each zone from others, in blobs.
    pub zone_factors: Vec<f64>,
    /// Bytes of all pieces that were sent, over what the finished peers needed.
    pub sent_factor: f64,
    /// Requests to a second parent.
    pub hedges: u64,
    /// Peers that asked the origin themselves.
    pub fallbacks: u32,
    /// Cries for more parents.
    pub cries: u64,
    /// Bytes that the supernode said to peers beside the pieces, in blobs, and heard from them.
    pub control_factors: (f64, f64),
    /// Most links that a peer had.
    pub most_links: usize,
    /// Events that the scheduler took.
    pub events: u64,
    /// Commands that it gave.
    pub commands: u64,
    /// Pieces that arrived.
    pub pieces: u64,
    /// Lists of pieces that nodes told each other.
    pub tells: u64,
    /// Time of the real machine that the scheduler took.
    pub scheduler_time: Duration,
    /// Time of the real machine that all of it took.
    pub wall: Duration,
}

// === impl Outcome ===

impl Outcome {
    /// The time that so many per cent of those that finished did not exceed; zero when nobody finished.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.times.len() as f64 * percent / 100.0).ceil() as usize;
        self.times.get(rank.max(1) - 1).or(self.times.last()).copied().unwrap_or_default()
    }

    /// That time over the bound.
    pub fn ratio(&self, percent: f64) -> f64 {
        self.percentile(percent).as_secs_f64() / self.bound.as_secs_f64()
    }

    /// Events a second that the scheduler takes.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.scheduler_time.as_secs_f64().max(1e-9)
    }

    /// Share of the peers that had finished (per cent) by the time (seconds).
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let all = (self.finished_at.len() + self.unfinished as usize).max(1) as f64;
        let point = |(nth, at): (usize, &Duration)| (at.as_secs_f64(), (nth + 1) as f64 * 100.0 / all);
        std::iter::once((0.0, 0.0)).chain(self.finished_at.iter().enumerate().map(point)).collect()
    }

    /// What two runs of one scenario must agree on, as a text.
    pub fn essence(&self) -> String {
        format!(
            "{:?} {} {} {} {:?} {} {} {} {} {} {}",
            self.times,
            self.unfinished,
            self.seed_factor,
            self.origin_factor,
            self.zone_factors,
            self.sent_factor,
            self.hedges,
            self.fallbacks,
            self.events,
            self.commands,
            self.tells
        )
    }
}
