//! What each fuzz target does with its bytes. `fuzz/fuzz_targets` gives it what libFuzzer finds, on a nightly toolchain;
//! [`replay`](../tests/replay.rs), part of every test run, gives it the corpus and mutations of it, on a stable one.
//!
//! # Invariants
//! - A body panics only where a rule is broken: no panic is a finding less than a crash of a daemon.

mod enrolment;
mod pieces;
mod senders;
mod text;
mod wire;

pub use enrolment::enrolment;
pub use pieces::pieces;
pub use senders::senders;
pub use text::text;
pub use wire::wire;

/// A target's name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] =
    [("wire", wire), ("enrolment", enrolment), ("pieces", pieces), ("text", text), ("senders", senders)];
