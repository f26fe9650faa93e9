//! What happened in a pull: for each download on this node, and each client that reads it, where the pieces came from and what
//! whoever waited was waiting for. `longshore explain` and `longshore top` ask for it, and one line of it is logged at the end.
//!
//! A [`Record`] takes in what happens, with the time passed in (`pieces`, `reading`, `ending`); [`explain`](explain::explain) turns
//! records into a time line, shares and one sentence. Both are pure. [`scribe`] is the lock around a record, [`book`] keeps the last
//! of them. The download session, its mesh and the readers of [`crate::handle`] write.
//!
//! # What is waited for
//! A client reads in order, so at every moment it waits for one piece, or for nobody, or has us wait. That one piece has a
//! history (`trace`), which says whose turn it was. A download that nobody reads is looked at as if a client read it that takes
//! no time.
//!
//! # Invariants
//! - The memory of a finished record is bounded, whatever its length and duration: `MAX_GIVERS` who gave, `MAX_MARKS` moments.
//! - Nothing that happens to a piece allocates or waits: it is a few words in a table.
//! - No credential and no query comes in here: names are those of registries and repositories, or redacted URLs.

pub mod book;
mod chart;
mod ending;
pub mod explain;
mod pieces;
mod reading;
pub mod scribe;
mod trace;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::node::NodeId;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;

use chart::{Axis, Chart};
use pieces::Giver;
use reading::{Reading, Turn};
use trace::{Moment, Trace};

/// Nodes that gave anything, in one record; those who come after share one more place.
const MAX_GIVERS: usize = 32;
/// Moments worth a line, in one record.
const MAX_MARKS: usize = 48;
/// Pieces that are watched one by one: 256 GiB of the largest.
const MAX_TRACED: u32 = 65_536;
/// Clients that read one download at once and are watched.
const MAX_READINGS: usize = 64;
/// A download that nobody reads is closed so long after its end: who opened it at the last moment is about to read it.
const GRACE: Duration = Duration::from_secs(1);

/// Who gives pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// The registry or server itself.
    Origin,
    /// A supernode's bucket.
    Cache,
    /// A supernode.
    Seed(NodeId),
    /// Another peer.
    Peer(NodeId),
    /// This node's own disk.
    Store,
    /// Several that there was no more room for.
    Others,
}

/// What takes time and is nobody's gift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The origin, to say whether this client may have it.
    Permission,
    /// The supernode, to answer the join.
    Supernode,
    /// The supernode, which waited for the origin itself.
    Upstream,
    /// Any neighbour that has the piece and is free.
    Swarm,
    /// This node's own limits.
    Limit,
    /// This node: its disk, and hashing.
    Disk,
    /// The word that the whole is right.
    Proof,
    /// The client, to take what was there.
    Client,
}

const CAUSES: [Cause; 8] = [
    Cause::Permission,
    Cause::Supernode,
    Cause::Upstream,
    Cause::Swarm,
    Cause::Limit,
    Cause::Disk,
    Cause::Proof,
    Cause::Client,
];

/// A client, and what it asks for.
#[derive(Clone, Debug)]
pub struct By {
    /// What it calls it: `registry/repository`, or a redacted URL.
    pub name: Arc<str>,
    /// What the client calls itself.
    pub client: Arc<str>,
    /// When it asked.
    pub asked: Instant,
    /// When it was known that it may have it.
    pub permitted: Instant,
}

/// A moment worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A client asked.
    Asked,
    /// It may have it.
    Permitted,
    /// A supernode is asked to let us in.
    Joining(NodeId),
    /// The length is known.
    Known(u64),
    /// So many parents were named.
    Parents(usize),
    /// The origin is asked.
    ToOrigin,
    /// The supernode is out of reach.
    Lost,
    /// The supernode cannot get it.
    Refused,
    /// A client got its first byte.
    FirstByte,
    /// The last piece is here.
    Whole,
    /// The whole is right.
    Proven,
}

/// How a pull ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Whole and right.
    Ok,
    /// Given up.
    Failed {
        /// Why.
        why: String,
        /// Whether that is worth a warning.
        trouble: bool,
    },
}

/// What a reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for this piece.
    Waits(PieceIndex),
    /// It reads from the disk.
    Reads,
    /// It waits for the client to take what it was given.
    Gave,
}

/// One pull on this node, as it goes on and once it is over.
#[derive(Clone, Debug)]
pub struct Record {
    task: TaskId,
    wall: SystemTime,
    /// When the record was made; piece traces count from here.
    born: Instant,
    /// When it began: when a client asked for it, if that was earlier.
    start: Instant,
    by: Option<By>,
    /// Whether it was here, whole, before anybody asked.
    stored: bool,
    geometry: Option<Geometry>,
    known: Option<Instant>,
    marks: Vec<(Instant, Mark)>,
    givers: Vec<Giver>,
    traces: Vec<Trace>,
    held: u32,
    causes: [Meter; CAUSES.len()],
    axis: Axis,
    supernode: Option<NodeId>,
    /// The origin, or the cache, while it is being asked.
    feeding: Option<u8>,
    /// Who told the length, and since when it was asked, if that was one of them.
    opener: Option<(u8, Instant)>,
    active: Vec<Reading>,
    readings: u32,
    read: u64,
    first_byte: Option<Instant>,
    last: Instant,
    ended: Option<(Instant, End)>,
    closed: Option<Instant>,
}

/// Microseconds, in all and over time.
#[derive(Clone, Debug, Default)]
struct Meter {
    total: u64,
    chart: Chart,
}

// === impl Record ===

impl Record {
    /// A download that begins.
    pub fn new(task: TaskId, now: Instant, wall: SystemTime) -> Self {
        Self {
            task,
            wall,
            born: now,
            start: now,
            by: None,
            stored: false,
            geometry: None,
            known: None,
            marks: Vec::new(),
            givers: Vec::new(),
            traces: Vec::new(),
            held: 0,
            causes: Default::default(),
            axis: Axis::default(),
            supernode: None,
            feeding: None,
            opener: None,
            active: Vec::new(),
            readings: 0,
            read: 0,
            first_byte: None,
            last: now,
            ended: None,
            closed: None,
        }
    }

    /// What is here, whole, and is read by somebody.
    pub fn stored(task: TaskId, geometry: Geometry, now: Instant, wall: SystemTime) -> Self {
        let mut record = Self::new(task, now, wall);
        (record.stored, record.geometry, record.known) = (true, Some(geometry), Some(now));
        record.ended = Some((now, End::Ok));
        record
    }

    /// A question that a client asked before it asked for content.
    pub fn question(task: TaskId, by: By, wall: SystemTime) -> Self {
        let (asked, permitted) = (by.asked, by.permitted);
        let mut record = Self::new(task, asked, wall);
        record.spend(Turn::Own(Cause::Permission), asked, permitted);
        (record.by, record.readings, record.last) = (Some(by), 1, permitted);
        (record.ended, record.closed) = (Some((permitted, End::Ok)), Some(permitted));
        record
    }

    /// Which task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Whether a client of this name reads it now, or did a moment ago, out of the store.
    fn is_stored_for(&self, by: &By, now: Instant) -> bool {
        let of = |own: &By| own.name == by.name && own.client == by.client;
        self.stored
            && self.by.as_ref().is_some_and(of)
            && (!self.active.is_empty() || self.last + GRACE > now)
    }

    /// A moment worth a line.
    pub fn mark(&mut self, mark: Mark, now: Instant) {
        if let Mark::Joining(node) = mark {
            self.supernode = Some(node);
        }
        if self.marks.len() < MAX_MARKS {
            self.marks.push((now, mark));
        }
    }

    /// The length is known.
    pub fn known(&mut self, geometry: Geometry, now: Instant) {
        if self.geometry.replace(geometry).is_none() {
            self.known = Some(now);
            self.opener = self.opener_now();
            // Beyond that whose turn a wait was is not told: an origin may say any length.
            let traced = Some(geometry.pieces()).filter(|pieces| *pieces <= MAX_TRACED);
            self.traces = vec![Trace::NEW; traced.unwrap_or(0) as usize];
            self.mark(Mark::Known(geometry.length()), now);
        }
    }

    // --- places and times ------------------------------------------------------------------------------------

    fn giver(&mut self, who: Who, now: Instant) -> u8 {
        let known = self.givers.iter().any(|giver| giver.who == who);
        let crowded = self.givers.len() >= MAX_GIVERS && matches!(who, Who::Seed(_) | Who::Peer(_));
        let who = if known || !crowded { who } else { Who::Others };
        let at = self.givers.iter().position(|giver| giver.who == who).unwrap_or_else(|| {
            self.givers.push(Giver::new(who, now));
            self.givers.len() - 1
        });
        at as u8
    }

    fn trace(&mut self, index: PieceIndex) -> Option<&mut Trace> {
        self.traces.get_mut(index.0 as usize)
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::after(at.saturating_duration_since(self.born))
    }

    fn instant(&self, at: Moment) -> Instant {
        self.born + at.since()
    }

    /// Microseconds from the start.
    fn offset(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_micros() as u64
    }

    fn reach(&mut self, offset: u64) {
        for _ in 0..self.axis.reach(offset) {
            let givers = self.givers.iter_mut().flat_map(|giver| [&mut giver.sent, &mut giver.waited.chart]);
            givers.chain(self.causes.iter_mut().map(|cause| &mut cause.chart)).for_each(Chart::fold);
        }
    }

    /// It began earlier than was thought.
    fn rebase(&mut self, start: Instant) {
        let earlier = self.start.saturating_duration_since(start).as_micros() as u64;
        if earlier == 0 {
            return;
        }
        // What is there must not run over the end.
        self.reach(self.offset(self.last) + earlier);
        let buckets = (earlier as f64 / self.axis.width() as f64).round() as usize;
        let givers = self.givers.iter_mut().flat_map(|giver| [&mut giver.sent, &mut giver.waited.chart]);
        let causes = self.causes.iter_mut().map(|cause| &mut cause.chart);
        givers.chain(causes).for_each(|chart| chart.shift(buckets));
        self.start = start;
        self.wall = self.wall.checked_sub(Duration::from_micros(earlier)).unwrap_or(self.wall);
    }
}

#[cfg(test)]
mod tests;
