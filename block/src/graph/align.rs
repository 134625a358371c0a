//! Requests that do not keep a node's alignment: reads go through a larger buffer, writes become a
//! serialised read-modify-write of the blocks at their ends. Long requests are cut here too.

use super::node::{MAX_REQUEST, Node, rejoin};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Limits, WriteFlags};
use crate::error::Result;
use crate::event::Event;
use crate::num::AsUsize;

/// Alignment of requests in bytes, at least 1.
fn alignment(limits: &Limits) -> u64 {
    u64::from(limits.request_alignment.max(1))
}

/// Longest request to the driver, a multiple of the alignment.
fn max_transfer(limits: &Limits) -> u64 {
    let max = if limits.max_transfer == 0 { MAX_REQUEST } else { limits.max_transfer };
    (max.min(MAX_REQUEST) / alignment(limits) * alignment(limits)).max(alignment(limits))
}

fn memory_fits(limits: &Limits, bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(limits.min_mem_alignment.max(1).as_usize())
}

impl Node {
    /// Reads a range inside the node; pads it to the alignment if needed.
    pub(super) async fn read_aligned_or_padded(
        &self,
        offset: u64,
        mut buf: IoBufMut,
    ) -> Result<IoBufMut> {
        let limits = self.driver.limits();
        let align = alignment(&limits);
        let len = buf.len() as u64;
        if (offset | len).is_multiple_of(align) && memory_fits(&limits, &buf) {
            return self.read_pieces(offset, buf, &limits).await;
        }
        let start = offset / align * align;
        let end = (offset + len).next_multiple_of(align);
        let padded = IoBufMut::new((end - start).as_usize());
        let padded = self.read_pieces(start, padded, &limits).await?;
        let skip = (offset - start).as_usize();
        if let Some(part) = padded.get(skip..skip + buf.len()) {
            buf.copy_from_slice(part);
        }
        Ok(buf)
    }

    async fn read_pieces(&self, offset: u64, buf: IoBufMut, limits: &Limits) -> Result<IoBufMut> {
        let max = max_transfer(limits).as_usize();
        if buf.len() <= max {
            return self.driver.read(offset, buf).await;
        }
        let mut rest = buf;
        let mut done = rest.split_to(0);
        let mut offset = offset;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(max));
            let len = piece.len() as u64;
            done = rejoin(done, self.driver.read(offset, piece).await?);
            offset += len;
        }
        Ok(done)
    }

    /// Writes a range; the partial blocks at its ends are read first.
    pub(super) async fn write_aligned_or_padded(
        &self,
        offset: u64,
        buf: IoBuf,
        flags: WriteFlags,
    ) -> Result<()> {
        let limits = self.driver.limits();
        let align = alignment(&limits);
        let len = buf.len() as u64;
        let native_fua = self.driver.write_flags().contains(WriteFlags::FUA);
        let pass = if native_fua { flags } else { flags - WriteFlags::FUA };
        if align == 1 && memory_fits(&limits, &buf) {
            // Nothing is ever padded here, so no request can be in another's way.
            self.write_pieces(offset, buf, pass, &limits).await?;
        } else if (offset | len).is_multiple_of(align) {
            let _tracked = self.tracker.begin(offset..offset + len, false).await;
            let buf = if memory_fits(&limits, &buf) { buf } else { IoBuf::copy_of(&buf) };
            self.write_pieces(offset, buf, pass, &limits).await?;
        } else {
            let start = offset / align * align;
            let end = (offset + len).next_multiple_of(align);
            let _tracked = self.tracker.begin(start..end, true).await;
            let padded = self.pad(start, end, offset, &buf, &limits).await?;
            self.write_pieces(start, padded.freeze(), pass, &limits).await?;
        }
        if flags.contains(WriteFlags::FUA) && !native_fua {
            self.note_write();
            self.flush_now().await?;
        }
        Ok(())
    }

    /// The blocks from `start` to `end` as they are, with `data` laid over them at `offset`.
    async fn pad(
        &self,
        start: u64,
        end: u64,
        offset: u64,
        data: &[u8],
        limits: &Limits,
    ) -> Result<IoBufMut> {
        let align = alignment(limits);
        let mut padded = IoBufMut::new((end - start).as_usize());
        let data_end = offset + data.len() as u64;
        let mut blocks = Vec::with_capacity(2);
        if offset > start {
            blocks.push((start, Event::PwritevRmwHead, Event::PwritevRmwAfterHead));
        }
        if data_end < end && !(offset > start && end - start == align) {
            blocks.push((end - align, Event::PwritevRmwTail, Event::PwritevRmwAfterTail));
        }
        for (block, before, after) in blocks {
            self.event(before).await;
            let old = self.read_pieces(block, IoBufMut::new(align.as_usize()), limits).await?;
            self.event(after).await;
            let at = (block - start).as_usize();
            if let Some(part) = padded.get_mut(at..at + old.len()) {
                part.copy_from_slice(&old);
            }
        }
        let at = (offset - start).as_usize();
        if let Some(part) = padded.get_mut(at..at + data.len()) {
            part.copy_from_slice(data);
        }
        Ok(padded)
    }

    async fn write_pieces(
        &self,
        mut offset: u64,
        buf: IoBuf,
        flags: WriteFlags,
        limits: &Limits,
    ) -> Result<()> {
        self.event(Event::Pwritev).await;
        let max = max_transfer(limits).as_usize();
        if buf.len() <= max {
            let written = self.driver.write(offset, buf, flags).await;
            self.event(Event::PwritevDone).await;
            return written;
        }
        let mut at = 0;
        while at < buf.len() {
            let piece = buf.slice(at..buf.len().min(at + max));
            let len = piece.len();
            self.driver.write(offset, piece, flags).await?;
            at += len;
            offset += len as u64;
        }
        self.event(Event::PwritevDone).await;
        Ok(())
    }
}
