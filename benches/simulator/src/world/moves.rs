//! Who comes and who goes.

use std::time::Duration;

use common::piece::PieceSet;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::World;
use crate::member::Peer;
use crate::post::{Letter, Node, Word};
use crate::scenario::Arrival;
use crate::visit::{Notice, SEED};

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
        for node in 1..=self.scenario.peers {
            let at = match self.scenario.arrival {
                Arrival::Burst(span) => span.mul_f64(rng.random()),
                Arrival::Rolling(span) => span.mul_f64(f64::from(node - 1) / f64::from(self.scenario.peers)),
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
        if self.peers[SEED as usize].is_none() {
            self.start_seed();
        }
        let pieces = self.fixed.geometry.pieces();
        let kept = self.kept.remove(&node).unwrap_or_else(|| PieceSet::new(pieces));
        if kept.is_empty() {
            self.came[node as usize] = self.step;
        }
        self.hub.sessions[node as usize] += 1;
        let mut visit = self.turn();
        visit.notice(node, Notice::Join);
        let peer = Peer::new(node, kept, &visit);
        self.peers[node as usize] = Some(Box::new(peer));
    }

    /// The first who wants the blob sets the seed going.
    fn start_seed(&mut self) {
        let nothing = PieceSet::new(self.fixed.geometry.pieces());
        let mut visit = self.turn();
        let mut seed = Peer::new(SEED, nothing, &visit);
        seed.go_to_origin(&mut visit);
        // The origin's first answer has the length.
        visit.out.post.send(1 + 2 * visit.fixed.near, SEED, SEED, Word::Joined);
        self.peers[SEED as usize] = Some(Box::new(seed));
    }

    /// Somebody goes without a word.
    fn go(&mut self, node: Node) {
        let Some(peer) = self.peers[node as usize].take() else { return };
        let (idle, silence) = (self.fixed.steps(IDLE) as u32, self.fixed.steps(SILENCE) as u32);
        if self.finished[node as usize].is_none() && !self.returns[node as usize] {
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
        let session = self.hub.sessions[node as usize];
        let noticed = self.step + self.fixed.steps(IDLE);
        self.notices.entry(noticed).or_default().push((node, Notice::Down(session)));
        if self.returns[node as usize] {
            self.kept.insert(node, peer.have);
        } else {
            self.hub.listeners -= u32::from(peer.joined && !peer.complete);
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
