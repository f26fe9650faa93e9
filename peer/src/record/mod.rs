//! What happened in a pull: for each download on this node, and each client that reads it, where the pieces came from and what
//! whoever waited was waiting for. `longshore explain` and `longshore top` ask for it, and one line of it is logged at the end.
//!
//! A [`Record`] takes in what happens, with the time passed in; [`explain`](explain::explain) turns records into a time line,
//! shares and one sentence. Both are pure. [`scribe`] is the lock around a record, [`book`] keeps the last of them. The download
//! session, its mesh and the readers of [`crate::handle`] write.
//!
//! # What is waited for
//! A client reads in order, so at every moment it waits for one piece, or for nobody, or has us wait. That one piece has a
//! history ([`trace`]), which says whose turn it was. A download that nobody reads is looked at as if a client read it that takes
//! no time.
//!
//! # Invariants
//! - The memory of a finished record is bounded, whatever its length and duration: [`MAX_GIVERS`] who gave, [`MAX_MARKS`] moments.
//! - Nothing that happens to a piece allocates or waits: it is a few words in a table.
//! - No credential and no query comes in here: names are those of registries and repositories, or redacted URLs.

pub mod book;
mod chart;
pub mod explain;
pub mod scribe;
mod trace;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::node::NodeId;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;

use chart::{Axis, Chart};
use trace::{Moment, NEVER, NOBODY, Part, Trace};

/// Nodes that gave anything, in one record; those who come after share one more place.
const MAX_GIVERS: usize = 32;
/// Moments worth a line, in one record.
const MAX_MARKS: usize = 48;
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

/// Somebody that gave pieces, or was asked for them.
#[derive(Clone, Debug)]
struct Giver {
    who: Who,
    bytes: u64,
    pieces: u32,
    failed: u32,
    /// Requests under way, and since when there are any.
    flying: u32,
    since: Instant,
    /// Microseconds in which requests were under way.
    busy: u64,
    last: Instant,
    sent: Chart,
    waited: Meter,
}

/// Microseconds, in all and over time.
#[derive(Clone, Debug, Default)]
struct Meter {
    total: u64,
    chart: Chart,
}

/// A client that reads.
#[derive(Clone, Debug)]
struct Reading {
    id: u32,
    doing: Doing,
    since: Instant,
}

/// Whose time it was.
#[derive(Clone, Copy)]
enum Turn {
    Own(Cause),
    Giver(u8),
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

    /// Which task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Whether a client of this name reads it now, or did a moment ago, out of the store.
    fn is_stored_for(&self, by: &By, now: Instant) -> bool {
        let of = |own: &By| own.name == by.name && own.client == by.client;
        self.stored && self.by.as_ref().is_some_and(of) && (!self.active.is_empty() || self.last + GRACE > now)
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
            self.traces = vec![Trace::NEW; geometry.pieces() as usize];
            self.mark(Mark::Known(geometry.length()), now);
        }
    }

    // --- pieces ----------------------------------------------------------------------------------------------

    /// The digest of a piece can be relied on: it may be asked for.
    pub fn vouched(&mut self, index: PieceIndex, now: Instant) {
        let now = self.moment(now);
        if let Some(trace) = self.trace(index).filter(|trace| trace.vouched == NEVER) {
            trace.vouched = now;
        }
    }

    /// The node's own limit lets no request for it pass.
    pub fn withheld(&mut self, index: PieceIndex, now: Instant) {
        let now = self.moment(now);
        if let Some(trace) = self.trace(index).filter(|trace| trace.withheld == NEVER) {
            trace.withheld = now;
        }
    }

    /// A neighbour is asked for a piece.
    pub fn asked(&mut self, index: PieceIndex, who: Who, now: Instant) {
        let (giver, moment) = (self.giver(who, now), self.moment(now));
        self.givers[usize::from(giver)].takes_off(now);
        if let Some(trace) = self.trace(index) {
            trace.ask(giver, moment);
        }
    }

    /// A request came to nothing, for a fault of the neighbour's or not.
    pub fn gave_up(&mut self, who: Who, fault: bool, now: Instant) {
        let giver = self.giver(who, now);
        let giver = &mut self.givers[usize::from(giver)];
        giver.failed += u32::from(fault);
        giver.lands(now);
    }

    /// A neighbour gave a piece.
    pub fn came(&mut self, index: PieceIndex, who: Who, bytes: u64, now: Instant) {
        let giver = self.giver(who, now);
        let asked = self.trace(index).map(|trace| if trace.first == giver { trace.asked } else { trace.again });
        let since = asked.filter(|asked| *asked != NEVER).map_or(now, |asked| self.instant(asked));
        self.givers[usize::from(giver)].lands(now);
        self.gift(index, giver, (since, now), bytes);
    }

    /// The origin, or the cache, is asked for what is missing.
    pub fn feeding(&mut self, who: Who, now: Instant) {
        self.fed(now);
        if who == Who::Origin {
            self.mark(Mark::ToOrigin, now);
        }
        let giver = self.giver(who, now);
        let entry = &mut self.givers[usize::from(giver)];
        entry.takes_off(now);
        entry.last = now;
        self.feeding = Some(giver);
    }

    /// It gave a piece.
    pub fn poured(&mut self, index: PieceIndex, who: Who, bytes: u64, now: Instant) {
        let giver = self.giver(who, now);
        if self.feeding != Some(giver) {
            // The cache has given what it has, and the origin goes on.
            self.feeding(who, now);
        }
        let (since, last) = {
            let giver = &self.givers[usize::from(giver)];
            (self.moment(giver.since), giver.last)
        };
        if let Some(trace) = self.trace(index) {
            trace.ask(giver, since);
        }
        self.gift(index, giver, (last, now), bytes);
    }

    /// It is not asked any more.
    pub fn fed(&mut self, now: Instant) {
        if let Some(giver) = self.feeding.take() {
            self.givers[usize::from(giver)].lands(now);
        }
    }

    /// A piece lies on the disk; `free` is when the node's own limit let it pass.
    pub fn kept(&mut self, index: PieceIndex, free: Instant, now: Instant) {
        let (free, kept, pieces) = (self.moment(free), self.moment(now), self.traces.len());
        let Some(trace) = self.trace(index) else { return };
        let found = trace.giver == NOBODY;
        let first = trace.kept == NEVER;
        (trace.free, trace.kept) = (free, kept);
        if found {
            // It was on the disk before.
            let bytes = self.geometry.map_or(0, |geometry| geometry.range(index).len());
            let giver = self.giver(Who::Store, now);
            self.gift(index, giver, (now, now), bytes);
        }
        self.held += u32::from(first);
        if first && self.held as usize == pieces {
            self.mark(Mark::Whole, now);
        }
    }

    /// A piece lies on the disk, if that was not said yet.
    pub fn kept_before(&mut self, index: PieceIndex, now: Instant) {
        if self.trace(index).is_some_and(|trace| trace.kept == NEVER) {
            self.kept(index, now, now);
        }
    }

    /// The supernode that was joined, as who gives what came with its answer.
    pub fn supernode(&self) -> Who {
        Who::Seed(self.supernode.unwrap_or(NodeId([0; 16])))
    }

    fn gift(&mut self, index: PieceIndex, giver: u8, (since, now): (Instant, Instant), bytes: u64) {
        let (moment, from, to) = (self.moment(now), self.offset(since), self.offset(now));
        self.reach(to);
        if let Some(trace) = self.trace(index) {
            (trace.giver, trace.came, trace.free) = (giver, moment, moment);
        }
        let (axis, giver) = (self.axis, &mut self.givers[usize::from(giver)]);
        giver.bytes += bytes;
        giver.pieces += 1;
        giver.last = now;
        giver.sent.spread(axis, from, to, bytes as f64);
        self.last = self.last.max(now);
    }

    // --- readers ---------------------------------------------------------------------------------------------

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

    fn spent(&mut self, doing: Doing, since: Instant, now: Instant) {
        match doing {
            Doing::Waits(index) => self.wait(index, since, now),
            Doing::Reads => self.spend(Turn::Own(Cause::Disk), since, now),
            Doing::Gave => self.spend(Turn::Own(Cause::Client), since, now),
        }
    }

    /// Lays a wait for a piece at the doors of whom it was for.
    fn wait(&mut self, index: PieceIndex, from: Instant, to: Instant) {
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
    fn wait_for_length(&mut self, from: Instant, to: Instant) {
        let Some((opener, asked)) = self.opener.or_else(|| self.opener_now()) else {
            return self.spend(Turn::Own(Cause::Supernode), from, to);
        };
        let asked = asked.clamp(from, to.max(from));
        self.spend(Turn::Own(Cause::Supernode), from, asked);
        self.spend(Turn::Giver(opener), asked, to);
    }

    fn opener_now(&self) -> Option<(u8, Instant)> {
        self.feeding.map(|feeding| (feeding, self.givers[usize::from(feeding)].since))
    }

    fn spend(&mut self, turn: Turn, from: Instant, to: Instant) {
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

    // --- the end ---------------------------------------------------------------------------------------------

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
    fn read_quickly(&mut self, until: Instant) {
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

    /// Whether it ended in a way that an operator should know of.
    fn is_trouble(&self) -> bool {
        matches!(self.ended, Some((_, End::Failed { trouble: true, .. })))
    }

    /// When it was over, or now.
    fn until(&self, now: Instant) -> Instant {
        self.closed.unwrap_or(match (&self.ended, self.active.is_empty()) {
            (Some((ended, _)), true) => self.last.max(*ended),
            _ => now,
        })
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

// === impl Giver ===

impl Giver {
    fn new(who: Who, now: Instant) -> Self {
        Self {
            who,
            bytes: 0,
            pieces: 0,
            failed: 0,
            flying: 0,
            since: now,
            busy: 0,
            last: now,
            sent: Chart::default(),
            waited: Meter::default(),
        }
    }

    fn takes_off(&mut self, now: Instant) {
        if self.flying == 0 {
            self.since = now;
        }
        self.flying += 1;
    }

    fn lands(&mut self, now: Instant) {
        if self.flying == 1 {
            self.busy += now.saturating_duration_since(self.since).as_micros() as u64;
        }
        self.flying = self.flying.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
