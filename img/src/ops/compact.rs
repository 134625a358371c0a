//! `compact`: make an image take as little storage as its content needs.
//!
//! First what is stored although it is zero is given up, then the format moves what is left to the
//! front of the file and cuts the file. Each step leaves a valid image.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_block::IoBufMut;
use cairn_block::buf::is_zero;
use cairn_block::driver::{CompactWatch, Compaction, Status, WriteFlags};
use cairn_block::graph::{Backend, Graph};
use cairn_block::num::AsUsize as _;
use cairn_block::options::CacheMode;

use super::convert::Notice;
use super::image::{Access, ImageSpec};
use crate::error::Result;

/// Longest piece that is read at once, in bytes.
const PIECE: u64 = 2 << 20;
/// Unit in which zeroes are looked for where the format has no clusters, in bytes.
const UNIT: u64 = 4096;

/// What a compaction gained. All sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Zeroes that were stored and are not any more.
    pub zeroes: u64,
    /// What was moved, and the length of the file before and afterwards.
    pub file: Compaction,
    /// Storage in use before, where that is known.
    pub used_before: Option<u64>,
    /// Storage in use afterwards.
    pub used_after: Option<u64>,
}

/// Compacts an image. When `stop` becomes true it ends soon, with the image valid.
pub async fn compact(
    graph: &Arc<Graph>,
    spec: &ImageSpec,
    cache: CacheMode,
    notice: &dyn Notice,
    stop: &AtomicBool,
) -> Result<Compacted> {
    let access = Access { write: true, resize: true, exclusive: true, cache, ..Access::default() };
    let image = spec.open(graph, &access).await?;
    let node = image.node();
    let compacted = async {
        let used_before = node.driver().allocated_size().await?;
        let scan = Scan { image: &image, notice, stop, change: true };
        let total = scan.data_bytes().await?;
        notice.total(total.saturating_mul(2));
        let zeroes = scan.run().await?;
        image.flush().await?;
        let watch = Watch { notice, stop, total, to_move: Cell::new(0) };
        let file = match graph.compact(&node, &watch).await {
            // There is nothing to move in a raw image.
            Err(error) if error.is_unsupported() && node.format() == "raw" => {
                Compaction { before: node.size(), after: node.size(), ..Compaction::default() }
            }
            other => other?,
        };
        image.flush().await?;
        let used_after = node.driver().allocated_size().await?;
        Ok(Compacted { zeroes, file, used_before, used_after })
    };
    let compacted: Result<Compacted> = compacted.await;
    drop(node);
    let closed = image.close().await;
    let compacted = compacted?;
    closed?;
    Ok(compacted)
}

/// The bytes of zeroes that [`compact`] would give up.
pub async fn rehearse(graph: &Arc<Graph>, spec: &ImageSpec, notice: &dyn Notice) -> Result<u64> {
    let image = spec.open(graph, &Access::default()).await?;
    let scan = Scan { image: &image, notice, stop: &AtomicBool::new(false), change: false };
    let zeroes = async {
        notice.total(scan.data_bytes().await?);
        scan.run().await
    };
    let zeroes = zeroes.await;
    let closed = image.close().await;
    let zeroes = zeroes?;
    closed?;
    Ok(zeroes)
}

/// A search for stored zeroes in the top layer.
struct Scan<'s> {
    image: &'s Backend,
    notice: &'s dyn Notice,
    stop: &'s AtomicBool,
    /// Give up what is found.
    change: bool,
}

impl Scan<'_> {
    /// The first run at `at` of what the top layer stores as plain data, as its start and end.
    async fn next_data(&self, mut at: u64) -> Result<Option<(u64, u64)>> {
        let size = self.image.size();
        while at < size {
            let extent = self.image.block_status(at, size - at, true).await?;
            let end = at + extent.len.max(1);
            if extent.status.contains(Status::DATA | Status::ALLOCATED)
                && !extent.status.contains(Status::COMPRESSED)
            {
                return Ok(Some((at, end)));
            }
            at = end;
        }
        Ok(None)
    }

    async fn data_bytes(&self) -> Result<u64> {
        let (mut at, mut total) = (0, 0);
        while let Some((start, end)) = self.next_data(at).await? {
            total += end - start;
            at = end;
        }
        Ok(total)
    }

    /// Returns the bytes of zeroes found.
    async fn run(&self) -> Result<u64> {
        let info = self.image.node().driver().format_info().await?;
        let unit = info.cluster_size.unwrap_or(UNIT);
        let size = self.image.size();
        let (mut at, mut zeroes) = (0, 0);
        while let Some((start, end)) = self.next_data(at).await? {
            // Units are looked at as a whole, and once.
            let mut from = (start / unit * unit).max(at);
            let to = size.min(end.next_multiple_of(unit));
            while from < to {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(zeroes);
                }
                let next = to.min(from + PIECE.max(unit));
                zeroes += self.piece(from, next, unit).await?;
                from = next;
            }
            self.notice.copied(end - start);
            at = to;
        }
        Ok(zeroes)
    }

    /// Gives up the units of a piece that are zero.
    async fn piece(&self, start: u64, end: u64, unit: u64) -> Result<u64> {
        let data = self.image.read(start, IoBufMut::new((end - start).as_usize())).await?;
        let mut zeroes = 0;
        let mut run = 0;
        let mut at = start;
        for bytes in data.chunks(unit.as_usize()) {
            if is_zero(bytes) {
                run += bytes.len() as u64;
            } else {
                zeroes += self.give_up(at - run, run).await?;
                run = 0;
            }
            at += bytes.len() as u64;
        }
        Ok(zeroes + self.give_up(at - run, run).await?)
    }

    async fn give_up(&self, offset: u64, len: u64) -> Result<u64> {
        if len == 0 || !self.change {
            return Ok(len);
        }
        let flags = WriteFlags::MAY_UNMAP | WriteFlags::NO_FALLBACK;
        match self.image.write_zeroes(offset, len, flags).await {
            Ok(()) => Ok(len),
            // Where zeroes cannot be told apart from data they stay as they are.
            Err(error) if error.is_unsupported() => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Shows the second half of the progress.
struct Watch<'w> {
    notice: &'w dyn Notice,
    stop: &'w AtomicBool,
    /// What the second half counts for.
    total: u64,
    to_move: Cell<u64>,
}

impl CompactWatch for Watch<'_> {
    fn total(&self, bytes: u64) {
        self.to_move.set(bytes);
    }

    fn moved(&self, bytes: u64) {
        let share = u128::from(bytes) * u128::from(self.total);
        let share = share / u128::from(self.to_move.get().max(1));
        self.notice.copied(u64::try_from(share).unwrap_or(self.total));
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
