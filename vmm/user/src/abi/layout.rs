//! Structures in guest memory, field by field.
//!
//! [`Writer`] and [`Reader`] align fields as C compilers do on the architectures that are supported: each to its size. The
//! functions below them are the structures whose layout differs from the host's, or between widths.

use std::os::raw::c_int;

use super::Width;

/// Builds a structure.
#[derive(Debug)]
pub(crate) struct Writer {
    width: Width,
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(width: Width) -> Writer {
        Writer { width, bytes: Vec::with_capacity(128) }
    }

    /// Zeros up to a multiple of `align`.
    pub(crate) fn align(&mut self, align: usize) -> &mut Writer {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self
    }

    /// Zeros up to the offset `end`.
    pub(crate) fn pad_to(&mut self, end: usize) -> &mut Writer {
        self.bytes.resize(end.max(self.bytes.len()), 0);
        self
    }

    pub(crate) fn short(&mut self, value: u16) -> &mut Writer {
        self.align(2).bytes.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn int(&mut self, value: c_int) -> &mut Writer {
        self.uint(value.cast_unsigned())
    }

    pub(crate) fn uint(&mut self, value: u32) -> &mut Writer {
        self.align(4).bytes.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Writer {
        self.align(8).bytes.extend(value.to_le_bytes());
        self
    }

    /// A `long`, or a pointer.
    pub(crate) fn long(&mut self, value: u64) -> &mut Writer {
        match self.width {
            Width::W32 => self.uint(value as u32),
            Width::W64 => self.u64(value),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes a structure apart. Fields behind its end are zero.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    width: Width,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(width: Width, bytes: &'a [u8]) -> Reader<'a> {
        Reader { width, bytes, at: 0 }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let at = self.at.next_multiple_of(N);
        self.at = at + N;
        self.bytes.get(at..self.at).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn int(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    pub(crate) fn uint(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A pointer or an unsigned `long`.
    pub(crate) fn long(&mut self) -> u64 {
        match self.width {
            Width::W32 => self.uint().into(),
            Width::W64 => self.u64(),
        }
    }
}

/// What `stat` tells of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    pub(crate) block_size: u64,
    pub(crate) blocks: u64,
    /// Seconds and nanoseconds of access, modification and change.
    pub(crate) times: [u64; 6],
}

impl Stat {
    /// `struct stat` of the generic table for 64-bit architectures (`include/uapi/asm-generic/stat.h`).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(Width::W64);
        out.u64(self.dev).u64(self.ino).uint(self.mode).uint(self.links);
        out.uint(self.uid).uint(self.gid).u64(self.rdev).u64(0);
        out.u64(self.size).uint(self.block_size as u32).uint(0).u64(self.blocks);
        for time in self.times {
            out.u64(time);
        }
        out.pad_to(128);
        out.finish()
    }
}

/// `struct rusage`, from the host's.
pub(crate) fn rusage(width: Width, host: &[u8]) -> Vec<u8> {
    // Two timevals and fourteen longs.
    longs(width, host, 18)
}

/// An array of longs, from the host's.
pub(crate) fn longs(width: Width, host: &[u8], count: usize) -> Vec<u8> {
    let mut from = Reader::new(Width::W64, host);
    let mut out = Writer::new(width);
    for _ in 0..count {
        out.long(from.u64());
    }
    out.finish()
}

/// `struct sysinfo`, from the host's.
pub(crate) fn sysinfo(width: Width, host: &[u8]) -> Vec<u8> {
    let mut from = Reader::new(Width::W64, host);
    let mut out = Writer::new(width);
    // uptime, three loads, six amounts of memory
    for _ in 0..10 {
        out.long(from.u64());
    }
    out.short(from.short());
    let (_, high_total, high_free, unit) = (from.short(), from.u64(), from.u64(), from.uint());
    out.align(width.bytes()).long(high_total).long(high_free).uint(unit);
    out.pad_to(if width == Width::W64 { 112 } else { 64 });
    out.finish()
}

/// `struct statfs64`, from the host's `struct statfs`.
pub(crate) fn statfs(width: Width, host: &[u8]) -> Vec<u8> {
    if width == Width::W64 {
        return host.to_vec();
    }
    let mut from = Reader::new(Width::W64, host);
    let mut out = Writer::new(width);
    out.long(from.u64()).long(from.u64());
    for _ in 0..5 {
        out.u64(from.u64());
    }
    out.int(from.int()).int(from.int());
    for _ in 0..3 {
        out.long(from.u64());
    }
    out.pad_to(88);
    out.finish()
}

/// `struct epoll_event`, which is packed on x86-64 alone.
pub(crate) mod epoll_event {
    /// Bytes of the guest's.
    pub(crate) const SIZE: usize = 16;
    /// Bytes of the host's.
    pub(crate) const HOST_SIZE: usize = 12;

    pub(crate) fn to_host(guest: &[u8; SIZE]) -> [u8; HOST_SIZE] {
        let mut host = [0; HOST_SIZE];
        host[..4].copy_from_slice(&guest[..4]);
        host[4..].copy_from_slice(&guest[8..]);
        host
    }

    pub(crate) fn from_host(host: &[u8]) -> [u8; SIZE] {
        let mut guest = [0; SIZE];
        guest[..4].copy_from_slice(&host[..4]);
        guest[8..].copy_from_slice(&host[4..HOST_SIZE]);
        guest
    }
}
