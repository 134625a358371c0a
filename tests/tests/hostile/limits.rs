//! What every run on a hostile image must keep to.

use std::path::Path;
use std::time::Duration;

use cairn_tests::process::{Limits, Outcome};
use cairn_tests::tool::Tool;

/// CPU time that a command may take on any image of at most 1 MiB: 2 s as it is released, and half as much again
/// in builds for development, which are slower by more than that.
const CPU: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(3) } else { Duration::from_secs(2) };
/// Resident memory that `info` and `check` may take on such an image, in bytes.
const MEMORY: u64 = 64 << 20;
/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Limits like those that cloud services set for image tools; `cpu_seconds` and `wall` end what is broken.
pub(crate) const SERVICE: Limits = Limits {
    address_space: Some(1 << 30),
    cpu_seconds: Some(10),
    file_size: Some(64 << 20),
    wall: Some(Duration::from_mins(1)),
};

/// Runs ours in `dir` with `args` and says what is wrong with how it ended.
pub(crate) fn run(dir: &Path, args: &[&str]) -> (Outcome, Vec<String>) {
    let outcome = Tool::ours().run_with(dir, args, SERVICE);
    let complaints = complaints(args[0], &outcome);
    (outcome, complaints)
}

/// Runs ours in `dir` with `args` split at blanks; panics unless it kept to the rules.
#[track_caller]
pub(crate) fn survives(dir: &Path, args: &str) -> Outcome {
    let words: Vec<&str> = args.split_whitespace().collect();
    let (outcome, complaints) = run(dir, &words);
    assert!(complaints.is_empty(), "{args}: {}\n{}", complaints.join(", "), outcome.excerpt());
    outcome
}

/// As [`survives`]; besides, the command must fail and say why.
#[track_caller]
pub(crate) fn refuses(dir: &Path, args: &str) -> Outcome {
    let outcome = survives(dir, args);
    assert!(outcome.code() != Some(0), "{args} accepted the image");
    assert!(!outcome.stderr.is_empty(), "{args} does not say what is wrong");
    outcome
}

fn complaints(command: &str, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    if outcome.timed_out {
        found.push("it hangs".to_owned());
    } else if outcome.signalled() {
        found.push(format!("it died: {}", outcome.status));
    }
    if outcome.code() == Some(PANICKED) || outcome.err().contains("panicked at") {
        found.push("it panicked".to_owned());
    }
    if outcome.usage.cpu > CPU {
        found.push(format!("it took {:.1} s of CPU time", outcome.usage.cpu.as_secs_f64()));
    }
    if matches!(command, "info" | "check") && outcome.usage.peak_rss > MEMORY {
        found.push(format!("it took {} MiB of memory", outcome.usage.peak_rss >> 20));
    }
    found
}
