//! A node's links to its neighbours: opened, accepted, told over, let go. What `peer::download::mesh` does.

use std::time::{Duration, Instant};

use common::node::NodeId;
use peer::exchange::link::keeps;

use crate::member::Peer;
use crate::post::{LinkId, Node, Word};
use crate::visit::{Visit, number};

/// See `peer::download::mesh`.
const MAX_LINKS: usize = 128;
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Ways from the dial to a link that is accepted: QUIC's handshake, the hello, the opening.
const DIAL: u32 = 5;

/// A link.
pub(crate) struct Link {
    pub(crate) node: Node,
    pub(crate) id: LinkId,
    /// Whether we opened it.
    ours: bool,
}

/// Whom the supernode named.
pub(crate) struct Parent {
    node: Node,
    attempts: u32,
    retry: Instant,
    opening: bool,
}

// === impl Peer ===

impl Peer {
    fn link(&self, node: Node) -> Option<&Link> {
        self.links.iter().find(|link| link.node == node)
    }

    /// The supernode's word on parents.
    pub(crate) fn ordered(&mut self, add: &[NodeId], remove: &[NodeId], visit: &mut Visit<'_>) {
        for node in remove.iter().map(|id| number(*id)) {
            self.parents.retain(|parent| parent.node != node);
            if self.link(node).is_some_and(|link| link.ours) {
                self.link_down(node, visit);
            }
        }
        for node in add.iter().map(|id| number(*id)) {
            let barred = self.deeds.is_barred(visit.fixed.id(node), visit.now);
            if node != self.node && !barred && !self.parents.iter().any(|parent| parent.node == node) {
                self.parents.push(Parent { node, attempts: 0, retry: visit.now, opening: false });
                self.relink = Some(visit.now);
            }
        }
    }

    pub(crate) fn open_links(&mut self, visit: &mut Visit<'_>) {
        if self.complete || self.relink.is_none_or(|at| at > visit.now) {
            return;
        }
        for parent in &mut self.parents {
            let linked = self.links.iter().any(|link| link.node == parent.node);
            if parent.opening || parent.retry > visit.now || linked {
                continue;
            }
            parent.opening = true;
            self.opened += 1;
            let id = (u64::from(self.node) << 32) | u64::from(self.opened);
            let delay = visit.fixed.delay(self.node, parent.node) * DIAL;
            visit.out.post.send(delay, parent.node, self.node, Word::Open(id));
        }
        let retry = self.parents.iter().filter(|parent| !parent.opening && parent.retry > visit.now);
        self.relink = retry.map(|parent| parent.retry).min();
    }

    /// A neighbour opened a link.
    pub(crate) fn incoming(&mut self, from: Node, id: LinkId, visit: &mut Visit<'_>) {
        let refused = match self.link(from) {
            Some(other) => {
                let opener = if other.ours { self.node } else { from };
                keeps(visit.fixed.id(opener), visit.fixed.id(from))
            }
            None => self.links.len() >= MAX_LINKS || !self.joined,
        };
        let delay = visit.fixed.delay(self.node, from);
        if refused {
            visit.out.post.send(delay, from, self.node, Word::NoLink);
        } else {
            visit.out.post.send(delay, from, self.node, Word::Accepted(id));
            self.link_up(Link { node: from, id, ours: false }, visit);
        }
    }

    /// A neighbour accepted our link.
    pub(crate) fn accepted(&mut self, from: Node, id: LinkId, visit: &mut Visit<'_>) {
        let ours = self.node;
        let stays = |link: &Link| {
            let opener = if link.ours { ours } else { from };
            keeps(visit.fixed.id(opener), visit.fixed.id(ours))
        };
        let taken = self.link(from).is_some_and(stays);
        if let Some(parent) = self.parents.iter_mut().find(|parent| parent.node == from) {
            parent.opening = false;
            parent.attempts = 0;
            self.relink = Some(visit.now);
            if !taken {
                self.link_up(Link { node: from, id, ours: true }, visit);
                return;
            }
        }
        visit.out.post.send(visit.fixed.delay(ours, from), from, ours, Word::Closed(id));
    }

    /// A neighbour did not accept our link.
    pub(crate) fn not_linked(&mut self, from: Node, visit: &Visit<'_>) {
        if let Some(parent) = self.parents.iter_mut().find(|parent| parent.node == from) {
            parent.opening = false;
            parent.attempts += 1;
            let wait = RETRY * 2u32.saturating_pow(parent.attempts.min(10));
            parent.retry = visit.now + wait.min(MAX_RETRY);
            self.relink = Some(visit.now);
        }
    }

    fn link_up(&mut self, link: Link, visit: &mut Visit<'_>) {
        self.link_down(link.node, visit);
        let id = visit.fixed.id(link.node);
        let from_seed = visit.fixed.is_seed(link.node);
        self.links.push(link);
        visit.out.counts.most_links = visit.out.counts.most_links.max(self.links.len());
        self.select.parent_up(id);
        if from_seed {
            self.select.seed_is(id);
        }
        if self.deeds.is_barred(id, visit.now) {
            self.select.ban(id);
        }
        self.reveal.child_up(id);
    }

    pub(crate) fn link_down(&mut self, node: Node, visit: &mut Visit<'_>) {
        let Some(at) = self.links.iter().position(|link| link.node == node) else { return };
        let link = self.links.remove(at);
        self.relink = Some(visit.now);
        visit.out.post.send(visit.fixed.delay(self.node, node), node, self.node, Word::Closed(link.id));
        self.select.parent_down(visit.fixed.id(node));
        self.reveal.child_down(visit.fixed.id(node));
    }

    /// The neighbour ended a link.
    pub(crate) fn closed(&mut self, id: LinkId, visit: &Visit<'_>) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let node = self.links.remove(at).node;
        self.select.parent_down(visit.fixed.id(node));
        self.reveal.child_down(visit.fixed.id(node));
        if let Some(parent) = self.parents.iter_mut().find(|parent| parent.node == node) {
            parent.retry = visit.now + RETRY * 5;
            self.relink = Some(visit.now);
        }
    }

    /// Nothing has been heard from a neighbour for too long.
    pub(crate) fn lost_sight_of(&mut self, node: Node, visit: &Visit<'_>) {
        if let Some(id) = self.link(node).map(|link| link.id) {
            self.closed(id, visit);
        }
    }

    /// Takes nothing more from somebody.
    pub(crate) fn shun(&mut self, node: Node, visit: &mut Visit<'_>) {
        self.select.ban(visit.fixed.id(node));
        self.parents.retain(|parent| parent.node != node);
        visit.out.barred.push((self.node, node));
    }

    /// Says what is to be said to the neighbours.
    pub(crate) fn tell(&mut self, visit: &mut Visit<'_>) {
        let mut pieces = Vec::new();
        for tell in self.reveal.drain(0, visit.now) {
            let node = number(tell.to);
            let Some(link) = self.links.iter().find(|link| link.node == node) else { continue };
            let delay = visit.fixed.delay(self.node, node);
            for (shown, list) in [(true, tell.show), (false, tell.hold)] {
                if !list.is_empty() {
                    pieces.clear();
                    pieces.extend(list.iter().map(|index| index.0));
                    visit.out.post.tell(delay, node, self.node, (link.id, shown, &mut pieces));
                    visit.out.counts.tells += 1;
                }
            }
        }
    }

    /// Nobody who has all needs this node.
    pub(crate) fn let_go_of_the_full(&mut self, visit: &mut Visit<'_>) {
        let full = |link: &&Link| self.reveal.child_is_full(visit.fixed.id(link.node));
        let idle: Vec<Node> = self.links.iter().filter(full).map(|link| link.node).collect();
        idle.into_iter().for_each(|node| self.link_down(node, visit));
    }
}
