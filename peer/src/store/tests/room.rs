//! Quota, eviction and full disks, with many hands at once.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn limited(pieces: u64) -> StoreOptions {
    StoreOptions { limits: Limits::quota(pieces * PIECE), durable: false }
}

/// Makes a task of so many pieces that was last used at `second`.
fn used_at(store: &Store, n: u8, pieces: u64, second: u64) {
    let blob = store.create(task(n), geometry(pieces * PIECE), "").unwrap();
    for index in 0..pieces as u32 {
        write(&blob, index, &content(pieces * PIECE, n)).unwrap();
    }
    store.0.touch(task(n), second * 1000);
}

fn tasks(store: &Store) -> Vec<u8> {
    store.list().unwrap().iter().map(|entry| entry.task.0[0]).collect()
}

#[test]
fn the_least_recently_used_go_for_a_new_task() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limited(6)).unwrap();
    for (n, second) in [(1, 30), (2, 10), (3, 20)] {
        used_at(&store, n, 2, second);
    }
    store.create(task(4), geometry(3 * PIECE), "").unwrap();
    assert_eq!(tasks(&store), [1, 4], "two had to go for three pieces");
    assert_eq!(check(&store), 2 * PIECE);
}

#[test]
fn what_is_in_somebodys_hand_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limited(4)).unwrap();
    used_at(&store, 1, 2, 10);
    used_at(&store, 2, 2, 20);
    let held = store.get(task(1)).unwrap().unwrap();
    store.create(task(3), geometry(2 * PIECE), "").unwrap();
    assert_eq!(tasks(&store), [1, 3]);
    let error = store.create(task(4), geometry(3 * PIECE), "").unwrap_err();
    assert!(error.is_full() && error.to_string().contains("quota"), "{error}");
    assert_eq!(tasks(&store), [1, 3], "nothing goes for what will not fit");
    assert!(store.create(task(5), geometry(9 * PIECE), "").unwrap_err().is_full());
    drop(held);
    store.create(task(4), geometry(3 * PIECE), "").unwrap();
    assert!(!tasks(&store).contains(&1));
}

#[test]
fn writes_keep_to_the_quota_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limited(3)).unwrap();
    let (one, two) = [1, 2].map(|n| store.create(task(n), geometry(3 * PIECE), "").unwrap()).into();
    let whole = content(3 * PIECE, 1);
    for (blob, index) in [(&one, 0), (&one, 1), (&two, 0)] {
        write(blob, index, &whole).unwrap();
    }
    assert!(write(&two, 1, &whole).unwrap_err().is_full());
    assert_eq!(check(&store), 3 * PIECE);
    drop(one);
    write(&two, 1, &whole).unwrap();
    assert_eq!(tasks(&store), [2]);
    assert_eq!(check(&store), 2 * PIECE);
}

#[test]
fn a_lower_quota_holds_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { limits: Limits::quota(2 * PIECE), durable: true };
    let store = Store::open(dir.path(), DURABLE).unwrap();
    (1..4).for_each(|n| used_at(&store, n, 1, u64::from(n)));
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(check(&store), 2 * PIECE);
}

#[test]
fn many_hands_at_once_neither_pass_the_quota_nor_mix_up_bytes() {
    const QUOTA: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { limits: Limits::quota(QUOTA * PIECE), durable: true };
    let store = Store::open(dir.path(), options).unwrap();
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for hand in 0..6u32 {
            let (store, written) = (&store, &written);
            scope.spawn(move || {
                for turn in 0..20u32 {
                    let n = (hand * 3 + turn * 5) as u8 % 8;
                    let whole = content(3 * PIECE, n);
                    let Ok(blob) = store.create(task(n), geometry(3 * PIECE), "") else { continue };
                    for index in (0..3).map(|at| (at + hand) % 3) {
                        match write(&blob, index, &whole) {
                            Ok(digest) => {
                                // The task stays while it is in hand, unless somebody removes it outright.
                                let range = blob.geometry().range(PieceIndex(index));
                                assert_eq!(Digest::of(&blob.read(range).unwrap()), digest);
                                written.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => assert!(error.is_full(), "{error}"),
                        }
                        assert!(store.usage() <= QUOTA * PIECE);
                    }
                    if turn % 7 == 6 {
                        store.remove(task(n)).unwrap();
                    }
                }
            });
        }
    });
    assert!(written.into_inner() > 0);
    check(&store);
}

/// A small file system of its own; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = rustix::process::geteuid().is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
                .arg(dir.path())
                .status()
                .is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

#[test]
fn a_full_disk_evicts_once_and_then_says_so() {
    let Some(disk) = SmallDisk::mount(32 << 20) else {
        println!("skipped: mounting a small file system takes root");
        return;
    };
    let dir = disk.0.path().join("store");
    let store = Store::open(&dir, DURABLE).unwrap();
    let pieces = 16;
    let whole = content(pieces * PIECE, 1);
    // More tasks than the disk holds: the older ones make room.
    for n in 0..12 {
        used_at(&store, n, pieces, u64::from(n) + 1);
    }
    let left = tasks(&store);
    assert!(left.contains(&11) && !left.contains(&0), "{left:?}");
    check(&store);
    // Everything in hand: nothing can go.
    let hands: Vec<_> = left.iter().map(|n| store.get(task(*n)).unwrap().unwrap()).collect();
    let error = store.create(task(99), geometry(64 << 20), "").unwrap_err();
    assert!(error.is_full() && error.to_string().contains(dir.to_str().unwrap()), "{error}");
    // What fitted when it was begun, and does no more.
    let last = store.create(task(100), geometry(PIECE), "");
    let filler = fill(disk.0.path());
    let error = last.and_then(|last| write(&last, 0, &whole[..PIECE as usize])).unwrap_err();
    assert!(error.is_full(), "{error}");
    std::fs::remove_file(filler).unwrap();
    check(&store);
    // The index still works: what was kept for it was enough.
    drop(hands);
    write(&store.create(task(101), geometry(PIECE), "").unwrap(), 0, &content(PIECE, 4)).unwrap();
    store.close();
    drop(store);
    let store = Store::open(&dir, DURABLE).unwrap();
    assert!(tasks(&store).contains(&101));
    check(&store);
}

/// Fills the disk to the last byte, as another program may.
fn fill(disk: &Path) -> std::path::PathBuf {
    use std::io::Write;
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for chunk in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![7; chunk]).is_ok() {}
    }
    path
}

#[test]
fn a_disk_that_others_fill_stops_nothing_for_good() {
    let Some(disk) = SmallDisk::mount(48 << 20) else {
        println!("skipped: mounting a small file system takes root");
        return;
    };
    let dir = disk.0.path().join("store");
    let mut store = Store::open(&dir, DURABLE).unwrap();
    (1..6).for_each(|n| used_at(&store, n, 16, u64::from(n)));
    for round in 0..3 {
        let filler = fill(disk.0.path());
        // The index itself meets the full disk.
        let blob = store.get(task(5)).unwrap().unwrap();
        let long = "x".repeat(4000);
        let met = (0..2000).find_map(|_| blob.set_media_type(&long).err());
        assert!(met.is_none_or(|error| error.is_full()));
        drop(blob);
        if round == 2 {
            drop(store);
            store = Store::open(&dir, DURABLE).unwrap();
        }
        let n = 100 + round;
        let written = (0..4).any(|_| {
            let made = store.create(task(n), geometry(PIECE), "");
            match made.and_then(|blob| write(&blob, 0, &content(PIECE, n))) {
                Ok(_) => true,
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    false
                }
            }
        });
        assert!(written, "evictions make room, round {round}");
        check(&store);
        std::fs::remove_file(filler).unwrap();
        (1..6).for_each(|n| used_at(&store, n, 16, u64::from(n)));
        check(&store);
    }
    store.close();
    drop(store);
    check(&Store::open(&dir, DURABLE).unwrap());
}
