//! What the node has already: the blobs that a container runtime holds whole in its content store are offered to the
//! swarm from where they lie, so that a node that pulled an image before is a parent at once, and what was pulled
//! through us is not kept twice. The daemon runs [`watch`]; [`scan`] looks, [`agenda`] decides, and the
//! [store](crate::store) adopts.
//!
//! containerd puts a whole blob into `blobs/sha256/<64 hex>` by renaming it, never changes it, and unlinks it when it is
//! collected; what is under way lies elsewhere. Its folder is looked at every few seconds rather than watched by
//! inotify: a reading of names is cheap, and works alike on every file system and after every kind of restart.
//!
//! Hashing is nobody's errand, so it gives way: one blob at a time, and three parts rest to one part work.

mod agenda;
mod scan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::task::TaskId;
use tokio::time::{Instant as Clock, sleep};

use self::agenda::Agenda;
use self::scan::Scan;
use crate::store::{Adoption, Finding, Foreign, Inspection, Standing, Store, StoreError, Verified};

/// How often the folders are looked at: a new blob is offered, and a collected one withdrawn, within this.
const LOOK: Duration = Duration::from_secs(5);
/// What could not be read or noted is tried again after this.
const RETRY: Duration = Duration::from_secs(60);
/// Rest to each part of work, so that hashing takes a quarter of a core.
const REST: u32 = 3;

/// The watcher's state.
struct Watcher {
    store: Store,
    scan: Scan,
    agenda: Agenda,
    /// Found right, and waiting until nobody has our own copy in hand.
    proofs: BTreeMap<TaskId, Verified>,
    look_at: Instant,
}

/// Adopts the blobs in `folders` as they come and disowns them as they go, until the caller drops the future. A folder
/// is one of blobs named by their SHA-256, or containerd's root.
pub async fn watch(store: Store, folders: Vec<PathBuf>) {
    let (agenda, proofs) = (Agenda::default(), BTreeMap::new());
    let mut watcher = Watcher { store, scan: Scan::new(folders), agenda, proofs, look_at: now() };
    loop {
        watcher.look_if_due().await;
        match watcher.agenda.next(now()) {
            Some((task, foreign)) => watcher.attend(task, foreign).await,
            None => sleep(watcher.look_at.saturating_duration_since(now())).await,
        }
    }
}

// === impl Watcher ===

impl Watcher {
    async fn look_if_due(&mut self) {
        let now = now();
        if self.look_at > now {
            return;
        }
        self.look_at = now + LOOK;
        let (mut scan, store) = (std::mem::take(&mut self.scan), self.store.clone());
        let looked = blocking(move || {
            let found = scan.look();
            let adopted = found.is_some().then(|| store.adopted());
            (scan, found, adopted)
        });
        let Some((scan, found, adopted)) = looked.await else { return };
        self.scan = scan;
        let (found, adopted) = match (found, adopted) {
            (Some(found), Some(Ok(adopted))) => (found, adopted),
            (_, Some(Err(error))) => return tracing::warn!(%error, "the adopted blobs cannot be listed"),
            _ => return,
        };
        let gone = self.agenda.looked(found, &adopted, now);
        self.proofs.retain(|task, proof| self.agenda.is_of(*task, proof.foreign()));
        for task in gone {
            self.disown(task).await;
        }
    }

    async fn disown(&self, task: TaskId) {
        let store = self.store.clone();
        match blocking(move || store.disown(task)).await {
            Some(Ok(true)) => tracing::info!(?task, "withdrawn: the content store holds it no more"),
            Some(Err(error)) => tracing::warn!(?task, %error, "cannot withdraw a blob that is gone"),
            Some(Ok(false)) | None => {}
        }
    }

    /// Does what is to be done about one blob.
    async fn attend(&mut self, task: TaskId, foreign: Foreign) {
        let (store, now) = (self.store.clone(), now());
        let standing = blocking(move || store.standing(task)).await;
        match standing {
            Some(Ok(Standing::Free)) => {}
            Some(Ok(Standing::Adopted)) => return self.agenda.adopted(task),
            Some(Ok(Standing::InHand)) => return self.agenda.postpone(task, now + LOOK),
            Some(Ok(Standing::Whole)) => {
                if let Some(ripe) = self.agenda.ripens(task).filter(|ripe| *ripe > now) {
                    return self.agenda.postpone(task, ripe);
                }
            }
            Some(Err(error)) => return self.failed(task, &error),
            None => return,
        }
        let proof = match self.proofs.remove(&task) {
            Some(proof) => Some(proof),
            None => self.verify(task, foreign).await,
        };
        if let Some(proof) = proof {
            self.adopt(task, proof).await;
        }
    }

    /// Hashes a blob; nothing when it is not to be adopted, or not now.
    async fn verify(&mut self, task: TaskId, foreign: Foreign) -> Option<Verified> {
        let opened = foreign.clone();
        let begun = blocking(move || Inspection::begin(task, opened)).await?;
        let Some(mut inspection) = begun else {
            self.agenda.postpone(task, now() + LOOK);
            return None;
        };
        loop {
            let step_begun = now();
            let (stepped, back) = blocking(move || (inspection.step(), inspection)).await?;
            inspection = back;
            match stepped {
                Ok(true) => sleep((now() - step_begun) * REST).await,
                Ok(false) => break,
                Err(error) => {
                    self.failed(task, &error);
                    return None;
                }
            }
            // A large blob takes its time, and others go meanwhile.
            self.look_if_due().await;
            if !self.agenda.is_of(task, &foreign) {
                return None;
            }
        }
        match blocking(move || inspection.finish()).await? {
            Ok(Finding::Right(proof)) => return Some(proof),
            Ok(Finding::Wrong) => {
                tracing::warn!(path = %foreign.path().display(), "not what its name says: never offered");
                self.agenda.refuse(task);
            }
            Ok(Finding::Changed) => self.agenda.postpone(task, now() + LOOK),
            Err(error) => self.failed(task, &error),
        }
        None
    }

    async fn adopt(&mut self, task: TaskId, proof: Verified) {
        let store = self.store.clone();
        let Some((adopted, proof)) = blocking(move || (store.adopt(&proof), proof)).await else { return };
        match adopted {
            Ok(Adoption::Done { released }) => {
                tracing::info!(
                    ?task,
                    bytes = proof.foreign().length(),
                    released,
                    "adopted from the content store"
                );
                self.agenda.adopted(task);
            }
            Ok(Adoption::InHand) => {
                self.proofs.insert(task, proof);
                self.agenda.postpone(task, now() + LOOK);
            }
            Err(error) => self.failed(task, &error),
        }
    }

    fn failed(&mut self, task: TaskId, error: &StoreError) {
        tracing::warn!(?task, %error, "not adopted for now");
        self.agenda.postpone(task, now() + RETRY);
    }
}

/// The time as the runtime has it.
fn now() -> Instant {
    Clock::now().into_std()
}

/// Work beside the async threads; nothing when it panicked or the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;
    use common::digest::Digest;
    use common::piece::{Geometry, PieceIndex};
    use tokio::task::JoinSet;

    use super::*;
    use crate::store::StoreOptions;

    /// More than it takes until an own copy may be given up.
    const LONG: Duration = Duration::from_secs(11 * 60);

    struct Scene {
        store: Store,
        theirs: tempfile::TempDir,
        _ours: tempfile::TempDir,
        _watching: JoinSet<()>,
    }

    fn id(bytes: &[u8]) -> TaskId {
        TaskId::of_digest(Digest::of(bytes))
    }

    fn lay(dir: &Path, bytes: &[u8]) -> TaskId {
        fs::write(dir.join(id(bytes).hex()), bytes).unwrap();
        id(bytes)
    }

    impl Scene {
        fn new(there: &[&[u8]]) -> Self {
            let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for bytes in there {
                lay(theirs.path(), bytes);
            }
            let store =
                Store::open(ours.path(), StoreOptions { durable: true, ..StoreOptions::default() }).unwrap();
            let mut watching = JoinSet::new();
            watching.spawn(watch(store.clone(), vec![theirs.path().to_owned()]));
            Self { store, theirs, _ours: ours, _watching: watching }
        }

        /// A copy of the store's own.
        fn own(&self, bytes: &[u8]) {
            let geometry = Geometry::of(bytes.len() as u64).unwrap();
            let blob = self.store.create(id(bytes), geometry, "").unwrap();
            blob.write_piece(PieceIndex(0), &[Bytes::copy_from_slice(bytes)], Digest::of(bytes)).unwrap();
            blob.prove().unwrap();
        }

        /// Waits, in the runtime's own time, until the task stands so.
        async fn comes_to(&self, task: TaskId, standing: Standing) {
            let waiting = async {
                while self.store.standing(task).unwrap() != standing {
                    sleep(LOOK).await;
                }
            };
            tokio::time::timeout(10 * LONG, waiting).await.unwrap_or_else(|_| panic!("never {standing:?}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_adopted_and_what_goes_is_withdrawn() {
        let scene = Scene::new(&[b"first"]);
        scene.comes_to(id(b"first"), Standing::Adopted).await;
        let second = lay(scene.theirs.path(), b"second");
        scene.comes_to(second, Standing::Adopted).await;
        fs::remove_file(scene.theirs.path().join(id(b"first").hex())).unwrap();
        scene.comes_to(id(b"first"), Standing::Free).await;
        assert_eq!(scene.store.adopted_usage(), (1, 6));
        // Lost by the store alone: it is found again.
        scene.store.remove(second).unwrap();
        scene.comes_to(second, Standing::Adopted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_corrupt_blob_is_refused_until_it_is_another() {
        let scene = Scene::new(&[b"sound"]);
        let (bad, path) = (id(b"whole"), scene.theirs.path().join(id(b"whole").hex()));
        fs::write(&path, b"whale").unwrap();
        scene.comes_to(id(b"sound"), Standing::Adopted).await;
        sleep(LONG).await;
        assert_eq!(scene.store.standing(bad).unwrap(), Standing::Free);
        assert!(scene.store.get(bad).unwrap().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"whale");
        fs::write(&path, b"whole").unwrap();
        scene.comes_to(bad, Standing::Adopted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_copy_is_given_up_late_and_never_under_a_hand() {
        let scene = Scene::new(&[b"seen"]);
        scene.comes_to(id(b"seen"), Standing::Adopted).await;
        scene.own(b"pulled through us");
        let task = lay(scene.theirs.path(), b"pulled through us");
        sleep(LONG / 2).await;
        assert_eq!(scene.store.standing(task).unwrap(), Standing::Whole, "it may be collected yet");
        let hand = scene.store.get(task).unwrap();
        sleep(LONG).await;
        assert_eq!(scene.store.standing(task).unwrap(), Standing::InHand);
        drop(hand);
        scene.comes_to(task, Standing::Adopted).await;
        assert_eq!(scene.store.usage(), 0);
    }
}
