//! Running programs, and where things lie.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{At, Error, Result};

/// The top folder of the source tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set by `cargo run` for this crate; a build that inherits them would start over.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that started this program, with the folder of the subcommand `tool` in its `$PATH`.
pub(crate) fn cargo_with(tool: &Path) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(tool.parent().map(Path::to_owned));
    let mut command = cargo();
    if let Ok(path) = env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a program that writes to this terminal, and shows its command line first.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let text = shown(command);
    eprintln!("+ {text}");
    let status =
        command.status().map_err(|source| Error::Start { command: text.clone(), source })?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed { command: text, status, said: String::new() })
    }
}

/// Runs a program silently and returns its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let text = shown(command);
    let output =
        command.output().map_err(|source| Error::Start { command: text.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Failed { command: text, status: output.status, said })
}

/// Builds `cairn-img` as people get it and returns its path.
pub(crate) fn build_release() -> Result<PathBuf> {
    show(cargo().args(["build", "--release", "--locked", "-p", "cairn-img"]))?;
    Ok(target().join("release/cairn-img"))
}

/// An empty folder of this name below the target folder.
pub(crate) fn fresh_folder(name: &str) -> Result<PathBuf> {
    let path = target().join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).at(&path)?;
    }
    std::fs::create_dir_all(&path).at(&path)?;
    Ok(path)
}

/// Waits until everything written so far is on the disk, so that it does not slow down what comes next.
pub(crate) fn settle() {
    let synced = Command::new("sync").status();
    if !synced.is_ok_and(|status| status.success()) {
        eprintln!("xtask: `sync` failed; writes of earlier steps may disturb the next figures");
    }
}
