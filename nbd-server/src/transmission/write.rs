//! Writes, zero writes and trims.

use cairn_block::IoBuf;
use cairn_block::driver::WriteFlags;
use cairn_nbd_wire::{CommandFlags, Request};

use super::Work;
use super::intake::LongWrite;

fn flags(request: &Request) -> WriteFlags {
    let mut flags = WriteFlags::empty();
    flags.set(WriteFlags::FUA, request.flags.contains(CommandFlags::FUA));
    flags
}

impl Work {
    /// Writes and answers.
    pub(super) async fn write(&self, request: Request, data: IoBuf) {
        let backend = self.session.export.backend();
        let result = backend.write(request.offset, data, flags(&request)).await;
        self.answer(&request, result);
    }

    /// Writes a piece of a long write; the last one to get done answers.
    pub(super) async fn write_piece(&self, write: &LongWrite, offset: u64, data: IoBuf) {
        let request = &write.request;
        let len = data.len() as u64;
        let result = if write.has_failed() {
            Ok(())
        } else {
            self.session.export.backend().write(offset, data, flags(request)).await
        };
        let result = result.map_err(|error| self.note(request, &error));
        match write.finish(len, result) {
            Some(Ok(())) => self.output.done(request),
            Some(Err(errno)) => {
                self.output.fail(request, errno, &format!("{} failed: {errno}", request.command));
            }
            None => {}
        }
    }

    /// Writes zeroes and answers.
    pub(super) async fn write_zeroes(&self, request: Request) {
        let mut flags = flags(&request);
        flags.set(WriteFlags::MAY_UNMAP, !request.flags.contains(CommandFlags::NO_HOLE));
        flags.set(WriteFlags::NO_FALLBACK, request.flags.contains(CommandFlags::FAST_ZERO));
        let backend = self.session.export.backend();
        let result = backend.write_zeroes(request.offset, request.len, flags).await;
        self.answer(&request, result);
    }

    /// Gives storage back and answers.
    pub(super) async fn trim(&self, request: Request) {
        let backend = self.session.export.backend();
        let mut result = backend.discard(request.offset, request.len).await;
        if result.is_ok() && request.flags.contains(CommandFlags::FUA) {
            result = backend.flush().await;
        }
        self.answer(&request, result);
    }
}
