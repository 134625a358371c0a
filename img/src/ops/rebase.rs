//! `rebase`: give an overlay another backing file.
//!
//! In the safe mode the overlay first gets a copy of everything that the new backing file shows
//! otherwise than the old one; meanwhile it shows the same through the old one. The header changes
//! last, when the copies are durable, so that an interruption at any time loses nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_block::buf::is_zero;
use cairn_block::driver::{Status, WriteFlags};
use cairn_block::graph::{Backend, Graph, Node, backing_of};
use cairn_block::num::AsUsize as _;
use cairn_block::options::{CacheMode, filename};
use cairn_block::{IoBuf, IoBufMut};
use futures_util::future::try_join_all;
use tokio::sync::Mutex;

use super::convert::Notice;
use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Longest piece that is compared at once, in bytes.
const PIECE: u64 = 1 << 20;
/// Pieces under way at once.
const PARALLEL: usize = 8;
/// Smallest unit in which differences are looked for, in bytes.
const LEAST_UNIT: u64 = 512;

/// Zeroes beside data, of up to this many bytes, are written along with the data: one request more costs
/// more than they do.
const SHORT_ZEROES: usize = 64 << 10;

/// The new backing file.
#[derive(Clone, Debug)]
pub struct NewBacking {
    /// Its name, as it is to be stored; relative to the overlay's directory.
    pub file: String,
    /// Its format.
    pub format: Option<String>,
}

/// What to rebase, and how.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// The overlay.
    pub image: ImageSpec,
    /// Its cache mode.
    pub cache: CacheMode,
    /// The new backing file; `None` for none.
    pub backing: Option<NewBacking>,
    /// Cache mode of the old and the new backing file.
    pub backing_cache: CacheMode,
    /// Others may be writing to the new backing file.
    pub force_share: bool,
    /// Change only the name in the header; the user knows that the content is the same.
    pub header_only: bool,
    /// Compress what is copied.
    pub compress: bool,
}

/// What [`rebase`] would do, after a comparison of the backing files.
pub async fn rehearse(
    graph: &Arc<Graph>,
    request: &RebaseRequest,
    notice: &dyn Notice,
) -> Result<String> {
    let copied = run(graph, request, notice, Mode::Rehearse).await?;
    let label = request.image.label();
    Ok(match &request.backing {
        Some(new) => format!(
            "Would copy {copied} bytes into '{label}' and give it the backing file '{}'.",
            new.file
        ),
        None => {
            format!("Would copy {copied} bytes into '{label}' and leave it without backing file.")
        }
    })
}

/// Rebases.
pub async fn rebase(
    graph: &Arc<Graph>,
    request: &RebaseRequest,
    notice: &dyn Notice,
) -> Result<()> {
    run(graph, request, notice, Mode::Change).await.map(|_| ())
}

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Change,
    Rehearse,
}

/// Does it or rehearses it. Returns the number of bytes to copy.
async fn run(
    graph: &Arc<Graph>,
    request: &RebaseRequest,
    notice: &dyn Notice,
    mode: Mode,
) -> Result<u64> {
    let access = Access {
        write: mode == Mode::Change,
        metadata_only: request.header_only,
        cache: request.cache,
        ..Access::default()
    };
    let overlay = request.image.open(graph, &access).await?;
    let changed = async {
        if let Some(NewBacking { file, format: None }) = &request.backing {
            return Err(Error::Usage(format!(
                "the format of the new backing file '{file}' must be given; add -F FORMAT"
            )));
        }
        if let Some(format) = request.backing.as_ref().and_then(|new| new.format.as_deref())
            && cairn_block::driver::find(format).is_none()
        {
            return Err(Error::Usage(format!("there is no image format '{format}'")));
        }
        let copied = if request.header_only {
            0
        } else {
            copy_differences(graph, request, &overlay, notice, mode).await?
        };
        if mode == Mode::Rehearse {
            return Ok(copied);
        }
        let (file, format) = match request.backing.clone() {
            Some(new) => (Some(new.file), new.format),
            None => (None, None),
        };
        overlay.node().driver().change_backing(file, format).await?;
        Ok(copied)
    };
    let changed = changed.await;
    let closed = overlay.close().await;
    let copied = changed?;
    closed?;
    Ok(copied)
}

async fn copy_differences(
    graph: &Arc<Graph>,
    request: &RebaseRequest,
    overlay: &Backend,
    notice: &dyn Notice,
    mode: Mode,
) -> Result<u64> {
    let node = overlay.node();
    let new = match &request.backing {
        Some(new) => Some(open_backing(graph, request, new, &node).await?),
        None => None,
    };
    let info = node.driver().format_info().await?;
    let unit = u64::from(node.driver().limits().write_zeroes_alignment).max(LEAST_UNIT);
    let cluster = info.cluster_size.unwrap_or(unit);
    let rebase = Rebase {
        overlay,
        shared: new.as_ref().and_then(|new| in_chain(&node, &new.node().filename())),
        new: new.as_ref(),
        unit: if request.compress { cluster } else { unit },
        compress: request.compress,
        next: Mutex::new(0),
        notice,
        mode,
        copied: AtomicU64::new(0),
    };
    notice.total(overlay.size());
    let copied = try_join_all((0..PARALLEL).map(|_| rebase.lane())).await;
    let bytes = rebase.copied.load(Ordering::Relaxed);
    drop(rebase);
    if let Some(new) = new {
        new.close().await?;
    }
    copied?;
    if mode == Mode::Rehearse {
        return Ok(bytes);
    }
    if request.compress {
        overlay.write_compressed(overlay.size(), IoBuf::zeroed(0)).await?;
    }
    overlay.flush().await?;
    Ok(bytes)
}

async fn open_backing(
    graph: &Arc<Graph>,
    request: &RebaseRequest,
    new: &NewBacking,
    overlay: &Arc<Node>,
) -> Result<Backend> {
    let name = filename::resolve_backing(&new.file, &overlay.base_filename().unwrap_or_default())?;
    let spec = ImageSpec::File { name, format: new.format.clone() };
    let access = Access::read(request.backing_cache, request.force_share);
    spec.open(graph, &access).await.map_err(|error| match error {
        Error::Block(error) => Error::Block(error.context("cannot open the new backing file")),
        other => other,
    })
}

/// The layer below `overlay` that is the file `filename`.
fn in_chain(overlay: &Arc<Node>, filename: &str) -> Option<Arc<Node>> {
    let real = |name: &str| std::fs::canonicalize(name).ok();
    let wanted = real(filename)?;
    let mut node = backing_of(overlay)?;
    while real(&node.filename()).as_ref() != Some(&wanted) {
        node = backing_of(&node)?;
    }
    Some(node)
}

/// One run.
struct Rebase<'r> {
    overlay: &'r Backend,
    new: Option<&'r Backend>,
    /// The new backing file, if it is part of the old chain: only what lies above it can differ.
    shared: Option<Arc<Node>>,
    /// Differences are copied in aligned units of so many bytes.
    unit: u64,
    compress: bool,
    /// First byte that no lane has claimed.
    next: Mutex<u64>,
    notice: &'r dyn Notice,
    mode: Mode,
    /// Bytes that were, or would be, copied.
    copied: AtomicU64,
}

impl Rebase<'_> {
    async fn lane(&self) -> Result<()> {
        while let Some(range) = self.claim().await? {
            let len = range.end - range.start;
            self.copy_piece(range).await?;
            self.notice.copied(len);
        }
        Ok(())
    }

    /// The next range that may differ.
    async fn claim(&self) -> Result<Option<Range<u64>>> {
        let size = self.overlay.size();
        let mut next = self.next.lock().await;
        while *next < size {
            let start = *next;
            let (differs, end) = self.may_differ(start, size).await?;
            if differs {
                let piece = PIECE.max(self.unit);
                let end = end.min((start / piece + 1).saturating_mul(piece));
                *next = size.min(end.next_multiple_of(self.unit));
                return Ok(Some(start / self.unit * self.unit..*next));
            }
            // A unit that is known in part is looked at as a whole.
            let whole = if end == size { size } else { end / self.unit * self.unit };
            if whole <= start {
                *next = size.min(start / self.unit * self.unit + self.unit);
                return Ok(Some(start / self.unit * self.unit..*next));
            }
            *next = whole;
            self.notice.copied(whole - start);
        }
        Ok(None)
    }

    /// Whether the first run from `start` on may show something else through the new backing file, and
    /// where that run ends.
    async fn may_differ(&self, start: u64, size: u64) -> Result<(bool, u64)> {
        let top = self.overlay.block_status(start, size - start, false).await?;
        let end = start + top.len;
        if top.status.contains(Status::ALLOCATED) {
            return Ok((false, end));
        }
        let Some(shared) = &self.shared else { return Ok((true, end)) };
        let above = self.overlay.status_above(Some(shared), start, top.len, false).await?;
        let is_above = above.extent.status.contains(Status::ALLOCATED);
        // Behind its end the layer above decides, although nothing is allocated there.
        let differs = is_above || start >= shared.size();
        let end = start + above.extent.len;
        Ok((differs, if start < shared.size() { end.min(shared.size()) } else { end }))
    }

    async fn copy_piece(&self, range: Range<u64>) -> Result<()> {
        let old_is_zero = is_known_zero(Some(self.overlay), &range).await?;
        let new_is_zero = is_known_zero(self.new, &range).await?;
        if old_is_zero && new_is_zero {
            return Ok(());
        }
        let old = read(Some(self.overlay).filter(|_| !old_is_zero), &range).await?;
        let new = read(self.new.filter(|_| !new_is_zero), &range).await?;
        let old = old.freeze();
        for (run, zero) in self.differences(&old, &new) {
            self.copy_run(range.start, &old, run, zero).await?;
        }
        Ok(())
    }

    /// Where `old` is not `new`, in runs of whole units, and whether a run is to be zeroes.
    fn differences(&self, old: &[u8], new: &[u8]) -> Vec<(Range<usize>, bool)> {
        let unit = self.unit.as_usize();
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        for (index, (before, after)) in old.chunks(unit).zip(new.chunks(unit)).enumerate() {
            if before == after {
                continue;
            }
            let range = index * unit..index * unit + before.len();
            let zero = is_zero(before);
            if self.compress {
                runs.push((range, zero));
            } else {
                append(&mut runs, range, zero);
            }
        }
        if self.compress { runs } else { join_short_zeroes(&runs) }
    }

    /// Writes what the old chain shows in `run`, relative to `start`.
    async fn copy_run(&self, start: u64, old: &IoBuf, run: Range<usize>, zero: bool) -> Result<()> {
        let offset = start + run.start as u64;
        let len = run.len() as u64;
        self.copied.fetch_add(len, Ordering::Relaxed);
        if self.mode == Mode::Rehearse {
            return Ok(());
        }
        if zero {
            self.overlay.write_zeroes(offset, len, WriteFlags::empty()).await?;
        } else if self.compress {
            self.overlay.write_compressed(offset, old.slice(run)).await?;
        } else {
            self.overlay.write(offset, old.slice(run), WriteFlags::empty()).await?;
        }
        Ok(())
    }
}

/// Appends a run to `runs`, whose last one becomes longer if it ends there and is of the same kind.
fn append(runs: &mut Vec<(Range<usize>, bool)>, range: Range<usize>, zero: bool) {
    match runs.last_mut() {
        Some((last, same)) if last.end == range.start && *same == zero => last.end = range.end,
        _ => runs.push((range, zero)),
    }
}

/// Makes short runs of zeroes part of the data that they touch.
fn join_short_zeroes(runs: &[(Range<usize>, bool)]) -> Vec<(Range<usize>, bool)> {
    let is_data = |index: Option<usize>| {
        index.and_then(|index| runs.get(index)).filter(|(_, zero)| !zero).map(|(run, _)| run)
    };
    let mut joined = Vec::with_capacity(runs.len());
    for (index, (run, zero)) in runs.iter().enumerate() {
        let touches = is_data(index.checked_sub(1)).is_some_and(|data| data.end == run.start)
            || is_data(Some(index + 1)).is_some_and(|data| data.start == run.end);
        append(&mut joined, run.clone(), *zero && !(run.len() <= SHORT_ZEROES && touches));
    }
    joined
}

/// Whether block status alone tells that `image` shows zeroes in all of `range`; no image shows only
/// zeroes, and neither does one behind its end show anything else.
async fn is_known_zero(image: Option<&Backend>, range: &Range<u64>) -> Result<bool> {
    let Some(image) = image else { return Ok(true) };
    let end = range.end.min(image.size());
    let mut at = range.start;
    while at < end {
        let status = image.status_above(None, at, end - at, true).await?.extent;
        if !status.status.contains(Status::ZERO) {
            return Ok(false);
        }
        at += status.len.max(1);
    }
    Ok(true)
}

/// What `image` shows in `range`: zeroes behind its end, or without an image.
async fn read(image: Option<&Backend>, range: &Range<u64>) -> Result<IoBufMut> {
    let len = (range.end - range.start).as_usize();
    let Some(image) = image else { return Ok(IoBufMut::zeroed(len)) };
    let present = image.size().clamp(range.start, range.end) - range.start;
    let data = if present > 0 {
        image.read(range.start, IoBufMut::new(present.as_usize())).await?
    } else {
        IoBufMut::new(0)
    };
    if data.len() == len {
        return Ok(data);
    }
    let mut whole = IoBufMut::zeroed(len);
    whole.iter_mut().zip(data.iter()).for_each(|(to, from)| *to = *from);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_zeroes_are_written_with_the_data_that_they_touch() {
        const K: usize = 1 << 10;
        let join = |runs: &[(Range<usize>, bool)]| join_short_zeroes(runs);
        let before = join(&[(0..64 * K, true), (64 * K..65 * K, false)]);
        assert_eq!(before, [(0..65 * K, false)]);
        let between = join(&[(0..K, false), (K..9 * K, true), (9 * K..10 * K, false)]);
        assert_eq!(between, [(0..10 * K, false)]);
        let long = [(0..K, false), (K..66 * K, true), (66 * K..67 * K, false)];
        assert_eq!(join(&long), long);
        let apart = [(0..K, false), (2 * K..3 * K, true), (4 * K..5 * K, false)];
        assert_eq!(join(&apart), apart);
    }

    #[test]
    fn runs_of_one_kind_become_one() {
        let mut runs = Vec::new();
        for (range, zero) in [(0..1, true), (1..2, true), (2..3, false), (5..6, false)] {
            append(&mut runs, range, zero);
        }
        assert_eq!(runs, [(0..2, true), (2..3, false), (5..6, false)]);
    }
}
