//! Building guest programs, and running them under the two emulators.

// No test uses all of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The cross compiler; `cargo xtask test` installs it.
const COMPILER: &str = "riscv64-linux-gnu-gcc";
/// The emulator under test.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_cairn-user");

/// Compiles `programs/NAME.c`, into a file that has the kind in its name.
pub(crate) fn compile(name: &str, kind: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join(format!("{name}-{kind}"));
    // Tests run at the same time: each builds its own file, and the last one has the name.
    static DRAFTS: AtomicU32 = AtomicU32::new(0);
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = folder.join(format!("{name}-{kind}-{}-{number}", std::process::id()));
    let mut compiler = Command::new(COMPILER);
    compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&draft);
    compiler.arg(source.with_extension("c")).args(flags);
    let status = compiler.status().expect("a cross compiler, which cargo xtask test installs");
    assert!(status.success(), "{compiler:?}");
    std::fs::rename(&draft, &program).unwrap();
    program
}

/// Compiles a static program.
pub(crate) fn compile_static(name: &str) -> PathBuf {
    compile(name, "static", &["-static", "-pthread", "-lm"])
}

/// Runs a program under an emulator.
pub(crate) fn run(emulator: &str, options: &[&str], program: &Path) -> Output {
    let mut command = Command::new(emulator);
    command.args(options).arg(program).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{emulator}: {error}"))
}

/// What a program has written to standard output.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program has written to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
