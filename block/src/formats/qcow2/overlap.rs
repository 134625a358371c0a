//! Where metadata lies in the image file, so that no write of guest data can hit it.
//!
//! Damaged tables could lead a data write onto the image's own metadata. Each data write is checked
//! against this map first. It holds the structures that are in memory: what the reference calls the
//! "cached" set.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};

use bitflags::bitflags;
use parking_lot::{Mutex, RwLock};

bitflags! {
    /// Kinds of metadata that writes are checked against (option `overlap-check`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Structure: u16 {
        /// The header cluster.
        const HEADER = 1;
        /// The active L1 table.
        const ACTIVE_L1 = 1 << 1;
        /// L2 tables of the active L1 table.
        const ACTIVE_L2 = 1 << 2;
        /// The refcount table.
        const REFCOUNT_TABLE = 1 << 3;
        /// Refcount blocks.
        const REFCOUNT_BLOCK = 1 << 4;
        /// The snapshot table.
        const SNAPSHOT_TABLE = 1 << 5;
        /// L1 tables of internal snapshots.
        const INACTIVE_L1 = 1 << 6;
        /// L2 tables of internal snapshots.
        const INACTIVE_L2 = 1 << 7;
        /// The directory of persistent bitmaps.
        const BITMAP_DIRECTORY = 1 << 8;

        /// Tables of internal snapshots.
        const SNAPSHOTS = Self::SNAPSHOT_TABLE.bits()
            | Self::INACTIVE_L1.bits()
            | Self::INACTIVE_L2.bits();
        /// What never changes its place.
        const CONSTANT = Self::HEADER.bits()
            | Self::REFCOUNT_TABLE.bits()
            | Self::SNAPSHOT_TABLE.bits()
            | Self::BITMAP_DIRECTORY.bits();
        /// What can be checked without I/O.
        const CACHED = Self::CONSTANT.bits()
            | Self::ACTIVE_L1.bits()
            | Self::ACTIVE_L2.bits()
            | Self::REFCOUNT_BLOCK.bits()
            | Self::INACTIVE_L1.bits();
    }
}

/// The names by which programs know the structures.
impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Structure::HEADER => "qcow2_header",
            Structure::ACTIVE_L1 => "active L1 table",
            Structure::ACTIVE_L2 => "active L2 table",
            Structure::REFCOUNT_TABLE => "refcount table",
            Structure::REFCOUNT_BLOCK => "refcount block",
            Structure::SNAPSHOT_TABLE => "snapshot table",
            Structure::INACTIVE_L1 => "inactive L1 table",
            Structure::INACTIVE_L2 => "inactive L2 table",
            Structure::BITMAP_DIRECTORY => "bitmap directory",
            _ => "metadata",
        })
    }
}

#[derive(Clone, Copy)]
struct Area {
    end: u64,
    structure: Structure,
}

/// Host ranges of metadata, by their first byte.
pub(crate) struct MetadataMap {
    /// The structures to know, as bits.
    checked: AtomicU16,
    areas: RwLock<BTreeMap<u64, Area>>,
    /// The first two structures that were found to overlap.
    conflict: Mutex<Option<String>>,
}

impl MetadataMap {
    /// An empty map that will know only the structures in `checked`.
    pub(crate) fn new(checked: Structure) -> MetadataMap {
        let checked = AtomicU16::new(checked.bits());
        MetadataMap { checked, areas: RwLock::default(), conflict: Mutex::default() }
    }

    /// Lets the map know other structures, from when it is filled anew.
    pub(crate) fn set_checked(&self, checked: Structure) {
        self.checked.store(checked.bits(), Ordering::Relaxed);
    }

    fn checked(&self) -> Structure {
        Structure::from_bits_truncate(self.checked.load(Ordering::Relaxed))
    }

    /// Whether any of `structures` is checked.
    pub(crate) fn checks(&self, structures: Structure) -> bool {
        self.checked().intersects(structures)
    }

    /// Adds the `len` bytes at `start`.
    pub(crate) fn add(&self, structure: Structure, start: u64, len: u64) {
        if len == 0 || !self.checked().contains(structure) {
            return;
        }
        let area = Area { end: start.saturating_add(len), structure };
        let mut areas = self.areas.write();
        match hit(&areas, start, len) {
            // Snapshots share L2 tables with each other and with the active L1 table.
            Some(Structure::ACTIVE_L2) if structure == Structure::INACTIVE_L2 => {}
            Some(Structure::INACTIVE_L2) if structure == Structure::ACTIVE_L2 => {
                areas.insert(start, area);
            }
            Some(other) if other != structure => {
                self.conflict
                    .lock()
                    .get_or_insert_with(|| format!("{structure} at {start:#x} overlaps {other}"));
            }
            _ => {
                areas.insert(start, area);
            }
        }
    }

    /// Two structures that share clusters, if there are any: nothing can be written safely then.
    pub(crate) fn conflict(&self) -> Option<String> {
        self.conflict.lock().clone()
    }

    /// Takes everything out.
    pub(crate) fn clear(&self) {
        self.areas.write().clear();
        *self.conflict.lock() = None;
    }

    /// Takes out what was added at `start`.
    pub(crate) fn remove(&self, structure: Structure, start: u64) {
        let mut areas = self.areas.write();
        if areas.get(&start).is_some_and(|area| area.structure == structure) {
            areas.remove(&start);
        }
    }

    /// The metadata that a write of `len` bytes at `start` would hit.
    pub(crate) fn hit(&self, start: u64, len: u64) -> Option<Structure> {
        hit(&self.areas.read(), start, len)
    }
}

/// Areas of different structures do not overlap, so the last one that begins before the end decides.
fn hit(areas: &BTreeMap<u64, Area>, start: u64, len: u64) -> Option<Structure> {
    let (_, area) = areas.range(..start.saturating_add(len)).next_back()?;
    (area.end > start).then_some(area.structure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_compared_with_all_neighbours() {
        let map = MetadataMap::new(Structure::CACHED);
        map.add(Structure::HEADER, 0, 512);
        map.add(Structure::ACTIVE_L2, 4096, 512);
        map.add(Structure::INACTIVE_L2, 8192, 512);
        assert_eq!(map.hit(0, 1), Some(Structure::HEADER));
        assert_eq!(map.hit(512, 3584), None);
        assert_eq!(map.hit(512, 3585), Some(Structure::ACTIVE_L2));
        assert_eq!(map.hit(4607, 10_000), Some(Structure::ACTIVE_L2));
        assert_eq!(map.hit(8192, 512), None, "not among the structures that are checked");
        assert_eq!(map.conflict(), None);
        map.add(Structure::REFCOUNT_BLOCK, 4096, 512);
        assert!(map.conflict().is_some());
        map.remove(Structure::ACTIVE_L2, 4096);
        assert_eq!(map.hit(512, 1 << 40), None);
    }
}
