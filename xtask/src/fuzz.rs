//! `cargo xtask fuzz TARGET`: coverage-guided fuzzing with libFuzzer.
//!
//! `cargo fuzz` insists on a nightly compiler, for the sanitizers. Coverage itself needs none: the flags
//! below are those that `cargo fuzz` passes, without a sanitizer, and the stable compiler takes them.

use std::fs;
use std::process::Command;

use crate::error::{At, Error, Result};
use crate::{apt, shell};

const TARGETS: [&str; 6] = ["elf", "io", "luks", "nbd", "options", "qcow2"];
const FLAGS: &str = "--cfg fuzzing \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";
const TRIPLE: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};
const DEFAULT_SECONDS: u32 = 60;

/// Builds a target and lets it run for some time; findings end it with an error.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    let (target, seconds) = parse(&args)?;
    apt::ensure(&[apt::CPP_COMPILER])?;
    let folder = shell::root().join("fuzz");
    let output = shell::target().join("fuzz");
    shell::show(
        shell::cargo()
            .args(["build", "--release", "--bin", &target, "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .args(["--target", TRIPLE, "--target-dir"])
            .arg(&output)
            .env("RUSTFLAGS", FLAGS),
    )?;
    let corpus = output.join("corpus").join(&target);
    let findings = output.join("findings").join(&target);
    for path in [&corpus, &findings] {
        fs::create_dir_all(path).at(path)?;
    }
    let mut fuzzer = Command::new(output.join(TRIPLE).join("release").join(&target));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(&corpus);
    let seeds = folder.join("seeds").join(&target);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    shell::show(&mut fuzzer)?;
    println!("no findings in {seconds} s; the corpus is in {}", corpus.display());
    Ok(())
}

/// `TARGET [--seconds N]`
fn parse(args: &[String]) -> Result<(String, u32)> {
    let mut words = args.iter();
    let target = words.next().filter(|name| TARGETS.contains(&name.as_str())).ok_or_else(|| {
        Error::Usage(format!("`fuzz` takes one of these targets: {}", TARGETS.join(", ")))
    })?;
    let seconds = match (words.next().map(String::as_str), words.next()) {
        (None, _) => DEFAULT_SECONDS,
        (Some("--seconds"), Some(text)) => text
            .parse()
            .map_err(|_| Error::Usage(format!("--seconds takes a number, not '{text}'")))?,
        (Some(other), _) => return Err(Error::Usage(format!("`fuzz` does not know '{other}'"))),
    };
    Ok((target.clone(), seconds))
}
