//! `compare`: whether two images have the same content.
//!
//! Pieces are compared by two I/O threads, since copying out of the page cache and comparing take far
//! longer than waiting. Within a piece little is read at a time, so that it is still in the
//! processor's cache when it is compared.

mod statistics;

use std::ops::Range;
use std::sync::Arc;

use cairn_block::IoBufMut;
use cairn_block::buf::is_zero;
use cairn_block::driver::Status;
use cairn_block::engine::{EngineConfig, IoThread};
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use futures_util::{FutureExt as _, TryStreamExt, stream};

pub use statistics::{RelatedRange, Relation, Statistics, statistics};

use crate::error::{Error, Result};

/// Exit status when an image cannot be opened.
pub const EXIT_OPEN: u8 = 2;
/// Exit status when the allocation of an image cannot be examined.
const EXIT_STATUS: u8 = 3;
/// Exit status when an image cannot be read.
const EXIT_READ: u8 = 4;

/// Longest piece in bytes.
const PIECE: u64 = 2 << 20;
/// Bytes read at a time within a piece.
const READ: usize = 128 << 10;
/// Pieces in flight, half of them on each thread.
const PARALLEL: usize = 4;
/// Images below this size in bytes are compared by one thread.
const SMALL: u64 = 16 << 20;
/// Differences are located to a sector of this many bytes.
const SECTOR: usize = 512;

/// Result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The images are the same.
    Identical,
    /// The first difference is in the sector at this offset.
    ContentDiffers {
        /// In bytes.
        offset: u64,
    },
    /// Sizes differ, and that matters.
    SizeDiffers,
    /// Allocation differs from this offset on, and that matters.
    StatusDiffers {
        /// In bytes.
        offset: u64,
    },
}

/// What the comparison tells while it runs.
pub trait Notice {
    /// So many bytes will be compared. Told once, first.
    fn total(&self, bytes: u64);
    /// So many more bytes were compared.
    fn compared(&self, bytes: u64);
    /// The images are the same as far as the shorter one goes.
    fn sizes_differ(&self);
}

/// How two images are to be compared.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Both read as zeroes.
    Nothing,
    /// Allocation differs, which matters.
    Differ,
    /// Both may have data.
    Both,
    /// The first must be zero.
    FirstZero,
    /// The second must be zero.
    SecondZero,
}

/// The two images.
struct Pair {
    first: Arc<Backend>,
    second: Arc<Backend>,
    strict: bool,
}

/// Compares `first` and `second`. With `strict`, size and allocation must be the same, too; otherwise
/// the rest of the longer image must read as zeroes.
pub async fn compare(
    first: &Arc<Backend>,
    second: &Arc<Backend>,
    strict: bool,
    notice: &dyn Notice,
) -> Result<Verdict> {
    let (a, b) = (first.size(), second.size());
    if strict && a != b {
        return Ok(Verdict::SizeDiffers);
    }
    notice.total(a.max(b));
    let pair = Arc::new(Pair { first: Arc::clone(first), second: Arc::clone(second), strict });
    let helper = helper(a.max(b));
    let common = a.min(b);
    let mut verdict = pair.compare(0..common, helper.as_ref(), notice).await?;
    if verdict == Verdict::Identical && a != b {
        notice.sizes_differ();
        verdict = pair.compare(common..a.max(b), helper.as_ref(), notice).await?;
    }
    if let Some(helper) = helper {
        helper.join();
    }
    Ok(verdict)
}

/// A second thread for images of up to `size` bytes: a gain, not a need.
fn helper(size: u64) -> Option<IoThread> {
    if size < SMALL {
        return None;
    }
    IoThread::spawn("compare", EngineConfig::default()).ok()
}

impl Pair {
    /// Compares a range that lies within both images, or behind the end of one.
    async fn compare(
        self: &Arc<Pair>,
        range: Range<u64>,
        helper: Option<&IoThread>,
        notice: &dyn Notice,
    ) -> Result<Verdict> {
        let pieces = stream::try_unfold(range.start, |at| {
            let end = range.end;
            async move {
                if at >= end {
                    return Ok(None);
                }
                let (work, len) = self.work(at, end - at).await?;
                Ok::<_, Error>(Some(((work, at..at + len), at + len)))
            }
        });
        // Results come in order, so the first difference found is the first there is.
        let mut results = std::pin::pin!(
            pieces
                .map_ok(|(work, piece)| {
                    let len = piece.end - piece.start;
                    let verdict = match helper.filter(|_| (piece.start / PIECE) % 2 == 1) {
                        None => self.piece(work, piece).boxed_local(),
                        Some(helper) => {
                            let pair = Arc::clone(self);
                            helper
                                .run(move || async move { pair.piece(work, piece).await })
                                .boxed_local()
                        }
                    };
                    async move { Ok((verdict.await?, len)) }
                })
                .try_buffered(PARALLEL)
        );
        while let Some((verdict, len)) = results.try_next().await? {
            if verdict != Verdict::Identical {
                return Ok(verdict);
            }
            notice.compared(len);
        }
        Ok(Verdict::Identical)
    }

    /// What is to be done at `at`, and for how many bytes.
    async fn work(&self, at: u64, len: u64) -> Result<(Work, u64)> {
        let (first, len) = status(&self.first, at, len, self.strict).await?;
        let (second, len) = status(&self.second, at, len, self.strict).await?;
        let work = match (first.contains(Status::ZERO), second.contains(Status::ZERO)) {
            _ if self.strict && first != second => Work::Differ,
            (true, true) => Work::Nothing,
            (true, false) => Work::SecondZero,
            (false, true) => Work::FirstZero,
            (false, false) => Work::Both,
        };
        let len = match work {
            Work::Nothing | Work::Differ => len,
            // Pieces end at multiples of their length, to stay aligned.
            _ => len.min(PIECE - at % PIECE),
        };
        Ok((work, len))
    }

    async fn piece(&self, work: Work, range: Range<u64>) -> Result<Verdict> {
        let images = match work {
            Work::Nothing => return Ok(Verdict::Identical),
            Work::Differ => return Ok(Verdict::StatusDiffers { offset: range.start }),
            Work::FirstZero => (Some(&self.first), None),
            Work::SecondZero => (None, Some(&self.second)),
            Work::Both => (Some(&self.first), Some(&self.second)),
        };
        let mut buffers = [IoBufMut::new(READ), IoBufMut::new(READ)];
        let mut at = range.start;
        while at < range.end {
            let len = READ.min((range.end - at).as_usize());
            let [first, second] = buffers;
            let first = read(images.0, at, len, first).await?;
            let second = read(images.1, at, len, second).await?;
            let difference = match images {
                (Some(_), Some(_)) => first_difference(&first, &second),
                (Some(_), None) => first_nonzero(&first),
                (None, _) => first_nonzero(&second),
            };
            if let Some(sector) = difference {
                return Ok(Verdict::ContentDiffers { offset: at + sector as u64 });
            }
            buffers = [first, second];
            at += len as u64;
        }
        Ok(Verdict::Identical)
    }
}

/// Status of `image` at `at`, and for how many bytes; behind the end everything is zero. With `strict`, it
/// goes by place, and has all that allocation means: where the run ends, and who else could be asked, are no
/// part of that.
async fn status(image: &Backend, at: u64, len: u64, strict: bool) -> Result<(Status, u64)> {
    if at >= image.size() {
        return Ok((Status::ZERO, len));
    }
    let found = if strict {
        image.status_above(None, at, len, true).await
    } else {
        image.content_above(None, at, len).await
    };
    let extent = found.map_err(|error| Error::from(error).with_status(EXIT_STATUS))?.extent;
    Ok((extent.status - Status::EOF - Status::RECURSE, extent.len))
}

/// Reads `len` bytes, less only at the end of a piece, if there is an image to read from.
async fn read(
    image: Option<&Arc<Backend>>,
    offset: u64,
    len: usize,
    mut buf: IoBufMut,
) -> Result<IoBufMut> {
    let Some(image) = image else { return Ok(buf) };
    buf.truncate(len);
    let read = image.read(offset, buf).await;
    read.map_err(|error| Error::from(error).with_status(EXIT_READ))
}

/// Offset of the first sector in which the two differ.
fn first_difference(first: &[u8], second: &[u8]) -> Option<usize> {
    if first == second {
        return None;
    }
    let sectors = first.chunks(SECTOR).zip(second.chunks(SECTOR));
    sectors.into_iter().position(|(a, b)| a != b).map(|index| index * SECTOR)
}

/// Offset of the first sector that is not zero.
fn first_nonzero(data: &[u8]) -> Option<usize> {
    if is_zero(data) {
        return None;
    }
    data.chunks(SECTOR).position(|sector| !is_zero(sector)).map(|index| index * SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_located_to_the_sector() {
        let mut a = vec![7u8; 2048];
        let b = a.clone();
        assert_eq!(first_difference(&a, &b), None);
        a[1030] = 0;
        assert_eq!(first_difference(&a, &b), Some(1024));
        a[0] = 0;
        assert_eq!(first_difference(&a, &b), Some(0));
    }

    #[test]
    fn the_first_sector_with_data_is_found() {
        let mut data = vec![0u8; 2048];
        assert_eq!(first_nonzero(&data), None);
        data[2047] = 1;
        assert_eq!(first_nonzero(&data), Some(1536));
    }
}
