//! `cargo xtask fuzz qcow2`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::qcow2(data));
