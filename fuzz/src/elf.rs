//! A program of arbitrary bytes, loaded into an address space.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::Flat;
use cairn_user::elf::{Elf, Loader};

/// Size of the address space.
const SPACE: u64 = 1 << 26;

thread_local! {
    static BENCH: OnceCell<(File, Loader)> = const { OnceCell::new() };
}
