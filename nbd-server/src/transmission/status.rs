//! Block status.

use std::ops::Range;

use cairn_block::Result;
use cairn_block::dirty_bitmap::DirtyBitmap;
use cairn_block::driver::Status;
use cairn_nbd_wire::{BlockStatus, CommandFlags, DIRTY, Extent, HOLE, HeaderStyle, Request, ZERO};

use super::intake::Memory;
use super::{STATUS_MEMORY, Work};
use crate::export::Source;

/// Bytes that an extent takes in a reply at most.
const EXTENT_LEN: u64 = 16;

/// Runs of one status, with equal neighbours joined.
struct Runs {
    extents: Vec<Extent>,
    most: usize,
}

impl Runs {
    /// Adds a run; false if there is no room for it.
    fn add(&mut self, len: u64, flags: u64) -> bool {
        match self.extents.last_mut() {
            Some(last) if last.flags == flags => {
                last.len += len;
                true
            }
            _ => {
                let has_room = self.extents.len() < self.most;
                if has_room {
                    self.extents.push(Extent { len, flags });
                }
                has_room
            }
        }
    }
}

impl Work {
    /// Answers with the status of the range in `contexts`, one chunk for each.
    pub(super) async fn block_status(
        &self,
        request: Request,
        contexts: &[u32],
        mut memory: Memory,
    ) {
        let room = if request.flags.contains(CommandFlags::REQ_ONE) { 0 } else { STATUS_MEMORY };
        let share = room / EXTENT_LEN / contexts.len().max(1) as u64;
        let most = usize::try_from(share).unwrap_or(1).max(1);
        let extended = self.session.style == HeaderStyle::Extended;
        let sources = self.session.export.contexts();
        let mut left = contexts.len();
        for context in sources.iter().filter(|context| contexts.contains(&context.id)) {
            left -= 1;
            let mut runs = Runs { extents: Vec::new(), most };
            if let Err(error) = self.collect(&request, &context.source, &mut runs).await {
                return self.fail(&request, &error);
            }
            let status = BlockStatus { context: context.id, extents: runs.extents };
            let mut payload = Vec::new();
            let is_encoded = status.encode(extended, &mut payload).is_ok();
            let memory = memory.take(status.encoded_len(extended)).await;
            match memory.filter(|_| is_encoded) {
                Some(memory) => self.output.status(&request, payload, left == 0, memory),
                None => self.output.give_up(),
            }
        }
    }

    async fn collect(&self, request: &Request, source: &Source, runs: &mut Runs) -> Result<()> {
        let range = request.offset..request.offset + request.len;
        match source {
            Source::Allocation => self.allocation(range, runs).await,
            Source::Depth => self.depth(range, runs).await,
            Source::Bitmap(bitmap) => {
                dirty(bitmap, range, runs);
                Ok(())
            }
        }
    }

    async fn allocation(&self, range: Range<u64>, runs: &mut Runs) -> Result<()> {
        let backend = self.session.export.backend();
        let mut at = range.start;
        while at < range.end {
            let extent = backend.content_above(None, at, range.end - at).await?.extent;
            let mut flags = 0;
            if !extent.status.contains(Status::DATA) {
                flags |= HOLE;
            }
            if extent.status.contains(Status::ZERO) {
                flags |= ZERO;
            }
            let len = extent.len.clamp(1, range.end - at);
            if !runs.add(len, flags) {
                break;
            }
            at += len;
        }
        Ok(())
    }

    async fn depth(&self, range: Range<u64>, runs: &mut Runs) -> Result<()> {
        let backend = self.session.export.backend();
        let mut at = range.start;
        while at < range.end {
            let found = backend.status_above(None, at, range.end - at, false).await?;
            let is_allocated = found.extent.status.contains(Status::ALLOCATED);
            let depth = if is_allocated { found.depth as u64 + 1 } else { 0 };
            let len = found.extent.len.clamp(1, range.end - at);
            if !runs.add(len, depth) {
                break;
            }
            at += len;
        }
        Ok(())
    }
}

fn dirty(bitmap: &DirtyBitmap, range: Range<u64>, runs: &mut Runs) {
    let mut at = range.start;
    while at < range.end {
        let next = bitmap.next_dirty(at).filter(|next| next.start < range.end);
        let start = next.as_ref().map_or(range.end, |next| next.start);
        if start > at && !runs.add(start - at, 0) {
            return;
        }
        let Some(next) = next else { return };
        at = next.end.min(range.end);
        if !runs.add(at - start, DIRTY) {
            return;
        }
    }
}
