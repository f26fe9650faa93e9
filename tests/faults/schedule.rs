//! What goes wrong, with whom, when and for how long. Pure: one seed is one schedule, so that a bad day can be had again.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

/// A fault that comes alone begins when the clients have this part of all that they want.
const MIDDLE: u8 = 30;
/// … but the origin's part is over long before the clients': its middle is here.
const ORIGINS_MIDDLE: u8 = 5;
/// … and lasts as long: some round trips and keep-alives, and short enough that the pull is still under way after it.
const A_WHILE: Duration = Duration::from_millis(2500);
/// Faults of one random schedule.
const MOST: usize = 4;

/// What can be done to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`; started again when it is over.
    Kill,
    /// SIGTERM, and started again at once with the same data.
    Restart,
    /// SIGSTOP, then SIGCONT.
    Stop,
    /// Nothing comes in, nothing goes out.
    Cut,
    /// Nothing comes in.
    Deafen,
    /// Nothing goes out.
    Mute,
    /// 100 kbit/s both ways.
    Slow,
    /// Bytes of what it keeps are flipped on its disk.
    Corrupt,
    /// The file system of its data has no room left.
    Fill,
    /// Its clock is an hour ahead.
    Ahead,
    /// Its clock is an hour behind.
    Behind,
}

/// Whom it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The registry.
    Origin,
    /// The supernode, which is the seed.
    Supernode,
    /// The peer that has most.
    Parent,
    /// The peer that still wants most.
    Child,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Per cent of all that the clients want that they have by then. Not a time: a slow machine is no other schedule.
    pub(crate) at: u8,
    pub(crate) fault: Fault,
    pub(crate) victim: Victim,
    pub(crate) lasts: Duration,
}

/// What goes wrong during one pull. Every victim has one fault at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) seed: Option<u64>,
    pub(crate) events: Vec<Event>,
}

// === impl Fault ===

impl Fault {
    pub(crate) const ALL: [Self; 11] = [
        Self::Kill,
        Self::Restart,
        Self::Stop,
        Self::Cut,
        Self::Deafen,
        Self::Mute,
        Self::Slow,
        Self::Corrupt,
        Self::Fill,
        Self::Ahead,
        Self::Behind,
    ];

    /// Whether its process runs under another clock.
    pub(crate) fn is_of_the_clock(self) -> bool {
        matches!(self, Self::Ahead | Self::Behind)
    }

    /// Whether it can befall this victim.
    pub(crate) fn befalls(self, victim: Victim) -> bool {
        // A registry that is only read needs no room, and a static program in Go asks the kernel for the time itself.
        victim != Victim::Origin || !(self == Self::Fill || self.is_of_the_clock())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Cut => "cut off",
            Self::Deafen => "cut inwards",
            Self::Mute => "cut outwards",
            Self::Slow => "slow",
            Self::Corrupt => "corrupt disk",
            Self::Fill => "full disk",
            Self::Ahead => "clock +1 h",
            Self::Behind => "clock -1 h",
        })
    }
}

// === impl Victim ===

impl Victim {
    pub(crate) const ALL: [Self; 4] = [Self::Origin, Self::Supernode, Self::Parent, Self::Child];

    /// Per cent of all that the clients want, while this one still has a part in it.
    fn active(self) -> Range<u8> {
        match self {
            Self::Origin => 1..15,
            Self::Supernode => 1..50,
            Self::Parent | Self::Child => 2..75,
        }
    }

    /// Whether it is one of the peers.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Parent | Self::Child)
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origin => "origin",
            Self::Supernode => "supernode",
            Self::Parent => "parent",
            Self::Child => "child",
        })
    }
}

// === impl Schedule ===

impl Schedule {
    /// Nothing goes wrong.
    pub(crate) fn quiet() -> Self {
        Self { seed: None, events: Vec::new() }
    }

    /// One fault, in the middle.
    pub(crate) fn alone(fault: Fault, victim: Victim) -> Self {
        let at = if victim == Victim::Origin { ORIGINS_MIDDLE } else { MIDDLE };
        Self { seed: None, events: vec![Event { at, fault, victim, lasts: A_WHILE }] }
    }

    /// Every fault alone, with everybody whom it can befall.
    pub(crate) fn each_alone() -> impl Iterator<Item = Self> {
        let pairs = Fault::ALL.into_iter().flat_map(|fault| Victim::ALL.map(|victim| (fault, victim)));
        pairs
            .filter(|(fault, victim)| fault.befalls(*victim))
            .map(|(fault, victim)| Self::alone(fault, victim))
    }

    /// One to four faults, all of it the seed's.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut victims = Victim::ALL;
        victims.shuffle(&mut random);
        let count = random.random_range(1..=MOST);
        let mut events: Vec<Event> = victims[..count]
            .iter()
            .map(|victim| {
                let faults: Vec<Fault> =
                    Fault::ALL.into_iter().filter(|fault| fault.befalls(*victim)).collect();
                Event {
                    at: random.random_range(victim.active()),
                    fault: *faults.choose(&mut random).expect("invariant: something befalls everybody"),
                    victim: *victim,
                    lasts: Duration::from_millis(random.random_range(300..4000)),
                }
            })
            .collect();
        events.sort_by_key(|event| event.at);
        Self { seed: Some(seed), events }
    }

    /// Whether a fault of this kind befalls this kind of victim in it.
    pub(crate) fn has(&self, wanted: impl Fn(Fault, Victim) -> bool) -> bool {
        self.events.iter().any(|event| wanted(event.fault, event.victim))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seed, self.events.as_slice()) {
            (None, []) => f.write_str("nothing"),
            (None, [Event { fault, victim, .. }]) => write!(f, "{fault} × {victim}"),
            (seed, events) => {
                if let Some(seed) = seed {
                    write!(f, "seed {seed}:")?;
                }
                events.iter().try_for_each(|Event { at, fault, victim, lasts }| {
                    write!(f, " [{at} % {fault} × {victim} {:.1} s]", lasts.as_secs_f64())
                })
            }
        }
    }
}
