//! `cairn-img`: create, inspect, convert, check and compare disk images.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_img::cli::run(std::env::args_os().collect())
}
