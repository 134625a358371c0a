//! What the machine can do at best, measured in the same run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cairn_tests::process;

use super::cases::Case;
use super::inputs::{Inputs, names};
use super::report::median;
use crate::error::{At, Error, Result};
use crate::shell;

const ROUNDS: usize = 3;

/// A bound that no tool can beat, or a plain tool that does less.
#[derive(Clone, Debug)]
pub(super) enum Limit {
    /// `cp --sparse=always` of the raw sample.
    SparseCopy,
    /// One copy of these files' data from the page cache into a buffer.
    MemoryCopy(&'static [&'static str]),
    /// The codec alone on all cores, over the sample's clusters in memory.
    Codec(&'static str),
    /// Single reads of 4 KiB from the raw sample by one thread.
    Reads { count: u64, step: u64 },
    /// Start and end of a process that does nothing.
    Process,
}

impl Limit {
    /// What it is, for people.
    fn describe(&self) -> &'static str {
        match self {
            Limit::SparseCopy => "cp --sparse=always",
            Limit::MemoryCopy(_) => "one memory copy",
            Limit::Codec(_) => "codec on all cores",
            Limit::Reads { .. } => "pread of raw, one thread",
            Limit::Process => "an empty process",
        }
    }
}

/// A limit's time.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    /// What it is, for people.
    pub(super) name: &'static str,
    /// Median of its runs.
    pub(super) time: Duration,
}

/// Measures limits with a small program of its own that is built with optimisation.
pub(super) struct Limits {
    program: PathBuf,
}

impl Limits {
    /// Builds the program.
    pub(super) fn build() -> Result<Self> {
        shell::show(shell::cargo().args(["build", "--release", "--locked"]).args([
            "-p",
            "cairn-tests",
            "--example",
            "limits",
        ]))?;
        Ok(Self { program: shell::target().join("release/examples/limits") })
    }

    /// Touches most of the free memory once. In a virtual machine the host may provide each page only on
    /// its first use, which would make the first runs slow.
    pub(super) fn warm_memory(&self) -> Result<()> {
        shell::read(Command::new(&self.program).arg("warm")).map(drop)
    }

    /// Measures every limit of `case`.
    pub(super) fn measure(&self, case: &Case, inputs: &Inputs) -> Result<Vec<Bound>> {
        let bound = |limit: &Limit| {
            let mut times =
                (0..ROUNDS).map(|_| self.once(limit, inputs)).collect::<Result<Vec<_>>>()?;
            Ok(Bound { name: limit.describe(), time: median(&mut times) })
        };
        case.limits.iter().map(bound).collect()
    }

    fn once(&self, limit: &Limit, inputs: &Inputs) -> Result<Duration> {
        let dir = inputs.dir();
        match limit {
            Limit::SparseCopy => {
                let output = dir.join(names::OUTPUT);
                shell::settle();
                let started = Instant::now();
                let mut copy = Command::new("cp");
                copy.args(["--sparse=always", names::RAW, names::OUTPUT]).current_dir(dir);
                shell::read(&mut copy)?;
                let time = started.elapsed();
                fs::remove_file(&output).at(output)?;
                Ok(time)
            }
            Limit::MemoryCopy(files) => self.program(inputs, "copy", files),
            Limit::Codec(name) => self.program(inputs, name, &[names::RAW]),
            Limit::Reads { count, step } => {
                self.program(inputs, "reads", &[names::RAW, &count.to_string(), &step.to_string()])
            }
            Limit::Process => {
                const TIMES: u32 = 100;
                let mut total = Duration::ZERO;
                for _ in 0..TIMES {
                    let (_, usage) = process::measure(&mut Command::new("/bin/true"))
                        .map_err(|source| Error::Start { command: "true".to_owned(), source })?;
                    total += usage.wall;
                }
                Ok(total / TIMES)
            }
        }
    }

    /// Runs the program, which prints the seconds it needed.
    fn program(&self, inputs: &Inputs, what: &str, args: &[&str]) -> Result<Duration> {
        let text = shell::read(
            Command::new(&self.program).arg(what).args(args).current_dir(inputs.dir()),
        )?;
        let seconds: Option<f64> = text.trim().parse().ok();
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| Error::Wrong(format!("`limits {what}` said '{}'", text.trim())))
    }
}
