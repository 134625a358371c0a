//! Sockets that a service manager has opened (`sd_listen_fds(3)`).

use std::os::fd::OwnedFd;

use cairn_block::engine::sys::duplicate;

use crate::error::{Error, Result};

/// The first descriptor that is passed.
const FIRST: i32 = 3;
/// Process for which descriptors are passed.
const PID: &str = "LISTEN_PID";
/// Number of descriptors that are passed.
const COUNT: &str = "LISTEN_FDS";

/// Whether a socket was passed to this program, or to the one that started it in the background.
pub(super) fn is_offered() -> Result<bool> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let Some(pid) = number(PID) else { return Ok(false) };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let is_ours = pid == own || super::background::is_child() && Some(pid) == parent;
    match number(COUNT) {
        Some(1) if is_ours => Ok(true),
        Some(count) if is_ours && count > 1 => Err(Error::Usage(format!(
            "the service manager passes {count} sockets; this program can use one only"
        ))),
        _ => Ok(false),
    }
}

/// The socket that was passed.
pub(super) fn take() -> Result<OwnedFd> {
    duplicate(FIRST).map_err(Error::system("use the socket of the service manager"))
}
