//! `cargo xtask fuzz luks`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::luks(data));
