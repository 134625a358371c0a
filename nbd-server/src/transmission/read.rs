//! Reads.

use cairn_block::buf::is_zero;
use cairn_block::driver::Status;
use cairn_block::num::AsUsize;
use cairn_block::{IoBufMut, Result};
use cairn_nbd_wire::{CommandFlags, HeaderStyle, Request};

use super::intake::Memory;
use super::{PIECE, WHOLE, Work, can_be_split};

/// Reads up to this length are looked through for zeroes; of longer ones the image is asked where its
/// holes are. In bytes.
const SCANNED: u64 = 64 << 10;
/// Zeroes are told from data in units of this many bytes.
const SECTOR: usize = 512;
/// Memory that a chunk without data is reckoned to take, in bytes.
const HOLE_MEMORY: u64 = 128;

impl Work {
    /// Reads and answers.
    pub(super) async fn read(&self, request: Request, memory: Memory) {
        if request.flags.contains(CommandFlags::FUA)
            && let Err(error) = self.session.export.backend().flush().await
        {
            return self.fail(&request, &error);
        }
        if request.len == 0 && self.session.style >= HeaderStyle::Structured {
            return self.output.end(&request);
        }
        let result = if !can_be_split(&self.session, &request) {
            self.read_whole(&request, memory).await
        } else if request.len <= SCANNED {
            self.read_scanned(&request, memory).await
        } else {
            self.read_sparse(&request, memory).await
        };
        if let Err(error) = result {
            self.fail(&request, &error);
        }
    }

    async fn fetch(&self, offset: u64, len: u64) -> Result<IoBufMut> {
        self.session.export.backend().read(offset, IoBufMut::new(len.as_usize())).await
    }

    /// Answers with all of the data in one piece.
    async fn read_whole(&self, request: &Request, mut memory: Memory) -> Result<()> {
        let begin = || match self.session.style {
            HeaderStyle::Simple => self.output.begin_simple(request),
            _ => self.output.begin_data(request, request.offset, request.len, true),
        };
        let piece = if request.len <= WHOLE { WHOLE } else { PIECE };
        let mut at = 0;
        while at < request.len || request.len == 0 {
            let len = piece.min(request.len - at);
            let Some(memory) = memory.take(len).await else { break };
            match self.fetch(request.offset + at, len).await {
                Ok(data) => {
                    if at == 0 {
                        begin();
                    }
                    self.output.data(data.freeze(), memory);
                }
                Err(error) if at == 0 => return Err(error),
                Err(error) => {
                    // The client counts on data: there is no other way to tell it.
                    self.note(request, &error);
                    self.output.give_up();
                    break;
                }
            }
            at += len;
            if request.len == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads, and leaves out the zeroes at both ends.
    async fn read_scanned(&self, request: &Request, mut memory: Memory) -> Result<()> {
        let data = self.fetch(request.offset, request.len).await?;
        let leading = data.chunks(SECTOR).take_while(|sector| is_zero(sector)).count();
        if leading * SECTOR >= data.len() {
            let len = u32::try_from(request.len).unwrap_or(u32::MAX);
            self.output.hole(request, request.offset, len, true, None);
            return Ok(());
        }
        // The last sector may be short; it goes with the data unless it is zero as a whole.
        let last = data.len().div_ceil(SECTOR);
        let sector = |at: usize| {
            let end = (at + 1).saturating_mul(SECTOR).min(data.len());
            data.get(at * SECTOR..end).unwrap_or_default()
        };
        let kept = (leading..last).rev().find(|&at| !is_zero(sector(at))).map_or(last, |at| at + 1);
        let (start, end) = (leading * SECTOR, (kept * SECTOR).min(data.len()));
        let len = data.len();
        let data = data.freeze().slice(start..end);
        let at = |position: usize| request.offset + position as u64;
        if start > 0 {
            self.output.hole(request, request.offset, as_u32(start), false, None);
        }
        let Some(memory) = memory.take(request.len).await else { return Ok(()) };
        self.output.begin_data(request, at(start), data.len() as u64, end == len);
        self.output.data(data, memory);
        if end < len {
            self.output.hole(request, at(end), as_u32(len - end), true, None);
        }
        Ok(())
    }

    /// Reads what the image says is data, and answers the rest as holes.
    async fn read_sparse(&self, request: &Request, mut memory: Memory) -> Result<()> {
        let backend = self.session.export.backend();
        let end = request.offset + request.len;
        let mut at = request.offset;
        while at < end {
            let found = backend.content_above(None, at, end - at).await?;
            let run = found.extent.len.clamp(1, end - at);
            if found.extent.status.contains(Status::ZERO) {
                let Some(memory) = memory.take(HOLE_MEMORY).await else { return Ok(()) };
                let len = u32::try_from(run).unwrap_or(u32::MAX);
                self.output.hole(request, at, len, at + run == end, Some(memory));
                at += run;
                continue;
            }
            let run_end = at + run;
            while at < run_end {
                let len = (run_end - at).min(if request.len <= WHOLE { WHOLE } else { PIECE });
                let Some(memory) = memory.take(len).await else { return Ok(()) };
                let data = self.fetch(at, len).await?;
                self.output.begin_data(request, at, len, at + len == end);
                self.output.data(data.freeze(), memory);
                at += len;
            }
        }
        Ok(())
    }

    /// Reads without an answer but that it is done, so that what is read next is there already.
    pub(super) async fn prefetch(&self, request: Request, mut memory: Memory) {
        let end = request.offset + request.len;
        let mut at = request.offset;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            let len = PIECE.min(end - at);
            let memory = memory.take(len).await;
            result = self.fetch(at, len).await.map(drop);
            drop(memory);
            at += len;
        }
        self.answer(&request, result);
    }
}

fn as_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
