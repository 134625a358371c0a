//! Large writes beside the page cache.
//!
//! Who fills a whole image ([`NodeFlags::bulk`](crate::graph::NodeFlags)) gains nothing from having it
//! in the page cache, and loses what was there before. Such a file is open a second time with
//! `O_DIRECT`; as many large writes as the device works on at once go that way, and the rest through
//! the cache, so that neither the device nor the processor waits for the other.
//!
//! File systems hold a file's lock while a direct write moves its end. So the file is made longer in
//! large steps ahead of the writes, and cut to its true size when it is closed.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::storage::{Access, Kind};
use crate::buf::IoBuf;
use crate::engine::File;

/// Direct writes under way at most: enough to keep a device busy.
const DEPTH: usize = 4;
/// Smallest direct write in bytes. Below, the cost of a request outweighs that of a copy.
const SMALLEST: usize = 128 << 10;
/// The file grows by this many bytes at a time.
const GROWTH: u64 = 64 << 20;

/// The second way into a file.
pub(super) struct Bulk {
    direct: File,
    in_flight: AtomicUsize,
    /// The file system refused a direct write.
    refused: AtomicBool,
    /// Size of the file as the system sees it, in bytes.
    extended: Mutex<u64>,
}

/// The right to one direct write.
struct Ticket<'b>(&'b Bulk);

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bulk {
    /// Opens `fd` once more; `None` where the file system has no direct writes.
    pub(super) fn open(fd: impl AsFd, access: Access, size: u64) -> Option<Bulk> {
        let access = Access { direct: true, ..access };
        let direct = access.reopen(fd, true).ok()?;
        let options = access.file_options(&direct, Kind::Regular);
        Some(Bulk {
            direct: File::new(direct, options),
            in_flight: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            extended: Mutex::new(size),
        })
    }

    fn ticket(&self, offset: u64, bytes: &[u8]) -> Option<Ticket<'_>> {
        let options = self.direct.options();
        let unit = u64::from(options.offset_alignment);
        let fits = bytes.len() >= SMALLEST
            && (offset | bytes.len() as u64).is_multiple_of(unit)
            && bytes.as_ptr().addr().is_multiple_of(options.memory_alignment as usize);
        if !fits || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let admitted = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(self);
        (admitted < DEPTH).then_some(ticket)
    }

    /// Makes the file reach up to `end`, and some way on.
    fn extend(&self, end: u64) -> io::Result<()> {
        let mut extended = self.extended.lock();
        if end > *extended {
            let size = end.next_multiple_of(GROWTH);
            rustix::fs::ftruncate(&self.direct, size)?;
            *extended = size;
        }
        Ok(())
    }

    /// Writes `buf` directly. `None` if it should go through the page cache instead.
    pub(super) async fn write(&self, offset: u64, buf: &IoBuf) -> Option<io::Result<()>> {
        let ticket = self.ticket(offset, buf)?;
        self.extend(offset + buf.len() as u64).ok()?;
        let result = self.direct.write_at(offset, buf.clone(), false).await;
        drop(ticket);
        match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                self.refused.store(true, Ordering::Relaxed);
                None
            }
            result => Some(result),
        }
    }

    /// The file was given a new size.
    pub(super) fn resized(&self, size: u64) {
        *self.extended.lock() = size;
    }

    /// Cuts the file to `size`, its true size.
    pub(super) fn trim(&self, size: u64) -> io::Result<()> {
        let mut extended = self.extended.lock();
        if *extended > size {
            rustix::fs::ftruncate(&self.direct, size)?;
            *extended = size;
        }
        Ok(())
    }
}
