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
        return file.set_len(new).await;
    }
    let result = grow(file, old, new, prealloc).await;
    if result.is_err() {
        // The first error is the one to report.
        let _ = file.set_len(old).await;
    }
    result
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
