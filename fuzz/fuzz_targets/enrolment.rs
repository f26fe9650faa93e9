//! Requests for a certificate, and certificates. What is done with it: `fuzz/bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::enrolment(data));
