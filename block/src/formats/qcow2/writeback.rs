//! Writing metadata back, in an order that leaves a valid image after a crash at any moment.
//!
//! A round takes what is dirty as it is at its beginning and writes it in phases:
//!
//! 1. refcount blocks, then (after a barrier) the refcount table or the header that points to it;
//! 2. barrier: now refcounts, guest data and new L2 tables are on disk;
//! 3. L2 slices and L1 entries;
//! 4. barrier, if references were removed: only now are they counted off.
//!
//! What is taken is taken from the top down (removed references, L1, L2, refcounts), while requests
//! change it from the bottom up (refcounts, data, L2, L1, removed references). So whatever a round
//! writes refers only to things that are in the round as well or on disk already, although requests go
//! on meanwhile. A sector torn from its neighbours by a crash does no harm: every entry by itself is
//! either the old or the new one, and both are valid at that point.
//!
//! A round that fails marks what it did not write dirty again, for the next one to retry. Rounds run as
//! tasks of their own, so that a flush that is dropped cannot leave an old write in the way of a later
//! one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::alloc::{Allocator, HostRun};
use super::header::REFTABLE_FIELDS;
use super::image::Image;
use super::l1::{CapturedSector, L1Table};
use super::l2::CapturedSlice;
use super::overlap::Structure;
use super::pending::{Freed, FreedKind};
use super::refblocks::{CapturedRefcounts, CapturedTable};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::engine;
use crate::error::Result;
use crate::event::Event;
use crate::graph::Edge;
use crate::parallel;

/// Metadata writes under way at once.
const PARALLEL_WRITES: usize = 16;
/// Adjacent pieces of metadata are joined to writes of at most this many bytes.
const MAX_JOINED: usize = 1 << 20;
/// Clusters waiting to be freed that start a round, so that space is found again without a flush.
const MAX_PENDING_CLUSTERS: u64 = 16 << 10;
/// Bytes waiting to be free for which a round is worth its while when the file would grow otherwise.
const RECLAIM_BYTES: u64 = 8 << 20;
/// Rounds that closing takes at most: one for what is dirty, one for the references that the first
/// one removed, and one to spare.
const CLOSING_ROUNDS: usize = 3;

/// Keeps rounds apart.
#[derive(Default)]
pub(crate) struct Rounds {
    started: AtomicU64,
    /// Number of the last round that succeeded. Locked while a round runs.
    succeeded: Arc<AsyncMutex<u64>>,
}

/// Whether refcounts are part of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refcounts {
    /// They may lag behind, since the image is marked dirty.
    Skip,
    /// They are written.
    Write,
}

impl Image {
    /// Writes back everything that was changed before this call. Afterwards a flush of the children
    /// makes it durable.
    pub(crate) async fn write_back(self: &Arc<Image>) -> Result<()> {
        let before = self.rounds.started.load(Ordering::SeqCst);
        let succeeded = Arc::clone(&self.rounds.succeeded).lock_owned().await;
        let refcounts = self.refcounts();
        // Another caller's round may have begun after this call and taken everything along.
        if *succeeded > before || !self.is_dirty(refcounts) {
            return Ok(());
        }
        self.run_round(succeeded, refcounts).await
    }

    /// Runs a round to its end, even if this future is dropped.
    async fn run_round(
        self: &Arc<Image>,
        mut succeeded: OwnedMutexGuard<u64>,
        refcounts: Refcounts,
    ) -> Result<()> {
        let image = Arc::clone(self);
        let task = engine::spawn_local(async move {
            let number = image.rounds.started.fetch_add(1, Ordering::SeqCst) + 1;
            image.round(refcounts).await?;
            *succeeded = number;
            Ok(())
        });
        task.await.unwrap_or_else(|stopped| Err(self.unsupported(&stopped.to_string())))
    }

    /// Writes refcounts back although they may lag behind, and frees the former place of their table if
    /// it moved.
    pub(super) async fn write_refcounts_back(self: &Arc<Image>) -> Result<()> {
        let rounds = Arc::clone(&self.rounds.succeeded).lock_owned().await;
        let image = Arc::clone(self);
        let task = engine::spawn_local(async move {
            let result = image.refcount_round().await;
            drop(rounds);
            result
        });
        task.await.unwrap_or_else(|stopped| Err(self.unsupported(&stopped.to_string())))
    }

    async fn refcount_round(&self) -> Result<()> {
        let mut round = Round::of_refcounts(self);
        round.write_refcounts().await?;
        if round.removed.is_empty() {
            return Ok(());
        }
        self.file.flush().await?;
        // Requests never look at refcount tables on disk: none can be using the old one.
        let old_tables = std::mem::take(&mut round.removed);
        drop(round);
        self.count_off(old_tables).await
    }

    /// Frees the former place of the refcount table if it moved.
    pub(super) async fn free_old_tables(self: &Arc<Image>) -> Result<()> {
        let moved = self.alloc.lock().has_old_tables();
        if moved { self.write_refcounts_back().await } else { Ok(()) }
    }

    fn is_dirty(&self, refcounts: Refcounts) -> bool {
        self.l2.dirty_count() > 0
            || self.pending.has_unmapped()
            || self.l1.load().is_dirty()
            || (refcounts == Refcounts::Write && self.has_dirty_refcounts())
    }

    fn has_dirty_refcounts(&self) -> bool {
        let alloc = self.alloc.lock();
        alloc.refs.is_dirty() || alloc.has_old_tables()
    }

    fn refcounts(&self) -> Refcounts {
        if !self.has_lazy_refcounts() {
            return Refcounts::Write;
        }
        let alloc = self.alloc.lock();
        let few = alloc.refs.dirty_blocks() < alloc.refs.capacity();
        if few { Refcounts::Skip } else { Refcounts::Write }
    }

    /// Whether much space waits to be free while the file would have to grow for any allocation.
    pub(super) async fn wants_reclaim(&self) -> Result<bool> {
        let waiting = self.pending.clusters() << self.geometry().cluster_bits;
        if waiting < RECLAIM_BYTES {
            return Ok(false);
        }
        self.with_allocator(Allocator::is_full).await
    }

    /// Starts a round if much has become dirty.
    pub(super) async fn balance(self: &Arc<Image>) -> Result<()> {
        let many_blocks = {
            let alloc = self.alloc.lock();
            alloc.refs.dirty_blocks() >= alloc.refs.capacity()
        };
        let many_slices = self.l2.dirty_count() > self.l2.capacity() / 2;
        if many_blocks || many_slices || self.pending.clusters() > MAX_PENDING_CLUSTERS {
            self.write_back().await?;
        }
        Ok(())
    }

    async fn round(&self, refcounts: Refcounts) -> Result<()> {
        self.file.event(Event::FlushToOs).await;
        let mut round = Round::capture(self, refcounts);
        round.write_refcounts().await?;
        round.write_tables().await?;
        round.confirm_removals().await?;
        drop(round);
        self.reclaim().await
    }

    /// Counts off references that are gone from the disk and that no request can be using.
    async fn reclaim(&self) -> Result<()> {
        self.count_off(self.pending.take_safe(&self.epochs)).await
    }

    /// Counts off references, in the order of offsets, that are gone from the disk.
    async fn count_off(&self, mut safe: Vec<Freed>) -> Result<()> {
        let cluster_size = self.geometry().cluster_size();
        for (offset, clusters) in discarded_runs(&safe, cluster_size) {
            let len = clusters * cluster_size;
            // Must be over before the clusters can get a new owner. That it fails is no error: the
            // guest's request was done when the clusters were unmapped.
            let _ = self.file.discard(offset, len).await;
        }
        while let Some(freed) = safe.pop() {
            self.decompressed.forget(freed.offset, freed.clusters * cluster_size);
            if freed.kind == FreedKind::Table {
                // If a snapshot still has the table, it is read in again when needed.
                self.l2.forget(freed.offset, freed.clusters * cluster_size);
            }
            if let Err(error) = self.release_now(freed.offset, freed.clusters).await {
                self.pending.confirm(safe, &self.epochs);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes everything back, refcounts too, and takes the dirty bit away. There are no requests any
    /// more.
    pub(crate) async fn finish(self: &Arc<Image>) -> Result<()> {
        self.pending.adopt_abandoned();
        self.settle().await?;
        self.store_tracked().await?;
        self.clear_dirty().await
    }

    /// Writes everything back, refcounts too.
    pub(super) async fn settle(self: &Arc<Image>) -> Result<()> {
        for _ in 0..CLOSING_ROUNDS {
            let succeeded = Arc::clone(&self.rounds.succeeded).lock_owned().await;
            if self.pending.is_empty() && !self.is_dirty(Refcounts::Write) {
                break;
            }
            self.run_round(succeeded, Refcounts::Write).await?;
        }
        Ok(())
    }
}

/// Host runs (offset, clusters) in `freed`, which is in the order of offsets, whose storage is to be
/// given back; neighbours are joined.
fn discarded_runs(freed: &[Freed], cluster_size: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut end = None;
    for f in freed.iter().filter(|f| f.kind == FreedKind::Discarded) {
        match runs.last_mut() {
            Some((_, clusters)) if end == Some(f.offset) => *clusters += f.clusters,
            _ => runs.push((f.offset, f.clusters)),
        }
        end = Some(f.offset + f.clusters * cluster_size);
    }
    runs
}

/// Former places of the refcount table, to be counted off when the disk knows the present one.
fn take_old_tables(image: &Image) -> Vec<Freed> {
    let discarded = image.tuning().pass_discard_other;
    let kind = if discarded { FreedKind::Discarded } else { FreedKind::Other };
    let mut old_tables = image.alloc.lock().take_old_tables();
    old_tables.sort_unstable_by_key(|table| table.offset);
    let stored = image.header.lock().reftable_offset;
    for table in old_tables.iter().filter(|table| table.offset != stored) {
        // It moved on before the disk knew of it.
        image.metadata.remove(Structure::REFCOUNT_TABLE, table.offset);
    }
    let freed = |table: HostRun| Freed { offset: table.offset, clusters: table.clusters, kind };
    old_tables.into_iter().map(freed).collect()
}

/// What one round writes. Parts that were not written when it is dropped become dirty again.
struct Round<'i> {
    image: &'i Image,
    removed: Vec<Freed>,
    l1_table: Arc<L1Table>,
    l1: Vec<CapturedSector>,
    l2: Vec<CapturedSlice>,
    refcounts: Option<CapturedRefcounts>,
}

impl<'i> Round<'i> {
    /// Takes what is dirty. The order matters; see the module's description.
    fn capture(image: &'i Image, refcounts: Refcounts) -> Round<'i> {
        let mut removed = image.pending.take_unmapped();
        if refcounts == Refcounts::Write {
            removed.extend(take_old_tables(image));
        }
        let l1_table = image.l1.load_full();
        let l1 = l1_table.capture();
        let l2 = image.l2.capture();
        let refcounts = (refcounts == Refcounts::Write).then(|| image.alloc.lock().refs.capture());
        Round { image, removed, l1_table, l1, l2, refcounts }
    }

    /// A round of nothing but refcounts.
    fn of_refcounts(image: &'i Image) -> Round<'i> {
        let removed = take_old_tables(image);
        let refcounts = Some(image.alloc.lock().refs.capture());
        let l1_table = image.l1.load_full();
        Round { image, removed, l1_table, l1: Vec::new(), l2: Vec::new(), refcounts }
    }

    async fn write_refcounts(&mut self) -> Result<()> {
        let Some(captured) = &self.refcounts else { return Ok(()) };
        let image = self.image;
        let blocks = captured.blocks.iter().map(|block| (block.offset, block.bytes.clone()));
        if !captured.blocks.is_empty() {
            image.file.event(Event::RefblockUpdatePart).await;
        }
        let new_blocks = captured.blocks.iter().any(|block| block.created);
        if new_blocks {
            image.file.event(Event::RefblockAllocWrite).await;
        }
        if matches!(captured.table, Some(CapturedTable::Moved { .. })) {
            image.file.event(Event::ReftableGrow).await;
            image.file.event(Event::RefblockAllocWriteBlocks).await;
        }
        write_joined(&image.file, blocks).await?;
        match &captured.table {
            None => {}
            Some(CapturedTable::Sectors(sectors)) => {
                image.file.flush().await?;
                image.file.event(Event::ReftableUpdate).await;
                if new_blocks {
                    image.file.event(Event::RefblockAllocHookup).await;
                }
                let sectors = sectors.iter().map(|(_, offset, bytes)| (*offset, bytes.clone()));
                write_joined(&image.file, sectors).await?;
            }
            Some(CapturedTable::Moved { new, bytes }) => {
                if new_blocks {
                    image.file.event(Event::RefblockAllocHookup).await;
                }
                image.file.event(Event::RefblockAllocWriteTable).await;
                image.file.write(new.0, bytes.clone(), WriteFlags::empty()).await?;
                image.file.flush().await?;
                image.file.event(Event::RefblockAllocSwitchTable).await;
                let old = image.header.lock().reftable_offset;
                let (at, len) = REFTABLE_FIELDS;
                image
                    .change_fields(at, len, |header| {
                        (header.reftable_offset, header.reftable_clusters) = *new;
                    })
                    .await?;
                image.metadata.remove(Structure::REFCOUNT_TABLE, old);
            }
        }
        if let Some(captured) = self.refcounts.take() {
            image.alloc.lock().refs.finish(&captured, true);
        }
        Ok(())
    }

    async fn write_tables(&mut self) -> Result<()> {
        if self.l1.is_empty() && self.l2.is_empty() {
            return Ok(());
        }
        let image = self.image;
        image.barrier().await?;
        if !self.l2.is_empty() {
            image.file.event(Event::L2Update).await;
        }
        if !self.l1.is_empty() {
            image.file.event(Event::L1Update).await;
        }
        let slices = self.l2.iter().map(|slice| (slice.offset, slice.bytes.clone()));
        let sectors = self.l1.iter().map(|sector| (sector.offset, sector.bytes.clone()));
        write_joined(&image.file, slices.chain(sectors)).await?;
        self.l2.clear();
        self.l1.clear();
        Ok(())
    }

    async fn confirm_removals(&mut self) -> Result<()> {
        if self.removed.is_empty() {
            return Ok(());
        }
        self.image.file.flush().await?;
        self.image.pending.confirm(std::mem::take(&mut self.removed), &self.image.epochs);
        Ok(())
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if let Some(captured) = &self.refcounts {
            self.image.alloc.lock().refs.finish(captured, false);
        }
        self.image.l2.restore(&self.l2);
        self.l1_table.restore(&self.l1);
        self.image.pending.restore(std::mem::take(&mut self.removed));
    }
}

/// Writes pieces (offset, content), several at once, with adjacent ones joined.
async fn write_joined(edge: &Arc<Edge>, pieces: impl Iterator<Item = (u64, IoBuf)>) -> Result<()> {
    let mut runs: Vec<(u64, Vec<IoBuf>)> = Vec::new();
    let mut end = None;
    let mut len = 0;
    for (offset, bytes) in pieces {
        if end != Some(offset) || len + bytes.len() > MAX_JOINED {
            runs.push((offset, Vec::new()));
            len = 0;
        }
        len += bytes.len();
        end = Some(offset + bytes.len() as u64);
        if let Some((_, run)) = runs.last_mut() {
            run.push(bytes);
        }
    }
    let writes = runs.into_iter().map(|(offset, pieces)| async move {
        edge.write(offset, concat(pieces), WriteFlags::empty()).await
    });
    parallel::all(PARALLEL_WRITES, writes).await
}

fn concat(mut pieces: Vec<IoBuf>) -> IoBuf {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only;
    }
    let mut whole = IoBufMut::new(pieces.iter().map(|piece| piece.len()).sum());
    let mut rest = &mut whole[..];
    for piece in pieces {
        let (part, after) = rest.split_at_mut(piece.len());
        part.copy_from_slice(&piece);
        rest = after;
    }
    whole.freeze()
}
