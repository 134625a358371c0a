//! How fast ciphers are alone, on one core.

use std::process::Command;

use crate::error::{Error, Result};
use crate::shell;

/// Bytes a second that a core is to reach with the cipher that encrypted images have by default.
const TARGET: f64 = 2e9;
/// That cipher.
const DEFAULT: &str = "aes-256-xts";

/// A cipher with its speed.
pub(super) struct Speed {
    /// Algorithm, size of the key in bits, mode, and whether it encrypts or decrypts.
    pub(super) name: String,
    /// Bytes a second on one core.
    pub(super) rate: f64,
    /// Bytes a second that are to be reached.
    pub(super) target: Option<f64>,
}

impl Speed {
    /// Whether the target is reached, if there is one.
    pub(super) fn fast_enough(&self) -> bool {
        self.target.is_none_or(|target| self.rate >= target)
    }
}

/// Measures with a small program that is built with optimisation, and prints a line for each cipher.
pub(super) fn measure() -> Result<Vec<Speed>> {
    let example = ["-p", "cairn-block", "--example", "cipher_speed"];
    shell::show(shell::cargo().args(["build", "--release", "--locked"]).args(example))?;
    let text =
        shell::read(&mut Command::new(shell::target().join("release/examples/cipher_speed")))?;
    let line = |line: &str| {
        let (name, rate) = line.rsplit_once(' ')?;
        let target = name.starts_with(DEFAULT).then_some(TARGET);
        Some(Speed { name: name.to_owned(), rate: rate.parse().ok()?, target })
    };
    let speeds: Option<Vec<Speed>> = text.lines().map(line).collect();
    speeds.ok_or_else(|| Error::Wrong(format!("`cipher_speed` said '{}'", text.trim())))
}
