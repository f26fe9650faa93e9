//! Who comes and who goes.

use std::time::Duration;

use common::piece::PieceSet;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::World;
use crate::member::Peer;
use crate::post::{Letter, Node, Word};
use crate::scenario::Arrival;

/// See `common::transport::settings` and `peer::exchange::fetch`.
const IDLE: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(1900);

/// Somebody comes or goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Come(Node),
    Go(Node),
}

// === impl World ===

impl World<'_> {
    /// Draws who comes when, and who leaves.
    pub(super) fn plan(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.scenario.rng ^ 0x5eed);
        let (bound, churn) = (self.scenario.bound(), self.scenario.churn);
        for peer in 0..self.scenario.peers {
            let node = self.fixed.supernodes + peer;
            let at = match self.scenario.arrival {
                Arrival::Burst(span) => span.mul_f64(rng.random()),
                Arrival::Rolling(span) => span.mul_f64(f64::from(peer) / f64::from(self.scenario.peers)),
            };
            self.moved(at, Move::Come(node));
            if rng.random::<f64>() < churn.share {
                let leaves = at + bound.mul_f64(rng.random());
                self.moved(leaves, Move::Go(node));
                if let Some(away) = churn.back_after {
                    self.returns[node as usize] = true;
                    self.moved(leaves + away, Move::Come(node));
                }
            }
        }
    }

    fn moved(&mut self, at: Duration, what: Move) {
        self.moves.entry(self.fixed.steps(at)).or_default().push(what);
    }

    pub(super) fn come_or_go(&mut self, what: Move) {
        match what {
            Move::Come(node) => self.come(node),
            Move::Go(node) => self.go(node),
        }
    }

    fn come(&mut self, node: Node) {
        if self.fixed.is_seed(node) {
            // Its seed begins with the first who wants the task.
            self.weather.alive[node as usize] = true;
            return;
        }
        let pieces = self.fixed.geometry.pieces();
        let kept = self.kept.remove(&node).unwrap_or_else(|| PieceSet::new(pieces));
        if kept.is_empty() && !self.weather.roles.contains_key(&node) {
            self.came[node as usize] = self.step;
            self.unfinished += u32::from(self.finished[node as usize].take().is_some());
        }
        let mut peer = Peer::new(node, kept, &self.turn());
        peer.deeds = std::mem::take(&mut self.members[node as usize].deeds);
        self.peers[node as usize] = Some(Box::new(peer));
        self.wake[node as usize] = self.step + 1;
        self.weather.alive[node as usize] = true;
        self.muster(node);
        if self.weather.roles.contains_key(&node) {
            self.play(node);
        }
    }

    /// The first who wants the blob sets the seed going.
    pub(super) fn start_seed(&mut self, at: Node) {
        if self.peers[at as usize].is_some() || !self.weather.alive[at as usize] {
            return;
        }
        let pieces = self.fixed.geometry.pieces();
        let kept = self.kept.remove(&at).unwrap_or_else(|| PieceSet::new(pieces));
        let recalled = self.recalled(at);
        let length_is_near = !self.weather.origin_is_away(at) || !kept.is_empty();
        let mut visit = self.turn();
        let mut seed = Peer::new(at, kept, &visit);
        if !recalled.is_empty() {
            seed.recall(&recalled, &mut visit);
        }
        seed.go_to_origin(&mut visit);
        if length_is_near {
            // The origin's first answer has the length.
            visit.out.post.send(1 + 2 * visit.fixed.near, at, at, Word::Joined);
        }
        self.peers[at as usize] = Some(Box::new(seed));
        self.wake[at as usize] = self.step + 1;
    }

    /// Somebody goes without a word.
    pub(super) fn go(&mut self, node: Node) {
        self.leave_sessions(node);
        let Some(peer) = self.peers[node as usize].take() else { return };
        let (idle, silence) = (self.fixed.steps(IDLE) as u32, self.fixed.steps(SILENCE) as u32);
        let is_seed = self.fixed.is_seed(node);
        let stays_away = !is_seed && !self.returns[node as usize];
        if stays_away && self.finished[node as usize].is_none() {
            self.unfinished -= 1;
        }
        for link in &peer.links {
            self.out.post.send(idle, link.node, node, Word::Closed(link.id));
        }
        for flow in self.network.cut(|flow| flow.from == node || flow.to == node) {
            self.ended(flow.from);
            if flow.from == node && flow.to != node {
                self.out.post.send(silence, flow.to, node, Word::Silent(flow.piece));
            }
        }
        for (_, request) in std::mem::take(&mut self.uploads[node as usize]).waiting {
            self.out.post.send(silence, request.to, node, Word::Silent(request.piece));
        }
        if !stays_away {
            self.kept.insert(node, peer.have);
        } else if let Some(home) = peer.home.filter(|_| peer.joined && !peer.complete) {
            let listeners = &mut self.hubs[home as usize].listeners;
            *listeners = listeners.saturating_sub(1);
        }
    }

    /// A letter to somebody who is not there.
    pub(super) fn bounce(&mut self, letter: &Letter) {
        let Letter { to, from, word } = letter;
        let (dial, idle) = (self.fixed.steps(DIAL_TIMEOUT) as u32, self.fixed.steps(IDLE) as u32);
        match word {
            Word::Open(_) => self.out.post.send(dial, *from, *to, Word::NoLink),
            Word::Accepted(link) => self.out.post.send(idle, *from, *to, Word::Closed(*link)),
            _ => {}
        }
    }
}
