//! What comes to a node from other than its neighbours: the supernode's word on digests, what an earlier run left, and the
//! origin. What `peer::download::session` does in `orders` and `origin`.

use common::piece::PieceIndex;

use super::Peer;
use crate::feed::Feed;
use crate::post::Node;
use crate::visit::{Request, Visit};

// === impl Peer ===

impl Peer {
    /// Asks the origin for all that is missing.
    pub(crate) fn go_to_origin(&mut self, visit: &mut Visit<'_>) {
        if self.feed.is_some() || self.complete {
            return;
        }
        self.take_kept(visit);
        let mut spared = self.have.clone();
        if !self.joined {
            self.kept.runs().into_iter().for_each(|run| spared.insert_range(run));
        }
        if self.recalled {
            self.vouched.runs().into_iter().for_each(|run| spared.insert_range(run));
        }
        let mut feed = Feed::new(visit.fixed.geometry, &spared);
        let first = feed.begin();
        // Whoever knows the length asks for several at once.
        let more = if self.joined { feed.spread() } else { Vec::new() };
        first.into_iter().chain(more).for_each(|piece| self.ask_origin(piece, visit));
        self.feed = Some(feed);
        self.end_feed(visit);
    }

    /// The origin gave all that it was asked for: the rest is with the neighbours.
    pub(super) fn end_feed(&mut self, visit: &Visit<'_>) {
        let done = self.feed.as_ref().is_some_and(|feed| feed.under_way().next().is_none());
        if done && self.recalled && !self.have.is_full() {
            self.feed = None;
            self.moved = visit.now;
        }
    }

    /// The origin is asked no more.
    pub(super) fn stop_feed(&mut self, visit: &mut Visit<'_>) {
        let Some(feed) = self.feed.take() else { return };
        let request = |piece| Request { from: visit.fixed.origin, to: self.node, piece };
        visit.out.cancels.extend(feed.under_way().map(request));
    }

    /// Counts what an earlier run left: the digest of the whole decides.
    pub(super) fn take_kept(&mut self, visit: &mut Visit<'_>) {
        if self.joined {
            let left = self.kept.minus(&self.have);
            left.iter().for_each(|index| self.arrived(index.0, None, visit));
        }
    }

    /// The task is joined there from now on.
    pub(crate) fn moved_to(&mut self, home: Node) {
        (self.home, self.edition, self.proven) = (Some(home), None, false);
    }

    /// There is no supernode now.
    pub(crate) fn lose(&mut self, visit: &Visit<'_>) {
        self.home = None;
        if !std::mem::replace(&mut self.lost, true) {
            self.moved = visit.now;
        }
    }

    /// A seed hears what another supernode vouched for.
    pub(crate) fn recall(&mut self, pieces: &[PieceIndex], visit: &mut Visit<'_>) {
        if self.complete {
            return;
        }
        self.joined = true;
        pieces.iter().for_each(|index| self.vouch(*index, visit));
        if !self.recalled && !self.have.is_full() {
            self.recalled = true;
            self.moved = visit.now;
            if self.feed.is_some() {
                self.stop_feed(visit);
                self.go_to_origin(visit);
            }
        }
    }

    pub(super) fn learn_length(&mut self, visit: &mut Visit<'_>) {
        self.joined = true;
        (self.lost, self.refused, self.proven) = (false, false, false);
        self.moved = visit.now;
        if let Some(home) = self.home {
            (self.edition, self.read) = (Some(visit.sites[home as usize].edition), 0);
        }
        if self.feed.is_some() {
            self.take_kept(visit);
        }
        let more = self.feed.as_mut().map(Feed::spread).unwrap_or_default();
        more.into_iter().for_each(|piece| self.ask_origin(piece, visit));
    }

    pub(super) fn ask_origin(&self, piece: u32, visit: &mut Visit<'_>) {
        visit.out.asks.push(Request { from: visit.fixed.origin, to: self.node, piece });
    }

    /// A piece came from the origin.
    pub(super) fn fed(&mut self, piece: u32, visit: &mut Visit<'_>) {
        if !self.joined && self.feed.is_some() {
            self.learn_length(visit);
        }
        let Some(feed) = &mut self.feed else { return };
        if let Some(next) = feed.came(piece) {
            self.ask_origin(next, visit);
        }
        if !self.have.contains(PieceIndex(piece)) {
            self.arrived(piece, None, visit);
        }
        self.end_feed(visit);
    }

    /// See `Session::origin_failed`.
    pub(super) fn origin_failed(&mut self, visit: &mut Visit<'_>) {
        if self.feed.is_none() {
            return;
        }
        self.stop_feed(visit);
        self.gave_up = self.lost || self.refused || visit.fixed.is_seed(self.node);
        self.moved = visit.now;
    }

    /// Reads the digests that have come by now; gives the step in which the next one comes.
    pub(super) fn learn(&mut self, visit: &mut Visit<'_>) -> Option<u64> {
        let home = self.home?;
        let (delay, site) = (u64::from(visit.fixed.delay(home, self.node)), &visit.sites[home as usize]);
        while let Some((piece, at)) = site.log.get(self.read).filter(|_| self.edition == Some(site.edition)) {
            if at + delay > visit.step {
                return Some(at + delay);
            }
            self.read += 1;
            self.vouch(PieceIndex(*piece), visit);
        }
        None
    }

    /// A piece's digest is known.
    pub(super) fn vouch(&mut self, index: PieceIndex, visit: &mut Visit<'_>) {
        if !self.vouched.insert(index) {
            return;
        }
        self.select.vouch(index);
        if self.have.contains(index) {
            self.reveal.piece(index, visit.now);
        } else if self.kept.contains(index) {
            self.arrived(index.0, None, visit);
        }
    }
}
