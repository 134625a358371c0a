//! How much of two images is the same, and where they differ.
//!
//! The images are compared to their ends, by sectors. A difference is told apart by what is zero: data
//! in both, or data in one of them only.

use std::ops::Range;
use std::sync::Arc;

use cairn_block::IoBufMut;
use cairn_block::buf::is_zero;
use cairn_block::engine::IoThread;
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use futures_util::{FutureExt as _, TryStreamExt, stream};

use super::{Notice, PARALLEL, PIECE, Pair, READ, SECTOR, Work, helper, read};
use crate::error::{Error, Result};

/// Ranges that are listed at most.
const MAX_RANGES: usize = 65_536;

/// How a sector of one image relates to that of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same data.
    Same,
    /// Zeroes in both.
    Zero,
    /// Different data.
    Different,
    /// Data in the first image, zeroes in the second.
    OnlyFirst,
    /// Zeroes in the first image, data in the second.
    OnlySecond,
}

impl Relation {
    /// The name of it, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Relation::Same => "same",
            Relation::Zero => "zero",
            Relation::Different => "different",
            Relation::OnlyFirst => "only-first",
            Relation::OnlySecond => "only-second",
        }
    }

    fn is_difference(self) -> bool {
        !matches!(self, Relation::Same | Relation::Zero)
    }
}

/// A run of bytes in which all sectors relate in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelatedRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// How the images relate.
    pub relation: Relation,
}

/// What a whole comparison found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sizes of the two images.
    pub sizes: [u64; 2],
    /// The same data in both.
    pub same: u64,
    /// Zeroes in both.
    pub zero: u64,
    /// Different data.
    pub different: u64,
    /// Data in the first image only.
    pub only_first: u64,
    /// Data in the second image only.
    pub only_second: u64,
    /// Where they differ, in order.
    pub ranges: Vec<RelatedRange>,
    /// There are more such ranges than are listed.
    pub more_ranges: bool,
    /// Offset of the first sector that differs.
    pub first_difference: Option<u64>,
}

impl Statistics {
    /// Whether the images show the same.
    pub fn is_identical(&self) -> bool {
        self.first_difference.is_none()
    }

    /// Adds the next range.
    fn add(&mut self, range: RelatedRange) {
        let RelatedRange { start, length, relation } = range;
        *match relation {
            Relation::Same => &mut self.same,
            Relation::Zero => &mut self.zero,
            Relation::Different => &mut self.different,
            Relation::OnlyFirst => &mut self.only_first,
            Relation::OnlySecond => &mut self.only_second,
        } += length;
        if !relation.is_difference() {
            return;
        }
        self.first_difference.get_or_insert(start);
        let follows = |last: &&mut RelatedRange| {
            last.relation == relation && last.start + last.length == start
        };
        if let Some(last) = self.ranges.last_mut().filter(follows) {
            last.length += length;
        } else if self.ranges.len() < MAX_RANGES {
            self.ranges.push(range);
        } else {
            self.more_ranges = true;
        }
    }
}

/// Compares all of `first` and `second`; behind its end an image is zero.
pub async fn statistics(
    first: &Arc<Backend>,
    second: &Arc<Backend>,
    notice: &dyn Notice,
) -> Result<Statistics> {
    let sizes = [first.size(), second.size()];
    let size = sizes[0].max(sizes[1]);
    notice.total(size);
    let pair =
        Arc::new(Pair { first: Arc::clone(first), second: Arc::clone(second), strict: false });
    let helper = helper(size);
    let found = relate_all(&pair, sizes, helper.as_ref(), notice).await;
    if let Some(helper) = helper {
        helper.join();
    }
    found
}

async fn relate_all(
    pair: &Arc<Pair>,
    sizes: [u64; 2],
    helper: Option<&IoThread>,
    notice: &dyn Notice,
) -> Result<Statistics> {
    let [size, common] = [sizes[0].max(sizes[1]), sizes[0].min(sizes[1])];
    let mut found = Statistics { sizes, ..Statistics::default() };
    let parts = stream::try_unfold(0, |at| {
        async move {
            if at >= size {
                return Ok(None);
            }
            // A piece lies within both images, or behind the end of one.
            let end = if at < common { common } else { size };
            let (work, len) = pair.work(at, end - at).await?;
            Ok::<_, Error>(Some(((work, at..at + len), at + len)))
        }
    });
    let related = parts.map_ok(|(work, range)| {
        let pair = Arc::clone(pair);
        let is_odd = (range.start / PIECE) % 2 == 1;
        let relate = move || async move { relate(&pair, work, range).await };
        match helper.filter(|_| is_odd) {
            None => relate().boxed_local(),
            Some(helper) => helper.run(relate).boxed_local(),
        }
    });
    let mut related = std::pin::pin!(related.try_buffered(PARALLEL));
    while let Some(ranges) = related.try_next().await? {
        for range in ranges {
            found.add(range);
            notice.compared(range.length);
        }
    }
    Ok(found)
}

/// The ranges of a piece.
async fn relate(pair: &Pair, work: Work, range: Range<u64>) -> Result<Vec<RelatedRange>> {
    let images = match work {
        Work::Nothing | Work::Differ => {
            let length = range.end - range.start;
            let relation = Relation::Zero;
            return Ok(vec![RelatedRange { start: range.start, length, relation }]);
        }
        Work::FirstZero => (Some(&pair.first), None),
        Work::SecondZero => (None, Some(&pair.second)),
        Work::Both => (Some(&pair.first), Some(&pair.second)),
    };
    let mut ranges: Vec<RelatedRange> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let len = READ.min((range.end - at).as_usize());
        let first = read(images.0, at, len, IoBufMut::zeroed(len)).await?;
        let second = read(images.1, at, len, IoBufMut::zeroed(len)).await?;
        for (start, length, relation) in runs(&first, &second) {
            let start = at + start as u64;
            let length = length as u64;
            match ranges.last_mut() {
                Some(last) if last.relation == relation => last.length += length,
                _ => ranges.push(RelatedRange { start, length, relation }),
            }
        }
        at += len as u64;
    }
    Ok(ranges)
}

/// How the sectors of two pieces of the same length relate: runs of offset, length and relation.
fn runs(first: &[u8], second: &[u8]) -> Vec<(usize, usize, Relation)> {
    if first == second && (is_zero(first) || !has_zero_sector(first)) {
        let relation = if is_zero(first) { Relation::Zero } else { Relation::Same };
        return vec![(0, first.len(), relation)];
    }
    let mut runs: Vec<(usize, usize, Relation)> = Vec::new();
    let mut at = 0;
    for (a, b) in first.chunks(SECTOR).zip(second.chunks(SECTOR)) {
        let relation = match (is_zero(a), is_zero(b)) {
            (true, true) => Relation::Zero,
            (true, false) => Relation::OnlySecond,
            (false, true) => Relation::OnlyFirst,
            (false, false) if a == b => Relation::Same,
            (false, false) => Relation::Different,
        };
        match runs.last_mut() {
            Some((_, length, last)) if *last == relation => *length += a.len(),
            _ => runs.push((at, a.len(), relation)),
        }
        at += a.len();
    }
    runs
}

fn has_zero_sector(data: &[u8]) -> bool {
    data.chunks(SECTOR).any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_relate_by_what_is_zero() {
        let sector = |byte: u8| vec![byte; SECTOR];
        let first = [sector(1), sector(0), sector(2), sector(0), sector(3), sector(3)].concat();
        let second = [sector(1), sector(0), sector(9), sector(4), sector(0), sector(0)].concat();
        let found: Vec<_> = runs(&first, &second);
        assert_eq!(
            found,
            [
                (0, 512, Relation::Same),
                (512, 512, Relation::Zero),
                (1024, 512, Relation::Different),
                (1536, 512, Relation::OnlySecond),
                (2048, 1024, Relation::OnlyFirst),
            ]
        );
        assert_eq!(runs(&first, &first).len(), 5);
        assert_eq!(runs(&sector(0), &sector(0)), [(0, 512, Relation::Zero)]);
    }

    #[test]
    fn neighbouring_differences_are_one_range() {
        let range = |start, relation| RelatedRange { start, length: 512, relation };
        let mut found = Statistics::default();
        found.add(range(0, Relation::Same));
        found.add(range(512, Relation::Different));
        found.add(range(1024, Relation::Different));
        found.add(range(1536, Relation::OnlyFirst));
        assert_eq!((found.same, found.different, found.only_first), (512, 1024, 512));
        assert_eq!(found.first_difference, Some(512));
        assert_eq!(found.ranges.len(), 2);
    }
}
