//! `cargo xtask fuzz options`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::options(data));
