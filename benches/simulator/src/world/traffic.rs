//! Requests, uploads and bytes.

use std::collections::VecDeque;
use std::time::Duration;

use common::piece::PieceIndex;

use super::World;
use crate::faults::Role;
use crate::member::Peer;
use crate::network::{Capacities, Flow, Network};
use crate::post::{Node, Word};
use crate::scenario::Scenario;
use crate::visit::{Fixed, Request};

/// See `peer::exchange::{fetch, serve, guests}`.
const SILENCE: Duration = Duration::from_millis(1900);
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
const UPLOAD_BUDGET: u64 = 32 * 1024 * 1024;

/// A node's uploads.
#[derive(Default)]
pub(super) struct Uploads {
    active: u32,
    /// Requests that wait for room, and until which step.
    pub(super) waiting: VecDeque<(u64, Request)>,
}

// === impl World ===

impl World<'_> {
    /// Takes requests back.
    pub(super) fn withdraw(&mut self) {
        let mut cancels = std::mem::take(&mut self.out.cancels);
        if cancels.is_empty() {
            return;
        }
        cancels.sort_unstable();
        let cancelled = |request: &Request| cancels.binary_search(request).is_ok();
        // Few are cut of very many: whose they are is looked at first.
        let mut concerned = vec![false; self.fixed.zone_of.len()];
        cancels.iter().for_each(|request| concerned[request.to as usize] = true);
        let is_cut = |flow: &Flow| {
            let request = Request { from: flow.from, to: flow.to, piece: flow.piece };
            concerned[flow.to as usize] && cancelled(&request)
        };
        let cut = self.network.cut(is_cut);
        for node in cancels.iter().map(|request| request.from).filter(|node| *node != self.fixed.origin) {
            self.uploads[node as usize].waiting.retain(|(_, request)| !cancelled(request));
        }
        self.requests.values_mut().for_each(|coming| coming.retain(|request| !cancelled(request)));
        cut.into_iter().for_each(|flow| self.ended(flow.from));
    }

    /// Requests arrive at whom they were sent to.
    pub(super) fn serve(&mut self) {
        for ask in std::mem::take(&mut self.out.asks) {
            let far = self.fixed.delay(ask.to, ask.from);
            self.requests.entry(self.step + u64::from(far)).or_default().push(ask);
        }
        for node in self.queued.remove(&self.step).unwrap_or_default() {
            let waiting = &mut self.uploads[node as usize].waiting;
            while let Some((_, late)) = waiting.pop_front_if(|(deadline, _)| *deadline <= self.step) {
                self.out.post.send(self.fixed.delay(node, late.to), late.to, node, Word::Busy(late.piece));
            }
        }
        for request in self.requests.remove(&self.step).unwrap_or_default() {
            let Request { from, to, piece } = request;
            if from == self.fixed.origin {
                if self.origin_answers(request) {
                    self.start(request);
                }
                continue;
            }
            let role = self.weather.roles.get(&from).copied();
            if role == Some(Role::Mute) || self.weather.parts(from, to) || self.is_of_a_former_life(from, to)
            {
                self.out.post.send(self.fixed.steps(SILENCE) as u32, to, from, Word::Silent(piece));
                continue;
            }
            let Some(peer) = &self.peers[from as usize] else {
                self.out.post.send(self.fixed.steps(SILENCE) as u32, to, from, Word::Silent(piece));
                continue;
            };
            let room = (UPLOAD_BUDGET / u64::from(self.fixed.geometry.piece_length())) as u32;
            let most = self.scenario.uploads.unwrap_or(room);
            let uploads = &mut self.uploads[from as usize];
            if role == Some(Role::Boaster) || !peer.have.contains(PieceIndex(piece)) {
                self.out.post.send(self.fixed.delay(from, to), to, from, Word::NotThere(piece));
            } else if uploads.active < most {
                uploads.active += 1;
                self.start(request);
            } else if self.scenario.uploads.is_some() {
                self.out.post.send(self.fixed.delay(from, to), to, from, Word::Busy(piece));
            } else {
                let deadline = self.step + self.fixed.steps(QUEUE_TIMEOUT);
                uploads.waiting.push_back((deadline, request));
                self.queued.entry(deadline).or_default().push(from);
            }
        }
    }

    /// Whether a request is made on a connection whose other end is another process by now.
    fn is_of_a_former_life(&self, from: Node, to: Node) -> bool {
        let known = |peer: &Peer| peer.links.iter().any(|link| link.node == to);
        self.weather.lives[from as usize] > 0 && !self.peers[from as usize].as_deref().is_some_and(known)
    }

    fn start(&mut self, request: Request) {
        let length = self.fixed.geometry.range(PieceIndex(request.piece)).len() as f64;
        let bytes = length * (1.0 + self.scenario.overhead);
        self.network.start(request.from, request.to, request.piece, bytes);
    }

    /// An upload of a node ended: the next that waits begins.
    pub(super) fn ended(&mut self, from: Node) {
        let Some(uploads) = self.uploads.get_mut(from as usize) else { return };
        uploads.active = uploads.active.saturating_sub(1);
        if let Some((_, request)) = uploads.waiting.pop_front() {
            uploads.active += 1;
            self.start(request);
        }
    }

    /// Bytes move.
    pub(super) fn carry(&mut self) {
        let owed = &mut self.hubs[0].owed;
        let room = self.scenario.seed_rate as f64 / 16.0 * self.fixed.step.as_secs_f64();
        let spent = (owed.0.min(room), owed.1.min(room));
        *owed = (owed.0 - spent.0, owed.1 - spent.1);
        let spent = if self.scenario.control_takes_room { spent } else { (0.0, 0.0) };
        for flow in self.network.advance(spent) {
            let delay = 1 + self.fixed.delay(flow.from, flow.to);
            let lies = self.weather.roles.get(&flow.from) == Some(&Role::Liar);
            let word = if lies { Word::Wrong(flow.piece) } else { Word::Piece(flow.piece) };
            self.out.post.send(delay, flow.to, flow.from, word);
            self.ended(flow.from);
        }
    }
}

/// The lines of a scenario.
pub(super) fn network(scenario: &Scenario, fixed: &Fixed) -> Network {
    let step = |bits: u64| bits as f64 / 8.0 * fixed.step.as_secs_f64();
    let lines = |peers: u64, seed: u64| {
        let mut lines = vec![step(peers); fixed.origin as usize + 1];
        lines[..fixed.supernodes as usize].fill(step(seed));
        for (node, rate) in (fixed.supernodes..).zip(&scenario.plan.rates) {
            lines[node as usize] = step(*rate);
        }
        lines[fixed.origin as usize] = step(scenario.origin_rate);
        lines
    };
    Network::new(Capacities {
        up: lines(scenario.up, scenario.seed_rate),
        // A fast origin stands for a seed that has the blob already.
        down: lines(scenario.down, scenario.seed_rate.max(scenario.origin_rate)),
        zone: scenario.zone_rate.map(step),
        zone_of: fixed.zone_of.clone(),
    })
}
