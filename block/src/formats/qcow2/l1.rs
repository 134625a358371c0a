//! The active L1 table in memory: read page by page when first used, written back by sectors.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::buf::IoBuf;
use crate::num::AsUsize;

/// Entries that are read at once: 64 KiB.
pub(crate) const PAGE_ENTRIES: u64 = 8192;
/// Entries that are written at once: a sector, the smallest unit that reaches the disk whole.
const SECTOR_ENTRIES: u64 = 64;
const ENTRY_SIZE: u64 = 8;

type Page = Box<[AtomicU64]>;

/// An L1 table. Entries are kept in their on-disk meaning, in host byte order.
pub(crate) struct L1Table {
    offset: u64,
    entries: u64,
    pages: Box<[OnceLock<Page>]>,
    /// Numbers of sectors that differ from the disk.
    dirty: Mutex<BTreeSet<u64>>,
}

/// A page that is not in memory yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingPage {
    /// Number of the page.
    pub(crate) page: u64,
    /// Host offset of its first entry.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

/// Content of a dirty sector when it was captured.
pub(crate) struct CapturedSector {
    sector: u64,
    /// Host offset to write to.
    pub(crate) offset: u64,
    /// Content.
    pub(crate) bytes: IoBuf,
}

impl L1Table {
    /// The table of `entries` entries at `offset`; nothing is read yet.
    pub(crate) fn new(offset: u64, entries: u32) -> L1Table {
        let entries = u64::from(entries);
        let pages = entries.div_ceil(PAGE_ENTRIES).as_usize();
        L1Table {
            offset,
            entries,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            dirty: Mutex::default(),
        }
    }

    /// Host offset of the table.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    fn cell(&self, index: u64) -> Option<&AtomicU64> {
        let page = self.pages.get((index / PAGE_ENTRIES).as_usize())?.get()?;
        page.get((index % PAGE_ENTRIES).as_usize())
    }

    /// Entry `index`; `Err` if its page must be read first. Entries beyond the table are empty.
    pub(crate) fn get(&self, index: u64) -> Result<u64, MissingPage> {
        if index >= self.entries {
            return Ok(0);
        }
        self.cell(index).map(|cell| cell.load(Ordering::Acquire)).ok_or_else(|| {
            let page = index / PAGE_ENTRIES;
            let first = page * PAGE_ENTRIES;
            let len = (self.entries - first).min(PAGE_ENTRIES) * ENTRY_SIZE;
            MissingPage { page, offset: self.offset + first * ENTRY_SIZE, len }
        })
    }

    /// How many of the entries from `index` to `end` are empty before the first one that is not, or whose
    /// page is another one or not in memory.
    pub(crate) fn empty_run(&self, index: u64, end: u64) -> u64 {
        let page = self.pages.get((index / PAGE_ENTRIES).as_usize()).and_then(OnceLock::get);
        let entries = page.and_then(|page| page.get((index % PAGE_ENTRIES).as_usize()..));
        let is_empty = |cell: &&AtomicU64| cell.load(Ordering::Acquire) == 0;
        let wanted = end.saturating_sub(index).min(PAGE_ENTRIES).as_usize();
        entries.map_or(0, |entries| entries.iter().take(wanted).take_while(is_empty).count() as u64)
    }

    /// Supplies a page as read from disk.
    pub(crate) fn fill(&self, missing: MissingPage, bytes: &[u8]) {
        let entries = bytes.chunks_exact(8).map(|raw| {
            let raw = raw.try_into().unwrap_or_default();
            AtomicU64::new(u64::from_be_bytes(raw))
        });
        if let Some(page) = self.pages.get(missing.page.as_usize()) {
            page.get_or_init(|| entries.collect());
        }
    }

    /// Sets entry `index`, whose page is in memory, and marks it for writing.
    pub(crate) fn set(&self, index: u64, raw: u64) {
        let cell = self.cell(index);
        debug_assert!(cell.is_some(), "L1 entry {index} set before it was read");
        if let Some(cell) = cell {
            cell.store(raw, Ordering::Release);
            self.dirty.lock().insert(index / SECTOR_ENTRIES);
        }
    }

    /// Whether anything is to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    /// Takes the dirty sectors as they are now; they count as clean from here on.
    pub(crate) fn capture(&self) -> Vec<CapturedSector> {
        let sectors = std::mem::take(&mut *self.dirty.lock());
        sectors
            .into_iter()
            .map(|sector| {
                let first = sector * SECTOR_ENTRIES;
                // The table's last cluster belongs to it as a whole, so a full sector may be written.
                let bytes: Vec<u8> = (first..first + SECTOR_ENTRIES)
                    .flat_map(|index| self.get(index).unwrap_or(0).to_be_bytes())
                    .collect();
                let offset = self.offset + first * ENTRY_SIZE;
                CapturedSector { sector, offset, bytes: IoBuf::copy_of(&bytes) }
            })
            .collect()
    }

    /// Marks captured sectors dirty again, since they did not reach the disk.
    pub(crate) fn restore(&self, captured: &[CapturedSector]) {
        self.dirty.lock().extend(captured.iter().map(|c| c.sector));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_in_when_touched_and_sectors_go_out_when_changed() {
        let table = L1Table::new(0x10000, 8200);
        let missing = table.get(8195).expect_err("not read yet");
        assert_eq!(missing, MissingPage { page: 1, offset: 0x20000, len: 64 });
        let bytes: Vec<u8> = (0..8u64).flat_map(u64::to_be_bytes).collect();
        table.fill(missing, &bytes);
        assert_eq!(table.get(8195), Ok(3));
        assert!(table.get(0).is_err());
        assert_eq!(table.get(8200), Ok(0));
        assert_eq!([0, 8192, 8193, 8200].map(|index| table.empty_run(index, 8200)), [0, 1, 0, 0]);
        assert_eq!(table.empty_run(8192, 8192), 0);

        table.set(8195, 0x50000);
        assert_eq!(table.get(8195), Ok(0x50000));
        let captured = table.capture();
        assert!(!table.is_dirty());
        assert_eq!((captured.len(), captured[0].offset), (1, 0x20000));
        assert_eq!(captured[0].bytes.len(), 512);
        assert_eq!(captured[0].bytes[24..32], 0x50000u64.to_be_bytes());
        table.restore(&captured);
        assert!(table.is_dirty());
    }
}
