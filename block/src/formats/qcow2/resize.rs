//! Changing the size of the virtual disk, and allocating storage in advance.
//!
//! Growing first makes everything ready behind the old end, and then stores the new size. Shrinking
//! stores the new size first, and then gives up what lies behind it. So after a crash the disk has
//! either size, and what it had within the smaller one.

use std::sync::Arc;

use super::bitmap_track::Which;
use super::entry::{Cluster, L1Entry, Standard};
use super::header::{L1_FIELDS, MAX_L1_BYTES, SIZE_FIELD};
use super::image::Image;
use super::l1::L1Table;
use super::overlap::Structure;
use super::pending::{Freed, FreedKind};
use super::remap::Change;
use super::table_io;
use crate::buf::IoBuf;
use crate::driver::{Prealloc, Resize, WriteFlags};
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::num::AsUsize;

/// Sizes of virtual disks are multiples of this, in bytes.
const SECTOR: u64 = 512;
/// How often refcount blocks are looked at when shrinking: without one block, another one that counted
/// it may be of no use any more.
const REFBLOCK_PASSES: usize = 4;
/// Bytes that are copied or zeroed at once.
const PIECE: u64 = 1 << 20;

impl Image {
    /// Changes the size of the virtual disk to `size` bytes.
    pub(super) async fn resize(self: &Arc<Image>, size: u64, how: Resize) -> Result<()> {
        let _alone = self.size_changes.lock().await;
        self.check_resize(size)?;
        let old = self.size();
        self.begin_write().await?;
        self.check_bitmaps(size).await?;
        self.track_bitmaps(Which::All).await?;
        if size < old {
            self.store_new_size(size).await?;
            self.give_up_beyond(size, old).await?;
            self.resize_data_file(size, Resize { prealloc: Prealloc::Off, ..how }).await
        } else {
            self.resize_data_file(size, how).await?;
            if size == old {
                return Ok(());
            }
            self.grow_l1_table(size).await?;
            if let Err(error) = self.prepare(old, size, how).await {
                // The grown part is not visible; what it has got already is given back.
                let (start, end) = (self.whole_clusters(old), self.whole_clusters(size));
                if start < end {
                    let _ = self.remap(start, end, Change::Forget).await;
                }
                return Err(error);
            }
            self.store_new_size(size).await
        }
    }

    fn check_resize(&self, size: u64) -> Result<()> {
        let header = self.header.lock();
        if !size.is_multiple_of(SECTOR) {
            return Err(self.unsupported("the size must be a multiple of 512 bytes"));
        }
        if i64::try_from(size).is_err() || self.geometry().l1_entries(size) * 8 > MAX_L1_BYTES {
            let source = std::io::Error::from_raw_os_error(libc::EFBIG);
            return Err(Error::os(Op::Resize, self.label.clone(), None, source));
        }
        if header.version < 3 && header.snapshot_count > 0 {
            let what = "an image of version 2 that has internal snapshots cannot be resized";
            return Err(self.unsupported(what));
        }
        Ok(())
    }

    /// The end of the cluster that holds the last byte before `offset`.
    fn whole_clusters(&self, offset: u64) -> u64 {
        self.geometry().clusters(offset) << self.geometry().cluster_bits
    }

    /// Stores the size durably, with everything before it.
    async fn store_new_size(self: &Arc<Image>, size: u64) -> Result<()> {
        self.write_back().await?;
        self.barrier().await?;
        let (at, len) = SIZE_FIELD;
        self.change_fields(at, len, |header| header.size = size).await?;
        self.file.flush().await?;
        self.store_size(size);
        self.resize_tracked(size)
    }

    /// Makes the data file long enough, or as long as wanted.
    async fn resize_data_file(&self, size: u64, how: Resize) -> Result<()> {
        let Some(data_file) = &self.data_file else { return Ok(()) };
        let present = data_file.size();
        if present < size || (how.exact && present > size) {
            let prealloc = match how.prealloc {
                Prealloc::Metadata => Prealloc::Off,
                other => other,
            };
            let how = Resize { exact: false, prealloc, zero_new: how.zero_new };
            data_file.resize(size, how).await?;
        }
        Ok(())
    }

    /// Moves the active L1 table to a place where it can cover `size` guest bytes.
    pub(super) async fn grow_l1_table(self: &Arc<Image>, size: u64) -> Result<()> {
        let entries = self.geometry().l1_entries(size);
        let old = self.l1.load_full();
        if entries <= old.entries() {
            return Ok(());
        }
        // The limit on the length of the table was checked.
        let stored_entries = u32::try_from(entries).unwrap_or(u32::MAX);
        // Keeps every other change of the mapping away: once written back, the table on disk is the
        // same as the one in memory.
        let _locked = self.ranges.begin(0..u64::MAX, true).await;
        let clusters = self.geometry().clusters(entries * 8);
        self.file.event(Event::L1GrowAllocTable).await;
        let new = self.allocate_contiguous(clusters, "L1 table").await?;
        self.write_back().await?;
        self.file.event(Event::L1GrowWriteTable).await;
        let copied = async {
            let (old_bytes, new_bytes) =
                (old.entries() * 8, clusters << self.geometry().cluster_bits);
            let mut at = 0;
            while at < old_bytes {
                let len = (old_bytes - at).min(PIECE);
                let bytes = table_io::read(&self.file, old.offset() + at, len).await?;
                self.file.write(new.offset + at, bytes.freeze(), WriteFlags::empty()).await?;
                at += len;
            }
            self.zero_bytes(&self.file, new.offset + old_bytes, new_bytes - old_bytes).await?;
            self.file.flush().await
        };
        if let Err(error) = copied.await {
            self.release_now(new.offset, new.clusters).await?;
            return Err(error);
        }
        self.file.event(Event::L1GrowActivateTable).await;
        let (at, len) = L1_FIELDS;
        self.change_fields(at, len, |header| {
            (header.l1_offset, header.l1_size) = (new.offset, stored_entries);
        })
        .await?;
        self.file.flush().await?;
        self.l1.store(Arc::new(L1Table::new(new.offset, stored_entries)));
        self.metadata.remove(Structure::ACTIVE_L1, old.offset());
        self.metadata.add(Structure::ACTIVE_L1, new.offset, entries * 8);
        let clusters = self.geometry().clusters(old.entries() * 8);
        if clusters > 0 {
            self.pending.push(Freed { offset: old.offset(), clusters, kind: FreedKind::Other });
        }
        Ok(())
    }

    /// Zeroes and allocates what is to become visible between the sizes `old` and `new`.
    async fn prepare(self: &Arc<Image>, old: u64, new: u64, how: Resize) -> Result<()> {
        let old_end = self.whole_clusters(old);
        self.zero_old_tail(old, new.min(old_end)).await?;
        let prealloc = match how.prealloc {
            // Programs that know only the raw file may write anywhere.
            Prealloc::Off if self.has_raw_data_file() => Prealloc::Metadata,
            other => other,
        };
        if prealloc != Prealloc::Off {
            self.preallocate_tail(old, new.min(old_end), prealloc).await?;
            self.preallocate(old_end, new, prealloc).await?;
        }
        if new <= old_end {
            return Ok(());
        }
        let backing_shows = self.backing.as_ref().is_some_and(|backing| backing.size() > old_end);
        if backing_shows || (how.zero_new && self.data_file.is_some()) {
            self.zero_new_part(old_end, new).await?;
        }
        Ok(())
    }

    /// Gives the cluster in which the disk ends at `from` storage if it has none; the disk will reach up
    /// to `to` in it.
    async fn preallocate_tail(
        self: &Arc<Image>,
        from: u64,
        to: u64,
        prealloc: Prealloc,
    ) -> Result<()> {
        let (start, end) = (self.geometry().cluster_start(from), self.cluster_end(from));
        if from >= to || start == from {
            return Ok(());
        }
        let locked = self.ranges.begin(start..end, true).await;
        let slice = self.writable_slice(start).await?;
        let backing_shows = self.backing.as_ref().is_some_and(|backing| backing.size() > start);
        let all = self.geometry().all_subclusters();
        // Empty storage shows at once, as noise if it is encrypted, before the old end, too; but not where
        // subclusters say which data counts.
        let shows_zeroes = self.geometry().extended_l2 || !self.crypt.is_encrypted();
        match self.cluster(&slice, start).await? {
            Cluster::Standard(Standard { allocated, .. }) if allocated == all => Ok(()),
            Cluster::Standard(Standard { host: None, allocated: 0, zero: 0, .. })
                if !backing_shows && shows_zeroes =>
            {
                self.preallocate_piece(start, end, prealloc).await.map(drop)
            }
            // What the subclusters of the tail show needs no storage.
            _ if self.geometry().extended_l2 => Ok(()),
            _ => {
                drop(locked);
                // Along with that goes what the rest of the cluster shows.
                self.write_zero_data(from, to).await
            }
        }
    }

    /// The last cluster before the old end may hold anything behind it.
    async fn zero_old_tail(self: &Arc<Image>, from: u64, to: u64) -> Result<()> {
        if from < to && !self.reads_as_zero(from, to).await? {
            self.write_zero_data(from, to).await?;
        }
        Ok(())
    }

    async fn zero_new_part(self: &Arc<Image>, from: u64, to: u64) -> Result<()> {
        if self.has_raw_data_file() {
            self.data().write_zeroes(from, to - from, WriteFlags::empty()).await?;
        }
        if self.geometry().zero_flag {
            let end = self.whole_clusters(to);
            let change = Change::Zero { unmap: false, over_zeroes: false };
            return self.remap(from, end, change).await;
        }
        // Without zero clusters there must be data, as far as the backing file has any.
        let shown = self.backing.as_ref().map_or(0, |backing| backing.size());
        self.write_zero_data(from, to.min(shown)).await
    }

    pub(super) async fn write_zero_data(self: &Arc<Image>, from: u64, to: u64) -> Result<()> {
        let zeroes = IoBuf::zeroed(PIECE.min(to.saturating_sub(from)).as_usize());
        let mut at = from;
        while at < to {
            let piece = zeroes.slice(..(to - at).min(PIECE).as_usize());
            let len = piece.len() as u64;
            self.write_mapping(at, piece).await?;
            at += len;
        }
        Ok(())
    }

    async fn zero_bytes(&self, file: &crate::graph::Edge, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        file.write_zeroes(offset, len, WriteFlags::empty()).await
    }

    /// Maps guest bytes from `start` to `end`, which nothing is mapped to yet, to storage that reads as
    /// zeroes. `start` is at a cluster.
    pub(super) async fn preallocate(
        self: &Arc<Image>,
        start: u64,
        end: u64,
        prealloc: Prealloc,
    ) -> Result<()> {
        let end = self.whole_clusters(end);
        let mut at = start;
        while at < end {
            let coverage = self.geometry().l2_coverage();
            let next = end.min((at / coverage + 1).saturating_mul(coverage));
            let locked = self.ranges.begin(at..next, true).await;
            at += self.preallocate_piece(at, next, prealloc).await?;
            drop(locked);
            self.balance().await?;
        }
        Ok(())
    }

    /// Does that for the first part of a range that one L2 table maps and that is locked. Returns how many
    /// bytes were done.
    async fn preallocate_piece(
        self: &Arc<Image>,
        start: u64,
        end: u64,
        prealloc: Prealloc,
    ) -> Result<u64> {
        // An L2 table comes before the data that it maps.
        self.writable_slice(start).await?;
        if self.data_file.is_none() {
            return self.allocate_storage(start, end - start, prealloc).await;
        }
        self.map_storage(start, start, end - start).await?;
        Ok(end - start)
    }

    /// Allocates storage for up to `len` guest bytes at `guest`, and returns for how many.
    async fn allocate_storage(
        self: &Arc<Image>,
        guest: u64,
        len: u64,
        prealloc: Prealloc,
    ) -> Result<u64> {
        let cluster_bits = self.geometry().cluster_bits;
        self.begin_allocation().await?;
        self.with_allocator(|alloc| alloc.cover(len >> cluster_bits)).await?;
        let run = self.allocate(len >> cluster_bits, "data cluster").await?;
        let len = run.clusters << cluster_bits;
        let filled = async {
            let file_end = self.file.size();
            let old = file_end.clamp(run.offset, run.offset + len) - run.offset;
            if old > 0 && !run.fresh {
                self.zero_bytes(&self.file, run.offset, old).await?;
            }
            if run.offset + len > file_end {
                let prealloc = match prealloc {
                    Prealloc::Metadata => Prealloc::Off,
                    other => other,
                };
                let how = Resize { exact: false, prealloc, zero_new: true };
                self.file.resize(run.offset + len, how).await?;
            }
            Ok(())
        };
        if let Err(error) = filled.await {
            // The first error counts; what is lost beside it, a check finds.
            let _ = self.release_now(run.offset, run.clusters).await;
            return Err(error);
        }
        self.map_storage(guest, run.offset, len).await?;
        Ok(len)
    }

    /// Makes guest bytes refer to the storage at `host`.
    async fn map_storage(self: &Arc<Image>, guest: u64, host: u64, len: u64) -> Result<()> {
        let cluster_size = self.geometry().cluster_size();
        let mut done = 0;
        while done < len {
            let at = guest + done;
            let slice = self.writable_slice(at).await?;
            let here = (self.slice_end(at) - at).min(len - done);
            let entries = (0..here >> self.geometry().cluster_bits).map(|n| {
                let entry = Cluster::Standard(Standard {
                    host: Some(host + done + n * cluster_size),
                    copied: true,
                    // Subclusters get their data when they are written.
                    allocated: u32::from(!self.geometry().extended_l2),
                    zero: 0,
                });
                (self.slice_index(at + n * cluster_size), entry.encode(&self.geometry()))
            });
            self.l2.update(&slice, entries);
            done += here;
        }
        Ok(())
    }

    /// Drops all data of the image, so that its backing file shows.
    pub(super) async fn make_empty(self: &Arc<Image>) -> Result<()> {
        if self.has_raw_data_file() {
            return Err(self.unsupported("a raw data file holds the whole disk; it has no layers"));
        }
        let _alone = self.size_changes.lock().await;
        self.begin_write().await?;
        self.file.event(Event::EmptyImagePrepare).await;
        self.give_up_beyond(0, self.size()).await
    }

    /// Gives up everything between the new end and the old one.
    async fn give_up_beyond(self: &Arc<Image>, new: u64, old: u64) -> Result<()> {
        let start = self.whole_clusters(new);
        let end = self.whole_clusters(old);
        if start < end {
            self.remap(start, end, Change::Forget).await?;
        }
        self.file.event(Event::L1ShrinkWriteTable).await;
        self.drop_l2_tables(self.geometry().l1_entries(new), self.geometry().l1_entries(old))
            .await?;
        // The first round removes the references from the disk, the second one counts them off.
        self.write_back().await?;
        self.file.event(Event::L1ShrinkFreeL2Clusters).await;
        self.write_back().await?;
        self.barrier().await?;
        self.cut_file().await
    }

    /// Removes the L2 tables of the L1 entries from `first` to `end`, which map nothing any more.
    async fn drop_l2_tables(self: &Arc<Image>, first: u64, end: u64) -> Result<()> {
        let cluster_size = self.geometry().cluster_size();
        let coverage = self.geometry().l2_coverage();
        let mut index = first;
        while index < end {
            let start = index * coverage;
            let _locked = self.ranges.begin(start..start.saturating_add(coverage), true).await;
            let entry = self.l1_entry(start).await?;
            let Some(offset) = entry.table else {
                index += self.l1.load().empty_run(index, end).max(1);
                continue;
            };
            self.l1.load().set(index, L1Entry::default().encode());
            self.l2.forget(offset, cluster_size);
            self.metadata.remove(Structure::ACTIVE_L2, offset);
            self.pending.push(Freed { offset, clusters: 1, kind: FreedKind::Table });
            index += 1;
        }
        Ok(())
    }

    /// Gives up refcount blocks that are of no use any more, durably.
    async fn drop_empty_refblocks(self: &Arc<Image>) -> Result<()> {
        for _ in 0..REFBLOCK_PASSES {
            let mut next = None;
            let mut dropped = Vec::new();
            self.with_allocator(|alloc| {
                let next = next.get_or_insert(alloc.refs.table_len());
                alloc.drop_empty_blocks(next, |offset| dropped.push(offset))
            })
            .await?;
            if dropped.is_empty() {
                break;
            }
            for offset in dropped {
                self.metadata.remove(Structure::REFCOUNT_BLOCK, offset);
            }
            self.settle().await?;
            self.barrier().await?;
        }
        Ok(())
    }

    /// Shortens the file to its last cluster in use.
    pub(super) async fn cut_file(self: &Arc<Image>) -> Result<()> {
        // Nothing may be allocated meanwhile.
        let _locked = self.ranges.begin(0..u64::MAX, true).await;
        self.drop_empty_refblocks().await?;
        let length = self.file.size();
        let mut clusters = self.geometry().clusters(length);
        self.with_allocator(|alloc| {
            while clusters > 0 && alloc.refs.get(clusters - 1)? == 0 {
                clusters -= 1;
            }
            Ok(())
        })
        .await?;
        let end = clusters << self.geometry().cluster_bits;
        if end < length {
            self.file.resize(end, Resize::default()).await?;
        }
        Ok(())
    }
}
