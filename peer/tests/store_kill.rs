//! Kills a process that writes to the store, again and again, and looks at what it left: every start succeeds,
//! every claimed piece has the bytes that it is claimed to have, and what was pinned is there.
//!
//! Meanwhile tasks are evicted for the quota, above the watermark and for their age, pinned and unpinned, and the index
//! is written. `STORE_KILL_CYCLES` says how often.
//!
//! The test runs itself as the process to kill: [`child`] is that process, and does nothing in an ordinary run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use peer::store::{Blob, Limits, Store, StoreOptions};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const CYCLES: &str = "STORE_KILL_CYCLES";
/// Enough for an ordinary run of the tests.
const FEW_CYCLES: u64 = 60;
const FOLDER: &str = "STORE_KILL_FOLDER";
const SEED: &str = "STORE_KILL_SEED";
const PIECE: u64 = 256 * 1024;
const TASKS: u8 = 8;
/// Tasks below this may be pinned: what can go must leave room for one more.
const PINNABLE: u8 = 2;
/// What a child was told that it has pinned, one file a task.
const PINS: &str = "pins";

/// A quota low enough that the child evicts now and then, and an age that some tasks reach.
fn options() -> StoreOptions {
    let limits = Limits { ttl: Some(Duration::from_millis(400)), ..Limits::quota(48 * PIECE) };
    StoreOptions { limits, durable: true }
}

/// A child that is still not writing after this has hung.
const START_LIMIT: Duration = Duration::from_secs(30);

fn task(n: u8) -> TaskId {
    TaskId([n + 1; 32])
}

/// What piece `index` of `task` holds in a task of `generation`: nothing that another generation would hold.
fn bytes_of(task: TaskId, generation: u64, index: PieceIndex, length: u64) -> Bytes {
    let seed = generation << 24 | u64::from(task.0[0]) << 16 | u64::from(index.0);
    let mut bytes = vec![0; length as usize];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

fn write(blob: &Blob, generation: u64, index: PieceIndex) {
    let bytes = bytes_of(blob.task(), generation, index, blob.geometry().range(index).len());
    let digest = Digest::of(&bytes);
    let middle = bytes.len() / 2;
    blob.write_piece(index, &[bytes.slice(..middle), bytes.slice(middle..)], digest).unwrap();
}

/// Each task's source URL ends in its generation, so that both processes know what its bytes must be.
fn generation_in(source_url: &str) -> u64 {
    source_url.rsplit('/').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "the process that gets killed"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let mut dice = SmallRng::seed_from_u64(seed);
    let store = Store::open(&folder, options()).unwrap();
    let pins = folder.with_file_name(PINS);
    std::fs::create_dir_all(&pins).unwrap();
    std::fs::write(folder.join("writing"), b"").unwrap();
    for step in 0.. {
        let task = task(dice.random_range(0..TASKS));
        let fresh = seed << 16 | step;
        let known = store.list().unwrap().into_iter().find(|entry| entry.task == task);
        let generation = match known {
            // Now and then the task begins again, with other bytes and perhaps another length.
            Some(_) if dice.random_ratio(1, 12) => {
                unpin(&store, task, &pins);
                store.remove(task).unwrap();
                fresh
            }
            Some(entry) => generation_in(&entry.source_url),
            None => fresh,
        };
        let geometry = Geometry::of(PIECE * (1 + generation % 7) + generation % 3).unwrap();
        let blob = store.create(task, geometry, &format!("https://origin.example/{generation}")).unwrap();
        for _ in 0..dice.random_range(1..8) {
            write(&blob, generation, PieceIndex(dice.random_range(0..geometry.pieces())));
        }
        if dice.random_ratio(1, 6) {
            blob.forget_piece(PieceIndex(0)).unwrap();
        }
        if blob.pieces().unwrap().len() as u32 == geometry.pieces() {
            blob.prove().unwrap();
        }
        drop(blob);
        match dice.random_range(0..12) {
            0 | 1 if task.0[0] <= PINNABLE => {
                assert!(store.pin(task).unwrap());
                // Only once the pin is confirmed: from here on the task must stay.
                std::fs::write(pins.join(task.hex()), b"").unwrap();
            }
            2 => unpin(&store, task, &pins),
            3 => drop(store.evict(task).unwrap()),
            4 | 5 => store.tend().unwrap(),
            6 => store.measure().unwrap(),
            _ => {}
        }
    }
}

fn unpin(store: &Store, task: TaskId, pins: &Path) {
    let _ = std::fs::remove_file(pins.join(task.hex()));
    store.unpin(task).unwrap();
}

/// The child while it runs; killed when dropped, so that a failing test leaves nobody behind.
struct Victim(Child);

impl Victim {
    fn start(folder: &Path, seed: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(SEED, seed.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until the store is open and writes begin.
    fn writes(&mut self, sign: &Path) {
        let begun = Instant::now();
        while !sign.exists() {
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none(), "the child ended by itself: {}", self.words());
            assert!(begun.elapsed() < START_LIMIT, "the child does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn words(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut words);
        }
        words
    }

    /// Kills it, and makes sure that it was still at work.
    fn kill(mut self) {
        let ended = self.0.try_wait().unwrap();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        assert!(ended.is_none(), "the child ended by itself: {}", self.words());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks at every claimed piece and every pin; returns how many claims there are.
fn check(folder: &Path) -> usize {
    let store = Store::open(folder, options()).expect("every start succeeds");
    let pinned: Vec<String> =
        store.list().unwrap().iter().filter(|entry| entry.pinned).map(|entry| entry.task.hex()).collect();
    for pin in std::fs::read_dir(folder.with_file_name(PINS)).into_iter().flatten() {
        let pin = pin.unwrap().file_name().into_string().unwrap();
        assert!(pinned.contains(&pin), "{pin} was pinned, and is gone");
    }
    let (mut checked, mut present) = (0, 0);
    for entry in store.list().unwrap() {
        let generation = generation_in(&entry.source_url);
        let blob = store.get(entry.task).unwrap().unwrap();
        let pieces = blob.pieces().unwrap();
        assert!(!entry.proven || pieces.len() as u32 == entry.geometry.pieces());
        for (index, digest) in pieces {
            let range = entry.geometry.range(index);
            let bytes = blob.read(range).unwrap();
            let (task, index_in_words) = (entry.task, index.0);
            assert_eq!(Digest::of(&bytes), digest, "{task:?}, piece {index_in_words}");
            let expected = bytes_of(task, generation, index, range.len());
            assert!(bytes == expected, "{task:?}, piece {index_in_words}: bytes of another generation");
            checked += 1;
            present += range.len();
        }
    }
    assert_eq!(store.usage(), present);
    checked
}

#[test]
fn claims_are_true_after_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let sign = folder.join("writing");
    let cycles = std::env::var(CYCLES).map_or(FEW_CYCLES, |cycles| cycles.parse().unwrap());
    let begun = Instant::now();
    let mut dice = SmallRng::seed_from_u64(7);
    let (mut checked, mut most, mut opening) = (0, 0, 0);
    for cycle in 0..cycles {
        let _ = std::fs::remove_file(&sign);
        let mut victim = Victim::start(&folder, cycle + 1);
        if cycle % 3 == 0 {
            // While it starts and opens the store.
            std::thread::sleep(Duration::from_micros(dice.random_range(0..15_000)));
            opening += u64::from(!sign.exists());
        } else {
            victim.writes(&sign);
            std::thread::sleep(Duration::from_millis(dice.random_range(0..500)));
        }
        victim.kill();
        let pieces = check(&folder);
        checked += pieces;
        most = most.max(pieces);
    }
    println!(
        "{cycles} kills in {:?}, {opening} before the store was open: {checked} claims checked, at most {most} at once",
        begun.elapsed()
    );
    assert!(most > 10, "the children wrote too little to prove anything");
}
