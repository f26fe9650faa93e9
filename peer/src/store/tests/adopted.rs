//! Blobs that are read from files of somebody else, and what happens to them, to those files and to our own copies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;

/// Something that happens to a file of theirs.
type Harm = fn(&Path);

/// A content store that is not ours.
struct Theirs(tempfile::TempDir);

/// A file, as it must stay: its bytes and everything that a change leaves a trace in.
type Trace = (Vec<u8>, u64, (i64, i64), (i64, i64), u32);

impl Theirs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.0.path().join(task.hex())
    }

    fn put(&self, whole: &[u8]) -> TaskId {
        let task = TaskId::of_digest(Digest::of(whole));
        fs::write(self.path(task), whole).unwrap();
        task
    }

    fn foreign(&self, task: TaskId) -> Foreign {
        Foreign::look(&self.path(task)).unwrap().unwrap()
    }

    fn trace(&self, task: TaskId) -> Trace {
        let (path, meta) = (self.path(task), fs::symlink_metadata(self.path(task)).unwrap());
        let times = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        (fs::read(path).unwrap(), meta.ino(), times.0, times.1, meta.mode())
    }

    fn inspect(&self, task: TaskId) -> Finding {
        let mut inspection = Inspection::begin(task, self.foreign(task)).unwrap();
        while inspection.step().unwrap() {}
        inspection.finish().unwrap()
    }

    fn verified(&self, task: TaskId) -> Verified {
        match self.inspect(task) {
            Finding::Right(verified) => verified,
            Finding::Wrong | Finding::Changed => panic!("{task} is not as it should be"),
        }
    }

    /// Adopts, and says how much of our own became free.
    fn adopt(&self, store: &Store, task: TaskId) -> Option<u64> {
        match store.adopt(&self.verified(task)).unwrap() {
            Adoption::Done { released } => Some(released),
            Adoption::InHand => None,
        }
    }
}

fn path_of(dir: &Path, task: TaskId) -> PathBuf {
    dir.join("blobs").join(&task.hex()[..2]).join(task.hex())
}

/// The task is whole, right and read from `theirs`, and takes nothing of ours.
fn reads(store: &Store, theirs: &Theirs, task: TaskId, whole: &[u8]) {
    let blob = store.get(task).unwrap().expect("an adopted task can be had");
    assert!(blob.is_proven() && blob.is_adopted() && blob.path() == theirs.path(task));
    assert_eq!(blob.read(ByteRange::new(0, whole.len() as u64)).unwrap(), whole);
    let pieces = blob.pieces().unwrap();
    assert_eq!(pieces.len(), blob.geometry().pieces() as usize);
    for (index, digest) in pieces {
        assert_eq!(Digest::of(&blob.read(blob.geometry().range(index)).unwrap()), digest);
    }
    assert_eq!((store.usage(), store.adopted_usage()), (0, (1, whole.len() as u64)));
    assert_eq!(store.standing(task).unwrap(), Standing::Adopted);
}

#[test]
fn an_adopted_blob_is_served_from_its_place_and_outlives_a_restart() {
    let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(5 * PIECE + 17, 1));
    let task = theirs.put(&whole);
    let before = theirs.trace(task);
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let mut holdings = store.holdings();
    assert_eq!(theirs.adopt(&store, task), Some(0));
    assert!(holdings.has_changed().unwrap());
    holdings.mark_unchanged();
    reads(&store, &theirs, task, &whole);
    store.get(task).unwrap().unwrap().touch();
    store.close();
    drop((holdings, store));
    for power_lost in [false, false, true] {
        if power_lost {
            lose_power(dir.path());
        }
        reads(&Store::open(dir.path(), DURABLE).unwrap(), &theirs, task, &whole);
    }
    assert_eq!(theirs.trace(task), before, "their file is as it was");
    assert!(!path_of(dir.path(), task).exists(), "no second copy");
}

#[test]
fn a_file_that_went_or_changed_while_we_were_away_is_forgotten() {
    let harms: [(&str, Harm); 4] = [
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("other bytes", |path| fs::write(path, content(2 * PIECE, 9)).unwrap()),
        ("another file", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path.with_extension("new"), bytes).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("a link", |path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("moved"), path).unwrap();
        }),
    ];
    for (what, harm) in harms {
        for running in [true, false] {
            let (dir, theirs) = (tempfile::tempdir().unwrap(), Theirs::new());
            let task = theirs.put(&content(2 * PIECE, 1));
            let mut store = Store::open(dir.path(), DURABLE).unwrap();
            theirs.adopt(&store, task).unwrap();
            let mut holdings = store.holdings();
            holdings.mark_unchanged();
            harm(&theirs.path(task));
            if running {
                assert!(store.get(task).unwrap().is_none(), "{what}");
                assert!(holdings.has_changed().unwrap(), "{what}");
            } else {
                drop((holdings, store));
                store = Store::open(dir.path(), DURABLE).unwrap();
            }
            assert!(store.get(task).unwrap().is_none() && store.adopted().unwrap().is_empty(), "{what}");
            assert_eq!((check(&store), store.adopted_usage()), (0, (0, 0)), "{what}");
            // It can come the usual way.
            let id = put(&store, &content(2 * PIECE, 1));
            assert_eq!((id, check(&store)), (task, 2 * PIECE), "{what}");
        }
    }
}

#[test]
fn what_is_not_its_name_or_changes_under_the_hand_is_never_adopted() {
    let theirs = Theirs::new();
    let whole = content(3 * PIECE, 1);
    let task = theirs.put(&whole);
    let mut wrong = whole.clone();
    wrong[PIECE as usize] ^= 1;
    fs::write(theirs.path(task), &wrong).unwrap();
    assert!(matches!(theirs.inspect(task), Finding::Wrong));

    fs::write(theirs.path(task), &whole).unwrap();
    let mut inspection = Inspection::begin(task, theirs.foreign(task)).unwrap();
    while inspection.step().unwrap() {}
    fs::write(theirs.path(task), &whole[1..]).unwrap();
    assert!(matches!(inspection.finish().unwrap(), Finding::Changed));

    let mut inspection = Inspection::begin(task, theirs.foreign(task)).unwrap();
    fs::OpenOptions::new().write(true).open(theirs.path(task)).unwrap().set_len(5).unwrap();
    assert!(inspection.step().is_err(), "cut short");
    let stale = theirs.foreign(task);
    fs::remove_file(theirs.path(task)).unwrap();
    assert!(Inspection::begin(task, stale).is_none());
}

#[test]
fn our_own_copy_goes_once_nobody_has_it_in_hand() {
    let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(3 * PIECE + 1, 1));
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let task = put(&store, &whole);
    store.get(task).unwrap().unwrap().set_media_type("text/plain").unwrap();
    theirs.put(&whole);
    let hand = store.get(task).unwrap().unwrap();
    assert_eq!(store.standing(task).unwrap(), Standing::InHand);
    assert_eq!(theirs.adopt(&store, task), None);
    assert!(path_of(dir.path(), task).exists() && !hand.is_adopted());
    drop(hand);
    assert_eq!(store.standing(task).unwrap(), Standing::Whole);
    assert_eq!(theirs.adopt(&store, task), Some(whole.len() as u64));
    assert!(!path_of(dir.path(), task).exists());
    reads(&store, &theirs, task, &whole);
    let entry = store.list().unwrap().remove(0);
    assert!(entry.adopted && entry.source_url == "https://origin.example/x");
    assert_eq!(store.get(task).unwrap().unwrap().media_type().as_deref(), Some("text/plain"));
}

#[test]
fn a_part_of_our_own_gives_way_to_their_whole() {
    let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(3 * PIECE, 1));
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let task = theirs.put(&whole);
    let blob = store.create(task, geometry(3 * PIECE), "").unwrap();
    // Of other bytes than the whole turned out to have.
    write(&blob, 1, &content(3 * PIECE, 2)).unwrap();
    drop(blob);
    assert_eq!(store.standing(task).unwrap(), Standing::Free);
    assert_eq!(theirs.adopt(&store, task), Some(PIECE));
    reads(&store, &theirs, task, &whole);
    assert!(!path_of(dir.path(), task).exists());
}

#[test]
fn a_crash_between_the_record_and_the_unlinking_leaves_one_copy() {
    for theirs_is_there in [true, false] {
        let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(2 * PIECE, 1));
        let task = theirs.put(&whole);
        let store = Store::open(dir.path(), DURABLE).unwrap();
        theirs.adopt(&store, task).unwrap();
        drop(store);
        let ours = path_of(dir.path(), task);
        fs::create_dir_all(ours.parent().unwrap()).unwrap();
        fs::write(&ours, &whole).unwrap();
        if !theirs_is_there {
            fs::remove_file(theirs.path(task)).unwrap();
        }
        let store = Store::open(dir.path(), DURABLE).unwrap();
        assert_eq!(ours.exists(), !theirs_is_there);
        if theirs_is_there {
            reads(&store, &theirs, task, &whole);
        } else {
            assert!(store.get(task).unwrap().is_some_and(|blob| blob.is_proven() && !blob.is_adopted()));
            assert_eq!(check(&store), 2 * PIECE);
        }
    }
}

#[test]
fn handles_outlive_the_file_and_nobody_else_sees_it() {
    let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(2 * PIECE, 1));
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let task = theirs.put(&whole);
    theirs.adopt(&store, task).unwrap();
    let hand = store.get(task).unwrap().unwrap();
    fs::remove_file(theirs.path(task)).unwrap();
    assert!(hand.is_kept());
    assert!(store.disown(task).unwrap() && !store.disown(task).unwrap());
    assert!(!hand.is_kept() && store.get(task).unwrap().is_none());
    assert_eq!(hand.read(ByteRange::new(0, 2 * PIECE)).unwrap(), whole);
    assert_eq!(hand.pieces().unwrap().len(), 2);

    let id = put(&store, &whole);
    assert!(id == task && !store.disown(task).unwrap(), "a copy of our own is not disowned");
    assert_eq!(check(&store), 2 * PIECE);
}

#[test]
fn nothing_that_is_done_to_an_adopted_blob_reaches_its_file() {
    let (dir, theirs, whole) = (tempfile::tempdir().unwrap(), Theirs::new(), content(3 * PIECE, 1));
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let task = theirs.put(&whole);
    let before = theirs.trace(task);
    theirs.adopt(&store, task).unwrap();
    let blob = store.create(task, geometry(3 * PIECE), "").unwrap();
    write(&blob, 0, &whole).expect("what is there already is no write");
    assert!(matches!(write(&blob, 0, &content(3 * PIECE, 2)), Err(StoreError::Foreign { .. })));
    assert!(!blob.salvage(PieceIndex(0), Digest::of(&whole[..PIECE as usize])).unwrap());
    blob.set_media_type("text/plain").unwrap();
    blob.prove().unwrap();
    assert_eq!(blob.hash().unwrap(), Digest::of(&whole));
    blob.forget_piece(PieceIndex(1)).unwrap();
    assert!(!blob.is_proven() && !blob.is_kept() && store.get(task).unwrap().is_none());
    assert!(matches!(write(&blob, 1, &whole), Err(StoreError::Foreign { .. })));
    assert!(matches!(blob.prove(), Err(StoreError::Incomplete { .. })));
    drop(blob);
    for give_up in [Store::remove, |store: &Store, task| store.disown(task).map(drop)] {
        theirs.adopt(&store, task).unwrap();
        give_up(&store, task).unwrap();
    }
    theirs.adopt(&store, task).unwrap();
    // Another geometry replaces the task, and not the file.
    let other = store.create(task, geometry(PIECE), "").unwrap();
    write(&other, 0, &content(PIECE, 7)).unwrap();
    assert!(!other.is_adopted() && other.path() == path_of(dir.path(), task));
    assert_eq!(check(&store), PIECE);
    assert_eq!(theirs.trace(task), before);
}

#[test]
fn adopted_blobs_neither_fill_the_quota_nor_go_for_others() {
    let (dir, theirs) = (tempfile::tempdir().unwrap(), Theirs::new());
    let options = StoreOptions { limits: Limits::quota(3 * PIECE), durable: true };
    let store = Store::open(dir.path(), options).unwrap();
    let whole = content(40 * PIECE, 1);
    let adopted = theirs.put(&whole);
    theirs.adopt(&store, adopted).unwrap();
    drop(store.create(adopted, geometry(40 * PIECE), "").expect("it is here: no room is wanted"));
    let (one, two) = (put(&store, &content(2 * PIECE, 2)), put(&store, &content(2 * PIECE, 3)));
    assert!(store.get(one).unwrap().is_none() && store.get(two).unwrap().is_some());
    assert_eq!(store.usage(), 2 * PIECE);
    assert!(store.get(adopted).unwrap().is_some_and(|blob| blob.is_proven()));
    assert!(store.create(task(9), geometry(4 * PIECE), "").unwrap_err().is_full());
}

#[test]
fn a_closed_store_adopts_nothing() {
    let (dir, theirs) = (tempfile::tempdir().unwrap(), Theirs::new());
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let verified = theirs.verified(theirs.put(b""));
    assert!(matches!(store.adopt(&verified), Ok(Adoption::Done { released: 0 })), "an empty one is one, too");
    let verified = theirs.verified(theirs.put(b"late"));
    store.close();
    assert!(matches!(store.adopt(&verified), Err(StoreError::Closed { .. })));
    assert_eq!(store.adopted_usage().0, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Adopt(u8),
    Collect(u8),
    Remove(u8),
    Reopen { power_lost: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let task = 0u8..3;
    prop_oneof![
        3 => task.clone().prop_map(Step::Put),
        4 => task.clone().prop_map(Step::Adopt),
        2 => task.clone().prop_map(Step::Collect),
        1 => task.prop_map(Step::Remove),
        2 => any::<bool>().prop_map(|power_lost| Step::Reopen { power_lost }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_held_is_ours_or_theirs_and_their_files_stay(steps in prop::collection::vec(step(), 1..24)) {
        let (dir, theirs) = (tempfile::tempdir().unwrap(), Theirs::new());
        let mut store = Store::open(dir.path(), DURABLE).unwrap();
        let whole = |n: u8| content(u64::from(n) * PIECE + 11, n);
        let id = |n: u8| TaskId::of_digest(Digest::of(&whole(n)));
        // Whether each is held, and from whom.
        let mut model: BTreeMap<u8, bool> = BTreeMap::new();
        let mut traces: BTreeMap<u8, Trace> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(n) => {
                    put(&store, &whole(n));
                    model.entry(n).or_insert(false);
                }
                Step::Adopt(n) => {
                    traces.entry(n).or_insert_with(|| theirs.trace(theirs.put(&whole(n))));
                    theirs.adopt(&store, id(n)).unwrap();
                    model.insert(n, true);
                }
                Step::Collect(n) => if traces.remove(&n).is_some() {
                    fs::remove_file(theirs.path(id(n))).unwrap();
                    let adopted = model.get(&n) == Some(&true);
                    prop_assert_eq!(store.disown(id(n)).unwrap(), adopted);
                    if adopted {
                        model.remove(&n);
                    }
                }
                Step::Remove(n) => {
                    store.remove(id(n)).unwrap();
                    model.remove(&n);
                }
                Step::Reopen { power_lost } => {
                    drop(store);
                    if power_lost {
                        lose_power(dir.path());
                    }
                    store = Store::open(dir.path(), DURABLE).unwrap();
                }
            }
            let mut ours = 0;
            for n in 0..3 {
                let blob = store.get(id(n)).unwrap();
                prop_assert_eq!(blob.as_ref().map(Blob::is_adopted), model.get(&n).copied());
                if let Some(blob) = blob {
                    prop_assert!(blob.is_proven());
                    prop_assert_eq!(blob.hash().unwrap(), Digest::of(&whole(n)));
                    ours += if blob.is_adopted() { 0 } else { whole(n).len() as u64 };
                }
                prop_assert_eq!(path_of(dir.path(), id(n)).exists(), model.get(&n) == Some(&false));
                if let Some(trace) = traces.get(&n) {
                    prop_assert_eq!(&theirs.trace(id(n)), trace);
                }
            }
            prop_assert_eq!(store.usage(), ours);
        }
    }
}
