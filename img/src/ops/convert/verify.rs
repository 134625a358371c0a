//! Comparing what was written with the sources.

use std::ops::Range;

use cairn_block::IoBufMut;
use cairn_block::buf::is_zero;
use cairn_block::driver::Status;
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use futures_util::{TryStreamExt, stream};

use super::pipeline::Notice;
use super::reader::Reader;
use super::source::{Content, Layers, Sources};
use crate::error::{Error, Result};

/// Longest piece in bytes.
const PIECE: u64 = 1 << 20;

/// What a range of the sources is to be compared with.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// The sources are known to be zero there.
    source_zero: bool,
    /// The target is known to be zero there.
    target_zero: bool,
}

/// Fails unless `target` shows what `sources` do, and names the first byte that differs.
pub(super) async fn verify(
    sources: &Sources,
    target: &Backend,
    parallel: usize,
    notice: &dyn Notice,
) -> Result<()> {
    let size = sources.size();
    let reader = Reader { sources, salvage: false, notice };
    let pieces = stream::try_unfold(0, |at| async move {
        if at >= size {
            return Ok(None);
        }
        let (work, end) = examine(sources, target, at, size).await?;
        Ok::<_, Error>(Some(((work, at..end), end)))
    });
    let checked = pieces
        .map_ok(|(work, range)| async move {
            let difference = compare(&reader, target, work, range.clone()).await?;
            Ok((difference, work, range))
        })
        .try_buffered(parallel.max(1));
    let mut checked = std::pin::pin!(checked);
    while let Some((difference, work, range)) = checked.try_next().await? {
        if let Some(offset) = difference {
            return Err(Error::Verification { target: target.node().label(), offset });
        }
        if !work.source_zero {
            notice.copied(range.end - range.start);
        }
    }
    Ok(())
}

/// What is to be compared at `at`, and up to where.
async fn examine(sources: &Sources, target: &Backend, at: u64, size: u64) -> Result<(Work, u64)> {
    let (content, mut end) = sources.content(at..size, Layers::All).await?;
    let found = target.content_above(None, at, end - at).await?.extent;
    end = end.min(at + found.len);
    let work = Work {
        source_zero: content == Content::Zero,
        target_zero: found.status.contains(Status::ZERO),
    };
    if !(work.source_zero && work.target_zero) {
        end = end.min((at / PIECE + 1) * PIECE);
    }
    Ok((work, end))
}

/// The first byte in which the two differ.
async fn compare(
    reader: &Reader<'_>,
    target: &Backend,
    work: Work,
    range: Range<u64>,
) -> Result<Option<u64>> {
    let len = (range.end - range.start).as_usize();
    let difference = match (work.source_zero, work.target_zero) {
        (true, true) => None,
        (true, false) => first_nonzero(&target.read(range.start, IoBufMut::new(len)).await?),
        (false, true) => first_nonzero(&reader.read(range.clone()).await?),
        (false, false) => {
            let source = reader.read(range.clone()).await?;
            let target = target.read(range.start, IoBufMut::new(len)).await?;
            first_difference(&source, &target)
        }
    };
    Ok(difference.map(|index| range.start + index as u64))
}

fn first_nonzero(data: &[u8]) -> Option<usize> {
    if is_zero(data) { None } else { data.iter().position(|&byte| byte != 0) }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_to_the_byte() {
        assert_eq!(first_nonzero(&[0; 600]), None);
        let mut data = vec![0; 600];
        data[513] = 1;
        assert_eq!(first_nonzero(&data), Some(513));
        assert_eq!(first_difference(&data, &[0; 600]), Some(513));
        assert_eq!(first_difference(&data, &data), None);
    }
}
