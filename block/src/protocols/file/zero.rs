//! Zeroing and discarding ranges without writing data, and remembering what the storage cannot do.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;

use super::storage::Kind;
use crate::engine::{File, sys};

/// Ways to change allocation that the storage turned out not to have.
#[derive(Default)]
pub(super) struct Missing {
    punch_hole: AtomicBool,
    zero_range: AtomicBool,
    allocate: AtomicBool,
    zero_out: AtomicBool,
    discard: AtomicBool,
}

/// What to zero, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zero {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Size of the file before.
    pub(super) size: u64,
    /// The storage may be given back.
    pub(super) unmap: bool,
    /// Fail rather than let a device write zeroes slowly.
    pub(super) no_fallback: bool,
}

fn not_supported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// Whether the storage has no such operation, or not for this range.
pub(super) fn is_unsupported(e: &io::Error) -> bool {
    lacks(e) || e.raw_os_error() == Some(libc::EINVAL)
}

/// Whether the storage will never have the operation.
fn lacks(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::ENODEV))
}

/// Makes a call unless it is known to be missing; remembers if it is.
async fn attempt(
    missing: &AtomicBool,
    call: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    if missing.load(Ordering::Relaxed) {
        return Err(not_supported());
    }
    let result = call.await;
    if result.as_ref().is_err_and(lacks) {
        missing.store(true, Ordering::Relaxed);
    }
    result
}

impl Missing {
    async fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        attempt(&self.punch_hole, file.allocate(mode, offset, len)).await
    }

    /// Reserves storage, and lets the file grow. Never shrinks it, unlike a change of the size that
    /// races with a write beyond the end.
    async fn allocate(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        attempt(&self.allocate, file.allocate(FallocateFlags::empty(), offset, len)).await
    }

    /// Makes a range read as zeroes. An error that [`is_unsupported`] means that nothing else than
    /// writing zeroes helps.
    pub(super) async fn zero(&self, file: &File, kind: Kind, zero: Zero) -> io::Result<()> {
        match kind {
            Kind::Regular => self.zero_file(file, zero).await,
            Kind::BlockDevice => self.zero_device(file, zero).await,
            Kind::CharDevice | Kind::Other => Err(not_supported()),
        }
    }

    async fn zero_file(&self, file: &File, zero: Zero) -> io::Result<()> {
        let Zero { offset, len, size, .. } = zero;
        let inside = len.min(size.saturating_sub(offset));
        if inside == 0 {
            // What lies beyond the end is zero as soon as it exists.
            return self.allocate(file, offset, len).await;
        }
        if zero.unmap {
            match self.punch(file, offset, inside).await {
                Err(e) if is_unsupported(&e) => {}
                Ok(()) if inside < len => {
                    return self.allocate(file, offset + inside, len - inside).await;
                }
                other => return other,
            }
        }
        let mode = FallocateFlags::ZERO_RANGE;
        match attempt(&self.zero_range, file.allocate(mode, offset, len)).await {
            Err(e) if is_unsupported(&e) => {}
            other => return other,
        }
        // Some file systems have holes but no zero ranges. The storage is reserved again, as the
        // caller did not allow to give it back.
        self.punch(file, offset, inside).await?;
        self.allocate(file, offset, len).await
    }

    async fn zero_device(&self, file: &File, zero: Zero) -> io::Result<()> {
        let Zero { offset, len, .. } = zero;
        if zero.unmap {
            match self.punch(file, offset, len).await {
                Err(e) if is_unsupported(&e) => {}
                other => return other,
            }
        }
        if zero.no_fallback {
            return Err(not_supported());
        }
        let call = file.run_blocking(move |fd| sys::device_zero_out(fd, offset, len));
        attempt(&self.zero_out, call).await
    }

    /// Gives the storage of a range back, which lies inside the file.
    pub(super) async fn discard(
        &self,
        file: &File,
        kind: Kind,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        match kind {
            Kind::Regular => self.punch(file, offset, len).await,
            Kind::BlockDevice => {
                let call = file.run_blocking(move |fd| sys::device_discard(fd, offset, len));
                attempt(&self.discard, call).await
            }
            Kind::CharDevice | Kind::Other => Err(not_supported()),
        }
    }
}
