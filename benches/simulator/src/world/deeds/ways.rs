//! Ways that are cut: letters and notices wait for them, transfers break off, links are missed after a while.

use std::time::Duration;

use super::{IDLE, PULSE, World};
use crate::faults::Trouble;
use crate::post::{Bucket, Letter, Node, Word};
use crate::visit::{Notice, Request};

/// See `peer::exchange::fetch`.
const SILENCE: Duration = Duration::from_millis(1900);

// === impl World ===

impl World<'_> {
    /// The ways that a fault cuts.
    fn ways(&self, node: Node, trouble: Trouble) -> Vec<(Node, Node)> {
        let others = (0..=self.fixed.origin).filter(|other| *other != node);
        let part =
            |other: Node| if let Trouble::Part(with) = trouble { other == self.node(with) } else { true };
        let both = others.filter(|other| part(*other)).flat_map(|other| [(other, node), (node, other)]);
        let cut = |(from, to): &(Node, Node)| match trouble {
            Trouble::Deafen => *to == node,
            Trouble::Mute => *from == node,
            _ => true,
        };
        both.filter(cut).collect()
    }

    pub(super) fn cut(&mut self, node: Node, trouble: Trouble) {
        for way in self.ways(node, trouble) {
            self.weather.cuts.entry(way).or_insert((0, self.step)).0 += 1;
        }
        let weather = &self.weather;
        for flow in self.network.cut(|flow| weather.parts(flow.from, flow.to)) {
            let Request { from, to, piece } = Request { from: flow.from, to: flow.to, piece: flow.piece };
            if from == self.fixed.origin {
                self.out.asks.push(Request { from, to, piece });
            } else {
                self.ended(from);
                self.out.post.send(self.fixed.steps(SILENCE) as u32, to, from, Word::Silent(piece));
            }
        }
    }

    pub(super) fn open(&mut self, node: Node, trouble: Trouble) {
        for way in self.ways(node, trouble) {
            let Some(cut) = self.weather.cuts.get_mut(&way) else { continue };
            cut.0 -= 1;
            if cut.0 == 0 {
                self.weather.cuts.remove(&way);
                let held = self.weather.held.remove(&way).unwrap_or_default();
                self.out.post.send_first(held);
            }
        }
    }

    /// Keeps letters back whose way is cut. What a node finds out by itself needs no way.
    pub(in crate::world) fn hold_up(&mut self, bucket: &mut Bucket) {
        if self.weather.cuts.is_empty() {
            return;
        }
        for at in 0..bucket.letters.len() {
            let Letter { to, from, ref word } = bucket.letters[at];
            let own = matches!(word, Word::Silent(_) | Word::NoOrigin | Word::NoLink);
            if own || !self.weather.cuts.contains_key(&(from, to)) {
                continue;
            }
            let runs = match word {
                Word::ToldRuns { first, count, .. } => bucket.runs(*first, *count).to_vec(),
                _ => Vec::new(),
            };
            let word = std::mem::replace(&mut bucket.letters[at].word, Word::Nothing);
            self.weather.held.entry((from, to)).or_default().push((Letter { to, from, word }, runs));
        }
    }

    /// Whether a peer's word to a supernode does not come now: it waits, or goes down with its session.
    pub(in crate::world) fn is_held_up(&mut self, (to, from): (Node, Node), notice: Notice) -> bool {
        if !self.weather.alive[to as usize] {
            return true;
        }
        let cut = self.weather.cuts.contains_key(&(from, to)) && !matches!(notice, Notice::Down(_));
        if cut && self.has_session(from, to) {
            let later = self.step + self.fixed.steps(PULSE);
            self.notices.entry(later).or_default().push(((to, from), notice));
        }
        cut
    }

    /// Links on which nothing has come for too long.
    pub(super) fn lose_links(&mut self) {
        let idle = self.fixed.steps(IDLE);
        let origin = self.fixed.origin;
        let cuts = self.weather.cuts.iter().filter(|((from, to), _)| *from.max(to) != origin);
        let late = cuts.filter(|(_, (_, since))| self.step - since >= idle);
        for (from, to) in late.map(|(way, _)| *way).collect::<Vec<_>>() {
            self.weather.held.remove(&(from, to));
            self.tell_quietly(from, to);
            self.tell_quietly(to, from);
        }
    }

    fn tell_quietly(&mut self, node: Node, other: Node) {
        if self.peers[node as usize]
            .as_ref()
            .is_some_and(|peer| peer.links.iter().any(|link| link.node == other))
        {
            self.tell(node, |peer, visit| peer.lost_sight_of(other, visit));
        }
    }
}
