//! Opening files and devices, and finding out what they are.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags};

use crate::buf::IoBufMut;
use crate::engine::{Aio, FileOptions, sys};

/// Alignments that are tried where the system does not tell the one for `O_DIRECT`.
const TRIAL_ALIGNMENTS: [u32; 4] = [512, 1024, 2048, 4096];

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    BlockDevice,
    CharDevice,
    /// A directory, pipe or socket: nothing that holds an image.
    Other,
}

impl Kind {
    pub(super) fn of(fd: impl AsFd) -> io::Result<Kind> {
        Ok(match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
            FileType::RegularFile => Kind::Regular,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::CharacterDevice => Kind::CharDevice,
            _ => Kind::Other,
        })
    }

    pub(super) fn is_device(self) -> bool {
        matches!(self, Kind::BlockDevice | Kind::CharDevice)
    }
}

/// How to open storage and use the descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) direct: bool,
    pub(super) aio: Aio,
    /// Requests that enter the kernel together at most; 0 leaves it to the engine.
    pub(super) max_batch: u32,
}

impl Access {
    fn flags(self, writable: bool) -> OFlags {
        let mut flags = OFlags::CLOEXEC;
        flags |= if writable { OFlags::RDWR } else { OFlags::RDONLY };
        flags.set(OFlags::DIRECT, self.direct);
        flags
    }

    /// Opens `path`.
    pub(super) fn open(self, path: &str, writable: bool) -> io::Result<OwnedFd> {
        // Opening a pipe would wait for its other end; the caller refuses it afterwards.
        let flags = self.flags(writable) | OFlags::NONBLOCK;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| self.explain(e.into()))?;
        rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)? - OFlags::NONBLOCK)?;
        Ok(fd)
    }

    /// Opens what `fd` refers to once more, whatever happened to its path.
    pub(super) fn reopen(self, fd: impl AsFd, writable: bool) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let fd = rustix::fs::open(path, self.flags(writable), Mode::empty());
        fd.map_err(|e| self.explain(e.into()))
    }

    /// File systems refuse `O_DIRECT` with an error that says nothing.
    fn explain(self, e: io::Error) -> io::Error {
        if self.direct && e.raw_os_error() == Some(libc::EINVAL) {
            return io::Error::other(
                "the file system cannot bypass the page cache (cache.direct=on)",
            );
        }
        e
    }

    /// How the engine is to use `fd`.
    pub(super) fn file_options(self, fd: &OwnedFd, kind: Kind) -> FileOptions {
        let (memory_alignment, offset_alignment) =
            if self.direct { direct_alignment(fd, kind) } else { (1, 1) };
        FileOptions {
            direct: self.direct,
            memory_alignment,
            offset_alignment,
            aio: self.aio,
            max_batch: self.max_batch,
        }
    }
}

/// Alignment of memory, and of offsets and lengths, that a descriptor with `O_DIRECT` demands.
fn direct_alignment(fd: &OwnedFd, kind: Kind) -> (u32, u32) {
    if let Ok(stat) = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0
        && stat.stx_dio_mem_align.is_power_of_two()
        && stat.stx_dio_offset_align.is_power_of_two()
    {
        return (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    }
    if kind == Kind::BlockDevice
        && let Some(sector) = sector_size(fd)
    {
        return (sector, sector);
    }
    let alignment = TRIAL_ALIGNMENTS
        .into_iter()
        .find(|&size| {
            let mut buf = IoBufMut::new(size as usize);
            rustix::io::pread(fd, &mut buf[..], 0) != Err(rustix::io::Errno::INVAL)
        })
        .unwrap_or(4096);
    // An empty file proves nothing, and memory cannot be told from offset here.
    let empty = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size == 0);
    if empty { (4096, 4096) } else { (alignment, alignment) }
}

/// Logical sector size of a block device in bytes.
pub(super) fn sector_size(fd: impl AsFd) -> Option<u32> {
    rustix::fs::ioctl_blksszget(fd).ok().filter(|size| size.is_power_of_two())
}

/// Present size in bytes.
pub(super) fn size(fd: impl AsFd, kind: Kind) -> io::Result<u64> {
    match kind {
        Kind::BlockDevice => sys::device_size(fd),
        Kind::CharDevice => Ok(rustix::fs::seek(fd, SeekFrom::End(0))?),
        Kind::Regular | Kind::Other => {
            Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0))
        }
    }
}

/// Bytes of storage in use.
pub(super) fn allocated_size(fd: impl AsFd) -> io::Result<u64> {
    // `st_blocks` counts units of 512 bytes on every Linux file system.
    let blocks = u64::try_from(rustix::fs::fstat(fd)?.st_blocks).unwrap_or(0);
    Ok(blocks.saturating_mul(512))
}
