//! A store's folder as earlier releases left it is opened by this one: everything that was claimed is there and right,
//! and more can be written. `fixtures/store-v1.tar.gz` was written by release 0.1, before the folder named its format.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use peer::store::{Adoption, Blob, Finding, Foreign, Inspection, Store, StoreOptions};

const PIECE: u64 = 256 * 1024;
const PARTIAL: TaskId = TaskId([9; 32]);

/// Bytes that a compressor makes nothing of: the archive stays small.
fn content(length: u64, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at / PIECE) as u8 ^ salt).collect()
}

fn whole() -> Vec<u8> {
    content(2 * PIECE + 17, 0x40)
}

fn small() -> Vec<u8> {
    content(1000, 0x50)
}

fn adopted() -> Vec<u8> {
    content(PIECE + 5, 0x60)
}

fn id_of(bytes: &[u8]) -> TaskId {
    TaskId::of_digest(Digest::of(bytes))
}

fn write(blob: &Blob, index: u32, bytes: &[u8]) {
    let range = blob.geometry().range(PieceIndex(index));
    let piece = Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]);
    let digest = Digest::of(&piece);
    blob.write_piece(PieceIndex(index), &[piece], digest).unwrap();
}

fn options() -> StoreOptions {
    StoreOptions { durable: true, ..StoreOptions::default() }
}

fn put(store: &Store, bytes: &[u8]) {
    let geometry = Geometry::of(bytes.len() as u64).unwrap();
    let blob = store.create(id_of(bytes), geometry, "https://origin.example/whole").unwrap();
    (0..geometry.pieces()).for_each(|index| write(&blob, index, bytes));
    blob.set_media_type("application/octet-stream").unwrap();
    blob.prove().unwrap();
}

/// How the archive was made: with `STORE_FIXTURE=<file>`, by the release whose folder it is to show.
#[test]
#[ignore = "writes the fixture of a release"]
fn archive() {
    let Some(archive) = std::env::var_os("STORE_FIXTURE") else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let store = Store::open(&folder, options()).unwrap();
    put(&store, &whole());
    put(&store, &small());
    let partial =
        store.create(PARTIAL, Geometry::of(4 * PIECE).unwrap(), "https://origin.example/part").unwrap();
    [0, 2].into_iter().for_each(|index| write(&partial, index, &content(4 * PIECE, 0x70)));
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, adopted()).unwrap();
    let mut inspection =
        Inspection::begin(id_of(&adopted()), Foreign::look(&foreign).unwrap().unwrap()).unwrap();
    while inspection.step().unwrap() {}
    let Finding::Right(verified) = inspection.finish().unwrap() else { panic!("the bytes are right") };
    assert!(matches!(store.adopt(&verified).unwrap(), Adoption::Done { .. }));
    store.close();
    for needless in ["lock", "index.spare"] {
        let _ = std::fs::remove_file(folder.join(needless));
    }
    let packed =
        Command::new("tar").arg("-czSf").arg(archive).arg("-C").arg(dir.path()).arg("store").status();
    assert!(packed.unwrap().success());
}

/// A copy of the fixture.
fn unpacked(dir: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir).status();
    assert!(unpacked.unwrap().success());
    dir.join("store")
}

/// Checks every claim of the fixture's tasks.
fn holds_the_fixture(store: &Store) {
    for bytes in [whole(), small()] {
        let blob = store.get(id_of(&bytes)).unwrap().expect("a whole blob is there");
        assert!(blob.is_proven());
        assert_eq!(blob.pieces().unwrap().len() as u32, blob.geometry().pieces());
        assert_eq!(TaskId::of_digest(blob.hash().unwrap()), id_of(&bytes));
        assert_eq!(blob.source_url(), "https://origin.example/whole");
        assert_eq!(blob.media_type().as_deref(), Some("application/octet-stream"));
    }
    let partial = store.get(PARTIAL).unwrap().expect("the partial download is there");
    assert!(!partial.is_proven());
    for (index, digest) in partial.pieces().unwrap() {
        assert_eq!(Digest::of(&partial.read(partial.geometry().range(index)).unwrap()), digest);
    }
    assert!(store.get(id_of(&adopted())).unwrap().is_none(), "the file that had the bytes is gone");
}

#[test]
fn what_release_0_1_left_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = unpacked(dir.path());
    let store = Store::open(&folder, options()).unwrap();
    holds_the_fixture(&store);
    let partial = store.get(PARTIAL).unwrap().unwrap();
    let held: Vec<u32> = partial.pieces().unwrap().iter().map(|(index, _)| index.0).collect();
    assert_eq!(held, [0, 2]);
    [1, 3].into_iter().for_each(|index| write(&partial, index, &content(4 * PIECE, 0x70)));
    partial.prove().unwrap();
    drop(partial);
    store.close();
    drop(store);

    let store = Store::open(&folder, options()).unwrap();
    assert!(store.get(PARTIAL).unwrap().unwrap().is_proven());
    let kept = store.list().unwrap();
    assert_eq!(kept.iter().map(|entry| entry.held).sum::<u32>(), 4 + 3 + 1);
}
