//! A pull during which things go wrong, as `tests/faults` does it to real processes, but thousands of times and each time
//! the same: a seed gives the cluster, the pull and the faults ([`draw`]); [`try_out`](crate::try_out) runs it with the real
//! scheduler, selection, revealing, fleet, trust and recollection; [`complaints`] says what did not hold. Used by this
//! crate's tests and by `cargo bench --bench simulate -- --faults 1000`.
//!
//! # What is modelled
//! - **Killed**: gone without a word, back with what it held or with nothing. Links are missed after 10 s, sessions after 4 s,
//!   requests after 1.9 s, as by the real transport. A supernode comes back knowing nobody.
//! - **Cut, deafened, muted, parted**: letters wait until the way is open again, in their order, or are lost with their link
//!   (10 s) or session (4 s). Transfers break off. QUIC needs both ways to answer, so requests and sessions fail one way or
//!   both.
//! - **Crawling**: 100 kbit/s each way.
//! - **Evicted**: a finished peer that nobody is linked to drops its copy, and says so.
//! - **The origin away**: it is asked again for 3 s, then the download fails; a client pulls again after a second.
//! - **Villains** claim to hold everything, to the supernode and on every link, and send other bytes, nothing, or refusals.
//!
//! A piece's content is right or wrong, and a node compares it before it takes it: what can go wrong is that it asks
//! without having a digest, and that is looked for. Disks that lie, clocks and full file systems are `tests/faults`' alone.

mod judge;

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

pub use judge::{Findings, complaints};

use crate::scenario::{Arrival, Scenario};

/// Rates of lines, in bits a second: a cluster's nodes are not alike.
const RATES: [u64; 4] = [10_000_000, 25_000_000, 50_000_000, 100_000_000];
/// Bytes of a piece, as small tasks are cut.
const PIECE: u64 = 256 * 1024;
/// Finer than the time of a piece on the fastest line.
const STEP: Duration = Duration::from_millis(4);
/// After the last fault is over everybody has the task within this: the longest patience of a download, once after a
/// supernode was lost and once at the origin, and the pull.
const PATIENCE: Duration = Duration::from_secs(240);
/// Faults of one plan.
const MOST: usize = 4;

/// What a peer is that lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends other bytes.
    Liar,
    /// It has nothing.
    Boaster,
    /// It answers no request.
    Mute,
}

/// Whom something befalls; numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The origin.
    Origin,
    /// A supernode, and its seed.
    Supernode(u32),
    /// A peer.
    Peer(u32),
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Killed, and back when it is over. The origin does not answer meanwhile.
    Kill {
        /// Whether it still has then what it held.
        keeps: bool,
    },
    /// Nothing comes in, nothing goes out.
    Cut,
    /// Nothing comes in.
    Deafen,
    /// Nothing goes out.
    Mute,
    /// This one and it do not reach each other.
    Part(Victim),
    /// Its lines are slow to a crawl.
    Crawl,
    /// It drops its copy.
    Evict,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// When it begins.
    pub at: Duration,
    /// With whom.
    pub victim: Victim,
    /// What.
    pub trouble: Trouble,
    /// How long; nothing: for good.
    pub lasts: Option<Duration>,
}

/// What goes wrong during one pull.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Each peer's rate, in bits a second; those that are not named have the scenario's.
    pub rates: Vec<u64>,
    /// Who lies.
    pub villains: Vec<(u32, Role)>,
    /// What happens.
    pub events: Vec<Event>,
    /// How long everybody may take.
    pub patience: Duration,
}

/// A cluster, a pull and what goes wrong, all of it the seed's.
pub fn draw(seed: u64) -> Scenario {
    let mut rng = SmallRng::seed_from_u64(seed);
    let peers = rng.random_range(3..=14);
    let supernodes = rng.random_range(1..=3);
    let pieces = rng.random_range(8..=48);
    let rate = |rng: &mut SmallRng| *RATES.choose(rng).expect("invariant: there are rates");
    let mut scenario = Scenario {
        peers,
        supernodes,
        size: pieces * PIECE - rng.random_range(0..PIECE),
        zones: rng.random_range(1..=3),
        arrival: Arrival::Burst(Duration::from_millis(rng.random_range(0..3000))),
        rng: seed,
        step: Some(STEP),
        seed_rate: rate(&mut rng),
        origin_rate: rate(&mut rng),
        ..Scenario::default()
    };
    let rates = (0..peers).map(|_| rate(&mut rng)).collect();
    let span = scenario.bound().mul_f64(3.0) + Duration::from_secs(1);
    let mut events: Vec<Event> = victims(&mut rng, (peers, supernodes))
        .into_iter()
        .map(|victim| befall(&mut rng, victim, span))
        .collect();
    events.sort_by_key(|event| event.at);
    let over = events.iter().map(|event| event.at + event.lasts.unwrap_or_default()).max();
    let patience = PATIENCE + over.unwrap_or_default();
    scenario.plan = Plan { rates, villains: villains(&mut rng, peers), events, patience };
    scenario
}

/// Whom it befalls, each once.
fn victims(rng: &mut SmallRng, (peers, supernodes): (u32, u32)) -> Vec<Victim> {
    let mut all = vec![Victim::Origin];
    all.extend((0..supernodes).map(Victim::Supernode));
    all.extend((0..peers).map(Victim::Peer));
    all.shuffle(rng);
    all.truncate(rng.random_range(0..=MOST));
    all
}

fn befall(rng: &mut SmallRng, victim: Victim, span: Duration) -> Event {
    let trouble = match (victim, rng.random_range(0..9)) {
        (Victim::Origin, _) => Trouble::Kill { keeps: true },
        (_, 0..3) => Trouble::Kill { keeps: rng.random() },
        (_, 3) => Trouble::Cut,
        (_, 4) => Trouble::Deafen,
        (_, 5) => Trouble::Mute,
        (_, 6) => Trouble::Part(if rng.random() { Victim::Supernode(0) } else { Victim::Peer(0) }),
        (Victim::Peer(_), 7) => Trouble::Evict,
        _ => Trouble::Crawl,
    };
    // Short ones are many: a hiccup, a reboot, an outage.
    let lasts = Duration::from_secs_f64(0.3 * 100f64.powf(rng.random()));
    let for_good = matches!(trouble, Trouble::Kill { .. }) && rng.random_ratio(1, 6);
    Event { at: span.mul_f64(rng.random()), victim, trouble, lasts: (!for_good).then_some(lasts) }
}

fn villains(rng: &mut SmallRng, peers: u32) -> Vec<(u32, Role)> {
    let most = if rng.random() { peers / 3 } else { 0 };
    let roles = [Role::Liar, Role::Boaster, Role::Mute];
    let count = rng.random_range(0..=most);
    (0..count).map(|nth| (peers - 1 - nth, roles[rng.random_range(0..3)])).collect()
}

// === impl Plan ===

impl Plan {
    /// Whether something of this kind befalls a victim of this kind.
    pub fn has(&self, wanted: impl Fn(Trouble, Victim) -> bool) -> bool {
        self.events.iter().any(|event| wanted(event.trouble, event.victim))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Event { at, victim, trouble, lasts } in &self.events {
            let lasts = lasts.map_or("for good".into(), |lasts| format!("{:.1} s", lasts.as_secs_f64()));
            write!(f, " [{:.1} s: {victim:?} {trouble:?} {lasts}]", at.as_secs_f64())?;
        }
        self.villains.iter().try_for_each(|(peer, role)| write!(f, " [{peer} is a {role:?}]"))
    }
}
