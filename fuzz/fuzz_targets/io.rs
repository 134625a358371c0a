//! `cargo xtask fuzz io`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::io(data));
