//! The peers' sessions with the supernodes, as the transport sees them, and the real [`Fleet`] of each peer: what
//! `peer::coordinator::driver` does. A download's words travel with its visits; here sessions come and go.

use std::time::Duration;

use common::digest::Digest;
use common::identity::Seal;
use common::piece::PieceIndex;
use common::wire::swarm::{MAX_DIGESTS, Testimony};
use peer::coordinator::fleet::{Command, Fleet};
use peer::trust::Deeds;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::World;
use crate::hub::TASK;
use crate::post::Node;
use crate::visit::{Notice, mix, number};

/// See `common::transport::settings`.
const SUPERNODE_IDLE: Duration = Duration::from_secs(4);
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// See `peer::coordinator::session`.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A client pulls again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A peer's sessions.
#[derive(Default)]
pub(super) struct Membership {
    fleet: Option<Box<Fleet>>,
    lines: Vec<Line>,
    /// The fleet knows that the task is held.
    pub(super) holds: bool,
    /// Whom it trusts, from a pull that failed to the next.
    pub(super) deeds: Deeds,
    /// Pulls that failed.
    pub(super) failures: u32,
}

/// A session with one supernode, or the attempt.
struct Line {
    up: bool,
    /// Which run of the supernode it is with.
    life: u32,
    /// Nothing has come since.
    silent: Option<u64>,
    dial: u64,
    backoff: Duration,
}

// === impl World ===

impl World<'_> {
    /// A peer begins: it looks for the supernodes, and wants the task.
    pub(super) fn muster(&mut self, node: Node) {
        let (now, supernodes) = (self.fixed.at(self.step), self.fixed.supernodes);
        if self.members[node as usize].fleet.is_none() {
            let rng = SmallRng::seed_from_u64(mix(self.fixed.rng ^ u64::from(node)));
            let mut fleet = Fleet::new(now, rng);
            (0..supernodes).for_each(|at| fleet.expect(at.to_string()));
            let line = |_| Line { up: false, life: 0, silent: None, dial: self.step, backoff: MIN_BACKOFF };
            let lines = (0..supernodes).map(line).collect();
            self.members[node as usize] =
                Membership { fleet: Some(Box::new(fleet)), lines, ..Membership::default() };
        }
        self.with_fleet(node, |fleet| fleet.want(TASK, now));
        self.look_at_sessions(node);
    }

    /// Its process has ended.
    pub(super) fn leave_sessions(&mut self, node: Node) {
        for (at, line) in (0..).zip(std::mem::take(&mut self.members[node as usize].lines)) {
            if line.up {
                let session = self.hubs[at as usize].sessions[node as usize];
                let noticed = self.step + self.fixed.steps(SUPERNODE_IDLE);
                self.notices.entry(noticed).or_default().push(((at, node), Notice::Down(session)));
            }
        }
        (self.members[node as usize].fleet, self.members[node as usize].deeds) = (None, Deeds::default());
    }

    /// Sessions that are lost, and those that can be had again.
    pub(super) fn look_at_sessions(&mut self, node: Node) {
        let (step, now) = (self.step, self.fixed.at(self.step));
        let idle = self.fixed.steps(SUPERNODE_IDLE);
        for at in 0..self.fixed.supernodes {
            let open = self.weather.alive[at as usize] && !self.weather.parts(node, at);
            let life = self.weather.lives[at as usize];
            let Some(line) = self.members[node as usize].lines.get_mut(at as usize) else { return };
            if line.up && open && line.life == life {
                line.silent = None;
            } else if line.up && step - *line.silent.get_or_insert(step) >= idle {
                (line.up, line.silent, line.dial) = (false, None, step);
                let session = self.hubs[at as usize].sessions[node as usize];
                if life == line.life {
                    self.notices.entry(step + 1).or_default().push(((at, node), Notice::Down(session)));
                }
                let id = self.fixed.id(at);
                self.with_fleet(node, |fleet| fleet.down(id, now));
            } else if !line.up && line.dial <= step {
                self.dial(node, at, open);
            }
        }
        if self.members[node as usize]
            .fleet
            .as_ref()
            .and_then(|fleet| fleet.wake())
            .is_some_and(|at| at <= now)
        {
            self.with_fleet(node, |fleet| fleet.tick(now));
        }
    }

    fn dial(&mut self, node: Node, at: Node, open: bool) {
        let (step, now, id) = (self.step, self.fixed.at(self.step), self.fixed.id(at));
        let life = self.weather.lives[at as usize];
        let lines = &mut self.members[node as usize].lines;
        let absent = (0..).zip(&*lines).filter(|(other, line)| !line.up && *other != at);
        let absent: Vec<String> = absent.map(|(other, _): (Node, _)| other.to_string()).collect();
        let line = &mut lines[at as usize];
        if open {
            (line.up, line.life, line.silent, line.backoff) = (true, life, None, MIN_BACKOFF);
            self.hubs[at as usize].sessions[node as usize] += 1;
            self.turn().notice(at, node, Notice::Up);
            self.with_fleet(node, |fleet| fleet.up(id, absent, now));
        } else {
            line.dial = step + self.fixed.steps(DIAL_TIMEOUT + line.backoff);
            line.backoff = (line.backoff * 2).min(MAX_BACKOFF);
        }
        self.with_fleet(node, |fleet| fleet.answered(&at.to_string(), now));
    }

    pub(super) fn has_session(&self, node: Node, at: Node) -> bool {
        self.members[node as usize].lines.get(at as usize).is_some_and(|line| line.up)
    }

    /// A download is over.
    pub(super) fn proven(&mut self, node: Node) {
        let (geometry, now) = (self.fixed.geometry, self.fixed.at(self.step));
        self.members[node as usize].holds = true;
        self.with_fleet(node, |fleet| fleet.proven(TASK, geometry, now).into_iter().collect());
    }

    /// A pull has failed; its client will try again.
    pub(super) fn pull_failed(&mut self, node: Node) {
        let Some(peer) = self.peers[node as usize].take() else { return };
        self.members[node as usize].failures += 1;
        self.disband(node, &peer);
        self.kept.insert(node, peer.have);
        self.members[node as usize].deeds = peer.deeds;
        self.with_fleet(node, |fleet| fleet.unwant(TASK).into_iter().collect());
        let again = self.step + self.fixed.steps(AGAIN);
        self.moves.entry(again).or_default().push(super::Move::Come(node));
    }

    /// The copy is dropped.
    pub(super) fn evict(&mut self, node: Node) {
        let idle = |peer: &&mut Box<crate::member::Peer>| peer.complete && peer.links.is_empty();
        if self.peers[node as usize].as_mut().filter(idle).is_some() {
            self.peers[node as usize] = None;
            self.members[node as usize].holds = false;
            self.with_fleet(node, |fleet| fleet.holds(std::collections::BTreeMap::new()));
        }
    }

    /// Asks the fleet, and does what it says.
    fn with_fleet(&mut self, node: Node, ask: impl FnOnce(&mut Fleet) -> Vec<Command>) {
        let Some(fleet) = &mut self.members[node as usize].fleet else { return };
        for command in ask(fleet) {
            match command {
                Command::Join { at, .. } => self.join(node, number(at)),
                Command::Leave { at, .. } => self.turn().notice(number(at), node, Notice::Leave),
                Command::Hold { at, .. } => self.turn().notice(number(at), node, Notice::Proven),
                Command::Lost(_) => self.tell(node, |peer, visit| peer.lose(visit)),
                Command::Alone(_) => self.tell(node, |peer, visit| {
                    peer.lose(visit);
                    peer.go_to_origin(visit);
                }),
            }
        }
    }

    fn join(&mut self, node: Node, at: Node) {
        let Some(peer) = &mut self.peers[node as usize] else { return };
        peer.moved_to(at);
        if !self.weather.parts(node, at) {
            self.begin_at(at, node);
        }
        self.turn().notice(at, node, Notice::Join);
    }

    /// A supernode's seed begins, unless it has, for a peer that shows what it was told elsewhere.
    pub(super) fn begin_at(&mut self, at: Node, node: Node) {
        let vouched = self.peers[node as usize].as_ref().map(|peer| peer.vouched.runs()).unwrap_or_default();
        if !vouched.is_empty() {
            self.testify(at, &vouched);
        }
        self.start_seed(at);
    }

    /// Shows a supernode what another had vouched for.
    fn testify(&mut self, at: Node, runs: &[std::ops::Range<u32>]) {
        let now = self.fixed.at(self.step);
        let geometry = self.fixed.geometry;
        let testimony = |first: u32, count: u32| Testimony {
            task: TASK,
            geometry,
            first: PieceIndex(first),
            digests: (first..first + count).map(|index| Digest::of(&index.to_le_bytes())).collect(),
            // Seals are checked before anything is learnt; nobody forges here.
            seal: Seal([0; 32]),
        };
        let mut news = false;
        for run in runs {
            let count = (run.end - run.start).min(MAX_DIGESTS as u32);
            news |= self.memories[at as usize].learn(&testimony(run.start, count), now);
        }
        let recalled = self.recalled(at);
        if news && self.peers[at as usize].is_some() {
            self.tell(at, |seed, visit| seed.recall(&recalled, visit));
        }
    }

    /// What a supernode was shown.
    pub(super) fn recalled(&self, at: Node) -> Vec<PieceIndex> {
        let known = self.memories[at as usize].of(TASK, self.fixed.at(self.step));
        known.map(|recalled| recalled.digests.keys().copied().collect()).unwrap_or_default()
    }

    /// Has a download hear something.
    pub(super) fn tell(
        &mut self,
        node: Node,
        word: impl FnOnce(&mut crate::member::Peer, &mut crate::visit::Visit<'_>),
    ) {
        let now = self.fixed.at(self.step);
        let Some(peer) = &mut self.peers[node as usize] else { return };
        let (fixed, sites, step) = (&self.fixed, &self.sites[..], self.step);
        word(peer, &mut crate::visit::Visit { fixed, now, step, sites, out: &mut self.out });
        self.wake[node as usize] = self.step + 1;
    }
}
