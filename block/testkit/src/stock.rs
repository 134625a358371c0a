//! The reference tools, as judges of what we wrote.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// Runs `qemu-img` with `arguments`.
pub fn qemu_img<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let output = Command::new("qemu-img").args(arguments).output();
    output.unwrap_or_else(|error| {
        panic!("cannot run qemu-img, which `cargo xtask test` installs: {error}")
    })
}

/// What both streams of a program's output say, for a message.
pub fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams
        .iter()
        .map(|s| String::from_utf8_lossy(s).trim().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
