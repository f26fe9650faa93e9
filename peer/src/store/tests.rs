//! Tests of the store as the engine sees it, over both kinds of index where that matters.

mod adopted;
mod damage;
mod room;
mod tending;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{ByteRange, Geometry, PieceIndex};
use common::task::TaskId;
use proptest::prelude::*;

use super::*;

const PIECE: u64 = 256 * 1024;
const MEMORY: StoreOptions = StoreOptions { limits: Limits::NONE, durable: false };
const DURABLE: StoreOptions = StoreOptions { limits: Limits::NONE, durable: true };

fn task(n: u8) -> TaskId {
    TaskId([n; 32])
}

fn geometry(length: u64) -> Geometry {
    Geometry::of(length).unwrap()
}

/// Bytes that differ from piece to piece, and by `salt`.
fn content(length: u64, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at / PIECE * 31) as u8 ^ salt).collect()
}

fn write(blob: &Blob, index: u32, whole: &[u8]) -> Result<Digest, StoreError> {
    let range = blob.geometry().range(PieceIndex(index));
    let bytes = Bytes::copy_from_slice(&whole[range.start as usize..range.end as usize]);
    let digest = Digest::of(&bytes);
    blob.write_piece(PieceIndex(index), &[bytes], digest).map(|()| digest)
}

/// A whole blob, proven, under the digest of its content.
fn put(store: &Store, whole: &[u8]) -> TaskId {
    let task = TaskId::of_digest(Digest::of(whole));
    let blob = store.create(task, geometry(whole.len() as u64), "https://origin.example/x").unwrap();
    for index in 0..blob.geometry().pieces() {
        write(&blob, index, whole).unwrap();
    }
    assert_eq!(TaskId::of_digest(blob.hash().unwrap()), task);
    blob.prove().unwrap();
    task
}

/// Checks every claim of every task, and the books; returns the bytes claimed.
fn check(store: &Store) -> u64 {
    let mut bytes = 0;
    for entry in store.list().unwrap() {
        let blob = store.get(entry.task).unwrap().expect("a listed task can be had");
        let pieces = blob.pieces().unwrap();
        assert_eq!(entry.held as usize, pieces.len());
        for (index, digest) in pieces {
            let range = blob.geometry().range(index);
            assert_eq!(Digest::of(&blob.read(range).unwrap()), digest, "{:?} {index:?}", entry.task);
            bytes += range.len();
        }
    }
    assert_eq!(store.usage(), bytes);
    bytes
}

/// As a loss of power leaves it: another boot, no clean end.
fn lose_power(dir: &Path) {
    let index = index::sled::SledIndex::open(&dir.join("index")).unwrap();
    let index: &dyn Index = &index;
    index.set_run(&Run { boot_id: "an earlier boot".into(), clean: false }).unwrap();
    index.flush().unwrap();
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, part) = (content(5 * PIECE + 17, 1), content(3 * PIECE, 2));
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let proven = put(&store, &whole);
    let partial = store.create(task(9), geometry(3 * PIECE), "https://u:p@host/a?sig=1#f").unwrap();
    partial.set_media_type("text/plain").unwrap();
    let digest = write(&partial, 1, &part).unwrap();
    assert_eq!(store.usage(), whole.len() as u64 + PIECE);
    store.close();
    drop((partial, store));

    let store = Store::open(dir.path(), DURABLE).unwrap();
    assert_eq!(check(&store), whole.len() as u64 + PIECE);
    let blob = store.get(proven).unwrap().unwrap();
    assert!(blob.is_proven());
    assert_eq!(blob.read(ByteRange::new(PIECE - 3, PIECE + 5)).unwrap(), whole[PIECE as usize - 3..][..8]);
    let partial = store.get(task(9)).unwrap().unwrap();
    assert!(!partial.is_proven());
    assert_eq!(partial.pieces().unwrap(), [(PieceIndex(1), digest)]);
    assert_eq!(partial.media_type().as_deref(), Some("text/plain"));
    let entry = store.list().unwrap().into_iter().find(|entry| entry.task == task(9)).unwrap();
    assert_eq!((entry.held, entry.source_url.as_str()), (1, "https://host/a"));
    assert!(store.get(task(77)).unwrap().is_none());
}

#[test]
fn an_empty_blob_is_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), MEMORY).unwrap();
    let id = put(&store, b"");
    let blob = store.get(id).unwrap().unwrap();
    assert!(blob.is_proven() && blob.read(ByteRange::new(0, 0)).unwrap().is_empty());
}

#[test]
fn secrets_in_urls_are_not_kept() {
    for (given, kept) in [
        ("https://host/v2/a/blobs/b", "https://host/v2/a/blobs/b"),
        ("https://user:p@ss@host:5000/a?X-Amz-Signature=1", "https://host:5000/a"),
        ("https://user@host", "https://host"),
        ("http://host/a@b#c", "http://host/a@b"),
        ("", ""),
    ] {
        assert_eq!(without_secrets(given), kept);
    }
}

#[test]
fn chunks_of_any_number_and_size_make_a_piece() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), MEMORY).unwrap();
    let whole = Bytes::from(content(2 * PIECE, 5));
    let blob = store.create(task(1), geometry(2 * PIECE), "").unwrap();
    for (index, step) in [(0, 100), (1, PIECE as usize - 1)] {
        let piece = whole.slice(index as usize * PIECE as usize..(index as usize + 1) * PIECE as usize);
        let mut chunks = vec![Bytes::new()];
        for at in (0..piece.len()).step_by(step) {
            chunks.extend([piece.slice(at..piece.len().min(at + step)), Bytes::new()]);
        }
        blob.write_piece(PieceIndex(index), &chunks, Digest::of(&piece)).unwrap();
    }
    assert_eq!(blob.read(ByteRange::new(0, 2 * PIECE)).unwrap(), whole);
    check(&store);
}

#[test]
fn lengths_and_ranges_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), MEMORY).unwrap();
    let blob = store.create(task(1), geometry(PIECE + 5), "").unwrap();
    let bytes = Bytes::from_static(b"123456");
    for index in [0, 1, 2, u32::MAX] {
        let refused = blob.write_piece(PieceIndex(index), std::slice::from_ref(&bytes), Digest::of(&bytes));
        assert!(matches!(refused, Err(StoreError::WrongLength { .. })), "{index}");
    }
    assert!(matches!(blob.read(ByteRange::new(0, PIECE + 6)), Err(StoreError::OutOfRange { .. })));
    assert!(matches!(blob.prove(), Err(StoreError::Incomplete { held: 0, pieces: 2, .. })));
    assert_eq!(check(&store), 0);
}

#[test]
fn another_geometry_replaces_the_task_and_the_same_one_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let blob = store.create(task(1), geometry(2 * PIECE), "").unwrap();
    write(&blob, 0, &content(2 * PIECE, 1)).unwrap();
    let same = store.create(task(1), geometry(2 * PIECE), "").unwrap();
    assert_eq!(same.pieces().unwrap().len(), 1);
    let other = store.create(task(1), geometry(3 * PIECE), "").unwrap();
    assert!(other.pieces().unwrap().is_empty());
    write(&other, 0, &content(3 * PIECE, 2)).unwrap();
    assert_eq!(same.pieces().unwrap().len(), 1, "the old handles keep what they had");
    assert_eq!(same.read(ByteRange::new(0, PIECE)).unwrap(), content(PIECE, 1));
    assert_eq!(check(&store), PIECE);
}

#[test]
fn a_removed_task_lives_on_for_its_handles_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let whole = content(3 * PIECE, 1);
    let blob = store.create(task(1), geometry(3 * PIECE), "").unwrap();
    write(&blob, 0, &whole).unwrap();
    store.remove(task(1)).unwrap();
    store.remove(task(1)).unwrap();
    assert!(!blob.path().exists() && store.get(task(1)).unwrap().is_none());
    assert_eq!(store.usage(), 0);
    write(&blob, 1, &whole).unwrap();
    write(&blob, 2, &whole).unwrap();
    blob.forget_piece(PieceIndex(2)).unwrap();
    blob.touch();
    assert_eq!(blob.pieces().unwrap().len(), 2);
    assert_eq!(blob.read(ByteRange::new(0, 2 * PIECE)).unwrap(), whole[..2 * PIECE as usize]);
    assert_eq!((store.usage(), store.list().unwrap().len()), (0, 0));

    let anew = store.create(task(1), geometry(3 * PIECE), "").unwrap();
    assert!(anew.pieces().unwrap().is_empty());
    assert_eq!(check(&store), 0);
}

#[test]
fn a_forgotten_piece_can_come_back_with_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let id = put(&store, &content(2 * PIECE, 1));
    let blob = store.get(id).unwrap().unwrap();
    blob.forget_piece(PieceIndex(1)).unwrap();
    assert!(!blob.is_proven());
    assert_eq!(store.usage(), PIECE);
    write(&blob, 1, &content(2 * PIECE, 2)).unwrap();
    write(&blob, 0, &content(2 * PIECE, 2)).unwrap();
    assert_eq!(check(&store), 2 * PIECE);
    assert!(!store.list().unwrap()[0].proven);
}

#[test]
fn nothing_is_claimed_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let blob = store.create(task(1), geometry(PIECE), "").unwrap();
    store.close();
    store.close();
    assert!(matches!(write(&blob, 0, &content(PIECE, 1)), Err(StoreError::Closed { .. })));
    assert_eq!(store.usage(), 0);
}

#[test]
fn a_folder_serves_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let error = Store::open(dir.path(), DURABLE).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(store);
    Store::open(dir.path(), DURABLE).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Store::open(&path, DURABLE).unwrap_err();
        assert!(matches!(error, StoreError::NotAFolder { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let allow = |mode| std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
    allow(0o500);
    let opened = Store::open(&dir.path().join("store"), DURABLE);
    allow(0o700);
    match opened {
        Err(error) => assert!(matches!(error, StoreError::NotWritable { .. }), "{error}"),
        Ok(_) => println!("skipped: this user may write read-only folders"),
    }
    let denied = StoreError::folder(&file, std::io::ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("cannot be written"), "{denied}");
}

#[derive(Debug, Clone)]
enum Step {
    Write { task: u8, piece: u32, salt: u8 },
    Forget { task: u8, piece: u32 },
    Remove { task: u8 },
    Resize { task: u8, pieces: u64 },
    Reopen { power_lost: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let (task, piece) = (0u8..3, 0u32..3);
    prop_oneof![
        8 => (task.clone(), piece.clone(), 0u8..2).prop_map(|(task, piece, salt)| Step::Write { task, piece, salt }),
        2 => (task.clone(), piece).prop_map(|(task, piece)| Step::Forget { task, piece }),
        1 => task.clone().prop_map(|task| Step::Remove { task }),
        1 => (task, 1u64..4).prop_map(|(task, pieces)| Step::Resize { task, pieces }),
        1 => any::<bool>().prop_map(|power_lost| Step::Reopen { power_lost }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn claims_follow_what_was_done(steps in prop::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), DURABLE).unwrap();
        let mut model: BTreeMap<u8, (u64, BTreeMap<u32, Digest>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write { task: n, piece, salt } => {
                    let (pieces, claims) = model.entry(n).or_insert((3, BTreeMap::new()));
                    let blob = store.create(task(n), geometry(*pieces * PIECE), "").unwrap();
                    if u64::from(piece) < *pieces {
                        claims.insert(piece, write(&blob, piece, &content(*pieces * PIECE, salt)).unwrap());
                    }
                }
                Step::Forget { task: n, piece } => {
                    if let Some(blob) = store.get(task(n)).unwrap() {
                        blob.forget_piece(PieceIndex(piece)).unwrap();
                        model.get_mut(&n).unwrap().1.remove(&piece);
                    }
                }
                Step::Remove { task: n } => {
                    store.remove(task(n)).unwrap();
                    model.remove(&n);
                }
                Step::Resize { task: n, pieces } => {
                    store.create(task(n), geometry(pieces * PIECE), "").unwrap();
                    if model.get(&n).is_none_or(|(before, _)| *before != pieces) {
                        model.insert(n, (pieces, BTreeMap::new()));
                    }
                }
                Step::Reopen { power_lost } => {
                    drop(store);
                    if power_lost {
                        lose_power(dir.path());
                    }
                    store = Store::open(dir.path(), DURABLE).unwrap();
                }
            }
            check(&store);
            let held: BTreeMap<u8, (u64, BTreeMap<u32, Digest>)> = store.list().unwrap().iter().map(|entry| {
                let blob = store.get(entry.task).unwrap().unwrap();
                let claims = blob.pieces().unwrap().into_iter().map(|(index, digest)| (index.0, digest)).collect();
                (entry.task.0[0], (entry.geometry.length() / PIECE, claims))
            }).collect();
            prop_assert_eq!(&held, &model);
        }
    }
}

#[test]
fn bytes_whose_claim_was_lost_are_claimed_again_if_they_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let whole = content(3 * PIECE, 5);
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let blob = store.create(task(9), geometry(3 * PIECE), "https://origin.example/x").unwrap();
    let digest = write(&blob, 1, &whole).unwrap();
    blob.forget_piece(PieceIndex(1)).unwrap();
    assert!(!blob.salvage(PieceIndex(0), digest).unwrap(), "nothing stands there");
    assert!(!blob.salvage(PieceIndex(1), Digest::of(b"other")).unwrap(), "other bytes stand there");
    assert!(blob.pieces().unwrap().is_empty());
    assert!(blob.salvage(PieceIndex(1), digest).unwrap());
    assert_eq!(blob.pieces().unwrap(), [(PieceIndex(1), digest)]);
    assert_eq!(store.usage(), PIECE);
}
