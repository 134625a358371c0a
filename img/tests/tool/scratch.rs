//! A directory with images, and ways to run the tool and the reference in it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A scratch directory in which tools are run.
pub(crate) struct Scratch {
    dir: TempDir,
    program: PathBuf,
}

impl Scratch {
    /// An empty directory; the tool runs under the reference's name.
    pub(crate) fn new() -> Scratch {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("bin/qemu-img");
        std::fs::create_dir(dir.path().join("bin")).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cairn-img"), &program).expect("a link");
        std::fs::create_dir(dir.path().join("work")).expect("a directory");
        Scratch { dir, program }
    }

    /// The I/O exerciser, under the reference's name.
    pub(crate) fn exerciser(&self) -> PathBuf {
        let program = self.dir.path().join("bin/qemu-io");
        if !program.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cairn-io"), &program).expect("a link");
        }
        program
    }

    /// The path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    /// Names of the files in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("")).expect("readable");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A command that runs our tool.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.prepare(&self.program, args)
    }

    fn prepare(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path("")).stdin(Stdio::null()).env("TZ", "UTC");
        command
    }

    /// Runs our tool.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the tool runs")
    }

    /// Runs our tool, which must succeed without a word on standard error. Returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs our tool, which must fail with `status` and one line on standard error. Returns the line.
    pub(crate) fn fails(&self, status: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
        assert!(errors.starts_with("qemu-img: "), "{args:?}: {errors}");
        errors
    }

    /// Runs both tools and compares what they print and their exit status.
    pub(crate) fn same(&self, args: &[&str]) {
        let stock = self.prepare(Path::new("qemu-img"), args).output();
        let stock = stock.expect("the reference's tools, which `cargo xtask test` installs");
        let ours = self.run(args);
        assert_eq!(
            String::from_utf8_lossy(&ours.stdout),
            String::from_utf8_lossy(&stock.stdout),
            "{args:?}"
        );
        assert_eq!(ours.status.code(), stock.status.code(), "{args:?}");
    }

    /// A sparse file of `size` bytes with the given pieces of data, each its offset and length.
    pub(crate) fn sparse(&self, name: &str, size: u64, pieces: &[(u64, usize)]) {
        let mut file = File::create(self.path(name)).expect("writable");
        file.set_len(size).expect("resizable");
        for (index, &(offset, length)) in pieces.iter().enumerate() {
            let data: Vec<u8> = (1..=251).cycle().skip(index).take(length).collect();
            file.seek(SeekFrom::Start(offset)).expect("seekable");
            file.write_all(&data).expect("writable");
        }
    }

    /// The content of a file.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("readable")
    }

    /// Bytes of storage that a file uses.
    pub(crate) fn allocated(&self, name: &str) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(self.path(name)).expect("there").blocks() * 512
    }
}
