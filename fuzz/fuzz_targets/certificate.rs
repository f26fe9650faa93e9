//! Certificates as a neighbour shows them.
#![no_main]

use common::identity::read_peer_certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = read_peer_certificate(&[data.to_vec().into()]);
});
