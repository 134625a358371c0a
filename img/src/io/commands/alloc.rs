//! `alloc` and `map`: which ranges the image stores itself, and which its backing file decides.

use cairn_block::driver::Status;
use futures_util::future::LocalBoxFuture;

use crate::io::command::{Call, Fault};
use crate::io::image::Image;
use crate::io::number::bytes;
use crate::io::report::whole_amount;
use crate::io::session::Session;

/// Bytes that `alloc` looks at unless told otherwise.
const SECTOR: u64 = 512;

/// Whether the byte at `offset` is stored in the image, and how many bytes, `length` at most, are
/// like it.
async fn run_at(image: &Image, offset: u64, length: u64) -> Result<(bool, u64), Fault> {
    let extent = image.node.block_status(offset, length, false).await?;
    Ok((extent.status.contains(Status::ALLOCATED), extent.len))
}

pub(in crate::io) fn alloc<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let [offset, rest @ ..] = call.words else { return Err(Fault::Usage(None)) };
        let offset = bytes(offset)?;
        let count = rest.first().map_or(Ok(SECTOR), |count| bytes(count))?;
        let image = session.image()?;
        let end = image.backend.size().min(offset.saturating_add(count));
        let mut allocated = 0;
        let mut at = offset;
        while at < end {
            let (is_allocated, length) = run_at(image, at, end - at).await?;
            if is_allocated {
                allocated += length;
            }
            at += length;
        }
        session.out.line(&format!(
            "{allocated}/{} bytes allocated at offset {}",
            at - offset,
            whole_amount(offset)
        ));
        Ok(())
    })
}

pub(in crate::io) fn map<'a>(
    session: &'a mut Session,
    _: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let image = session.image()?;
        let end = image.backend.size();
        let mut start = 0;
        while start < end {
            let (is_allocated, mut length) = run_at(image, start, end - start).await?;
            // Formats may answer in smaller pieces.
            while start + length < end {
                let at = start + length;
                match run_at(image, at, end - at).await? {
                    (same, more) if same == is_allocated => length += more,
                    _ => break,
                }
            }
            let words = if is_allocated { "    allocated" } else { "not allocated" };
            session.out.line(&format!(
                "{} ({length:#x}) bytes {words} at offset {} ({start:#x})",
                whole_amount(length),
                whole_amount(start),
            ));
            start += length;
        }
        Ok(())
    })
}
