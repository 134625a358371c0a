//! Going to the background.
//!
//! The program starts itself again, waits until that process has closed its standard error, and then
//! ends: with success if nothing was said there. So whoever started it knows that clients can connect,
//! or reads why not.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Tells the second process what it is.
const MARK: &str = "CAIRN_NBD_BACKGROUND";

/// Whether this is the process in the background.
pub(super) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the program again with the same arguments, and waits until it is ready. Returns whether all
/// is well.
pub(super) fn start(argv: &[OsString]) -> Result<bool> {
    let failed = || Error::system("start in the background");
    let program = std::env::current_exe().map_err(failed())?;
    let mut command = Command::new(program);
    if let Some((name, args)) = argv.split_first() {
        command.arg0(name).args(args);
    }
    // What the process says later goes where this one's errors go, if it is asked for.
    // The duplicate is for that process's standard output only: who reads it waits for its end.
    let errors = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
        .map_err(|error| failed()(error.into()))?;
    command.env(MARK, "1").stdin(Stdio::null()).stdout(errors).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed())?;
    drop(command);
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut said).map_err(failed())?;
    }
    // Nobody may be left to read it.
    let _ = io::stderr().write_all(&said);
    if !said.is_empty() {
        return Ok(false);
    }
    // A process that is gone already has failed, or served all there was to serve.
    Ok(child.try_wait().map_err(failed())?.is_none_or(|status| status.success()))
}

/// Leaves the terminal's session, so that its end is not the server's.
pub(super) fn detach() -> Result<()> {
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::system("start in the background")(error.into())),
    }
}

/// Tells the process that waits that all is well. `verbose` keeps an ear for what is said later.
pub(super) fn ready(verbose: bool) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::system("go to the background")(error.into());
    let nowhere = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(Error::system("go to the background"))?;
    if verbose {
        rustix::stdio::dup2_stderr(rustix::stdio::stdout()).map_err(failed)?;
    } else {
        rustix::stdio::dup2_stderr(&nowhere).map_err(failed)?;
    }
    rustix::stdio::dup2_stdout(&nowhere).map_err(failed)
}
