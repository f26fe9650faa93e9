//! What a start makes of a folder that a crash, a disk or a person has changed.

use std::fs;

use super::*;

/// A complete blob, a partial one, and an end that was not clean.
fn prepared(dir: &Path) -> (TaskId, TaskId) {
    let store = Store::open(dir, DURABLE).unwrap();
    let complete = put(&store, &content(3 * PIECE + 1, 1));
    let partial = store.create(task(9), geometry(4 * PIECE), "").unwrap();
    for index in [0, 1, 3] {
        write(&partial, index, &content(4 * PIECE, 2)).unwrap();
    }
    (complete, task(9))
}

fn set_byte(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn path_of(dir: &Path, task: TaskId) -> std::path::PathBuf {
    dir.join("blobs").join(&task.hex()[..2]).join(task.hex())
}

fn files_in(dir: &Path) -> usize {
    fs::read_dir(dir.join("blobs"))
        .unwrap()
        .map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap().count())
        .sum()
}

/// Whatever is done to the index, the complete blob is found again and no false claim is made.
fn survives(harm: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (complete, _) = prepared(dir.path());
    harm(&dir.path().join("index"));
    for _ in 0..2 {
        let store = Store::open(dir.path(), DURABLE).unwrap();
        check(&store);
        let blob = store.get(complete).unwrap().expect("the complete blob is found again");
        assert!(blob.is_proven());
        assert_eq!(blob.pieces().unwrap().len(), 4);
        write(&store.create(task(3), geometry(PIECE), "").unwrap(), 0, &content(PIECE, 3)).unwrap();
    }
}

fn fill(path: &Path, byte: fn(usize) -> u8) {
    let length = fs::metadata(path).unwrap().len() as usize;
    fs::write(path, (0..length).map(byte).collect::<Vec<_>>()).unwrap();
}

fn garble(index: &Path) {
    for entry in fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_file() {
            fill(&entry, |at| (at.wrapping_mul(2_654_435_761) >> 7) as u8);
        }
    }
}

#[test]
fn garbage_in_the_index_costs_the_partial_blobs_only() {
    survives(garble);
    survives(|index| fill(&index.join("db"), |at| ((at * 40_503) >> 3) as u8));
    survives(|index| fill(&index.join("db"), |_| 0));
    survives(|index| fs::write(index.join("conf"), b"garbage").unwrap());
}

#[test]
fn partial_blobs_are_gone_with_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let (complete, partial) = prepared(dir.path());
    garble(&dir.path().join("index"));
    fs::create_dir(dir.path().join("index.broken-1")).unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    assert!(store.get(partial).unwrap().is_none());
    assert_eq!(store.list().unwrap().iter().map(|entry| entry.task).collect::<Vec<_>>(), [complete]);
    assert_eq!(files_in(dir.path()), 1);
    let aside: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("index.broken-"))
        .collect();
    assert!(aside.len() == 1 && aside[0] != "index.broken-1", "{aside:?}");
}

#[test]
fn an_index_that_is_gone_truncated_or_a_file_is_rebuilt() {
    survives(|index| fs::remove_dir_all(index).unwrap());
    survives(|index| {
        fs::remove_dir_all(index).unwrap();
        fs::write(index, b"a file").unwrap();
    });
    survives(|index| {
        let db = fs::OpenOptions::new().write(true).open(index.join("db")).unwrap();
        db.set_len(db.metadata().unwrap().len() / 2 + 77).unwrap();
    });
}

#[test]
fn a_folder_where_a_file_of_the_index_should_be_is_no_end() {
    for name in ["db", "conf"] {
        survives(|index| {
            fs::remove_file(index.join(name)).unwrap();
            fs::create_dir(index.join(name)).unwrap();
        });
    }
    survives(|index| {
        let spare = index.with_extension("spare");
        let _ = fs::remove_file(&spare);
        fs::create_dir(spare).unwrap();
    });
    survives(|index| fs::create_dir(index.join("snap.00")).unwrap());
}

/// Some bytes here and there, as a bad disk leaves them.
#[test]
fn a_few_wrong_bytes_in_the_index_make_no_false_claim() {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..40 {
        survives(|index| {
            let mut dice = SmallRng::seed_from_u64(seed);
            let db = index.join("db");
            let mut bytes = fs::read(&db).unwrap();
            for _ in 0..dice.random_range(1..200) {
                let at = dice.random_range(0..bytes.len());
                bytes[at] = dice.random();
            }
            fs::write(&db, bytes).unwrap();
        });
    }
}

#[test]
fn a_snapshot_left_half_written_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    fs::write(dir.path().join("index/snap.0000000000000001.generating"), b"half").unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    assert_eq!(check(&store), 6 * PIECE + 1);
}

#[test]
fn a_loss_of_power_has_unproven_pieces_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (complete, partial) = prepared(dir.path());
    set_byte(&path_of(dir.path(), partial), PIECE + 5);
    lose_power(dir.path());
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let left: Vec<_> =
        store.get(partial).unwrap().unwrap().pieces().unwrap().iter().map(|piece| piece.0.0).collect();
    assert_eq!(left, [0, 3], "only the damaged piece is dropped");
    assert!(store.get(complete).unwrap().unwrap().is_proven());
    check(&store);
}

#[test]
fn neither_a_clean_end_nor_a_kill_has_anything_checked() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (_, partial) = prepared(dir.path());
        let store = Store::open(dir.path(), DURABLE).unwrap();
        if clean {
            store.close();
        }
        drop(store);
        set_byte(&path_of(dir.path(), partial), PIECE + 5);
        let store = Store::open(dir.path(), DURABLE).unwrap();
        assert_eq!(store.get(partial).unwrap().unwrap().pieces().unwrap().len(), 3, "clean: {clean}");
    }
}

#[test]
fn files_and_records_that_do_not_belong_together_go() {
    let dir = tempfile::tempdir().unwrap();
    let (complete, partial) = prepared(dir.path());
    let orphan = path_of(dir.path(), task(0x42));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, b"half of something").unwrap();
    let stranger = orphan.with_file_name("notes.txt");
    fs::write(&stranger, b"mine").unwrap();
    fs::remove_file(path_of(dir.path(), complete)).unwrap();
    let cut = fs::OpenOptions::new().write(true).open(path_of(dir.path(), partial)).unwrap();
    cut.set_len(2 * PIECE - 1).unwrap();

    let store = Store::open(dir.path(), DURABLE).unwrap();
    assert!(!orphan.exists() && stranger.exists());
    assert!(store.get(complete).unwrap().is_none());
    let left = store.get(partial).unwrap().unwrap();
    assert_eq!(left.pieces().unwrap().len(), 1, "claims past the file's end are dropped");
    write(&left, 3, &content(4 * PIECE, 2)).unwrap();
    assert_eq!(check(&store), 2 * PIECE);
}

#[test]
fn a_proven_blob_of_the_wrong_length_is_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (complete, _) = prepared(dir.path());
    let path = path_of(dir.path(), complete);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    assert!(store.get(complete).unwrap().is_none() && !path.exists());
}

#[test]
fn a_file_removed_behind_the_stores_back_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DURABLE).unwrap();
    let id = put(&store, &content(PIECE, 1));
    fs::remove_file(path_of(dir.path(), id)).unwrap();
    assert!(store.get(id).unwrap().is_none());
    assert_eq!(store.usage(), 0);
    put(&store, &content(PIECE, 1));
    assert_eq!(check(&store), PIECE);
}
