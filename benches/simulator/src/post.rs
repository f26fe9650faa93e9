//! What nodes hear, and when: letters lie in a bucket for the step in which they arrive. The lists of pieces in them lie
//! in the same bucket, so that a letter costs no memory of its own; there are hundreds of millions of them.

use std::collections::VecDeque;
use std::ops::Range;

use common::node::NodeId;

/// A number of a node: the supernodes and their seeds come first, the peers follow, the origin is last.
pub(crate) type Node = u32;

/// The number of a link, given by who opens it.
pub(crate) type LinkId = u64;

/// What a node hears.
#[derive(Debug)]
pub(crate) enum Word {
    /// A neighbour holds a run of pieces; whether they may be asked for.
    Told { link: LinkId, run: (u32, u32), shown: bool },
    /// It holds several: where in the bucket they are.
    ToldRuns { link: LinkId, first: u32, count: u32, shown: bool },
    /// A neighbour opens a link.
    Open(LinkId),
    /// It accepts ours.
    Accepted(LinkId),
    /// It does not, or cannot be reached.
    NoLink,
    /// A link has ended.
    Closed(LinkId),
    /// A piece is here.
    Piece(u32),
    /// It will not come: the parent has not got it.
    NotThere(u32),
    /// The parent is busy.
    Busy(u32),
    /// The parent is silent.
    Silent(u32),
    /// Something else came in its place.
    Wrong(u32),
    /// The origin does not answer.
    NoOrigin,
    /// The supernode: the length is known.
    Joined,
    /// The supernode: parents to have and to let go.
    Parents(Box<(Vec<NodeId>, Vec<NodeId>)>),
    /// The supernode: the digests make the blob.
    Proven,
    /// The supernode: its seed cannot get it.
    Failed,
    /// Held up on the way.
    Nothing,
}

/// A word to a node.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) to: Node,
    pub(crate) from: Node,
    pub(crate) word: Word,
}

/// A letter that is kept back, with the pieces that it tells.
pub(crate) type HeldLetter = (Letter, Vec<Range<u32>>);

/// What arrives in one step.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) letters: Vec<Letter>,
    runs: Vec<Range<u32>>,
}

/// All that is under way.
#[derive(Default)]
pub(crate) struct Post {
    /// The first is the next step's.
    coming: VecDeque<Bucket>,
    /// Emptied, for use again.
    spare: Vec<Bucket>,
}

/// The letters of a bucket in the order of their receivers.
#[derive(Default)]
pub(crate) struct Sorter {
    begins: Vec<u32>,
    order: Vec<u32>,
}

// === impl Bucket ===

impl Bucket {
    pub(crate) fn runs(&self, first: u32, count: u32) -> &[Range<u32>] {
        &self.runs[first as usize..(first + count) as usize]
    }
}

// === impl Post ===

impl Post {
    fn bucket(&mut self, delay: u32) -> &mut Bucket {
        let at = delay.max(1) as usize - 1;
        while self.coming.len() <= at {
            self.coming.push_back(self.spare.pop().unwrap_or_default());
        }
        &mut self.coming[at]
    }

    /// Sends a letter that arrives `delay` steps from now, in the next one at the soonest.
    pub(crate) fn send(&mut self, delay: u32, to: Node, from: Node, word: Word) {
        self.bucket(delay).letters.push(Letter { to, from, word });
    }

    /// Sends a piece list; `pieces` is sorted on the way.
    pub(crate) fn tell(&mut self, delay: u32, to: Node, from: Node, about: (LinkId, bool, &mut [u32])) {
        let (link, shown, pieces) = about;
        let bucket = self.bucket(delay);
        let first = bucket.runs.len();
        pieces.sort_unstable();
        for piece in pieces {
            match bucket.runs[first..].last_mut() {
                Some(run) if run.end == *piece => run.end += 1,
                _ => bucket.runs.push(*piece..*piece + 1),
            }
        }
        let (first, count) = (first as u32, (bucket.runs.len() - first) as u32);
        let word = match &bucket.runs[first as usize..] {
            [one] => {
                let run = (one.start, one.end);
                bucket.runs.pop();
                Word::Told { link, run, shown }
            }
            _ => Word::ToldRuns { link, first, count, shown },
        };
        bucket.letters.push(Letter { to, from, word });
    }

    /// Sends letters, and the pieces that they tell, that arrive in the next step before all others.
    pub(crate) fn send_first(&mut self, held: Vec<HeldLetter>) {
        let bucket = self.bucket(1);
        let mut letters = Vec::with_capacity(held.len() + bucket.letters.len());
        for (mut letter, runs) in held {
            if let Word::ToldRuns { first, .. } = &mut letter.word {
                *first = bucket.runs.len() as u32;
            }
            bucket.runs.extend(runs);
            letters.push(letter);
        }
        letters.append(&mut bucket.letters);
        bucket.letters = letters;
    }

    /// What arrives in the next step.
    pub(crate) fn next(&mut self) -> Bucket {
        self.coming.pop_front().or_else(|| self.spare.pop()).unwrap_or_default()
    }

    /// Takes a bucket back that has been read.
    pub(crate) fn give_back(&mut self, mut bucket: Bucket) {
        bucket.letters.clear();
        bucket.runs.clear();
        self.spare.push(bucket);
    }
}

// === impl Sorter ===

impl Sorter {
    /// Sorts letters by receiver, of `nodes` nodes; those to one keep their order.
    pub(crate) fn sort(&mut self, letters: &[Letter], nodes: usize) {
        self.begins.clear();
        self.begins.resize(nodes + 1, 0);
        for letter in letters {
            self.begins[letter.to as usize + 1] += 1;
        }
        for at in 1..=nodes {
            self.begins[at] += self.begins[at - 1];
        }
        self.order.clear();
        self.order.resize(letters.len(), 0);
        // Walks the beginnings to the next node's; the last pass reads them one back.
        for (index, letter) in letters.iter().enumerate() {
            let spot = &mut self.begins[letter.to as usize];
            self.order[*spot as usize] = index as u32;
            *spot += 1;
        }
    }

    /// The letters to one node, as numbers in the bucket.
    pub(crate) fn of(&self, node: Node) -> &[u32] {
        let end = self.begins[node as usize] as usize;
        let start = if node == 0 { 0 } else { self.begins[node as usize - 1] as usize };
        &self.order[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_in_their_step_by_receiver_and_in_order() {
        let mut post = Post::default();
        post.send(2, 3, 0, Word::Piece(9));
        for (to, piece) in [(2, 1), (0, 2), (2, 3)] {
            post.send(0, to, 1, Word::Piece(piece));
        }
        post.tell(1, 2, 1, (5, true, &mut [8, 6, 7, 3]));
        let bucket = post.next();
        let mut sorter = Sorter::default();
        sorter.sort(&bucket.letters, 4);
        let heard = |node| sorter.of(node).iter().map(|index| &bucket.letters[*index as usize].word);
        assert!(matches!(heard(0).collect::<Vec<_>>()[..], [Word::Piece(2)]));
        assert_eq!((heard(1).count(), heard(3).count()), (0, 0));
        let two: Vec<_> = heard(2).collect();
        assert!(matches!(two[..2], [Word::Piece(1), Word::Piece(3)]));
        let Word::ToldRuns { first, count, .. } = two[2] else { panic!("{two:?}") };
        assert_eq!(bucket.runs(*first, *count), [3..4, 6..9]);
        post.give_back(bucket);
        assert_eq!(post.next().letters.len(), 1);
        assert_eq!(post.next().letters.len(), 0);
    }
}
