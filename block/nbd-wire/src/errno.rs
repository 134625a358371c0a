//! Error numbers (section "Error values").

use std::fmt;

/// An error as the protocol knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NbdErrno {
    /// Not permitted, or read-only.
    Perm = 1,
    /// Input/output error.
    Io = 5,
    /// Out of memory.
    NoMem = 12,
    /// Invalid request.
    Inval = 22,
    /// No space left.
    NoSpc = 28,
    /// A value does not fit: a read with `DF` that takes several chunks.
    Overflow = 75,
    /// Not supported, or not fast.
    NotSup = 95,
    /// The server is about to end.
    Shutdown = 108,
}

impl NbdErrno {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The error behind a number of the wire that is not 0. What the protocol does not know is
    /// [`NbdErrno::Inval`], as it demands.
    pub fn from_code(code: u32) -> NbdErrno {
        match code {
            1 => NbdErrno::Perm,
            5 => NbdErrno::Io,
            12 => NbdErrno::NoMem,
            28 => NbdErrno::NoSpc,
            75 => NbdErrno::Overflow,
            95 => NbdErrno::NotSup,
            108 => NbdErrno::Shutdown,
            _ => NbdErrno::Inval,
        }
    }

    /// What stands for an error number of this system. What has no number of its own is
    /// [`NbdErrno::Inval`], as with the reference.
    pub fn from_os(errno: i32) -> NbdErrno {
        match errno {
            libc::EPERM | libc::EROFS | libc::EACCES => NbdErrno::Perm,
            libc::EIO => NbdErrno::Io,
            libc::ENOMEM => NbdErrno::NoMem,
            libc::EDQUOT | libc::EFBIG | libc::ENOSPC => NbdErrno::NoSpc,
            libc::EOVERFLOW => NbdErrno::Overflow,
            libc::EOPNOTSUPP => NbdErrno::NotSup,
            libc::ESHUTDOWN => NbdErrno::Shutdown,
            _ => NbdErrno::Inval,
        }
    }

    /// The error number of this system.
    pub fn to_os(self) -> i32 {
        match self {
            NbdErrno::Perm => libc::EPERM,
            NbdErrno::Io => libc::EIO,
            NbdErrno::NoMem => libc::ENOMEM,
            NbdErrno::Inval => libc::EINVAL,
            NbdErrno::NoSpc => libc::ENOSPC,
            NbdErrno::Overflow => libc::EOVERFLOW,
            NbdErrno::NotSup => libc::EOPNOTSUPP,
            NbdErrno::Shutdown => libc::ESHUTDOWN,
        }
    }
}

impl fmt::Display for NbdErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NbdErrno::Perm => "operation not permitted",
            NbdErrno::Io => "input/output error",
            NbdErrno::NoMem => "out of memory",
            NbdErrno::Inval => "invalid argument",
            NbdErrno::NoSpc => "no space left",
            NbdErrno::Overflow => "value too large",
            NbdErrno::NotSup => "operation not supported",
            NbdErrno::Shutdown => "server shutting down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_eight_numbers_are_sent() {
        for errno in 1..200 {
            let sent = NbdErrno::from_os(errno);
            assert!([1, 5, 12, 22, 28, 75, 95, 108].contains(&sent.code()));
            assert_eq!(NbdErrno::from_code(sent.code()), sent);
            assert_eq!(NbdErrno::from_os(sent.to_os()), sent);
        }
        assert_eq!(NbdErrno::from_os(libc::EROFS), NbdErrno::Perm);
        assert_eq!(NbdErrno::from_code(9999), NbdErrno::Inval);
    }
}
