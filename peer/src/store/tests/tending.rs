//! What goes in the background, what stays because somebody said so, and what all of it takes on the disk.

use std::os::unix::fs::MetadataExt;

use common::config::{Percent, Share};
use common::telemetry::Eviction;

use super::*;

const MINUTE: u64 = 60_000;

/// A store that may keep ten pieces, and evicts from nine down to six.
fn ten_pieces(dir: &Path) -> (Store, Metrics) {
    let limits = Limits { high: Percent::new(90), low: Percent::new(60), ..Limits::quota(10 * PIECE) };
    let metrics = Metrics::new();
    let options = StoreOptions { limits, durable: true };
    (Store::open_counted(dir, options, metrics.clone()).unwrap(), metrics)
}

/// Makes a task of one piece that was last used at `minute`.
fn one_piece(store: &Store, n: u8, minute: u64) {
    let blob = store.create(task(n), geometry(PIECE), "").unwrap();
    write(&blob, 0, &content(PIECE, n)).unwrap();
    store.0.touch(task(n), minute * MINUTE);
}

fn tasks(store: &Store) -> Vec<u8> {
    store.list().unwrap().iter().map(|entry| entry.task.0[0]).collect()
}

#[test]
fn above_the_high_watermark_the_oldest_go_down_to_the_low_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = ten_pieces(dir.path());
    (1..=9).for_each(|n| one_piece(&store, n, u64::from(n)));
    store.tend().unwrap();
    assert_eq!(tasks(&store).len(), 9, "at the watermark nothing is too much");
    one_piece(&store, 10, 10);
    let hand = store.get(task(1)).unwrap().unwrap();
    assert!(store.pin(task(3)).unwrap());
    store.tend().unwrap();
    assert_eq!(tasks(&store), [1, 3, 7, 8, 9, 10], "one is in use, one is pinned");
    assert_eq!(metrics.evictions.of(Eviction::Quota).get(), 4);
    assert_eq!(metrics.evicted_bytes.of(Eviction::Quota).get(), 4 * PIECE);
    drop(hand);
    store.tend().unwrap();
    assert_eq!(tasks(&store).len(), 6, "between the watermarks nothing goes");
    check(&store);
}

#[test]
fn what_nobody_used_for_long_goes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { ttl: Some(Duration::from_secs(600)), ..Limits::NONE };
    let metrics = Metrics::new();
    let options = StoreOptions { limits, durable: true };
    let store = Store::open_counted(dir.path(), options, metrics.clone()).unwrap();
    (1..=100).for_each(|n| one_piece(&store, n, u64::from(n)));
    store.pin(task(2)).unwrap();
    let hand = store.get(task(3)).unwrap().unwrap();
    store.tend_at(100 * MINUTE).unwrap();
    let mut expected = vec![2, 3];
    expected.extend(90..=100);
    assert_eq!(tasks(&store), expected);
    assert_eq!(metrics.evictions.of(Eviction::Ttl).get(), 87);
    drop(hand);
    store.unpin(task(2)).unwrap();
    store.tend_at(u64::MAX / 2).unwrap();
    assert!(tasks(&store).is_empty());
    check(&store);
}

#[test]
fn the_disk_keeps_free_what_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    (1..=3).for_each(|n| one_piece(&store, n, u64::from(n)));
    store.pin(task(2)).unwrap();
    store.close();
    drop(store);
    let limits = Limits { keep_free: Share::Percent(Percent::new(100)), ..Limits::NONE };
    let metrics = Metrics::new();
    let store =
        Store::open_counted(dir.path(), StoreOptions { limits, durable: true }, metrics.clone()).unwrap();
    let hand = store.get(task(3)).unwrap().unwrap();
    store.tend().unwrap();
    assert_eq!(tasks(&store), [2, 3]);
    assert_eq!(metrics.evictions.of(Eviction::Disk).get(), 1);
    let error = store.create(task(4), geometry(PIECE), "").unwrap_err();
    assert!(error.is_full() && error.to_string().contains("keep-free"), "{error}");
    drop(hand);
}

#[test]
fn a_pin_outlives_a_restart_and_holds_against_all_but_removal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = ten_pieces(dir.path());
    one_piece(&store, 1, 1);
    one_piece(&store, 2, 2);
    let open = store.get(task(2)).unwrap().unwrap();
    assert!(store.pin(task(1)).unwrap() && store.pin(task(2)).unwrap());
    assert!(!store.pin(task(9)).unwrap() && !store.unpin(task(9)).unwrap());
    drop((open, store));

    let (store, metrics) = ten_pieces(dir.path());
    assert!(store.list().unwrap().iter().all(|entry| entry.pinned));
    assert_eq!((store.room().pinned_tasks, store.room().pinned_bytes), (2, 2 * PIECE));
    assert!(store.create(task(3), geometry(9 * PIECE), "").unwrap_err().is_full());
    assert_eq!(store.evict(task(1)).unwrap(), Release::Pinned);
    assert!(store.unpin(task(1)).unwrap());
    let hand = store.get(task(1)).unwrap().unwrap();
    assert_eq!(store.evict(task(1)).unwrap(), Release::InUse);
    drop(hand);
    assert_eq!(store.evict(task(1)).unwrap(), Release::Gone);
    assert_eq!(store.evict(task(1)).unwrap(), Release::Unknown);
    assert_eq!(metrics.evictions.of(Eviction::Request).get(), 1);
    assert_eq!(metrics.evicted_bytes.of(Eviction::Request).get(), PIECE);
    assert_eq!(tasks(&store), [2]);
}

/// What `du` says, less what it does not: links are not followed, and there are none.
fn on_disk(dir: &Path) -> u64 {
    let below = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { on_disk(&entry.path()) } else { meta.blocks() * 512 }
    });
    below.sum::<u64>() + std::fs::metadata(dir).unwrap().blocks() * 512
}

fn agrees_with_the_disk(store: &Store, dir: &Path) {
    store.measure().unwrap();
    let (told, is) = (store.room().total, on_disk(dir));
    assert!(told.abs_diff(is) * 20 <= is, "{told} bytes told, {is} on the disk");
}

#[test]
fn what_is_told_is_what_the_disk_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    agrees_with_the_disk(&store, dir.path());
    // Many small ones, whose last blocks are mostly empty.
    for n in 0..400u32 {
        put(&store, &[&n.to_le_bytes()[..], &content(u64::from(n) * 7, 1)].concat());
    }
    agrees_with_the_disk(&store, dir.path());
    assert!(store.room().total > 2 * store.room().blobs, "the small ones take more than their bytes");
    // Some large ones, one of them sparse.
    put(&store, &content(20 * PIECE + 1, 2));
    let sparse = store.create(task(7), geometry(40 * PIECE), "").unwrap();
    for index in [0, 3, 39] {
        write(&sparse, index, &content(40 * PIECE, 3)).unwrap();
    }
    agrees_with_the_disk(&store, dir.path());
    // Bytes that stand in a file and are claimed no more.
    sparse.forget_piece(PieceIndex(3)).unwrap();
    agrees_with_the_disk(&store, dir.path());
    drop(sparse);
    store.close();
    drop(store);
    let store = Store::open(dir.path(), DURABLE).unwrap();
    agrees_with_the_disk(&store, dir.path());
    let gone = store.list().unwrap();
    gone.iter().skip(10).for_each(|entry| assert_eq!(store.evict(entry.task).unwrap(), Release::Gone));
    agrees_with_the_disk(&store, dir.path());
    assert!(store.room().index > 0 && store.room().index < store.room().total);
}

#[test]
fn the_quota_counts_what_the_folder_takes_beside_its_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::quota(16 << 20);
    let store = Store::open(dir.path(), StoreOptions { limits, durable: true }).unwrap();
    (1..=60).for_each(|n| one_piece(&store, n, u64::from(n)));
    store.measure().unwrap();
    assert!(on_disk(dir.path()) > 16 << 20, "the index and its spare room come on top");
    store.tend().unwrap();
    assert!(on_disk(dir.path()) < 16 << 20);
    one_piece(&store, 100, 100);
    assert!(store.room().total <= 16 << 20);
}

#[test]
fn a_later_releases_folder_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let id = put(&store, &content(PIECE, 1));
    drop(store);
    let format = dir.path().join("format");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "1\n");
    std::fs::write(&format, "2 something\n").unwrap();
    let error = Store::open(dir.path(), DURABLE).unwrap_err().to_string();
    assert!(error.contains("format 2") && error.contains(dir.path().to_str().unwrap()), "{error}");
    // A loss of power may have left it empty, and release 0.1 wrote none.
    for written in [Some(""), None] {
        match written {
            Some(text) => std::fs::write(&format, text).unwrap(),
            None => std::fs::remove_file(&format).unwrap(),
        }
        let store = Store::open(dir.path(), DURABLE).unwrap();
        assert!(store.get(id).unwrap().unwrap().is_proven());
        drop(store);
        assert_eq!(std::fs::read_to_string(&format).unwrap(), "1\n");
    }
}
