//! End-to-end tests: the built `longshore` binary between real registries and real container runtimes, with
//! origins, supernodes and peers that fail on purpose. One binary, so that one harness shares the machine.
//!
//! A test whose real part is not installed prints `skipped: TEST: PART is missing`; with
//! `LONGSHORE_TESTS_REQUIRE_ALL=1` it fails instead. `tests/run` installs the parts and runs everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests talk to people")]

mod support;

mod api;
mod bad_requests;
mod bucket;
mod burst;
mod clients;
mod content_store;
mod crashes;
mod doctor;
mod get;
mod harness;
mod hostile;
mod input;
mod lifecycle;
mod limits;
mod membership;
mod origins;
mod people;
mod permission;
mod preheat;
mod privacy;
mod runtime_pull;
mod runtimes;
mod scale_out;
mod setup;
mod soak;
mod storage;
