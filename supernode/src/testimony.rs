//! What supernodes vouched for, in a form that outlives them. Each batch of piece digests that goes to the peers gets a
//! [`Seal`]; a peer whose task has moved here shows both, and this supernode, which could have made the seal itself, need
//! not find the digests out anew: its seed takes those pieces from the peers that hold them. [`Notary`] makes and checks
//! seals, [`Recollection`] is what was shown. Used by the sessions, the bulletins and the seed.
//!
//! # Invariants
//! - Only what a holder of the CA's key said is remembered, and only for a while, for so many pieces at most.
//! - What turned out not to be the task's content is not heard again for long: who vouches for pieces does not know the whole
//!   yet, and an origin may have been wrong then.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use common::digest::Digest;
use common::identity::{Authority, Seal, Sealer};
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use common::wire::swarm::{MAX_DIGESTS, Testimony};

/// What the seal is for.
const KIND: &str = "testimony";
/// A task whose peers have moved is joined by them within seconds; after this nobody will ask for it.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What was said of a task that was poisoned may be shown again by whoever kept it.
const REFUTED: Duration = Duration::from_secs(10 * 60);
/// Of so many tasks.
const MOST_REFUTED: usize = 4096;
/// Digests in memory, of all tasks: some tens of MiB, and the pieces of a tebibyte.
const MOST: usize = 1 << 18;

/// Gives a supernode's word for digests, and knows that of the others.
#[derive(Clone, Debug)]
pub struct Notary(Sealer);

/// What a task's digests are, as far as somebody vouched for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Length and cut.
    pub geometry: Geometry,
    /// The digests of pieces.
    pub digests: BTreeMap<PieceIndex, Digest>,
}

/// What peers have shown of late.
#[derive(Debug, Default)]
pub struct Recollection {
    tasks: HashMap<TaskId, (Recalled, Instant)>,
    digests: usize,
    refuted: HashMap<TaskId, Instant>,
}

// === impl Notary ===

impl Notary {
    /// The notary of a cluster.
    pub fn new(authority: &Authority) -> Self {
        Self(Sealer::new(authority))
    }

    /// The word for the digests of consecutive pieces.
    pub fn seal(&self, task: TaskId, geometry: Geometry, first: PieceIndex, digests: &[Digest]) -> Seal {
        let (head, body) = statement(task, geometry, first, digests);
        self.0.seal(KIND, &[&head, &body])
    }

    /// Whether a supernode of this cluster said that, and it makes sense.
    pub fn believes(&self, said: &Testimony) -> bool {
        let Testimony { task, geometry, first, digests, seal } = said;
        let end = u64::from(first.0) + digests.len() as u64;
        let (head, body) = statement(*task, *geometry, *first, digests);
        (1..=MAX_DIGESTS).contains(&digests.len())
            && end <= u64::from(geometry.pieces())
            && self.0.verify(KIND, &[&head, &body], seal)
    }
}

/// What is sealed: which pieces of what, and their digests.
fn statement(task: TaskId, geometry: Geometry, first: PieceIndex, digests: &[Digest]) -> ([u8; 48], Vec<u8>) {
    let mut head = [0; 48];
    head[..32].copy_from_slice(&task.0);
    head[32..40].copy_from_slice(&geometry.length().to_le_bytes());
    head[40..44].copy_from_slice(&geometry.piece_length().to_le_bytes());
    head[44..].copy_from_slice(&first.0.to_le_bytes());
    (head, digests.iter().flat_map(|digest| digest.0).collect())
}

// === impl Recollection ===

impl Recollection {
    /// Notes what was shown and [believed](Notary::believes); says whether any of it is new.
    pub fn learn(&mut self, said: &Testimony, now: Instant) -> bool {
        self.forget_old(now);
        if self.refuted.contains_key(&said.task) {
            return false;
        }
        let fresh = || (Recalled { geometry: said.geometry, digests: BTreeMap::new() }, now);
        let (recalled, at) = self.tasks.entry(said.task).or_insert_with(fresh);
        *at = now;
        if recalled.geometry != said.geometry || self.digests + said.digests.len() > MOST {
            return false;
        }
        let before = recalled.digests.len();
        let indices = (said.first.0..).map(PieceIndex);
        // Where two supernodes vouched for two contents, the whole digest decides in the end.
        indices.zip(&said.digests).for_each(|(index, digest)| {
            recalled.digests.entry(index).or_insert(*digest);
        });
        let new = recalled.digests.len() - before;
        self.digests += new;
        new > 0
    }

    /// What is known of a task.
    pub fn of(&self, task: TaskId, now: Instant) -> Option<&Recalled> {
        let known = self.tasks.get(&task).filter(|(_, at)| now.saturating_duration_since(*at) < REMEMBERED);
        known.map(|(recalled, _)| recalled).filter(|recalled| !recalled.digests.is_empty())
    }

    /// The task was poisoned: if anything was shown of it, that may be why.
    pub fn refute(&mut self, task: TaskId, now: Instant) {
        self.forget_old(now);
        if let Some((recalled, _)) = self.tasks.remove(&task) {
            self.digests -= recalled.digests.len();
            if self.refuted.len() < MOST_REFUTED {
                self.refuted.insert(task, now);
            }
        }
    }

    /// Number of tasks and of digests that are kept.
    pub fn counts(&self) -> (usize, usize) {
        (self.tasks.len(), self.digests)
    }

    fn forget_old(&mut self, now: Instant) {
        self.tasks.retain(|_, (recalled, at)| {
            let keep = now.saturating_duration_since(*at) < REMEMBERED;
            self.digests -= if keep { 0 } else { recalled.digests.len() };
            keep
        });
        self.refuted.retain(|_, at| now.saturating_duration_since(*at) < REFUTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId([7; 32]);

    fn digests(indices: std::ops::Range<u32>) -> Vec<Digest> {
        indices.map(|index| Digest::of(&index.to_le_bytes())).collect()
    }

    fn notary() -> Notary {
        Notary::new(&Authority::open(tempfile::tempdir().unwrap().path()).unwrap())
    }

    fn testimony(notary: &Notary, pieces: std::ops::Range<u32>) -> Testimony {
        let (geometry, first) = (Geometry::of(100 << 20).unwrap(), PieceIndex(pieces.start));
        let digests = digests(pieces);
        let seal = notary.seal(TASK, geometry, first, &digests);
        Testimony { task: TASK, geometry, first, digests, seal }
    }

    #[test]
    fn only_what_a_supernode_of_the_cluster_said_is_believed() {
        let notary = notary();
        let true_word = testimony(&notary, 3..9);
        assert!(notary.believes(&true_word));
        assert!(!super::tests::notary().believes(&true_word), "another cluster's");
        let changes: [fn(&mut Testimony); 6] = [
            |said| said.task.0[0] ^= 1,
            |said| said.geometry = Geometry::of(99 << 20).unwrap(),
            |said| said.first.0 += 1,
            |said| said.digests[2].0[5] ^= 1,
            |said| said.digests.truncate(5),
            |said| said.seal.0[31] ^= 1,
        ];
        for change in changes {
            let mut lie = true_word.clone();
            change(&mut lie);
            assert!(!notary.believes(&lie), "{lie:?}");
        }
        let beyond = testimony(&notary, 399..402);
        assert!(!notary.believes(&beyond), "there are but 400 pieces");
    }

    #[test]
    fn what_many_peers_show_is_remembered_once_and_not_for_long() {
        let (notary, start) = (notary(), Instant::now());
        let mut recollection = Recollection::default();
        assert!(recollection.learn(&testimony(&notary, 0..10), start));
        assert!(!recollection.learn(&testimony(&notary, 2..10), start), "nothing new");
        assert!(recollection.learn(&testimony(&notary, 8..12), start));
        let recalled = recollection.of(TASK, start).unwrap();
        assert_eq!(recalled.digests.values().copied().collect::<Vec<_>>(), digests(0..12));
        let elsewhere = Testimony { task: TaskId([8; 32]), ..testimony(&notary, 0..1) };
        assert!(
            recollection.of(TASK, start + REMEMBERED).is_none(),
            "whether anybody speaks meanwhile or not"
        );
        assert!(recollection.learn(&elsewhere, start + REMEMBERED));
        assert_eq!(recollection.digests, 1);
    }

    #[test]
    fn what_poisoned_a_task_is_forgotten_and_not_heard_again_for_long() {
        let (notary, start) = (notary(), Instant::now());
        let mut recollection = Recollection::default();
        recollection.refute(TASK, start);
        assert!(recollection.learn(&testimony(&notary, 0..10), start), "nobody had said anything of it");
        recollection.refute(TASK, start);
        assert!(recollection.of(TASK, start).is_none());
        assert!(!recollection.learn(&testimony(&notary, 0..10), start + REMEMBERED));
        assert_eq!(recollection.counts(), (0, 0));
        assert!(recollection.learn(&testimony(&notary, 0..10), start + REFUTED));
        assert!(recollection.refuted.is_empty());
    }
}
