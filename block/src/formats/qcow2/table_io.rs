//! Reading tables of an image straight from its file, past the caches of the driver.

use super::entry::RawEntry;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::error::Result;
use crate::graph::Edge;
use crate::num::AsUsize;

/// Bytes that are read ahead.
const WINDOW: u64 = 64 << 10;

/// Reads `len` bytes at `offset`; beyond the end of the file there are zeroes.
pub(crate) async fn read(file: &Edge, offset: u64, len: u64) -> Result<IoBufMut> {
    file.read(offset, IoBufMut::new(len.as_usize())).await
}

/// Writes `bytes` at `offset`.
pub(crate) async fn write(file: &Edge, offset: u64, bytes: &[u8]) -> Result<()> {
    file.write(offset, IoBuf::copy_of(bytes), WriteFlags::empty()).await
}

/// The big-endian words of a table.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|raw| u64::from_be_bytes(raw.try_into().unwrap_or_default()))
}

/// The entries of an L2 table.
pub(crate) fn raw_entries(bytes: &[u8], extended: bool) -> impl Iterator<Item = RawEntry> {
    let width = if extended { 16 } else { 8 };
    bytes.chunks_exact(width).map(move |raw| {
        let mut words = words(raw);
        let descriptor = words.next().unwrap_or(0);
        RawEntry { descriptor, bitmap: words.next().unwrap_or(0) }
    })
}

/// Reads a range of a file from front to back, in pieces of any length.
pub(crate) struct Sequential<'f> {
    file: &'f Edge,
    /// Offset in the file of the next byte to be taken.
    next: u64,
    end: u64,
    /// What was read ahead, and how much of it was taken.
    ahead: IoBufMut,
    taken: usize,
}

impl<'f> Sequential<'f> {
    /// Reads the bytes from `start` up to `end`.
    pub(crate) fn new(file: &'f Edge, start: u64, end: u64) -> Sequential<'f> {
        Sequential { file, next: start, end, ahead: IoBufMut::new(0), taken: 0 }
    }

    /// Offset in the file of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// The next `len` bytes; `None` if the range ends before.
    pub(crate) async fn take(&mut self, len: usize) -> Result<Option<&[u8]>> {
        let left = self.end.saturating_sub(self.next);
        if len as u64 > left {
            return Ok(None);
        }
        if self.ahead.len() - self.taken < len {
            let window = left.min(WINDOW.max(len as u64));
            self.ahead = read(self.file, self.next, window).await?;
            self.taken = 0;
        }
        let from = self.taken;
        self.taken += len;
        self.next += len as u64;
        Ok(self.ahead.get(from..self.taken))
    }

    /// Leaves `len` bytes out; `None` if the range ends before.
    pub(crate) fn skip(&mut self, len: u64) -> Option<()> {
        let next = self.next.checked_add(len).filter(|&next| next <= self.end)?;
        self.next = next;
        self.taken = self.taken.saturating_add(len.as_usize()).min(self.ahead.len());
        Some(())
    }
}
