//! Processes and threads of the host, as far as they are more than system calls.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::call::{NEVER, Word, call};
use crate::errno::Errno;

/// Makes a process that is a copy of this one, with this thread alone. Returns its number, or `None` in it.
///
/// The caller holds the locks that the child needs: other threads that hold one do not exist there.
pub(crate) fn fork() -> Result<Option<i32>, Errno> {
    // SAFETY: the child goes on as a single thread; the C library's fork keeps its own locks usable there, and the
    // caller answers for ours.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Two ends of a pipe of our own, to read from and to write to.
pub(crate) fn pipe() -> Result<(File, File), Errno> {
    let (reader, writer) = std::io::pipe().map_err(Errno::from)?;
    let file = |end: OwnedFd| move_up(File::from(end));
    Ok((file(reader.into())?, file(writer.into())?))
}

/// The size that a core file of this process may have.
pub(crate) fn core_limit() -> u64 {
    let mut limit = [0; 16];
    let words = [0.into(), u64::from(libc::RLIMIT_CORE).into(), 0.into(), Word::Out(&mut limit)];
    // It fails for invalid arguments only.
    let _ = call(&NEVER, libc::SYS_prlimit64, words);
    let mut soft = [0; 8];
    soft.copy_from_slice(&limit[..8]);
    u64::from_ne_bytes(soft)
}

/// The time here, by a format of `strftime` that makes fewer than 64 bytes.
pub(crate) fn local_time(format: &str) -> String {
    let mut text = [0_u8; 64];
    let format = std::ffi::CString::new(format).unwrap_or_default();
    // SAFETY: all pointers are valid for the calls, the buffer has the length that is said, and the broken-down time is
    // zeroed before it is filled, which is a valid value.
    let len = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts = std::mem::zeroed::<libc::tm>();
        libc::localtime_r(&raw const now, &raw mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &raw const parts)
    };
    String::from_utf8_lossy(&text[..len.min(text.len())]).into_owned()
}

/// Ends this thread, and the process with it if it is the last one, without running destructors.
pub(crate) fn exit_thread(status: i32) -> ! {
    let _ = call(&NEVER, libc::SYS_exit, [Word::from(status)]);
    unreachable!("a thread that has ended")
}

/// The open file with this number, which the guest has chosen.
pub(crate) fn borrow(descriptor: i32) -> Result<BorrowedFd<'static>, Errno> {
    if descriptor < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is not -1. The kernel finds out whether it is open, and what a guest does to its own files while
    // it uses them is its own affair: no memory of ours hangs on them.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Lowest number of files of our own, out of the way of the guest's.
const OWN_FILES: u64 = 500;

/// Moves a file of ours to a number that guests do not expect to be free, and closes it in programs that are executed.
pub(crate) fn move_up(file: File) -> Result<File, Errno> {
    let words = [file.as_raw_fd().into(), libc::F_DUPFD_CLOEXEC.into(), OWN_FILES.into()];
    let moved = call(&NEVER, libc::SYS_fcntl, words)?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(moved as i32) })
}
