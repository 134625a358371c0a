//! L1 and L2 tables: reading them in, and giving the active L1 table L2 tables that it may change.

use std::sync::Arc;
use std::time::Instant;

use super::clusters::Allocation;
use super::entry::L1Entry;
use super::image::{Image, STRIPES};
use super::l2::Slice;
use super::overlap::Structure;
use super::pending::{Freed, FreedKind};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::error::Result;
use crate::event::Event;
use crate::num::AsUsize;

impl Image {
    /// The L1 entry that covers guest offset `offset`.
    pub(super) async fn l1_entry(&self, offset: u64) -> Result<L1Entry> {
        let l1 = self.l1.load();
        let raw = match l1.get(self.geometry().l1_index(offset)) {
            Ok(raw) => raw,
            Err(_) => self.load_l1_entry(offset).await?,
        };
        match L1Entry::decode(raw, &self.geometry()) {
            Ok(entry) => Ok(entry),
            Err(error) => Err(self.bad_l1_entry(offset, error).await),
        }
    }

    pub(super) async fn load_l1_entry(&self, offset: u64) -> Result<u64> {
        let index = self.geometry().l1_index(offset);
        let _loads = self.l1_loads.lock().await;
        let l1 = self.l1.load_full();
        let missing = match l1.get(index) {
            Ok(raw) => return Ok(raw),
            Err(missing) => missing,
        };
        let bytes = self.file.read(missing.offset, IoBufMut::new(missing.len.as_usize())).await?;
        self.add_l2_tables(Structure::ACTIVE_L2, &bytes);
        l1.fill(missing, &bytes);
        Ok(l1.get(index).unwrap_or(0))
    }

    /// Host offset of the slice, in the L2 table at `table`, that covers guest offset `offset`.
    pub(super) fn slice_offset(&self, table: u64, offset: u64) -> u64 {
        let slice = self.geometry().l2_index(offset) / self.l2.slice_entries();
        table + slice * self.l2.slice_size()
    }

    /// Index within its slice of the entry that covers guest offset `offset`.
    pub(super) fn slice_index(&self, offset: u64) -> usize {
        (self.geometry().l2_index(offset) % self.l2.slice_entries()).as_usize()
    }

    /// First guest offset behind those that the slice covering `offset` covers.
    pub(super) fn slice_end(&self, offset: u64) -> u64 {
        let coverage = self.l2.slice_entries() << self.geometry().cluster_bits;
        (offset / coverage + 1).saturating_mul(coverage)
    }

    /// Where, at most at `end`, the guest range ends that begins at `offset` and has no L2 tables. There is
    /// none at `offset`.
    pub(super) fn untabled_end(&self, offset: u64, end: u64) -> u64 {
        let coverage = self.geometry().l2_coverage();
        let index = self.geometry().l1_index(offset);
        let empty = self.l1.load().empty_run(index, end.div_ceil(coverage)).max(1);
        end.min((index + empty).saturating_mul(coverage))
    }

    /// The slice that covers guest offset `offset`, if its table exists and it is all in memory.
    pub(super) fn cached_slice(&self, offset: u64) -> Option<Arc<Slice>> {
        let raw = self.l1.load().get(self.geometry().l1_index(offset)).ok()?;
        let table = L1Entry::decode(raw, &self.geometry()).ok()?.table?;
        self.l2.get(self.slice_offset(table, offset))
    }

    /// The slice that covers guest offset `offset`; `None` without an L2 table.
    pub(super) async fn slice(&self, offset: u64) -> Result<Option<Arc<Slice>>> {
        match self.l1_entry(offset).await?.table {
            None => Ok(None),
            Some(table) => self.load_slice(self.slice_offset(table, offset)).await.map(Some),
        }
    }

    async fn load_slice(&self, slice_offset: u64) -> Result<Arc<Slice>> {
        if let Some(slice) = self.l2.get(slice_offset) {
            return Ok(slice);
        }
        let stripe = (slice_offset / self.l2.slice_size()).as_usize() % STRIPES;
        // A slice must be read by one request only: it could be changed, written back and evicted
        // between another's read and insertion.
        let _loads = self.l2_loads[stripe].lock().await;
        if let Some(slice) = self.l2.get(slice_offset) {
            return Ok(slice);
        }
        self.clean_caches();
        let buf = IoBufMut::new(self.l2.slice_size().as_usize());
        self.file.event(Event::L2Load).await;
        let bytes = self.file.read(slice_offset, buf).await?;
        Ok(self.l2.insert(slice_offset, &bytes))
    }

    /// Drops metadata that was not used for a while, if it is time for that.
    fn clean_caches(&self) {
        let Some(interval) = self.tuning().clean_interval else { return };
        {
            let mut cleaned = self.cleaned.lock();
            if cleaned.elapsed() < interval {
                return;
            }
            *cleaned = Instant::now();
        }
        self.l2.trim();
        self.alloc.lock().refs.trim();
    }

    /// The slice that covers guest offset `offset`, in an L2 table that only the active L1 table
    /// refers to, so that it may be changed.
    pub(super) async fn writable_slice(self: &Arc<Image>, offset: u64) -> Result<Arc<Slice>> {
        loop {
            let entry = self.l1_entry(offset).await?;
            match entry.table {
                Some(table) if entry.copied => {
                    let slice = self.slice_offset(table, offset);
                    self.check_metadata().await?;
                    return self.load_slice(slice).await;
                }
                _ => self.own_table(offset).await?,
            }
        }
    }

    /// Gives the L1 entry that covers `offset` an L2 table of its own: an empty one, or a copy of the
    /// one that it shares with a snapshot.
    async fn own_table(self: &Arc<Image>, offset: u64) -> Result<()> {
        let index = self.geometry().l1_index(offset);
        let _changes = self.table_changes[index.as_usize() % STRIPES].lock().await;
        let entry = self.l1_entry(offset).await?;
        if entry.table.is_some() && entry.copied {
            return Ok(());
        }
        let cluster_size = self.geometry().cluster_size();
        let new = Allocation::new(self, self.allocate(1, "L2 table").await?);
        let place = new.run.offset;
        if self.has_lazy_refcounts()
            && let Err(error) = self.write_refcounts_back().await
        {
            // A table that is lost takes far more with it than a cluster of data.
            return Err(new.give_up(error).await);
        }
        let event = match entry.table {
            None => Event::L2AllocWrite,
            Some(_) => Event::L2AllocCowRead,
        };
        self.file.event(event).await;
        let filled = match entry.table {
            // Beyond the end of the file, too: an L1 entry must not lead there after a crash.
            None => self.file.write_zeroes(place, cluster_size, WriteFlags::empty()).await,
            Some(old) => self.copy_table(old, place).await,
        };
        if let Err(error) = filled {
            return Err(new.give_up(error).await);
        }
        new.commit();
        if entry.table.is_none() {
            // It need not be read to be known.
            let zeroes = IoBuf::zeroed(self.l2.slice_size().as_usize());
            self.l2.insert(self.slice_offset(place, offset), &zeroes);
        }
        self.metadata.add(Structure::ACTIVE_L2, place, cluster_size);
        self.l1.load().set(index, L1Entry { table: Some(place), copied: true }.encode());
        if let Some(old) = entry.table {
            self.metadata.remove(Structure::ACTIVE_L2, old);
            self.metadata.add(Structure::INACTIVE_L2, old, cluster_size);
            self.pending.push(Freed { offset: old, clusters: 1, kind: FreedKind::Table });
        }
        Ok(())
    }

    async fn copy_table(&self, from: u64, to: u64) -> Result<()> {
        let size = self.geometry().cluster_size();
        let mut copy = IoBufMut::new(size.as_usize());
        let slice_size = self.l2.slice_size();
        for (n, part) in copy.chunks_exact_mut(slice_size.as_usize()).enumerate() {
            let slice = self.load_slice(from + n as u64 * slice_size).await?;
            part.copy_from_slice(&slice.to_bytes());
        }
        self.file.event(Event::L2AllocWrite).await;
        self.file.write(to, copy.freeze(), WriteFlags::empty()).await
    }
}
