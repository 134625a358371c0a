//! Changing the size of a regular file, with and without storage for the new part.

use std::io;

use futures_util::stream::{StreamExt, TryStreamExt, iter};
use rustix::fs::FallocateFlags;

use super::zero::is_unsupported;
use crate::buf::IoBuf;
use crate::driver::Prealloc;
use crate::engine::File;
use crate::num::AsUsize;

/// Bytes of one write of zeroes.
const CHUNK: u64 = 1 << 20;
/// Writes of zeroes in flight.
const DEPTH: usize = 4;
/// Bytes at the start of a file that get storage when it grows from nothing: the largest unit of
/// direct I/O that programs probe for.
const FIRST_BLOCK: u64 = 4096;

/// Changes the size of `file` from `old` to `new` bytes. On failure the file has its old size.
///
/// `prealloc` is `Off`, `Falloc` or `Full`, and only growing allocates.
pub(super) async fn set_size(
    file: &File,
    old: u64,
    new: u64,
    prealloc: Prealloc,
) -> io::Result<()> {
    if new <= old || prealloc == Prealloc::Off {
        file.set_len(new).await?;
        if old == 0 {
            store_first_block(file, new).await;
        }
        return Ok(());
    }
    let result = grow(file, old, new, prealloc).await;
    if result.is_err() {
        // The first error is the one to report.
        let _ = file.set_len(old).await;
    }
    result
}

/// Gives the start of a new file storage. Programs find out the alignment that direct I/O needs by
/// reading there, and some file systems take any alignment for reads of a hole.
async fn store_first_block(file: &File, size: u64) {
    let grid = u64::from(file.options().offset_alignment);
    let len = size.min(FIRST_BLOCK) / grid * grid;
    if len > 0 {
        // Without storage the file is as correct.
        let _ = file.write_at(0, IoBuf::zeroed(len.as_usize()), false).await;
    }
}

async fn grow(file: &File, old: u64, new: u64, prealloc: Prealloc) -> io::Result<()> {
    if prealloc == Prealloc::Falloc {
        match file.allocate(FallocateFlags::empty(), old, new - old).await {
            // Writing is the only other way to reserve storage.
            Err(e) if is_unsupported(&e) => {}
            other => return other,
        }
    }
    // The size first, so that the file system sees how much is to come.
    file.set_len(new).await?;
    let grid = u64::from(file.options().offset_alignment);
    let zeroes = IoBuf::zeroed(CHUNK.as_usize());
    let start = old / CHUNK * CHUNK;
    let chunks =
        (start..new).step_by(CHUNK.as_usize()).map(|at| {
            // The first chunk begins where the old data ends; with O_DIRECT, on the next grid line. The
            // tail may reach over the end up to the grid, and is cut off again below.
            let from = at.max(old.next_multiple_of(grid));
            let to = (at + CHUNK).min(new.next_multiple_of(grid));
            let zeroes = zeroes.slice(..to.saturating_sub(from).as_usize());
            async move {
                if zeroes.is_empty() { Ok(()) } else { file.write_at(from, zeroes, false).await }
            }
        });
    iter(chunks).buffer_unordered(DEPTH).try_collect::<()>().await?;
    if !new.is_multiple_of(grid) {
        file.set_len(new).await?;
    }
    file.data_sync().await
}
