//! Files as the engine sees them: a descriptor, and how requests to it are to be made.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use rustix::fs::FallocateFlags;
use tokio::sync::Notify;

use super::request::{Kind, Request};
use super::ring::Outcome;
use super::runtime::{self, Path};
use super::{pool, ring};
use crate::buf::{IoBuf, IoBufMut};

/// Misses in a row after which requests go to the kernel's queue without an inline try.
const COLD_AFTER: u32 = 8;
/// Of a cold file, one request in this many is tried inline.
const COLD_PROBE: u32 = 32;

/// Who makes the system calls of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aio {
    /// The thread's `io_uring`, or the thread pool where there is none.
    #[default]
    Auto,
    /// The thread pool.
    Threads,
    /// The kernel's asynchronous interface: `io_uring`, or the thread pool where there is none.
    Native,
    /// The thread's `io_uring`; requests fail where there is none.
    IoUring,
}

/// How requests to a file are made.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// The descriptor was opened with `O_DIRECT`.
    pub direct: bool,
    /// Memory of requests must start at multiples of this many bytes (a power of two).
    pub memory_alignment: u32,
    /// Offsets and lengths must be multiples of this many bytes (a power of two).
    pub offset_alignment: u32,
    /// Who makes the system calls.
    pub aio: Aio,
    /// Requests that enter the kernel together at most; 0 leaves it to the engine.
    pub max_batch: u32,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions {
            direct: false,
            memory_alignment: 1,
            offset_alignment: 1,
            aio: Aio::Auto,
            max_batch: 0,
        }
    }
}

/// Whether it pays to try a kind of request inline.
#[derive(Default)]
struct Inline {
    unsupported: AtomicBool,
    misses: AtomicU32,
}

impl Inline {
    fn worth_trying(&self) -> bool {
        // The counters are hints; a lost update only costs one try.
        if self.unsupported.load(Ordering::Relaxed) {
            return false;
        }
        let misses = self.misses.load(Ordering::Relaxed);
        if misses < COLD_AFTER {
            return true;
        }
        self.misses.store(misses.wrapping_add(1).max(COLD_AFTER), Ordering::Relaxed);
        misses.is_multiple_of(COLD_PROBE)
    }

    fn hit(&self) {
        if self.misses.load(Ordering::Relaxed) != 0 {
            self.misses.store(0, Ordering::Relaxed);
        }
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }
}

/// What handles and requests in flight have in common.
pub(super) struct Shared {
    pub(super) fd: OwnedFd,
    pub(super) options: FileOptions,
    /// Requests whose future was dropped while the kernel worked on them.
    abandoned: AtomicUsize,
    /// Rings when an abandoned request is over.
    settled: Notify,
    inline_read: Inline,
    inline_write: Inline,
}

impl Shared {
    /// Counts a request whose future was dropped before the request was over.
    pub(super) fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back one count of [`Shared::abandon`].
    pub(super) fn settle_one(&self) {
        self.abandoned.fetch_sub(1, Ordering::Release);
        self.settled.notify_waiters();
    }

    pub(super) fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(u64::from(self.options.offset_alignment))
    }
}

/// A shared handle of an open file. The descriptor is closed when the last handle is gone and no
/// request is in flight.
#[derive(Clone)]
pub struct File(Arc<Shared>);

impl File {
    /// Takes over `fd`.
    pub fn new(fd: OwnedFd, options: FileOptions) -> File {
        File(Arc::new(Shared {
            fd,
            options,
            abandoned: AtomicUsize::new(0),
            settled: Notify::new(),
            inline_read: Inline::default(),
            inline_write: Inline::default(),
        }))
    }

    /// How requests to the file are made.
    pub fn options(&self) -> &FileOptions {
        &self.0.options
    }

    /// Reads at `offset` until `buf` is full or the file ends. Returns the buffer and how many of its
    /// bytes were read.
    pub async fn read_at(&self, offset: u64, buf: IoBufMut) -> io::Result<(usize, IoBufMut)> {
        let len = buf.len();
        let request = Request::new(Arc::clone(&self.0), Kind::Read(buf), offset);
        let inline = Some(&self.0.inline_read).filter(|_| self.is_small(len));
        let mut request = self.perform(request, inline).await?;
        Ok((request.done(), request.take_buffer()))
    }

    /// Writes all of `buf` at `offset`; with `fua` the data is durable on completion.
    pub async fn write_at(&self, offset: u64, buf: IoBuf, fua: bool) -> io::Result<()> {
        let len = buf.len();
        let request = Request::new(Arc::clone(&self.0), Kind::Write { buf, fua }, offset);
        let inline = Some(&self.0.inline_write).filter(|_| !fua && self.is_small(len));
        self.perform(request, inline).await.map(drop)
    }

    /// Makes every write that is completed now durable, with the metadata needed to read it back.
    pub async fn data_sync(&self) -> io::Result<()> {
        let request = Request::new(Arc::clone(&self.0), Kind::DataSync, 0);
        self.perform(request, None).await.map(drop)
    }

    /// Changes the allocation of `len` bytes at `offset`: `fallocate(2)`.
    pub async fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        let request = Request::new(Arc::clone(&self.0), Kind::Allocate { mode, len }, offset);
        self.perform(request, None).await.map(drop)
    }

    /// Copies up to `len` bytes from `source` inside the kernel: `copy_file_range(2)`. Returns how
    /// many were copied; 0 means that the source ends at `source_offset`.
    pub async fn copy_from(
        &self,
        offset: u64,
        source: &File,
        source_offset: u64,
        len: u64,
    ) -> io::Result<u64> {
        let source = source.clone();
        self.run_blocking(move |fd| {
            let (mut from, mut to) = (source_offset, offset);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let n = rustix::io::retry_on_intr(|| {
                rustix::fs::copy_file_range(&source, Some(&mut from), fd, Some(&mut to), len)
            })?;
            Ok(n as u64)
        })
        .await
    }

    /// Sets the size in bytes.
    pub async fn set_len(&self, size: u64) -> io::Result<()> {
        self.run_blocking(move |fd| {
            Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(fd, size))?)
        })
        .await
    }

    /// Runs a rare system call on the thread pool. The file stays open until it is over.
    pub fn run_blocking<T, F>(&self, call: F) -> impl Future<Output = T> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(BorrowedFd<'_>) -> T + Send + 'static,
    {
        let file = self.clone();
        pool::run_blocking(move || call(file.as_fd()))
    }

    fn is_small(&self, len: usize) -> bool {
        !self.0.options.direct && len <= runtime::inline_limit()
    }

    /// Waits until requests whose futures were dropped are over. Requests do so by themselves: a
    /// write must not land on top of a later one, nor change what a later read returned.
    pub async fn settle(&self) {
        while self.0.abandoned.load(Ordering::Acquire) != 0 {
            let settled = self.0.settled.notified();
            if self.0.abandoned.load(Ordering::Acquire) != 0 {
                settled.await;
            }
        }
    }

    async fn perform(&self, mut request: Request, inline: Option<&Inline>) -> io::Result<Request> {
        self.settle().await;
        if let Some(inline) = inline
            && inline.worth_trying()
        {
            match request.try_inline() {
                Ok(Some(result)) => {
                    inline.hit();
                    // A task that always finds its data in the cache must let others run.
                    tokio::task::coop::consume_budget().await;
                    return result.map(|()| request);
                }
                Ok(None) => inline.miss(),
                Err(_) => inline.unsupported.store(true, Ordering::Relaxed),
            }
        }
        loop {
            let (over, result) = match runtime::path(self.0.options.aio)? {
                Path::Ring(ring) => match ring::perform(ring, request).await {
                    Outcome::Over(over, result) => (over, result),
                    Outcome::Refused(refused) => {
                        // There is another path now, or none.
                        request = refused;
                        continue;
                    }
                },
                Path::Pool(pool) => pool.perform(request).await,
            };
            return result.map(|()| over);
        }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
