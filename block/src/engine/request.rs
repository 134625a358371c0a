//! One system call with all that it needs, carried through retries and short transfers.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::file::Shared;
use crate::buf::{IoBuf, IoBufMut};

/// Bytes of one system call at most: below the kernel's own limit of 2 GiB and a multiple of every
/// block size, so that the tail of a longer transfer stays aligned.
const MAX_CALL: u32 = 1 << 30;
/// A buffered read of this many bytes goes to one of the kernel's own threads. Copying it out of the
/// page cache takes far longer than waking that thread, and meanwhile this one does other things.
const LONG_READ: usize = 256 << 10;
/// Interrupted or refused calls in a row that are repeated before the error is passed on.
const MAX_RETRIES: u32 = 64;

/// What a request does.
pub(super) enum Kind {
    /// Fills the buffer, or the part of it before the end of the file.
    Read(IoBufMut),
    /// Writes the buffer; with `fua` it is durable on completion.
    Write { buf: IoBuf, fua: bool },
    /// Makes completed writes durable.
    DataSync,
    /// Changes the allocation of `len` bytes.
    Allocate { mode: FallocateFlags, len: u64 },
}

/// What happens after a system call.
pub(super) enum Step {
    /// The call is to be made again, for what is left.
    Again,
    /// The request is over.
    Finished(io::Result<()>),
}

/// A request on its way through the ring or the pool.
pub(super) struct Request {
    file: Arc<Shared>,
    kind: Kind,
    offset: u64,
    /// Bytes to transfer. The buffer's own length is not asked while the kernel writes to it.
    len: usize,
    /// Bytes transferred so far.
    done: usize,
    retries: u32,
    /// The ring is asked to use one of its own threads, since the last call would have blocked or
    /// this one will take long.
    own_thread: bool,
    /// Nobody waits any more, but the file counts the request until it is over.
    abandoned: bool,
}

impl Request {
    pub(super) fn new(file: Arc<Shared>, kind: Kind, offset: u64) -> Request {
        let len = match &kind {
            Kind::Read(buf) => buf.len(),
            Kind::Write { buf, .. } => buf.len(),
            Kind::DataSync | Kind::Allocate { .. } => 0,
        };
        let own_thread = matches!(kind, Kind::Read(_)) && len >= LONG_READ && !file.options.direct;
        Request { file, kind, offset, len, done: 0, retries: 0, own_thread, abandoned: false }
    }

    /// Bytes transferred.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// Submissions of this file that go in together at most; 0 means the engine's default.
    pub(super) fn max_batch(&self) -> u32 {
        self.file.options.max_batch
    }

    /// Takes a read's buffer out.
    pub(super) fn take_buffer(&mut self) -> IoBufMut {
        match std::mem::replace(&mut self.kind, Kind::DataSync) {
            Kind::Read(buf) => buf,
            _ => IoBufMut::new(0),
        }
    }

    /// The file that the request is for.
    pub(super) fn file(&self) -> &Arc<Shared> {
        &self.file
    }

    /// Notes that the file counts this request as abandoned, until the request is dropped.
    pub(super) fn mark_abandoned(&mut self) {
        self.abandoned = true;
    }

    fn remaining(&self) -> usize {
        self.len - self.done
    }

    fn fd(&self) -> RawFd {
        self.file.fd.as_raw_fd()
    }

    /// The ring entry for what is left to do. It points into the request's buffer.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.fd());
        let len = u32::try_from(self.remaining()).unwrap_or(u32::MAX).min(MAX_CALL);
        let offset = self.offset + self.done as u64;
        let entry = match &mut self.kind {
            Kind::Read(buf) => opcode::Read::new(fd, buf.as_raw_mut().wrapping_add(self.done), len)
                .offset(offset)
                .build(),
            Kind::Write { buf, fua } => {
                opcode::Write::new(fd, buf.as_raw().wrapping_add(self.done), len)
                    .offset(offset)
                    .rw_flags(if *fua { libc::RWF_DSYNC } else { 0 })
                    .build()
            }
            Kind::DataSync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            Kind::Allocate { mode, len } => opcode::Fallocate::new(fd, *len)
                .offset(offset)
                .mode(mode.bits().cast_signed())
                .build(),
        };
        if self.own_thread { entry.flags(squeue::Flags::ASYNC) } else { entry }
    }

    /// Makes the call on this thread.
    fn call(&mut self, flags: ReadWriteFlags) -> Result<usize, Errno> {
        let end = self.done + self.remaining().min(MAX_CALL as usize);
        let offset = self.offset + self.done as u64;
        let fd = &self.file.fd;
        match &mut self.kind {
            Kind::Read(buf) => {
                let mut part = [IoSliceMut::new(&mut buf[self.done..end])];
                if flags.is_empty() {
                    rustix::io::preadv(fd, &mut part, offset)
                } else {
                    rustix::io::preadv2(fd, &mut part, offset, flags)
                }
            }
            Kind::Write { buf, fua } => {
                let flags = if *fua { flags | ReadWriteFlags::DSYNC } else { flags };
                let part = [IoSlice::new(&buf[self.done..end])];
                if flags.is_empty() {
                    rustix::io::pwritev(fd, &part, offset)
                } else {
                    rustix::io::pwritev2(fd, &part, offset, flags)
                }
            }
            Kind::DataSync => rustix::fs::fdatasync(fd).map(|()| 0),
            Kind::Allocate { mode, len } => {
                rustix::fs::fallocate(fd, *mode, offset, *len).map(|()| 0)
            }
        }
    }

    /// Makes the call on this thread unless it would block. `None` means that it would, or that the
    /// file system cannot say; what was transferred before stays transferred.
    pub(super) fn try_inline(&mut self) -> Result<Option<io::Result<()>>, Errno> {
        match self.call(ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e @ (Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => Err(e),
            result => Ok(match self.step(result) {
                Step::Again => None,
                Step::Finished(result) => Some(result),
            }),
        }
    }

    /// Runs the request to its end on this thread.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            let result = self.call(ReadWriteFlags::empty());
            if let Step::Finished(result) = self.step(result) {
                return result;
            }
        }
    }

    /// Takes the result of one call into account.
    pub(super) fn step(&mut self, result: Result<usize, Errno>) -> Step {
        let n = match result {
            Ok(n) => n,
            Err(e @ (Errno::INTR | Errno::AGAIN)) if self.retries < MAX_RETRIES => {
                self.retries += 1;
                self.own_thread |= e == Errno::AGAIN;
                return Step::Again;
            }
            Err(e) => return Step::Finished(Err(e.into())),
        };
        self.retries = 0;
        // The kernel never reports more than it was asked for.
        self.done += n.min(self.remaining());
        let finished = match &self.kind {
            Kind::DataSync | Kind::Allocate { .. } => true,
            _ if self.remaining() == 0 => true,
            Kind::Write { .. } if n == 0 => {
                return Step::Finished(Err(io::ErrorKind::WriteZero.into()));
            }
            Kind::Write { .. } => false,
            // With O_DIRECT a transfer stops off the grid only where the file ends.
            Kind::Read(_) => n == 0 || !self.file.is_aligned(self.offset + self.done as u64),
        };
        if finished { Step::Finished(Ok(())) } else { Step::Again }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.abandoned {
            self.file.settle_one();
        }
    }
}
