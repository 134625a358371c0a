//! The image tools that tests run: the one under test and the reference.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Limits, Outcome};

/// The release of the reference whose reports and texts the tests expect.
pub const STOCK_VERSION: &str = "10.0.2";

/// A program with the command line of an image tool.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Short name for messages and file names.
    pub name: &'static str,
    path: PathBuf,
}

impl Tool {
    /// The tool under test: `$CAIRN_IMG`, or the `cairn-img` that was built beside the running test.
    pub fn ours() -> Self {
        Self::under_test("ours", "CAIRN_IMG", "cairn-img")
    }

    /// The I/O exerciser under test: `$CAIRN_IO`, or the `cairn-io` that was built beside the running test.
    pub fn ours_io() -> Self {
        Self::under_test("ours-io", "CAIRN_IO", "cairn-io")
    }

    fn under_test(name: &'static str, variable: &str, program: &str) -> Self {
        let path = env::var_os(variable).map_or_else(|| built_binary(program), PathBuf::from);
        assert!(
            path.is_file(),
            "{} is missing: build it with `cargo build -p cairn-img`, or run `cargo xtask test`",
            path.display()
        );
        Self { name, path }
    }

    /// The reference's image tool from `$PATH`.
    pub fn stock() -> Self {
        Self::installed("stock", "qemu-img")
    }

    /// The reference's I/O exerciser from `$PATH`, which tests use to write into images.
    pub fn stock_io() -> Self {
        Self::installed("stock-io", "qemu-io")
    }

    /// A tool at a known place.
    pub fn at(name: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { name, path: path.into() }
    }

    fn installed(name: &'static str, program: &str) -> Self {
        let path = find_in_path(program).unwrap_or_else(|| {
            panic!("{program} is not installed: `cargo xtask test` installs what the tests need")
        });
        Self { name, path }
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs the tool in `dir`.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(dir).args(args).env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// Runs the tool in `dir` with `args` split at blanks, whatever its exit code.
    pub fn run(&self, dir: &Path, args: &str) -> Outcome {
        self.run_with(dir, args.split_whitespace(), Limits::default())
    }

    /// Runs the tool in `dir` under `limits`.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: impl IntoIterator<Item = A>,
        limits: Limits,
    ) -> Outcome {
        process::capture(&mut self.command(dir, args), limits)
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.path.display()))
    }

    /// Runs the tool in `dir` with `args` split at blanks and returns its standard output.
    ///
    /// Panics, showing what the tool said, unless it exits with 0.
    #[track_caller]
    pub fn ok(&self, dir: &Path, args: &str) -> String {
        let outcome = self.run(dir, args);
        assert!(
            outcome.code() == Some(0),
            "{} {args}\nended with {}\nstdout: {}\nstderr: {}",
            self.path.display(),
            outcome.status,
            outcome.out(),
            outcome.err()
        );
        outcome.out()
    }
}

/// The file of an executable `program` in `$PATH`.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

/// `program` in the profile folder that holds the running test: tests lie in its `deps`.
fn built_binary(program: &str) -> PathBuf {
    let test = env::current_exe().expect("the running test has a path");
    let profile = test
        .ancestors()
        .skip(1)
        .find(|dir| dir.file_name().is_none_or(|name| name != "deps" && name != "examples"))
        .expect("tests are built below a profile folder");
    profile.join(program)
}
