//! What all tasks of a node have under way together, one way: they share its line. The decisions of each, in
//! [`select`](super::select) and [`reveal`](super::reveal), are told what the others have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The pieces that a node's tasks have under way, one way. Clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<AtomicUsize>);

/// One task's part of them; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    line: Line,
    own: usize,
}

// === impl Line ===

impl Line {
    /// What all have.
    pub fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A task that has nothing under way yet.
    pub fn share(&self) -> Share {
        Share { line: self.clone(), own: 0 }
    }
}

// === impl Share ===

impl Share {
    /// This task has so many.
    pub fn set(&mut self, own: usize) {
        // Wraps around and back: what is added in all is what is under way in all.
        self.line.0.fetch_add(own.wrapping_sub(self.own), Ordering::Relaxed);
        self.own = own;
    }

    /// What the others have.
    pub fn others(&self) -> usize {
        self.line.total().saturating_sub(self.own)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sees_what_the_others_have() {
        let line = Line::default();
        let (mut one, mut two) = (line.share(), line.share());
        one.set(5);
        two.set(7);
        one.set(3);
        assert_eq!((one.others(), two.others()), (7, 3));
        drop(one);
        assert_eq!((two.others(), line.share().others()), (0, 7));
    }
}
