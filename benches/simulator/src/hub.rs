//! The supernode beside its seed: the real scheduler, what sessions and feeders put into it, and what all of that costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::node::{Contact, Labels};
use common::task::TaskId;
use supernode::scheduler::{Command, Event, Member, Scheduler};

use crate::member::Peer;
use crate::post::{Node, Post, Word};
use crate::scenario::Scenario;
use crate::visit::{Fixed, Notice, number};

/// What everybody wants.
pub(crate) const TASK: TaskId = TaskId([7; 32]);
/// Bytes of a message beside its contents: QUIC, UDP, the frame, the task's id.
const MESSAGE: f64 = 100.0;
/// Bytes of a piece's digest, and of a parent's name and address.
const DIGEST: f64 = 32.0;
const CONTACT: f64 = 24.0;

/// The supernode.
pub(crate) struct Hub {
    /// The supernode's number.
    me: Node,
    pub(crate) scheduler: Scheduler,
    slots: u16,
    zoned: bool,
    /// The seed knows the length.
    known: bool,
    proven: bool,
    /// Peers that wait for it.
    waiting: Vec<Node>,
    /// Who is told of this task, by node.
    fed: Vec<bool>,
    /// The number of each peer's session.
    pub(crate) sessions: Vec<u32>,
    /// Peers that are told digests.
    pub(crate) listeners: u32,
    /// Bytes said and heard, and those of them that the lines have not carried yet.
    pub(crate) said: f64,
    pub(crate) heard: f64,
    pub(crate) owed: (f64, f64),
    pub(crate) events: u64,
    pub(crate) commands: u64,
    pub(crate) time: Duration,
}

/// When it is, and the way to the peers.
pub(crate) struct Desk<'a> {
    pub(crate) fixed: &'a Fixed,
    pub(crate) now: Instant,
    pub(crate) post: &'a mut Post,
    /// Number of digests that the seed knows.
    pub(crate) digests: usize,
}

// === impl Hub ===

impl Hub {
    pub(crate) fn new(me: Node, scenario: &Scenario, fixed: &Fixed) -> Self {
        let mut settings = scenario.settings.clone();
        let zoned = scenario.zones > 1;
        if zoned {
            settings.seed_labels = labels(fixed, me);
        }
        Self {
            me,
            scheduler: Scheduler::new(contact(fixed, me), settings, scenario.rng),
            slots: scenario.slots,
            zoned,
            known: false,
            proven: false,
            waiting: Vec::new(),
            fed: vec![false; fixed.origin as usize],
            sessions: vec![0; fixed.origin as usize],
            listeners: 0,
            said: 0.0,
            heard: 0.0,
            owed: (0.0, 0.0),
            events: 0,
            commands: 0,
            time: Duration::ZERO,
        }
    }

    /// Forgets everything but the numbers of sessions, which go on: the end of a session with its last run is no end of
    /// one with this run.
    pub(crate) fn restart(&mut self, me: Node, scenario: &Scenario, fixed: &Fixed) {
        let sessions = std::mem::take(&mut self.sessions);
        *self = Self { sessions, ..Self::new(me, scenario, fixed) };
    }

    fn apply(&mut self, event: Event, desk: &mut Desk<'_>) {
        let begun = Instant::now();
        let commands = self.scheduler.apply(event, desk.now);
        self.time += begun.elapsed();
        self.events += 1;
        self.commands += commands.len() as u64;
        for Command::Parents { to, add, remove, .. } in commands {
            self.say(MESSAGE + CONTACT * (add.len() + remove.len()) as f64);
            let add = add.into_iter().map(|contact| contact.id).collect();
            let node = number(to);
            let delay = desk.fixed.delay(self.me, node);
            desk.post.send(delay, node, self.me, Word::Parents(Box::new((add, remove))));
        }
    }

    fn say(&mut self, bytes: f64) {
        self.said += bytes;
        self.owed.0 += bytes;
    }

    /// A peer, if it is there, says something.
    pub(crate) fn hear(&mut self, node: Node, notice: Notice, peer: Option<&mut Peer>, desk: &mut Desk<'_>) {
        if !matches!(notice, Notice::Up) {
            self.heard += MESSAGE;
            self.owed.1 += MESSAGE;
        }
        let id = desk.fixed.id(node);
        match (notice, peer) {
            (Notice::Down(session), _) => {
                if self.sessions[node as usize] == session {
                    self.fed[node as usize] = false;
                    self.apply(Event::PeerDown(id), desk);
                }
            }
            (Notice::Leave, _) => {
                self.fed[node as usize] = false;
                self.waiting.retain(|other| *other != node);
                self.apply(Event::Leave { task: TASK, node: id }, desk);
            }
            (Notice::Up, _) => {
                let labels = if self.zoned { labels(desk.fixed, node) } else { Labels::default() };
                let member = Member { contact: contact(desk.fixed, node), labels, slots: self.slots };
                self.apply(Event::PeerUp(member), desk);
            }
            (_, None) => {}
            (Notice::Join, Some(peer)) => {
                if self.known {
                    self.join(node, peer.have.count(), desk);
                } else {
                    self.waiting.push(node);
                }
            }
            (Notice::Progress, Some(peer)) => {
                peer.batching = false;
                if !peer.complete {
                    self.apply(Event::Progress { task: TASK, node: id, held: peer.have.count() }, desk);
                }
            }
            (Notice::Proven, Some(_)) => {
                self.listeners = self.listeners.saturating_sub(1);
                let pieces = desk.fixed.geometry.pieces();
                self.apply(Event::Hold { task: TASK, node: id, pieces }, desk);
            }
            (Notice::MoreParents, Some(_)) => self.apply(Event::MoreParents { task: TASK, node: id }, desk),
            (Notice::Blame(about, fault), Some(_)) => {
                let about = desk.fixed.id(about);
                self.apply(Event::Blame { task: TASK, by: id, about, fault }, desk);
            }
        }
    }

    /// What a feeder does when the length is known.
    fn join(&mut self, node: Node, held: u32, desk: &mut Desk<'_>) {
        self.listeners += 1;
        self.fed[node as usize] = true;
        self.say(MESSAGE + DIGEST * desk.digests as f64);
        let (id, delay) = (desk.fixed.id(node), desk.fixed.delay(self.me, node));
        desk.post.send(delay, node, self.me, Word::Joined);
        self.apply(Event::Join { task: TASK, node: id, held }, desk);
        self.apply(Event::SeedMeta { task: TASK, pieces: desk.fixed.geometry.pieces() }, desk);
        if self.proven {
            self.apply(Event::SeedProven(TASK), desk);
            desk.post.send(delay + 1, node, self.me, Word::Proven);
        }
    }

    /// The seed cannot get the task, and all who wait for it hear so.
    pub(crate) fn seed_failed(&mut self, desk: &mut Desk<'_>) {
        (self.known, self.proven, self.listeners) = (false, false, 0);
        self.apply(Event::SeedFailed(TASK), desk);
        let fed = (0..).zip(&self.fed).filter(|(_, fed)| **fed).map(|(node, _)| node);
        let fed: Vec<Node> = fed.chain(self.waiting.drain(..)).collect();
        self.fed.fill(false);
        for node in fed {
            desk.post.send(desk.fixed.delay(self.me, node) + 1, node, self.me, Word::Failed);
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(crate) fn knows_length(&self) -> bool {
        self.known
    }

    /// The seed knows the length.
    pub(crate) fn length_known(&mut self, desk: &mut Desk<'_>) {
        self.known = true;
        self.apply(Event::SeedMeta { task: TASK, pieces: desk.fixed.geometry.pieces() }, desk);
        for node in std::mem::take(&mut self.waiting) {
            self.join(node, 0, desk);
        }
    }

    /// The seed got so many more pieces, in all `held`, perhaps the first of a batch of digests.
    pub(crate) fn seed_got(&mut self, new: usize, first: bool, held: u32, desk: &mut Desk<'_>) {
        let message = if first { MESSAGE } else { 0.0 };
        self.say(f64::from(self.listeners) * (message + DIGEST * new as f64));
        for back in (0..new as u32).rev() {
            self.apply(Event::SeedProgress { task: TASK, held: held - back }, desk);
        }
    }

    /// The seed has it all, and it is right: `here` are told once the last digests are posted, so many steps from now.
    pub(crate) fn seed_proven(&mut self, here: impl Iterator<Item = Node>, posted: u32, desk: &mut Desk<'_>) {
        self.proven = true;
        self.apply(Event::SeedProven(TASK), desk);
        for node in here {
            desk.post.send(posted + desk.fixed.delay(self.me, node) + 1, node, self.me, Word::Proven);
        }
    }

    pub(crate) fn tick(&mut self, desk: &mut Desk<'_>) {
        self.apply(Event::Tick, desk);
    }
}

fn contact(fixed: &Fixed, node: Node) -> Contact {
    Contact { id: fixed.id(node), address: SocketAddr::from(([0, 0, 0, 0], 7710)) }
}

fn labels(fixed: &Fixed, node: Node) -> Labels {
    Labels { zone: format!("z{}", fixed.zone_of[node as usize]), ..Labels::default() }
}
