//! The fuzz targets on a stable toolchain: all of the corpus, and then mutations of it that are the same in every run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

use std::path::Path;
use std::time::{Duration, Instant};

use fuzz_bodies::{TARGETS, Target};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Mutations of each target: what a slow machine does in some seconds.
const MUTATIONS: u64 = 20_000;
/// However slow the machine is, a target takes little longer.
const ENOUGH: Duration = Duration::from_secs(8);
/// Mutations of one input, one upon the other.
const MOST_CHANGES: usize = 6;
/// What parsers trip over: ends of ranges, and what bincode and DER write before a length.
const ODD: [&[u8]; 8] = [
    &[0xff; 8],
    &[0; 8],
    &[0x7f],
    &[0x80],
    &[0xfb, 0xff, 0xff],
    &[0xfd],
    &[0x30, 0x84, 0xff],
    b"\r\n/../%2e%2e",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Another input that is much like one or two of these.
fn mutation(seeds: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..=MOST_CHANGES) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, ODD[rng.random_range(0..ODD.len())].iter().copied())),
            4 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let end = rng.random_range(at..=bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

fn replay((name, body): Target) {
    let seeds = corpus(name);
    assert!(seeds.len() >= 5, "the corpus of {name} is lost");
    seeds.iter().for_each(|seed| body(seed));
    let begun = Instant::now();
    for number in 0..MUTATIONS {
        let input = mutation(&seeds, &mut SmallRng::seed_from_u64(number));
        let broken = std::panic::catch_unwind(|| body(&input)).is_err();
        assert!(!broken, "{name}, mutation {number}: {}", hex::encode(&input));
        if begun.elapsed() > ENOUGH {
            return;
        }
    }
}

#[test]
fn messages() {
    replay(TARGETS[0]);
}

#[test]
fn requests_for_certificates() {
    replay(TARGETS[1]);
}

#[test]
fn streams() {
    replay(TARGETS[2]);
}

#[test]
fn texts() {
    replay(TARGETS[3]);
}

#[test]
fn orders_and_notifications() {
    replay(TARGETS[4]);
}
