//! The reference tools, as judges of what we wrote.

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// First line of the installed `qemu-img --version`; `None`, with a line on stderr, without it.
pub fn version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    VERSION
        .get_or_init(|| {
            let output = Command::new("qemu-img").arg("--version").output().ok();
            let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            let line = text.as_deref().and_then(|t| t.lines().next()).map(str::to_owned);
            if line.is_none() {
                eprintln!("skipped: checks by the stock qemu-img, which is not installed");
            }
            line
        })
        .as_deref()
}

/// Runs `qemu-img` with `arguments`. The caller has asked [`version`] first.
pub fn qemu_img<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new("qemu-img").args(arguments).output().expect("qemu-img is installed")
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
