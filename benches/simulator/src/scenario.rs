//! What is simulated: the swarm, its links, who comes and goes.

use std::time::Duration;

use common::piece::Geometry;
use supernode::scheduler::Settings;

use crate::faults::Plan;

/// From so many peers on time goes in coarse steps, and in coarser ones.
const MANY: u32 = 2_000;
const VERY_MANY: u32 = 5_000;
/// Steps in the time that a piece takes on an idle line: with few peers, with many, and with very many.
const FINE: u32 = 32;
const COARSE: u32 = 4;
const COARSER: u32 = 2;

/// When peers come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// All within this.
    Burst(Duration),
    /// One after another, evenly, over this.
    Rolling(Duration),
}

/// Peers that leave without a word, as after a loss of power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Share of the peers, 0 to 1. They leave at random times within the bound.
    pub share: f64,
    /// After so long they come back with what they had; nothing: never.
    pub back_after: Option<Duration>,
}

/// A swarm and its circumstances. Take [`Scenario::default`] and change what matters.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Number of peers, beside the seed.
    pub peers: u32,
    /// Number of supernodes, each with its seed.
    pub supernodes: u32,
    /// Bytes of the blob.
    pub size: u64,
    /// Bits a second up of each peer.
    pub up: u64,
    /// Bits a second down of each peer.
    pub down: u64,
    /// Bits a second of the seed, each way.
    pub seed_rate: u64,
    /// Bits a second of the origin.
    pub origin_rate: u64,
    /// One way within a zone.
    pub latency: Duration,
    /// One way between zones.
    pub zone_latency: Duration,
    /// Number of zones; the seed is in the first.
    pub zones: u32,
    /// Bits a second into each zone, and out of it.
    pub zone_rate: Option<u64>,
    /// Who leaves.
    pub churn: Churn,
    /// When peers come.
    pub arrival: Arrival,
    /// Decides all that is left to chance.
    pub rng: u64,
    /// Length of a step of time; nothing: as fine as the number of peers allows.
    pub step: Option<Duration>,
    /// What packets and their headers add to the bytes of a piece, as a share.
    pub overhead: f64,
    /// Whether what the supernode says to peers, and they to it, takes room on the seed's lines, up to half of them.
    /// It is counted anyway.
    pub control_takes_room: bool,
    /// Children that a peer serves at once, as it says to the supernode.
    pub slots: u16,
    /// Pieces that a node sends at once, further requests being refused; nothing: as the real server, which lets
    /// requests wait for room in its memory, so that more are sent than a line needs.
    pub uploads: Option<u32>,
    /// The scheduler's.
    pub settings: Settings,
    /// Virtual time after which the simulation ends, whoever has finished, in multiples of the bound.
    pub patience: f64,
    /// What goes wrong; looked at by [`try_out`](crate::try_out) alone.
    pub plan: Plan,
}

// === impl Scenario ===

impl Default for Scenario {
    fn default() -> Self {
        const RATE: u64 = 50_000_000;
        let settings = Settings::default();
        Self {
            peers: 16,
            supernodes: 1,
            size: 64 << 20,
            up: RATE,
            down: RATE,
            seed_rate: RATE,
            origin_rate: RATE,
            latency: Duration::from_micros(500),
            zone_latency: Duration::from_millis(5),
            zones: 1,
            zone_rate: None,
            churn: Churn { share: 0.0, back_after: None },
            arrival: Arrival::Burst(Duration::from_millis(100)),
            rng: 1,
            step: None,
            overhead: 0.04,
            control_takes_room: false,
            slots: settings.default_peer_slots as u16,
            uploads: None,
            settings,
            patience: 8.0,
            plan: Plan::default(),
        }
    }
}

impl Scenario {
    /// All peers with links of this many bits a second both ways, and the seed and the origin, too.
    #[must_use]
    pub fn with_rate(mut self, rate: u64) -> Self {
        (self.up, self.down, self.seed_rate, self.origin_rate) = (rate, rate, rate, rate);
        self
    }

    /// The blob's cut, as the real thing cuts it.
    pub fn geometry(&self) -> Geometry {
        // Longer ones cannot be asked for on a command line of this size.
        Geometry::of(self.size.clamp(1, 1 << 44)).expect("invariant: clamped to what a geometry allows")
    }

    /// No swarm is faster than this: the seed sends everything once, everybody takes everything, and all of it goes
    /// over somebody's way up.
    pub fn bound(&self) -> Duration {
        let bits = self.size as f64 * 8.0;
        let (seed, peers) = (self.seed_rate as f64, f64::from(self.peers));
        let all = peers * bits / (seed + peers * self.up as f64);
        Duration::from_secs_f64((bits / seed).max(bits / self.down as f64).max(all))
    }

    /// Length of a step of time.
    pub(crate) fn step(&self) -> Duration {
        let parts = match self.peers {
            ..MANY => FINE,
            MANY..VERY_MANY => COARSE,
            _ => COARSER,
        };
        let fastest = self.down.max(self.up).max(self.seed_rate) as f64;
        let piece = f64::from(self.geometry().piece_length()).min(self.size as f64) * 8.0 / fastest;
        let wanted = Duration::from_secs_f64(piece) / parts;
        self.step.unwrap_or(wanted).clamp(Duration::from_micros(20), Duration::from_secs(1))
    }
}
