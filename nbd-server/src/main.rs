//! `cairn-nbd`: serve a disk image over NBD.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_nbd::tool::run(std::env::args_os().collect())
}
