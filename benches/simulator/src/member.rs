//! A node of the swarm: what `peer::download` does around [`Select`] and [`Reveal`], without bytes and sockets. It is
//! visited in the steps in which it hears something or has something due; [`supply`] and [`links`](crate::links) have the rest.

mod supply;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use common::piece::{PieceIndex, PieceSet};
use common::wire::swarm::Fault;
use peer::exchange::reveal::{Reveal, Style};
use peer::exchange::select::{Select, Setback};
use peer::trust::Deeds;

use crate::feed::Feed;
use crate::links::{Link, Parent};
use crate::post::{Bucket, Letter, LinkId, Node, Word};
use crate::visit::{Notice, Request, Visit, mix, number};

/// The real ones' patience: see `peer::download::session`.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
const RECALLED_PATIENCE: Duration = Duration::from_secs(3);
const STUCK_PATIENCE: Duration = Duration::from_secs(15);
const ORIGIN_PATIENCE: Duration = Duration::from_secs(60);
const NAG: Duration = Duration::from_secs(2);
const HANGING: Duration = Duration::from_millis(600);
/// See `peer::exchange::fetch`.
const SLOWEST: Duration = Duration::from_secs(10);
const SLOWEST_RATE: u64 = 128 * 1024;
/// See `peer::download::mesh`.
const FALSE_SET: u32 = 8;
/// See `peer::coordinator::driver`.
const BATCH: Duration = Duration::from_millis(100);

/// A request under way.
struct Running {
    from: Node,
    piece: u32,
    deadline: Instant,
}

/// A node.
pub(crate) struct Peer {
    pub(crate) node: Node,
    pub(crate) select: Select,
    pub(crate) reveal: Reveal,
    pub(crate) have: PieceSet,
    /// What an earlier run left here, until it is vouched for.
    kept: PieceSet,
    pub(crate) links: Vec<Link>,
    pub(crate) parents: Vec<Parent>,
    pub(crate) opened: u32,
    /// When to see next whether a link is to be opened.
    pub(crate) relink: Option<Instant>,
    running: Vec<Running>,
    feed: Option<Feed>,
    pub(crate) joined: bool,
    /// Where the task is joined.
    pub(crate) home: Option<Node>,
    /// Which edition of that supernode's digests is read, and how far.
    edition: Option<u32>,
    read: usize,
    /// Pieces whose digests are known.
    pub(crate) vouched: PieceSet,
    /// There is no supernode.
    lost: bool,
    /// What another supernode vouched for is with the neighbours, and not asked of the origin yet.
    recalled: bool,
    /// The supernode cannot get it.
    refused: bool,
    /// The pull has failed.
    pub(crate) gave_up: bool,
    proven: bool,
    pub(crate) complete: bool,
    /// A batch of progress is due.
    pub(crate) batching: bool,
    moved: Instant,
    nagged: Option<Instant>,
    pub(crate) deeds: Deeds,
    false_claims: BTreeMap<Node, u32>,
    /// The seed: pieces that came since the world last looked, news to all.
    pub(crate) fresh: Vec<u32>,
}

// === impl Peer ===

impl Peer {
    /// A node that wants the task, with what an earlier run left.
    pub(crate) fn new(node: Node, kept: PieceSet, visit: &Visit<'_>) -> Self {
        let pieces = visit.fixed.geometry.pieces();
        let style = if visit.fixed.is_seed(node) { Style::Seed } else { Style::Peer };
        let rng = mix(visit.fixed.rng.rotate_left(32) ^ u64::from(node) ^ (visit.step << 32));
        Self {
            node,
            select: Select::new(visit.fixed.geometry, PieceSet::new(pieces), rng),
            reveal: Reveal::new(style, pieces),
            have: PieceSet::new(pieces),
            kept,
            links: Vec::new(),
            parents: Vec::new(),
            opened: 0,
            relink: None,
            running: Vec::new(),
            feed: None,
            joined: false,
            home: None,
            edition: None,
            read: 0,
            vouched: PieceSet::new(pieces),
            lost: false,
            recalled: false,
            refused: false,
            gave_up: false,
            proven: false,
            complete: false,
            batching: false,
            moved: visit.now,
            nagged: None,
            deeds: Deeds::default(),
            false_claims: BTreeMap::new(),
            fresh: Vec::new(),
        }
    }

    /// Hears one letter.
    pub(crate) fn hear(&mut self, letter: &Letter, bucket: &Bucket, visit: &mut Visit<'_>) {
        let from = letter.from;
        // A supernode at which the task is joined no more says it too late.
        let stale = visit.fixed.is_seed(from) && self.home != Some(from) && self.node != from;
        match &letter.word {
            Word::Joined | Word::Parents(_) | Word::Proven | Word::Failed if stale => {}
            Word::Told { link, run, shown } => {
                self.told(*link, from, (std::slice::from_ref(&(run.0..run.1)), *shown), visit);
            }
            Word::ToldRuns { link, first, count, shown } => {
                self.told(*link, from, (bucket.runs(*first, *count), *shown), visit);
            }
            Word::Open(link) => self.incoming(from, *link, visit),
            Word::Accepted(link) => self.accepted(from, *link, visit),
            Word::NoLink => self.not_linked(from, visit),
            Word::Closed(link) => self.closed(*link, visit),
            Word::Piece(piece) => self.came(from, *piece, visit),
            Word::NotThere(piece) => self.failed(from, *piece, Setback::NotThere, visit),
            Word::Busy(piece) => self.failed(from, *piece, Setback::Busy, visit),
            Word::Silent(piece) => self.failed(from, *piece, Setback::Silent, visit),
            Word::Wrong(piece) => self.failed(from, *piece, Setback::WrongBytes, visit),
            Word::NoOrigin => self.origin_failed(visit),
            Word::Joined => self.learn_length(visit),
            Word::Parents(orders) => self.ordered(&orders.0, &orders.1, visit),
            Word::Proven => self.proven = true,
            Word::Failed => {
                self.refused = true;
                self.go_to_origin(visit);
            }
            Word::Nothing => {}
        }
    }

    fn told(&mut self, link: LinkId, from: Node, about: (&[Range<u32>], bool), visit: &Visit<'_>) {
        if self.links.iter().any(|known| known.id == link) {
            let id = visit.fixed.id(from);
            self.reveal.child_has(id, about.0);
            self.select.parent_has(id, about.0, about.1);
        }
    }

    fn came(&mut self, from: Node, piece: u32, visit: &mut Visit<'_>) {
        if from == visit.fixed.origin {
            self.fed(piece, visit);
        } else if self.forget(from, piece) {
            self.arrived(piece, Some(from), visit);
        }
    }

    /// Takes a request off the list; false when it was taken back before.
    fn forget(&mut self, from: Node, piece: u32) -> bool {
        let at = self.running.iter().position(|run| run.from == from && run.piece == piece);
        at.map(|at| self.running.remove(at)).is_some()
    }

    fn arrived(&mut self, piece: u32, from: Option<Node>, visit: &mut Visit<'_>) {
        let index = PieceIndex(piece);
        self.have.insert(index);
        self.moved = visit.now;
        let is_seed = visit.fixed.is_seed(self.node);
        if is_seed {
            self.fresh.push(piece);
        }
        visit.out.counts.pieces += u64::from(from.is_some());
        let from = from.map(|from| visit.fixed.id(from));
        for needless in self.select.arrived(index, from, visit.now) {
            let other = number(needless);
            if self.forget(other, piece) {
                visit.out.cancels.push(Request { from: other, to: self.node, piece });
            }
        }
        for slow in self.select.slow() {
            self.blame(number(slow), Fault::Slow, visit);
        }
        // What nobody vouched for is shown to nobody.
        if is_seed || self.vouched.contains(index) {
            self.reveal.piece(index, visit.now);
        }
        if let Some(home) = self.home.filter(|_| !self.batching) {
            self.batching = true;
            let batch = visit.fixed.steps(BATCH);
            let due = (visit.step / batch + 1) * batch + u64::from(self.node) % batch;
            visit.out.notices.push((due, (home, self.node), Notice::Progress));
        }
    }

    fn failed(&mut self, from: Node, piece: u32, why: Setback, visit: &mut Visit<'_>) {
        if !self.forget(from, piece) {
            return;
        }
        let fault = match why {
            Setback::NotThere => Some(Fault::FalseClaim),
            Setback::Silent => Some(Fault::Silent),
            Setback::WrongBytes => Some(Fault::WrongBytes),
            Setback::Busy | Setback::Withdrawn => None,
        };
        let linked = self.links.iter().any(|link| link.node == from);
        if let Some(fault) = fault.filter(|_| linked) {
            self.blame(from, fault, visit);
        }
        self.select.setback((visit.fixed.id(from), PieceIndex(piece)), why, visit.now);
    }

    /// See `Mesh::blame`.
    fn blame(&mut self, about: Node, fault: Fault, visit: &mut Visit<'_>) {
        let claims = self.false_claims.entry(about).or_default();
        *claims += u32::from(fault == Fault::FalseClaim);
        let fault = if *claims >= FALSE_SET { Fault::FalseSet } else { fault };
        *claims %= FALSE_SET;
        visit.out.faults.push((self.node, about, fault));
        let trusted = visit.fixed.is_seed(about);
        if !trusted && self.deeds.note(visit.fixed.id(about), fault, visit.now) {
            self.shun(about, visit);
        }
        if let Some(home) = self.home {
            visit.notice(home, self.node, Notice::Blame(about, fault));
        }
    }

    /// Does what is due, as the session and its mesh do; gives the step of the next visit.
    pub(crate) fn pump(&mut self, visit: &mut Visit<'_>) -> Option<u64> {
        let learns = self.learn(visit);
        self.finish(visit);
        let wake = self.patience(visit);
        self.open_links(visit);
        self.tell(visit);
        let mut wakes = [wake, self.reveal.wake_at(), None, None, None];
        if self.complete {
            self.let_go_of_the_full(visit);
        } else if self.feed.is_none() || self.recalled {
            self.ask(visit);
            wakes[2] = self.select.wake_at(visit.now);
            wakes[3] = self.running.first().map(|run| run.deadline);
        }
        wakes[4] = self.relink.filter(|_| !self.complete);
        let wake = wakes.into_iter().flatten().min().map(|at| visit.fixed.step_of(at).max(visit.step + 1));
        wake.into_iter().chain(learns).min()
    }

    fn finish(&mut self, visit: &mut Visit<'_>) {
        if self.complete || !self.have.is_full() || !self.is_proof() {
            return;
        }
        self.complete = true;
        self.stop_feed(visit);
        self.reveal.old_pieces(&self.have);
    }

    /// Whether having it all is a proof: the supernode says so, or the whole was hashed here.
    fn is_proof(&self) -> bool {
        let all_vouched = || self.vouched.is_full();
        self.proven && all_vouched() || self.feed.is_some() || self.lost || self.recalled
    }

    /// See `Session::patience`.
    fn patience(&mut self, visit: &mut Visit<'_>) -> Option<Instant> {
        if self.complete || self.feed.is_some() || self.have.is_full() {
            return None;
        }
        let now = visit.now;
        let stuck = self.running.is_empty() && self.select.useful_parents() == 0;
        let owed = stuck && !self.vouched.minus(&self.have).is_empty();
        let patience = match (self.lost, stuck) {
            (true, true) => LOST_PATIENCE,
            (false, true) if self.recalled => RECALLED_PATIENCE,
            (false, true) if owed => STUCK_PATIENCE,
            (_, false) => 2 * STUCK_PATIENCE,
            (false, true) => ORIGIN_PATIENCE * 3 / 2,
        };
        if self.moved + patience <= now {
            visit.out.counts.fallbacks += 1;
            self.recalled = false;
            self.go_to_origin(visit);
            return None;
        }
        let hangs = || !self.running.is_empty() && self.select.useful_parents() <= 1;
        let in_need = owed && self.moved + NAG <= now || self.moved + HANGING <= now && hangs();
        if in_need && !self.lost && self.nagged.is_none_or(|at| at + NAG <= now) {
            self.nagged = Some(now);
            visit.out.counts.cries += 1;
            if let Some(home) = self.home {
                visit.notice(home, self.node, Notice::MoreParents);
            }
        }
        let hanging = Some(self.moved + HANGING).filter(|at| *at > now);
        [Some(self.moved + patience), Some(now + NAG), hanging].into_iter().flatten().min()
    }

    fn ask(&mut self, visit: &mut Visit<'_>) {
        while let Some(late) = self.running.first().filter(|run| run.deadline <= visit.now) {
            let request = Request { from: late.from, to: self.node, piece: late.piece };
            visit.out.cancels.push(request);
            self.failed(request.from, request.piece, Setback::Silent, visit);
        }
        for ask in self.select.poll(0, visit.now) {
            let (from, piece) = (number(ask.node), ask.index.0);
            if !self.links.iter().any(|link| link.node == from) {
                self.select.setback((ask.node, ask.index), Setback::Withdrawn, visit.now);
                continue;
            }
            visit.out.counts.hedges += u64::from(ask.hedge);
            // Without its digest nothing could tell a wrong piece from a right one.
            visit.out.counts.blind += u64::from(!self.vouched.contains(ask.index));
            let length = visit.fixed.geometry.range(ask.index).len();
            let deadline = visit.now + SLOWEST.max(Duration::from_secs(length / SLOWEST_RATE));
            self.running.push(Running { from, piece, deadline });
            visit.out.asks.push(Request { from, to: self.node, piece });
        }
    }
}
