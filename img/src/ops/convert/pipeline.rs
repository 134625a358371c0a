//! The pipeline: lanes that claim, read, scan and write pieces of the sources.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_block::buf::is_zero;
use cairn_block::driver::WriteFlags;
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use cairn_block::{IoBuf, IoBufMut};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::SECTOR;
use super::journal::Journal;
use super::rate::RateLimit;
use super::reader::Reader;
use super::source::{Content, Layers, Sources};
use super::sparse::Detection;
use crate::error::Result;

/// Longest piece in bytes. Large enough that the cost of a request does not count, small enough that
/// what was read is still in the processor's cache when it is written.
const PIECE: u64 = 1 << 20;
/// Largest alignment of the target that zero detection follows, in bytes.
const LARGEST_UNIT: u64 = 64 << 10;
/// Longest range that is skipped or zeroed in one go, in bytes, so that progress is seen.
const ZERO_PIECE: u64 = 1 << 30;

/// What the pipeline tells while it runs.
pub trait Notice {
    /// So many bytes are to be copied. Told once, first.
    fn total(&self, bytes: u64);
    /// So many more bytes were copied.
    fn copied(&self, bytes: u64);
    /// Something could not be read and was replaced or guessed.
    fn salvaged(&self, message: &str);
}

impl Notice for () {
    fn total(&self, _bytes: u64) {}
    fn copied(&self, _bytes: u64) {}
    fn salvaged(&self, _message: &str) {}
}

/// What to do with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeroes {
    /// Nothing: the target has them already.
    Present,
    /// Make them as cheaply as the target can.
    Write,
    /// Write them out, so that the target is fully allocated.
    AsData,
}

/// One run of the pipeline.
pub(crate) struct Copy<'r> {
    pub(crate) sources: &'r Sources,
    pub(crate) target: &'r Backend,
    /// Where in the target the sources begin.
    pub(crate) target_start: u64,
    pub(crate) zeroes: Zeroes,
    /// Shortest run of zeroes in data that counts as such, in bytes; 0 if none does.
    pub(crate) sparse: u64,
    /// Write compressed units of this many bytes.
    pub(crate) compressed_cluster: Option<u64>,
    /// Size of the target's backing file, if what that file provides is left out.
    pub(crate) target_backing: Option<u64>,
    /// Leave alone what the target has where no layer of the source is allocated.
    pub(crate) allocated_only: bool,
    pub(crate) parallel: usize,
    /// Writes start in the order of their offsets.
    pub(crate) in_order: bool,
    pub(crate) copy_range: bool,
    /// Bytes per second.
    pub(crate) rate: Option<u64>,
    pub(crate) salvage: bool,
    /// Where to begin: what lies before is there already.
    pub(crate) start: u64,
    /// Where to record how far the copy is.
    pub(crate) journal: Option<&'r Journal>,
    /// All that is copied will be compared afterwards, which counts as progress.
    pub(crate) verified_later: bool,
}

/// A piece that a lane has claimed.
#[derive(Clone, Debug)]
struct Piece {
    /// Position in the order of pieces.
    number: u64,
    range: Range<u64>,
    content: Content,
}

impl Piece {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Where the next piece begins, and what is known of the range there.
struct Cursor {
    next_number: u64,
    at: u64,
    content: Content,
    /// End of the range that `content` is known for.
    known_to: u64,
}

/// What the lanes share.
struct Shared<'r> {
    copy: &'r Copy<'r>,
    reader: Reader<'r>,
    notice: &'r dyn Notice,
    cursor: tokio::sync::Mutex<Cursor>,
    turns: Turns,
    done: Mutex<Done>,
    /// Held while the journal is written.
    recording: tokio::sync::Mutex<()>,
    rate: Option<RateLimit>,
    copy_range: AtomicBool,
    detection: Detection,
}

impl Copy<'_> {
    /// Copies everything.
    pub(crate) async fn run(&self, notice: &dyn Notice) -> Result<()> {
        let limits = self.target.node().driver().limits();
        let unit = u64::from(limits.request_alignment)
            .max(u64::from(limits.write_zeroes_alignment).min(LARGEST_UNIT))
            .max(SECTOR)
            .next_power_of_two()
            // Data that is next to zeroes keeps so many of them that it ends on this grid.
            .max(self.sparse.checked_ilog2().map_or(1, |bits| 1 << bits));
        let shared = Shared {
            copy: self,
            reader: Reader { sources: self.sources, salvage: self.salvage, notice },
            notice,
            cursor: tokio::sync::Mutex::new(Cursor {
                next_number: 0,
                at: self.start,
                content: Content::Data,
                known_to: 0,
            }),
            turns: Turns::default(),
            done: Mutex::new(Done { next: 0, to: self.start, ahead: BTreeMap::new() }),
            recording: tokio::sync::Mutex::new(()),
            rate: self.rate.map(RateLimit::new),
            copy_range: AtomicBool::new(self.copy_range),
            detection: Detection { unit: unit.as_usize(), shortest: self.sparse.as_usize() },
        };
        let total = shared.total().await?;
        notice.total(if self.verified_later { total.saturating_mul(2) } else { total });
        try_join_all((0..self.parallel.max(1)).map(|_| shared.lane())).await?;
        if self.compressed_cluster.is_some() {
            self.target.write_compressed(self.sources.size(), IoBuf::zeroed(0)).await?;
        }
        Ok(())
    }
}

impl Shared<'_> {
    /// Bytes that will be copied as data.
    async fn total(&self) -> Result<u64> {
        let (mut at, mut total) = (self.copy.start, 0);
        while at < self.copy.sources.size() {
            let (content, end) = self.content(at).await?;
            if self.is_copied(content) {
                total += end - at;
            }
            at = end;
        }
        Ok(total)
    }

    fn is_copied(&self, content: Content) -> bool {
        match content {
            Content::Data => true,
            Content::Zero => self.copy.zeroes == Zeroes::AsData,
            Content::Backing => false,
        }
    }

    /// What the sources have at `at`, as far as the target is concerned, and up to where.
    async fn content(&self, at: u64) -> Result<(Content, u64)> {
        let size = self.copy.sources.size();
        let Some(backing) = self.copy.target_backing else {
            let layers = if self.copy.allocated_only { Layers::Allocated } else { Layers::All };
            return self.known_content(at..size, layers).await;
        };
        // Behind the end of the target's backing file the target reads as zeroes by itself.
        let end = if at < backing { size.min(backing.next_multiple_of(SECTOR)) } else { size };
        let (content, end) = self.known_content(at..end, Layers::Top).await?;
        if content == Content::Zero && at >= backing {
            return Ok((Content::Backing, end));
        }
        Ok((content, end))
    }

    /// The block status; when salvaging, ranges of unknown status count as data.
    async fn known_content(&self, range: Range<u64>, layers: Layers) -> Result<(Content, u64)> {
        let mut asked = range.clone();
        loop {
            match self.copy.sources.content(asked.clone(), layers).await {
                Err(error) if self.copy.salvage => {
                    let len = asked.end - asked.start;
                    if len <= SECTOR {
                        self.notice.salvaged(&error.to_string());
                        return Ok((Content::Data, asked.end));
                    }
                    let shorter = (len / 4).next_multiple_of(SECTOR);
                    asked.end = range.end.min(asked.start + shorter);
                }
                known => return known,
            }
        }
    }

    /// Claims the next piece; `None` when all are taken.
    async fn claim(&self) -> Result<Option<Piece>> {
        let size = self.copy.sources.size();
        let mut cursor = self.cursor.lock().await;
        let start = cursor.at;
        if start >= size {
            return Ok(None);
        }
        if cursor.known_to <= start {
            (cursor.content, cursor.known_to) = self.content(start).await?;
        }
        let mut content = cursor.content;
        let mut end = cursor.known_to;
        if let Some(cluster) = self.copy.compressed_cluster {
            if end - start < cluster {
                // A compressed unit is written whole, whatever parts of it are allocated.
                end = size.min(start + cluster);
                content = Content::Data;
            } else {
                end -= (end - start) % cluster;
            }
            if content == Content::Data {
                end = end.min(start + cluster);
            }
        }
        let longest = if self.is_copied(content) { PIECE } else { ZERO_PIECE };
        // Pieces end at multiples of their longest length, so that the target gets aligned writes.
        end = end.min((start / longest + 1) * longest);
        if let Some(cluster) = self.copy.compressed_cluster.filter(|&cluster| cluster > longest) {
            end = size.min(start + cluster);
        }
        cursor.at = end;
        let number = cursor.next_number;
        cursor.next_number += 1;
        Ok(Some(Piece { number, range: start..end, content }))
    }

    /// Copies pieces until none is left.
    async fn lane(&self) -> Result<()> {
        while let Some(piece) = self.claim().await? {
            let copied = self.is_copied(piece.content);
            let (len, number, end) = (piece.len(), piece.number, piece.range.end);
            self.copy_piece(piece).await?;
            if copied {
                self.notice.copied(len);
            }
            self.record(number, end).await?;
        }
        Ok(())
    }

    /// Notes that piece `number`, which ends at `end`, is written, and records it now and then.
    async fn record(&self, number: u64, end: u64) -> Result<()> {
        let Some(journal) = self.copy.journal else { return Ok(()) };
        self.done.lock().add(number, end);
        if !journal.is_due() {
            return Ok(());
        }
        let Ok(_recording) = self.recording.try_lock() else { return Ok(()) };
        let to = self.done.lock().to;
        // What is written by now is durable afterwards.
        self.copy.target.flush().await?;
        journal.store(to)
    }

    async fn copy_piece(&self, piece: Piece) -> Result<()> {
        match piece.content {
            Content::Data if self.copy_range.load(Ordering::Relaxed) => {
                let offloaded = self.in_turn(piece.number, self.offload(&piece)).await?;
                if offloaded { Ok(()) } else { self.copy_data(&piece, None).await }
            }
            Content::Data => self.copy_data(&piece, Some(piece.number)).await,
            Content::Zero if self.copy.zeroes == Zeroes::AsData => {
                let zeroes = IoBuf::zeroed(piece.len().as_usize());
                self.in_turn(piece.number, self.write_data(piece.range.start, zeroes)).await
            }
            Content::Zero => {
                self.in_turn(piece.number, self.zero(piece.range.start, piece.len())).await
            }
            Content::Backing => self.in_turn(piece.number, async { Ok(()) }).await,
        }
    }

    /// Reads a piece, and writes it when its turn comes; without a number that is at once.
    async fn copy_data(&self, piece: &Piece, number: Option<u64>) -> Result<()> {
        let data = self.reader.read(piece.range.clone()).await?;
        let write = self.write_runs(piece.range.start, data);
        match number {
            Some(number) => self.in_turn(number, write).await,
            None => write.await,
        }
    }

    /// Starts `write` when all pieces before `number` have started theirs, if order is wanted.
    async fn in_turn<T>(&self, number: u64, write: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.copy.in_order {
            return write.await;
        }
        self.turns.wait(number).await;
        let mut write = std::pin::pin!(write);
        let started = futures_util::poll!(&mut write);
        self.turns.finish(number);
        match started {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => write.await,
        }
    }

    /// Writes data, apart from the zeroes in it.
    async fn write_runs(&self, offset: u64, data: IoBufMut) -> Result<()> {
        let data = data.freeze();
        if self.copy.zeroes == Zeroes::AsData || self.copy.sparse == 0 {
            return self.write_data(offset, data).await;
        }
        if self.copy.compressed_cluster.is_some() {
            return if is_zero(&data) {
                self.zero(offset, data.len() as u64).await
            } else {
                self.write_data(offset, data).await
            };
        }
        for run in self.detection.runs(offset, &data) {
            let at = offset + run.range.start as u64;
            if run.zero {
                self.zero(at, run.range.len() as u64).await?;
            } else {
                self.write_data(at, data.slice(run.range)).await?;
            }
        }
        Ok(())
    }

    async fn write_data(&self, offset: u64, data: IoBuf) -> Result<()> {
        if let Some(rate) = &self.rate {
            rate.pass(data.len() as u64).await;
        }
        let at = self.copy.target_start + offset;
        match self.copy.compressed_cluster {
            Some(_) => self.copy.target.write_compressed(at, data).await?,
            None => self.copy.target.write(at, data, WriteFlags::empty()).await?,
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if self.copy.zeroes == Zeroes::Present {
            return Ok(());
        }
        let flags = match self.copy.target_backing {
            // Deallocating would show the backing file.
            Some(_) => WriteFlags::empty(),
            None => WriteFlags::MAY_UNMAP,
        };
        let at = self.copy.target_start + offset;
        Ok(self.copy.target.write_zeroes(at, len, flags).await?)
    }

    /// Lets the kernel copy a piece. After a failure it is not tried again, and the piece is to be
    /// copied otherwise.
    async fn offload(&self, piece: &Piece) -> Result<bool> {
        if let Some(rate) = &self.rate {
            rate.pass(piece.len()).await;
        }
        for (image, part) in self.copy.sources.within(piece.range.clone()) {
            let (offset, present) = image.locate(&part);
            let padded = present < part.end - part.start;
            let target = self.copy.target;
            let at = self.copy.target_start + part.start;
            if padded || target.copy_range_from(image.backend(), offset, at, present).await.is_err()
            {
                self.copy_range.store(false, Ordering::Relaxed);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Which pieces are written.
struct Done {
    /// Number of the first piece that is not.
    next: u64,
    /// Where the pieces before it end.
    to: u64,
    /// Ends of pieces behind it that are written.
    ahead: BTreeMap<u64, u64>,
}

impl Done {
    fn add(&mut self, number: u64, end: u64) {
        self.ahead.insert(number, end);
        while let Some(end) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.to = end;
        }
    }
}

/// Lets pieces pass one after the other.
#[derive(Default)]
struct Turns {
    next: AtomicU64,
    changed: Notify,
}

impl Turns {
    /// Waits until every piece before `number` has finished its turn.
    async fn wait(&self, number: u64) {
        loop {
            let changed = self.changed.notified();
            if self.next.load(Ordering::Acquire) == number {
                return;
            }
            changed.await;
        }
    }

    fn finish(&self, number: u64) {
        self.next.store(number + 1, Ordering::Release);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pieces_in_a_row_count_as_done() {
        let mut done = Done { next: 0, to: 100, ahead: BTreeMap::new() };
        done.add(1, 300);
        done.add(3, 500);
        assert_eq!(done.to, 100);
        done.add(0, 200);
        assert_eq!(done.to, 300);
        done.add(2, 400);
        assert_eq!((done.to, done.next), (500, 4));
        assert!(done.ahead.is_empty());
    }
}
