//! Bodies of Harbor and of registries. What is done with it: `fuzz/bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::senders(data));
