//! `map`: which ranges of an image hold data, in which layer, and where.

use std::sync::Arc;

use cairn_block::driver::Status;
use cairn_block::graph::{Backend, Node, backing_of, skip_filters};

use crate::error::Result;

/// A run of bytes that have everything in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Layer that decides the content: 0 is the image itself.
    pub depth: usize,
    /// Some layer decides the content.
    pub present: bool,
    /// Reads as zeroes.
    pub zero: bool,
    /// Data is stored.
    pub data: bool,
    /// The data is compressed.
    pub compressed: bool,
    /// Offset of the data in the file.
    pub offset: Option<u64>,
    /// File that holds the data.
    pub filename: Option<Arc<str>>,
}

impl MapEntry {
    fn empty(start: u64) -> MapEntry {
        MapEntry {
            start,
            length: 0,
            depth: 0,
            present: false,
            zero: false,
            data: false,
            compressed: false,
            offset: None,
            filename: None,
        }
    }

    /// Appends `next` if it continues this entry.
    fn join(&mut self, next: &MapEntry) -> bool {
        let follows = self.start + self.length == next.start
            && match (self.offset, next.offset) {
                (Some(a), Some(b)) => a.checked_add(self.length) == Some(b),
                (None, None) => true,
                _ => false,
            }
            && self.depth == next.depth
            && (self.present, self.zero, self.data, self.compressed)
                == (next.present, next.zero, next.data, next.compressed)
            && self.filename == next.filename;
        if follows {
            self.length += next.length;
        }
        follows
    }
}

/// Calls `emit` for each run of the `length` bytes from `start` (less, where the image ends), in
/// order, with adjoining runs of the same kind joined. Where there is nothing, the one run is empty.
pub async fn map(
    image: &Backend,
    start: u64,
    length: u64,
    mut emit: impl FnMut(MapEntry) -> Result<()>,
) -> Result<()> {
    let end = start.saturating_add(length).min(image.size());
    let top = skip_filters(image.node());
    let mut names = FileNames::default();
    let mut current: Option<MapEntry> = None;
    let mut at = start;
    while at < end {
        let entry = entry_at(&top, at, end - at, &mut names).await?;
        at += entry.length;
        let joined = current.as_mut().is_some_and(|last| last.join(&entry));
        if !joined && let Some(last) = current.replace(entry) {
            emit(last)?;
        }
    }
    emit(current.unwrap_or_else(|| MapEntry::empty(start)))
}

/// The run at `offset`: from the first layer that knows about it.
async fn entry_at(
    top: &Arc<Node>,
    offset: u64,
    len: u64,
    names: &mut FileNames,
) -> Result<MapEntry> {
    let mut node = Arc::clone(top);
    let mut len = len;
    let mut depth = 0;
    loop {
        let extent = node.block_status(offset, len, true).await?;
        let known = extent.status.intersects(Status::DATA | Status::ZERO);
        len = extent.len;
        if !known && let Some(below) = backing_of(&node) {
            node = skip_filters(below);
            depth += 1;
            continue;
        }
        let has = |flag| known && extent.status.contains(flag);
        let place = match extent.map {
            _ if !has(Status::OFFSET_VALID) => None,
            Some((edge, at)) => Some((edge.node(), at)),
            // The image is the storage itself.
            None => Some((Arc::clone(&node), offset)),
        };
        return Ok(MapEntry {
            start: offset,
            length: len,
            depth,
            present: has(Status::ALLOCATED),
            zero: has(Status::ZERO),
            data: has(Status::DATA),
            compressed: has(Status::COMPRESSED),
            filename: place.as_ref().map(|(file, _)| names.of(file)),
            offset: place.map(|(_, at)| at),
        });
    }
}

/// The name of the file last asked for; runs of one file share it.
#[derive(Default)]
struct FileNames(Option<(Arc<Node>, Arc<str>)>);

impl FileNames {
    fn of(&mut self, node: &Arc<Node>) -> Arc<str> {
        match &self.0 {
            Some((known, name)) if Arc::ptr_eq(known, node) => Arc::clone(name),
            _ => {
                let name: Arc<str> = node.filename().into();
                self.0 = Some((Arc::clone(node), Arc::clone(&name)));
                name
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(start: u64, length: u64, offset: Option<u64>) -> MapEntry {
        MapEntry {
            start,
            length,
            depth: 0,
            present: true,
            zero: false,
            data: true,
            compressed: false,
            offset,
            filename: offset.map(|_| "f".into()),
        }
    }

    #[test]
    fn runs_join_only_where_the_file_is_contiguous() {
        let mut run = entry(0, 100, Some(1000));
        assert!(run.join(&entry(100, 50, Some(1100))));
        assert_eq!(run.length, 150);
        assert!(!run.join(&entry(150, 50, Some(1200))), "gap in the file");
        assert!(!run.join(&entry(200, 50, Some(1150))), "gap in the image");
        assert!(!run.join(&entry(150, 50, None)), "no place");
        assert!(!run.join(&MapEntry { zero: true, ..entry(150, 50, Some(1150)) }));
        assert!(!run.join(&MapEntry { depth: 1, ..entry(150, 50, Some(1150)) }));
        assert!(!run.join(&MapEntry { filename: Some("g".into()), ..entry(150, 50, Some(1150)) }));
    }
}
