//! `cairn-io`: exercise an image with single requests, from scripts or by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_img::io::run(std::env::args_os().collect())
}
