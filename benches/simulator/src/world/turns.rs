//! The nodes' turns of a step. What a node does depends on its letters only, and those are of earlier steps, so that the
//! order of the turns decides nothing but the order of letters.

use super::World;
use crate::post::{Bucket, Node, Sorter};
use crate::visit::Visit;

// === impl World ===

impl World<'_> {
    /// All turns of this step.
    pub(super) fn turns(&mut self, bucket: &Bucket, sorter: &Sorter) {
        for node in 0..self.peers.len() as Node {
            let letters = sorter.of(node);
            if self.wake[node as usize] <= self.step || !letters.is_empty() {
                self.visit(node, bucket, letters);
            }
        }
    }

    /// A node's turn.
    fn visit(&mut self, node: Node, bucket: &Bucket, letters: &[u32]) {
        self.wake[node as usize] = u64::MAX;
        let Some(peer) = &mut self.peers[node as usize] else {
            letters.iter().for_each(|at| self.bounce(&bucket.letters[*at as usize]));
            return;
        };
        let (now, out) = (self.fixed.at(self.step), &mut self.out);
        let mut visit = Visit { fixed: &self.fixed, now, step: self.step, sites: &self.sites, out };
        letters.iter().for_each(|at| peer.hear(&bucket.letters[*at as usize], bucket, &mut visit));
        self.wake[node as usize] = peer.pump(&mut visit).unwrap_or(u64::MAX);
        let finished = &mut self.finished[node as usize];
        let (complete, gave_up) = (peer.complete, peer.gave_up);
        if self.fixed.is_seed(node) || self.weather.roles.contains_key(&node) {
            return;
        }
        if complete && finished.is_none() {
            *finished = Some(self.step);
            self.unfinished -= 1;
        }
        if complete && !self.members[node as usize].holds {
            self.proven(node);
        }
        if gave_up {
            self.pull_failed(node);
        }
    }
}
