//! Which supernode a task is at, and what moves when supernodes come and go. It decides and does nothing else: the time is
//! passed in, and [`super::driver`] carries out what it says. Supernodes know nothing of each other; that all peers
//! choose by the same rule ([`common::rendezvous`]) is what brings one task to one place.
//!
//! # Invariants
//! - A wanted task is joined at no more than one connected supernode, and at one unless it waits: for the muster to end,
//!   for a busy supernode's time, or for any supernode at all.
//! - A task is joined at the first connected supernode in its order, but stays where it runs while that one lives.
//! - A supernode is told once of what is held, and that only it, or the one at which it was fetched, is told; it is told of
//!   what it knows and is held no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::piece::Geometry;
use common::rendezvous;
use common::task::TaskId;
use common::wire::swarm::MAX_ENTRIES;
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::muster::Muster;

/// What is held is said anew within this after a supernode came or went: a thousand nodes that see the same at once are
/// to be no storm.
const SPREAD: Duration = Duration::from_secs(2);
/// Without a supernode for so long, new downloads do not wait for it any more.
const GIVEN_UP: Duration = Duration::from_secs(4);
/// A task is joined again so often when supernodes are busy; then the download helps itself.
const MAX_RETRIES: u32 = 3;
/// And it waits for so long in all.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// The share of a wait that is added to it by chance, so that those who were sent away together do not come back so.
const RETRY_JITTER: f64 = 0.5;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Join the task there.
    Join {
        /// What.
        task: TaskId,
        /// Where.
        at: NodeId,
    },
    /// Say there that the task is neither wanted nor held any more, as far as it matters there.
    Leave {
        /// What.
        task: TaskId,
        /// Where.
        at: NodeId,
    },
    /// Say there what is held; at most [`MAX_ENTRIES`].
    Hold {
        /// Where.
        at: NodeId,
        /// What.
        tasks: Vec<(TaskId, Geometry)>,
    },
    /// Tell the download that there is no supernode now.
    Lost(TaskId),
    /// Tell it that there has been none for long.
    Alone(TaskId),
}

/// All supernodes with a session, and what they are to know.
pub struct Fleet {
    /// The supernodes, and what each was told is held here.
    told: BTreeMap<NodeId, BTreeSet<TaskId>>,
    wanted: BTreeMap<TaskId, Wanted>,
    held: BTreeMap<TaskId, Geometry>,
    muster: Muster,
    /// Whether what is wanted and held is said at once. Not before all supernodes had time to answer.
    settled: bool,
    /// When what is held is to be said to those who do not know it yet.
    announce: Option<Instant>,
    alone_since: Instant,
    random: SmallRng,
}

/// A task that a download wants.
#[derive(Default)]
struct Wanted {
    place: Place,
    retries: u32,
    first_busy: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
enum Place {
    /// No supernode was asked yet.
    #[default]
    Nowhere,
    /// It is joined there.
    At(NodeId),
    /// It is to be joined there then: it was busy, or another was.
    Later(Instant, NodeId),
}

// === impl Fleet ===

impl Fleet {
    /// No supernode has answered yet.
    pub fn new(now: Instant, random: SmallRng) -> Self {
        Self {
            told: BTreeMap::new(),
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            muster: Muster::begin(now),
            settled: false,
            announce: None,
            alone_since: now,
            random,
        }
    }

    /// The supernodes with a session.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.told.keys().copied()
    }

    /// Whether the supernode has a session.
    pub fn has(&self, node: NodeId) -> bool {
        self.told.contains_key(&node)
    }

    /// Where a wanted task is joined.
    pub fn place(&self, task: TaskId) -> Option<NodeId> {
        match self.wanted.get(&task)?.place {
            Place::At(node) => Some(node),
            Place::Nowhere | Place::Later(..) => None,
        }
    }

    /// The supernode that is to know of the task.
    pub fn owner(&self, task: TaskId) -> Option<NodeId> {
        rendezvous::first(&task.0, self.connected())
    }

    /// Number of tasks that are wanted, that are held, and that supernodes were told of: its memory follows from them.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.wanted.len(), self.held.len(), self.told.values().map(BTreeSet::len).sum())
    }

    /// When to [`Fleet::tick`] next.
    pub fn wake(&self) -> Option<Instant> {
        let retries = self.wanted.values().filter_map(|wanted| match wanted.place {
            Place::Later(at, _) => Some(at),
            Place::Nowhere | Place::At(_) => None,
        });
        let muster = (!self.settled).then(|| self.muster.ends()).flatten();
        muster.into_iter().chain(self.announce).chain(retries).min()
    }

    // --- supernodes ------------------------------------------------------------------------------------------

    /// Somebody's first word is worth waiting for: a name's, or an address's.
    pub fn expect(&mut self, whom: String) {
        self.muster.expect(whom);
    }

    /// That word came, or will not.
    pub fn answered(&mut self, who: &str, now: Instant) -> Vec<Command> {
        self.muster.answered(who);
        self.settle(now)
    }

    /// A session has begun; `absent` are other addresses that may answer in a moment.
    pub fn up(&mut self, node: NodeId, absent: Vec<String>, now: Instant) -> Vec<Command> {
        if self.told.is_empty() && self.settled {
            // After a time without any, or everybody would begin anew at the one that is back first.
            self.muster = Muster::begin(now);
            absent.into_iter().for_each(|address| self.muster.expect(address));
            self.settled = false;
        }
        self.told.insert(node, BTreeSet::new());
        if !self.settled {
            return self.settle(now);
        }
        self.announce_soon(now);
        Vec::new()
    }

    /// A session has ended.
    pub fn down(&mut self, node: NodeId, now: Instant) -> Vec<Command> {
        if self.told.remove(&node).is_none() {
            return Vec::new();
        }
        let was_there = |wanted: &Wanted| matches!(wanted.place, Place::At(at) if at == node);
        let moving: Vec<_> =
            self.wanted.iter().filter(|(_, wanted)| was_there(wanted)).map(|(task, _)| *task).collect();
        if self.told.is_empty() {
            self.alone_since = now;
            self.announce = None;
        } else {
            self.announce_soon(now);
        }
        moving.into_iter().filter_map(|task| self.go(task, now)).collect()
    }

    /// Does what time has come for.
    pub fn tick(&mut self, now: Instant) -> Vec<Command> {
        let mut commands = self.settle(now);
        let due = |wanted: &Wanted| matches!(wanted.place, Place::Later(at, _) if at <= now);
        let due: Vec<_> =
            self.wanted.iter().filter(|(_, wanted)| due(wanted)).map(|(task, _)| *task).collect();
        commands.extend(due.into_iter().filter_map(|task| self.go(task, now)));
        if self.announce.is_some_and(|at| at <= now) {
            self.announce = None;
            commands.extend(self.announce_all());
        }
        commands
    }

    // --- downloads -------------------------------------------------------------------------------------------

    /// A download begins.
    pub fn want(&mut self, task: TaskId, now: Instant) -> Vec<Command> {
        let before = self.wanted.insert(task, Wanted::default());
        let joined = self.go(task, now);
        let left = match before.map(|before| before.place) {
            Some(Place::At(at)) if self.has(at) && self.place(task) != Some(at) => {
                Some(Command::Leave { task, at })
            }
            _ => None,
        };
        left.into_iter().chain(joined).collect()
    }

    /// A download is over without the whole.
    pub fn unwant(&mut self, task: TaskId) -> Option<Command> {
        match self.wanted.remove(&task)?.place {
            Place::At(at) => {
                self.told.get_mut(&at)?.remove(&task);
                Some(Command::Leave { task, at })
            }
            Place::Nowhere | Place::Later(..) => None,
        }
    }

    /// A download is over, and the task is held. Who knows it as wanted hears so: others there may want it of us.
    pub fn proven(&mut self, task: TaskId, geometry: Geometry, now: Instant) -> Option<Command> {
        let place = self.place(task);
        self.wanted.remove(&task);
        self.held.insert(task, geometry);
        let owner = self.owner(task).filter(|_| self.settled);
        if place.is_some() && place != owner {
            self.announce_soon(now);
        }
        let at = place.or(owner)?;
        let news = self.told.get_mut(&at)?.insert(task);
        news.then(|| Command::Hold { at, tasks: vec![(task, geometry)] })
    }

    /// The supernode at which the task is joined has too much to do. Gives whether it is tried again; if not, the
    /// download is to hear of it.
    pub fn busy(&mut self, task: TaskId, retry_after: Duration, now: Instant) -> bool {
        let Some(at) = self.place(task) else { return false };
        let order = rendezvous::order(&task.0, self.connected());
        let next = order.iter().position(|node| *node == at).map(|place| order[(place + 1) % order.len()]);
        let wait = retry_after.mul_f64(1.0 + self.random.random_range(0.0..RETRY_JITTER));
        let (Some(wanted), Some(next)) = (self.wanted.get_mut(&task), next) else { return false };
        let begun = *wanted.first_busy.get_or_insert(now);
        if wanted.retries >= MAX_RETRIES || now + wait > begun + MAX_WAIT {
            return false;
        }
        wanted.retries += 1;
        wanted.place = Place::Later(now + wait, next);
        true
    }

    // --- holdings --------------------------------------------------------------------------------------------

    /// What is held now, all of it.
    pub fn holds(&mut self, held: BTreeMap<TaskId, Geometry>) -> Vec<Command> {
        let before = std::mem::replace(&mut self.held, held);
        let mut commands = Vec::new();
        for task in before.keys().filter(|task| !self.held.contains_key(task)) {
            for (at, told) in &mut self.told {
                // Who joins again has said so, and that it has less than all.
                let runs = matches!(self.wanted.get(task), Some(Wanted { place: Place::At(place), .. }) if place == at);
                if told.remove(task) && !runs {
                    commands.push(Command::Leave { task: *task, at: *at });
                }
            }
        }
        if self.settled {
            let came = self.held.iter().filter(|(task, _)| !before.contains_key(task));
            let came: Vec<_> = came.map(|(task, geometry)| (*task, *geometry)).collect();
            commands.extend(self.tell(came));
        }
        commands
    }

    /// Tells owners of what they do not know yet.
    fn tell(&mut self, tasks: Vec<(TaskId, Geometry)>) -> Vec<Command> {
        let mut news = BTreeMap::<NodeId, Vec<_>>::new();
        for (task, geometry) in tasks {
            if let Some(owner) = self.owner(task)
                && self.told.get_mut(&owner).is_some_and(|told| told.insert(task))
            {
                news.entry(owner).or_default().push((task, geometry));
            }
        }
        let batches = |(at, tasks): (NodeId, Vec<_>)| {
            let batches: Vec<_> = tasks.chunks(MAX_ENTRIES).map(<[_]>::to_vec).collect();
            batches.into_iter().map(move |tasks| Command::Hold { at, tasks })
        };
        news.into_iter().flat_map(batches).collect()
    }

    /// Tells owners of all that they do not know yet, and then those who had it before that they have it no more.
    fn announce_all(&mut self) -> Vec<Command> {
        let mut commands = self.tell(self.held.iter().map(|(task, geometry)| (*task, *geometry)).collect());
        let nodes: Vec<_> = self.connected().collect();
        for (at, told) in &mut self.told {
            let runs = |task: &TaskId| matches!(self.wanted.get(task), Some(Wanted { place: Place::At(place), .. }) if place == at);
            let elsewhere =
                |task: &TaskId| rendezvous::first(&task.0, nodes.iter().copied()) != Some(*at) && !runs(task);
            let former: Vec<_> = told.iter().copied().filter(elsewhere).collect();
            for task in former {
                told.remove(&task);
                commands.push(Command::Leave { task, at: *at });
            }
        }
        commands
    }

    fn announce_soon(&mut self, now: Instant) {
        let at = now + SPREAD.mul_f64(self.random.random());
        self.announce = Some(self.announce.map_or(at, |known| known.min(at)));
    }

    // --- places ----------------------------------------------------------------------------------------------

    /// Lets everything go to its place once the muster is over.
    fn settle(&mut self, now: Instant) -> Vec<Command> {
        if self.settled || !self.muster.is_over(now) {
            return Vec::new();
        }
        self.settled = true;
        let waiting = self.wanted.iter().filter(|(_, wanted)| matches!(wanted.place, Place::Nowhere));
        let waiting: Vec<_> = waiting.map(|(task, _)| *task).collect();
        let mut commands = self.announce_all();
        commands.extend(waiting.into_iter().filter_map(|task| self.go(task, now)));
        commands
    }

    /// Brings a wanted task to its place, or says that there is none.
    fn go(&mut self, task: TaskId, now: Instant) -> Option<Command> {
        let owner = self.owner(task);
        let (told, settled) = (&self.told, self.settled);
        let wanted = self.wanted.get_mut(&task)?;
        let at = match wanted.place {
            Place::Later(_, next) if told.contains_key(&next) => Some(next),
            _ => owner,
        };
        match at.filter(|_| settled) {
            Some(at) => {
                wanted.place = Place::At(at);
                Some(Command::Join { task, at })
            }
            None => {
                wanted.place = Place::Nowhere;
                let given_up = now.saturating_duration_since(self.alone_since) > GIVEN_UP;
                match (settled, given_up) {
                    (false, _) => None,
                    (true, false) => Some(Command::Lost(task)),
                    (true, true) => Some(Command::Alone(task)),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
