//! Error numbers of system calls.

use std::io;

use cairn_tcg::Fault;
use cairn_tcg::softmmu::MapError;

/// An error number. Those of the guest are the host's: both have the generic numbers of Linux.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// Defines constants.
macro_rules! numbers {
    ($($name:ident)*) => {
        impl Errno {
            $( pub(crate) const $name: Errno = Errno(libc::$name); )*
        }
    };
}
numbers! {
    EPERM EINTR EBADF EAGAIN ENOMEM EACCES EFAULT EEXIST EINVAL ENOTTY ENOSYS ENAMETOOLONG ELOOP E2BIG ENOPROTOOPT
}

impl Errno {
    /// A signal came before the call began or while it waited: it is made again, or ends with [`Errno::EINTR`], by
    /// what the signal's action says. Programs never see the number (`include/linux/errno.h`).
    pub(crate) const ERESTARTSYS: Errno = Errno(512);

    /// What it means, in the words of the C library.
    pub(crate) fn describe(self) -> String {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        match text.rfind(" (os error") {
            Some(end) => text[..end].to_owned(),
            None => text,
        }
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.0, self.describe())
    }
}

impl From<Fault> for Errno {
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<MapError> for Errno {
    fn from(error: MapError) -> Errno {
        match error {
            MapError::Host(error) => error.into(),
            MapError::Unmapped(_) => Errno::ENOMEM,
            MapError::Range { .. } | MapError::PageSize(_) => Errno::EINVAL,
        }
    }
}
