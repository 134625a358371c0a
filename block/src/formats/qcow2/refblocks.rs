//! The refcount table and the refcount blocks in memory.
//!
//! All of this is plain data behind the allocator's lock ([`super::alloc`]); the image reads missing
//! blocks in, and writes captured ones out. Blocks are kept in their on-disk form.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use super::entry::{EntryError, decode_reftable};
use super::geometry::Geometry;
use super::overlap::Structure;
use super::refcount::Codec;
use crate::buf::IoBuf;
use crate::num::AsUsize;

/// Refcount table entries in a sector, the unit in which the table is written.
const SECTOR_ENTRIES: u64 = 64;

/// Unit in which refcount blocks are written, in bytes.
const PIECE: usize = 4096;

struct Block {
    bytes: Vec<u8>,
    /// The bytes that differ from the disk are in here; whole pieces.
    dirty: Option<Range<usize>>,
    /// Captures of the block that are being written.
    writing: u32,
    recent: bool,
    /// It was never written.
    created: bool,
}

impl Block {
    /// Notes that `range` differs from the disk. True if nothing did before.
    fn touch(&mut self, range: Range<usize>) -> bool {
        let start = range.start / PIECE * PIECE;
        let end = range.end.next_multiple_of(PIECE).min(self.bytes.len());
        let old = self.dirty.take();
        let was_clean = old.is_none();
        let old = old.unwrap_or(start..end);
        self.dirty = Some(old.start.min(start)..old.end.max(end));
        was_clean
    }
}

/// The changed part of a refcount block as it was when captured.
pub(crate) struct CapturedBlock {
    index: u64,
    start: usize,
    /// Host offset to write to.
    pub(crate) offset: u64,
    /// Content.
    pub(crate) bytes: IoBuf,
    /// The disk does not have the block yet.
    pub(crate) created: bool,
}

/// Changes of the refcount table that are to be written after the blocks they refer to.
pub(crate) enum CapturedTable {
    /// Sectors of the table in its old place: number, host offset, content.
    Sectors(Vec<(u64, u64, IoBuf)>),
    /// The whole table in a new place; the header is to be changed to it afterwards.
    Moved {
        /// Host offset and clusters of the new table.
        new: (u64, u32),
        /// Content.
        bytes: IoBuf,
    },
}

/// What is dirty.
#[derive(Default)]
pub(crate) struct CapturedRefcounts {
    /// Blocks in the order of their offsets.
    pub(crate) blocks: Vec<CapturedBlock>,
    /// The table, if it changed.
    pub(crate) table: Option<CapturedTable>,
}

/// Why a refcount cannot be had right now.
#[derive(Debug)]
pub(crate) enum Unavailable {
    /// The refcount table was not read yet.
    Table,
    /// The block with this number, at this host offset, must be read first.
    Block(u64, u64),
    /// The refcount table has a bad entry.
    Entry(u64, EntryError),
}

/// Refcount table and blocks.
pub(crate) struct RefBlocks {
    geometry: Geometry,
    codec: Codec,
    /// Raw entries; `None` until the table is read.
    table: Option<Vec<u64>>,
    /// Where the table is, and the clusters it has there.
    place: (u64, u32),
    /// The table in memory has no valid copy at `place` yet.
    moved: bool,
    dirty_sectors: BTreeSet<u64>,
    blocks: HashMap<u64, Block>,
    /// Block numbers in the order in which the eviction hand meets them.
    hand: VecDeque<u64>,
    capacity: usize,
    dirty: usize,
    /// Structures that came into being since they were asked for last.
    created: Vec<(Structure, u64, u64)>,
}

impl RefBlocks {
    /// The refcounts whose table has `place.1` clusters at host offset `place.0`, of which at most
    /// `capacity` blocks are kept in memory.
    pub(crate) fn new(geometry: Geometry, place: (u64, u32), capacity: usize) -> RefBlocks {
        RefBlocks {
            geometry,
            codec: Codec::new(geometry.refcount_order),
            table: None,
            place,
            moved: false,
            dirty_sectors: BTreeSet::new(),
            blocks: HashMap::new(),
            hand: VecDeque::new(),
            capacity,
            dirty: 0,
            created: Vec::new(),
        }
    }

    /// Reads and writes refcounts in blocks.
    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Host offset and clusters of the table.
    pub(crate) fn place(&self) -> (u64, u32) {
        self.place
    }

    /// Supplies the table as read from disk.
    pub(crate) fn fill_table(&mut self, bytes: &[u8]) {
        let entries = bytes.chunks_exact(8).map(|raw| {
            let raw = raw.try_into().unwrap_or_default();
            u64::from_be_bytes(raw)
        });
        self.table.get_or_insert_with(|| entries.collect());
    }

    /// Host offsets of all refcount blocks. Bad entries are left out; they show when used.
    pub(crate) fn block_offsets(&self) -> impl Iterator<Item = u64> {
        let geometry = self.geometry;
        self.table
            .iter()
            .flatten()
            .filter_map(move |&raw| decode_reftable(raw, &geometry).ok().flatten())
    }

    /// Fails as long as the table was not read.
    pub(crate) fn require_table(&self) -> Result<(), Unavailable> {
        self.table.as_ref().map(|_| ()).ok_or(Unavailable::Table)
    }

    /// Blocks that the table has room for; 0 before it is read.
    pub(crate) fn table_len(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.len() as u64)
    }

    /// Number of the block that holds the refcount of `cluster`, and the index in it.
    pub(crate) fn split(&self, cluster: u64) -> (u64, usize) {
        let bits = self.geometry.refblock_bits();
        (cluster >> bits, (cluster & ((1 << bits) - 1)).as_usize())
    }

    /// Refcounts in a block.
    pub(crate) fn block_entries(&self) -> u64 {
        1 << self.geometry.refblock_bits()
    }

    /// The content of block `index`: `None` if there is no such block, so that all its refcounts are 0.
    pub(crate) fn block(&mut self, index: u64) -> Result<Option<&[u8]>, Unavailable> {
        if !self.has_block(index)? {
            return Ok(None);
        }
        Ok(self.blocks.get(&index).map(|block| block.bytes.as_slice()))
    }

    /// Whether block `index` exists; if it does, it is in memory.
    fn has_block(&mut self, index: u64) -> Result<bool, Unavailable> {
        let table = self.table.as_ref().ok_or(Unavailable::Table)?;
        let Some(&raw) = table.get(index.as_usize()) else { return Ok(false) };
        if let Some(block) = self.blocks.get_mut(&index) {
            block.recent = true;
            return Ok(true);
        }
        match decode_reftable(raw, &self.geometry) {
            Ok(None) => Ok(false),
            Ok(Some(offset)) => Err(Unavailable::Block(index, offset)),
            Err(error) => Err(Unavailable::Entry(index, error)),
        }
    }

    /// Supplies block `index` as read from disk.
    pub(crate) fn fill_block(&mut self, index: u64, bytes: Vec<u8>) {
        self.evict();
        self.add_block(index, bytes, None);
    }

    fn add_block(&mut self, index: u64, bytes: Vec<u8>, dirty: Option<Range<usize>>) {
        self.dirty += usize::from(dirty.is_some());
        // What is dirty from the beginning was never on disk.
        let created = dirty.is_some();
        let block = Block { bytes, dirty, writing: 0, recent: true, created };
        if self.blocks.insert(index, block).is_none() {
            self.hand.push_back(index);
        }
    }

    fn evict(&mut self) {
        let mut steps = 2 * self.hand.len();
        while self.blocks.len() >= self.capacity.max(1) && steps > 0 {
            steps -= 1;
            let Some(index) = self.hand.pop_front() else { return };
            let idle = self.blocks.get_mut(&index).is_some_and(|block| {
                let recent = std::mem::take(&mut block.recent);
                !recent && block.dirty.is_none() && block.writing == 0
            });
            if idle {
                self.blocks.remove(&index);
            } else {
                self.hand.push_back(index);
            }
        }
    }

    /// Drops blocks that were not used since the last call.
    pub(crate) fn trim(&mut self) {
        self.blocks.retain(|_, block| {
            std::mem::take(&mut block.recent) || block.dirty.is_some() || block.writing > 0
        });
        self.hand.retain(|index| self.blocks.contains_key(index));
    }

    /// How many of the first `len` refcounts of block `index` are not 0.
    pub(crate) fn used(&mut self, index: u64, len: usize) -> Result<u64, Unavailable> {
        let codec = self.codec;
        let Some(block) = self.block(index)? else { return Ok(0) };
        Ok((0..len).filter(|&entry| codec.get(block, entry) != 0).count() as u64)
    }

    /// Refcount of `cluster`.
    pub(crate) fn get(&mut self, cluster: u64) -> Result<u64, Unavailable> {
        let codec = self.codec;
        let (index, entry) = self.split(cluster);
        Ok(self.block(index)?.map_or(0, |block| codec.get(block, entry)))
    }

    /// Sets the refcount of `cluster`, whose block exists and is in memory.
    pub(crate) fn set(&mut self, cluster: u64, value: u64) {
        let (index, entry) = self.split(cluster);
        let block = self.blocks.get_mut(&index);
        debug_assert!(block.is_some(), "refcount block {index} is not in memory");
        if let Some(block) = block {
            self.codec.set(&mut block.bytes, entry, value);
            self.dirty += usize::from(block.touch(self.codec.bytes(entry)));
        }
    }

    /// Creates the empty block `index` at host offset `offset`. The table has room for it.
    pub(crate) fn create_block(&mut self, index: u64, offset: u64) {
        let entry = self.table.as_mut().and_then(|table| table.get_mut(index.as_usize()));
        debug_assert!(entry.is_some(), "the refcount table is too short for block {index}");
        if let Some(entry) = entry {
            *entry = offset;
            self.created.push((Structure::REFCOUNT_BLOCK, offset, self.geometry.cluster_size()));
            self.dirty_sectors.insert(index / SECTOR_ENTRIES);
            let len = self.geometry.cluster_size().as_usize();
            self.add_block(index, vec![0; len], Some(0..len));
        }
    }

    /// Host offset of block `index`, if the table names a valid one.
    pub(crate) fn block_offset(&self, index: u64) -> Result<Option<u64>, Unavailable> {
        let table = self.table.as_ref().ok_or(Unavailable::Table)?;
        let raw = table.get(index.as_usize()).copied().unwrap_or(0);
        decode_reftable(raw, &self.geometry).map_err(|error| Unavailable::Entry(index, error))
    }

    /// Takes block `index` out of the table, unless it is being written. All clusters that it covers
    /// are then free.
    pub(crate) fn remove_block(&mut self, index: u64) -> bool {
        if self.blocks.get(&index).is_some_and(|block| block.writing > 0) {
            return false;
        }
        let entry = self.table.as_mut().and_then(|table| table.get_mut(index.as_usize()));
        let Some(entry) = entry else { return false };
        *entry = 0;
        self.dirty_sectors.insert(index / SECTOR_ENTRIES);
        if let Some(block) = self.blocks.remove(&index) {
            self.dirty -= usize::from(block.dirty.is_some());
            self.hand.retain(|&other| other != index);
        }
        true
    }

    /// Moves the table to `place`, where it has room for more blocks. Returns its old place.
    pub(crate) fn move_table(&mut self, place: (u64, u32)) -> (u64, u32) {
        let entries = u64::from(place.1) * self.geometry.cluster_size() / 8;
        if let Some(table) = &mut self.table {
            table.resize(entries.as_usize(), 0);
        }
        self.moved = true;
        let len = u64::from(place.1) * self.geometry.cluster_size();
        self.created.push((Structure::REFCOUNT_TABLE, place.0, len));
        std::mem::replace(&mut self.place, place)
    }

    /// New refcount blocks and tables since the last call: kind, host offset, length in bytes.
    pub(crate) fn take_created(&mut self) -> Vec<(Structure, u64, u64)> {
        std::mem::take(&mut self.created)
    }

    /// Blocks that wait to be written.
    pub(crate) fn dirty_blocks(&self) -> usize {
        self.dirty
    }

    /// Blocks that are kept in memory at most.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for an operation that needs `blocks` blocks in memory at once.
    pub(crate) fn raise_capacity(&mut self, blocks: usize) {
        self.capacity = self.capacity.max(blocks);
    }

    /// Whether anything waits to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty > 0 || self.moved || !self.dirty_sectors.is_empty()
    }

    /// Takes what is dirty as it is now; it counts as clean from here on, but stays in memory until
    /// [`RefBlocks::finish`].
    pub(crate) fn capture(&mut self) -> CapturedRefcounts {
        let Some(table) = &self.table else { return CapturedRefcounts::default() };
        let mut blocks: Vec<_> = self
            .blocks
            .iter_mut()
            .filter_map(|(&index, block)| {
                let place = *table.get(index.as_usize())?;
                let dirty = block.dirty.take()?;
                block.writing += 1;
                let (start, offset) = (dirty.start, place + dirty.start as u64);
                let bytes = IoBuf::copy_of(block.bytes.get(dirty)?);
                let created = std::mem::take(&mut block.created);
                Some(CapturedBlock { index, start, offset, bytes, created })
            })
            .collect();
        blocks.sort_unstable_by_key(|block| block.offset);
        self.dirty = 0;
        let entry = |index: u64| table.get(index.as_usize()).copied().unwrap_or(0).to_be_bytes();
        let sectors = std::mem::take(&mut self.dirty_sectors);
        let table = if std::mem::take(&mut self.moved) {
            let bytes: Vec<u8> = (0..table.len() as u64).flat_map(entry).collect();
            Some(CapturedTable::Moved { new: self.place, bytes: IoBuf::copy_of(&bytes) })
        } else if sectors.is_empty() {
            None
        } else {
            let place = self.place.0;
            let capture = |sector: u64| {
                let first = sector * SECTOR_ENTRIES;
                let bytes: Vec<u8> = (first..first + SECTOR_ENTRIES).flat_map(entry).collect();
                (sector, place + first * 8, IoBuf::copy_of(&bytes))
            };
            Some(CapturedTable::Sectors(sectors.into_iter().map(capture).collect()))
        };
        CapturedRefcounts { blocks, table }
    }

    /// Ends the writing of what was captured. What did not reach the disk is dirty again.
    pub(crate) fn finish(&mut self, captured: &CapturedRefcounts, written: bool) {
        for captured in &captured.blocks {
            if let Some(block) = self.blocks.get_mut(&captured.index) {
                block.writing = block.writing.saturating_sub(1);
                if !written {
                    let range = captured.start..captured.start + captured.bytes.len();
                    self.dirty += usize::from(block.touch(range));
                    block.created |= captured.created;
                }
            }
        }
        match &captured.table {
            _ if written => {}
            None => {}
            Some(CapturedTable::Moved { .. }) => self.moved = true,
            Some(CapturedTable::Sectors(sectors)) => {
                self.dirty_sectors.extend(sectors.iter().map(|(sector, ..)| *sector));
            }
        }
    }
}
