//! Python modules of consumers, which `cargo xtask test` installs: what they print with ours must be
//! what they print with stock.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command that runs the script `name` of this folder with the modules at hand, one of which is
/// `module`.
pub(crate) fn script(name: &str, module: &str) -> Command {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder above");
    let packages = target.join("python");
    assert!(
        packages.join(module).is_dir(),
        "{module} is not in {}: `cargo xtask test` installs what the tests need",
        packages.display()
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers");
    let mut python = Command::new("python3");
    python.arg(folder.join(name)).env("PYTHONPATH", packages);
    python
}

/// What a command prints, which must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A search path that begins with `dir`.
pub(crate) fn search_path(dir: PathBuf) -> std::ffi::OsString {
    let mut path = dir.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}
