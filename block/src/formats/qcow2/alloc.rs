//! The cluster allocator: finds free host clusters, counts references, grows the refcount structures.
//!
//! Everything here is a short critical section on data in memory. When a refcount block is not in
//! memory the operation reports that ([`Unavailable`]), and the image reads the block and tries again
//! (see [`super::image`]).

use super::geometry::{Geometry, MAX_HOST_OFFSET};
use super::header::MAX_REFTABLE_BYTES;
use super::refblocks::{RefBlocks, Unavailable};
use crate::num::AsUsize;

/// Clusters in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostRun {
    /// Host offset of the first.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) clusters: u64,
    /// They were never written since the image was opened and lay beyond the end of the file then:
    /// they read as zeroes.
    pub(crate) fresh: bool,
}

/// Why the allocator could not do what it was asked for.
#[derive(Debug)]
pub(crate) enum AllocError {
    /// Something must be read first.
    Unavailable(Unavailable),
    /// The image file cannot grow any further.
    Full,
    /// A refcount would fall below zero.
    Underflow {
        /// Host offset of the cluster.
        offset: u64,
    },
    /// A refcount would become larger than its width allows.
    Overflow {
        /// Host offset of the cluster.
        offset: u64,
    },
}

impl From<Unavailable> for AllocError {
    fn from(cause: Unavailable) -> AllocError {
        AllocError::Unavailable(cause)
    }
}

/// How far a search for clusters in a row has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// The first cluster of the run found so far.
    first: u64,
    /// Clusters of that run.
    len: u64,
    /// Where to go on.
    next: u64,
}

/// What to do about refcount blocks for which the refcount table has no entries.
#[derive(Clone, Copy, Debug)]
enum MissingEntries {
    /// Move the table to where it has room for more.
    Grow,
    /// Nothing; they are created as they are needed.
    Leave,
}

/// Allocation state of an image.
pub(crate) struct Allocator {
    geometry: Geometry,
    /// Refcounts.
    pub(crate) refs: RefBlocks,
    /// No cluster before this one is free.
    first_free: u64,
    /// First cluster that was never used: it and all behind it lie beyond the end of the file.
    fresh: u64,
    /// Where the next compressed cluster can begin, within a cluster that has room left; 0 if nowhere.
    compressed_end: u64,
    /// Areas that the table had before it moved, to be freed once the header names the new one.
    old_tables: Vec<HostRun>,
}

impl Allocator {
    /// The allocator of an image whose file is `file_size` bytes long.
    pub(crate) fn new(geometry: Geometry, refs: RefBlocks, file_size: u64) -> Allocator {
        Allocator {
            geometry,
            refs,
            first_free: 0,
            fresh: geometry.clusters(file_size),
            compressed_end: 0,
            old_tables: Vec::new(),
        }
    }

    /// Whether there is no free cluster among those that were in use before.
    pub(crate) fn is_full(&mut self) -> Result<bool, AllocError> {
        let (entries, codec) = (self.refs.block_entries(), self.refs.codec());
        while self.first_free < self.fresh {
            let (index, at) = self.refs.split(self.first_free);
            let Some(block) = self.refs.block(index)? else { return Ok(false) };
            match codec.first_free(block, at, entries.as_usize()) {
                Some(free) => {
                    self.first_free = index * entries + free as u64;
                    return Ok(self.first_free >= self.fresh);
                }
                None => self.first_free = (index + 1) * entries,
            }
        }
        Ok(true)
    }

    /// Allocates a run of at least one and at most `max` clusters, the first that are free.
    pub(crate) fn allocate(&mut self, max: u64) -> Result<HostRun, AllocError> {
        let mut start = self.first_free;
        let found = self.find(&mut start, max);
        // What was passed is in use; a retry need not look at it again.
        self.first_free = start;
        let (first, clusters) = found?;
        let (next, at) = self.refs.split(first + clusters);
        if clusters < max && at == 0 && self.refs.block(next)?.is_none() {
            // The rest is likely to be asked for next, and to follow.
            self.cover_run(first, max, MissingEntries::Grow)?;
        }
        self.first_free = first + clusters;
        self.take(first, clusters)
    }

    /// Allocates exactly `clusters` clusters in a row. `search` is where the search stands; it begins
    /// with `None`, and is to be given again when something had to be read.
    pub(crate) fn allocate_contiguous(
        &mut self,
        clusters: u64,
        search: &mut Option<Search>,
    ) -> Result<HostRun, AllocError> {
        // All refcounts of the run are set at once, and new blocks may come in between.
        let blocks = clusters.div_ceil(self.refs.block_entries()) + 4;
        self.refs.raise_capacity(blocks.as_usize());
        let start = Search { first: self.first_free, len: 0, next: self.first_free };
        let state = search.get_or_insert(start);
        while state.len < clusters {
            let (found, free) = self.find(&mut state.next, clusters - state.len)?;
            if found != state.first + state.len {
                (state.first, state.len) = (found, 0);
            }
            state.len += free;
            state.next = found + free;
        }
        let first = state.first;
        for index in self.refs.split(first).0..=self.refs.split(first + clusters - 1).0 {
            self.refs.block(index)?;
        }
        for cluster in first..first + clusters {
            if self.refs.get(cluster)? != 0 {
                // Another request took it while something was read.
                *search = None;
                return self.allocate_contiguous(clusters, search);
            }
        }
        if first == self.first_free {
            self.first_free = first + clusters;
        }
        self.take(first, clusters)
    }

    /// Finds the first run of free clusters from `start` on, of at most `max`. All refcounts of the run
    /// can be set: where it begins an area without a refcount block, that is created behind the `max`
    /// clusters. `start` moves past blocks without any free cluster, even if the search must be
    /// continued.
    fn find(&mut self, start: &mut u64, max: u64) -> Result<(u64, u64), AllocError> {
        let entries = self.refs.block_entries();
        let codec = self.refs.codec();
        loop {
            let cluster = *start;
            if cluster
                .checked_mul(self.geometry.cluster_size())
                .is_none_or(|o| o >= MAX_HOST_OFFSET)
            {
                return Err(AllocError::Full);
            }
            let (index, at) = self.refs.split(cluster);
            let Some(block) = self.refs.block(index)? else {
                if !self.cover_run(cluster, max, MissingEntries::Grow)? {
                    self.add_block(index)?;
                }
                continue;
            };
            let len = entries.as_usize();
            if let Some(free) = codec.first_free(block, at, len) {
                let end = len.min(free.saturating_add(max.as_usize()));
                let used = (free..end).find(|&i| codec.get(block, i) != 0).unwrap_or(end);
                return Ok((index * entries + free as u64, (used - free) as u64));
            }
            *start = (index + 1) * entries;
        }
    }

    /// Sets the refcounts of free clusters to one.
    fn take(&mut self, first: u64, clusters: u64) -> Result<HostRun, AllocError> {
        let cluster_size = self.geometry.cluster_size();
        let end = (first + clusters).checked_mul(cluster_size);
        if end.is_none_or(|end| end > MAX_HOST_OFFSET) {
            return Err(AllocError::Full);
        }
        for cluster in first..first + clusters {
            self.refs.set(cluster, 1);
        }
        let fresh = first >= self.fresh;
        self.fresh = self.fresh.max(first + clusters);
        Ok(HostRun { offset: first * cluster_size, clusters, fresh })
    }

    /// Creates the missing refcount block `index`. All clusters it covers are free, so it takes the
    /// first of them.
    fn add_block(&mut self, index: u64) -> Result<(), AllocError> {
        if index >= self.refs.table_len() {
            return self.grow_table(index);
        }
        let first = index * self.refs.block_entries();
        self.refs.create_block(index, first * self.geometry.cluster_size());
        self.take(first, 1)?;
        Ok(())
    }

    /// Creates the refcount blocks for a run of `clusters` clusters that is about to be allocated, and
    /// puts them behind it, so that the run is not torn. Where that is not possible nothing happens.
    pub(crate) fn cover(&mut self, clusters: u64) -> Result<(), AllocError> {
        // All blocks of the run are looked at together.
        let blocks = clusters.div_ceil(self.refs.block_entries()) + 4;
        self.refs.raise_capacity(blocks.as_usize());
        let mut start = self.first_free;
        let found = self.find(&mut start, clusters);
        self.first_free = start;
        let (first, _) = found?;
        self.cover_run(first, clusters, MissingEntries::Leave).map(drop)
    }

    /// Creates the missing refcount blocks of the run of `clusters` clusters from `first` on behind that
    /// run, and returns whether they fit there. Where the table has no entries for them, it grows or
    /// nothing happens.
    fn cover_run(
        &mut self,
        first: u64,
        clusters: u64,
        missing_entries: MissingEntries,
    ) -> Result<bool, AllocError> {
        let place = first.saturating_add(clusters);
        let mut missing = Vec::new();
        loop {
            // The blocks may lie in an area that needs one more.
            let end = place.saturating_add(missing.len() as u64);
            let (from, to) = (self.refs.split(first).0, self.refs.split(end - 1).0);
            let before = missing.len();
            missing.clear();
            for index in from..=to {
                if self.refs.block(index)?.is_none() {
                    missing.push(index);
                }
            }
            if missing.len() <= before {
                break;
            }
        }
        let end = place.saturating_add(missing.len() as u64);
        if let Some(&last) = missing.last().filter(|&&last| last >= self.refs.table_len()) {
            match missing_entries {
                MissingEntries::Grow => self.grow_table(last)?,
                MissingEntries::Leave => return Ok(false),
            }
        }
        for cluster in place..end {
            if self.refs.get(cluster)? != 0 {
                return Ok(false);
            }
        }
        for (cluster, index) in (place..end).zip(&missing) {
            self.refs.create_block(*index, cluster * self.geometry.cluster_size());
        }
        self.take(place, missing.len() as u64)?;
        Ok(true)
    }

    /// Gives up the refcount blocks below `next` that count nothing but themselves, from the last one
    /// on, and hands their host offsets to `removed`. `next` is where to go on after an interruption.
    pub(crate) fn drop_empty_blocks(
        &mut self,
        next: &mut u64,
        mut removed: impl FnMut(u64),
    ) -> Result<(), AllocError> {
        while let Some(index) = next.checked_sub(1) {
            if let Some(offset) = self.refs.block_offset(index)? {
                let counts_itself =
                    self.refs.split(offset >> self.geometry.cluster_bits).0 == index;
                let used = self.refs.used(index, self.refs.block_entries().as_usize())?;
                if used <= u64::from(counts_itself) && self.refs.remove_block(index) {
                    if !counts_itself {
                        self.old_tables.push(HostRun { offset, clusters: 1, fresh: false });
                    }
                    self.first_free = self.first_free.min(index * self.refs.block_entries());
                    removed(offset);
                }
            }
            *next = index;
        }
        Ok(())
    }

    /// Moves the refcount table, with room for block `index` and half as much again, to the start of the
    /// area behind the one that block `index` covers, with the blocks that this needs. All of it counts
    /// as used, but for the area of block `index`.
    fn grow_table(&mut self, index: u64) -> Result<(), AllocError> {
        let cluster_size = self.geometry.cluster_size();
        let area = index + 1;
        let first = area * self.refs.block_entries();
        // As the reference does: what is there already is counted once more.
        let (_, table) = self.geometry.refcount_structures(first);
        let (needed, _) = self.geometry.refcount_structures(first + table.div_ceil(2));
        let limit = MAX_REFTABLE_BYTES / cluster_size;
        // The extra half is optional, what is needed now is not.
        let wanted = self.geometry.clusters((needed + needed.div_ceil(2)) * 8).min(limit);
        if wanted < self.geometry.clusters(needed * 8) {
            return Err(AllocError::Full);
        }
        let blocks = needed - area;
        let offset = (first + blocks) * cluster_size;
        if offset.checked_add(wanted * cluster_size).is_none_or(|end| end > MAX_HOST_OFFSET) {
            return Err(AllocError::Full);
        }
        // At most 8 MiB divided by the cluster size.
        let place = (offset, u32::try_from(wanted).map_err(|_| AllocError::Full)?);
        let old = self.refs.move_table(place);
        self.old_tables.push(HostRun { offset: old.0, clusters: u64::from(old.1), fresh: false });
        for n in 0..blocks {
            self.refs.create_block(area + n, (first + n) * cluster_size);
        }
        self.take(first, blocks + wanted)?;
        Ok(())
    }

    /// Whether the refcount table moved, and its former place is not to be freed by anyone yet.
    pub(crate) fn has_old_tables(&self) -> bool {
        !self.old_tables.is_empty()
    }

    /// Former places of the refcount table, to be freed like other clusters.
    pub(crate) fn take_old_tables(&mut self) -> Vec<HostRun> {
        std::mem::take(&mut self.old_tables)
    }

    /// Room for `len` bytes (at most a cluster) of compressed data: the host offset, and the run that
    /// was newly allocated for it, if any. References are counted for every cluster touched.
    pub(crate) fn allocate_bytes(
        &mut self,
        len: u64,
    ) -> Result<(u64, Option<HostRun>), AllocError> {
        let cluster_size = self.geometry.cluster_size();
        let end = self.compressed_end;
        let shared = end >> self.geometry.cluster_bits;
        let can_share = end != 0 && {
            let count = self.refs.get(shared)?;
            count > 0 && count < self.refs.codec().max()
        };
        let room = cluster_size - self.geometry.in_cluster(end);
        let limit = self.geometry.max_compressed_offset();
        if can_share && len <= room {
            let count = self.refs.get(shared)?;
            self.refs.set(shared, count + 1);
            self.set_compressed_end(end + len);
            return Ok((end, None));
        }
        let run = self.allocate(1)?;
        if run.offset + cluster_size > limit {
            self.refs.set(run.offset >> self.geometry.cluster_bits, 0);
            self.first_free = self.first_free.min(run.offset >> self.geometry.cluster_bits);
            return Err(AllocError::Full);
        }
        if can_share && run.offset == end + room {
            // The data spans the rest of the old cluster and the new one.
            let count = self.refs.get(shared)?;
            self.refs.set(shared, count + 1);
            self.set_compressed_end(end + len);
            return Ok((end, Some(run)));
        }
        self.set_compressed_end(run.offset + len);
        Ok((run.offset, Some(run)))
    }

    fn set_compressed_end(&mut self, end: u64) {
        // At the end of a cluster there is nothing left to share.
        self.compressed_end = if self.geometry.in_cluster(end) == 0 { 0 } else { end };
    }

    /// Adds one reference to each of `clusters` clusters from host offset `offset` on, which are in use.
    ///
    /// On failure nothing was changed.
    pub(crate) fn share(&mut self, offset: u64, clusters: u64) -> Result<(), AllocError> {
        let first = offset >> self.geometry.cluster_bits;
        let max = self.refs.codec().max();
        for cluster in first..first + clusters {
            let offset = cluster << self.geometry.cluster_bits;
            match self.refs.get(cluster)? {
                0 => return Err(AllocError::Underflow { offset }),
                count if count >= max => return Err(AllocError::Overflow { offset }),
                _ => {}
            }
        }
        for cluster in first..first + clusters {
            let count = self.refs.get(cluster)?;
            self.refs.set(cluster, count + 1);
        }
        Ok(())
    }

    /// Takes one reference away from each of `clusters` clusters from host offset `offset` on.
    /// Reports those of them that became free through `freed`.
    ///
    /// On [`AllocError::Unavailable`] nothing was changed.
    pub(crate) fn release(
        &mut self,
        offset: u64,
        clusters: u64,
        mut freed: impl FnMut(u64),
    ) -> Result<(), AllocError> {
        let first = offset >> self.geometry.cluster_bits;
        for cluster in first..first + clusters {
            if self.refs.get(cluster)? == 0 {
                let offset = cluster << self.geometry.cluster_bits;
                return Err(AllocError::Underflow { offset });
            }
        }
        for cluster in first..first + clusters {
            let count = self.refs.get(cluster)?;
            self.refs.set(cluster, count.saturating_sub(1));
            if count == 1 {
                self.first_free = self.first_free.min(cluster);
                if self.compressed_end >> self.geometry.cluster_bits == cluster {
                    self.compressed_end = 0;
                }
                freed(cluster << self.geometry.cluster_bits);
            }
        }
        Ok(())
    }
}
