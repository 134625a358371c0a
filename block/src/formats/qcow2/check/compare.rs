//! Comparing the stored refcounts with the references that were counted, and correcting them.

use std::collections::{BTreeMap, VecDeque};

use super::super::geometry::Geometry;
use super::super::refcount::Codec;
use super::super::table_io;
use super::Checker;
use super::refs::References;
use crate::buf::IoBufMut;
use crate::error::Result;
use crate::graph::Edge;
use crate::num::AsUsize;

/// Bytes of refcount blocks that are kept in memory.
const CACHE_BYTES: u64 = 4 << 20;

/// What a comparison does with the differences it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Tells of them.
    Report,
    /// Counts them only.
    Quiet,
    /// Raises refcounts that are too low.
    Raise,
    /// Lowers refcounts that are too high.
    Lower,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// Clusters whose refcount is lower than the number of references.
    pub(super) too_low: u64,
    /// Clusters whose refcount is higher.
    pub(super) too_high: u64,
    /// Clusters whose refcount was corrected.
    pub(super) fixed: u64,
    /// The highest cluster in use.
    pub(super) highest: u64,
    /// A cluster in use has refcount 0: nothing can be allocated safely.
    pub(super) rebuild: bool,
}

/// The stored refcounts.
pub(super) struct StoredRefcounts<'a> {
    file: &'a Edge,
    geometry: Geometry,
    codec: Codec,
    reftable: Vec<u64>,
    file_len: u64,
    /// Blocks in memory.
    cache: BTreeMap<u64, IoBufMut>,
    /// Numbers of the cached blocks, oldest first.
    order: VecDeque<u64>,
}

impl<'a> StoredRefcounts<'a> {
    pub(super) async fn open(checker: &Checker<'a>) -> Result<StoredRefcounts<'a>> {
        Ok(StoredRefcounts {
            file: checker.file,
            geometry: checker.geometry,
            codec: Codec::new(checker.header.refcount_order),
            reftable: checker.read_reftable().await?,
            file_len: checker.file_len,
            cache: BTreeMap::new(),
            order: VecDeque::new(),
        })
    }

    /// Host offset of block `index`, if there is one that can be used.
    pub(super) fn block_offset(&self, index: u64) -> Option<u64> {
        let offset = *self.reftable.get(index.as_usize())?;
        let usable = offset != 0 && self.geometry.in_cluster(offset) == 0 && offset < self.file_len;
        usable.then_some(offset)
    }

    /// The first block at or after `from` that is there.
    fn next_block(&self, from: u64) -> Option<u64> {
        (from..self.reftable.len() as u64).find(|&index| self.block_offset(index).is_some())
    }

    async fn block(&mut self, index: u64) -> Result<Option<&[u8]>> {
        let Some(offset) = self.block_offset(index) else { return Ok(None) };
        if !self.cache.contains_key(&index) {
            let cluster_size = self.geometry.cluster_size();
            while self.order.len() as u64 * cluster_size >= CACHE_BYTES {
                let Some(oldest) = self.order.pop_front() else { break };
                self.cache.remove(&oldest);
            }
            self.cache.insert(index, table_io::read(self.file, offset, cluster_size).await?);
            self.order.push_back(index);
        }
        Ok(self.cache.get(&index).map(|block| &**block))
    }

    /// Refcount of `cluster`.
    pub(super) async fn get(&mut self, cluster: u64) -> Result<u64> {
        let bits = self.geometry.refblock_bits();
        let codec = self.codec;
        let block = self.block(cluster >> bits).await?;
        let index = (cluster & ((1 << bits) - 1)).as_usize();
        Ok(block.map_or(0, |block| codec.get(block, index)))
    }
}

impl Checker<'_> {
    /// Compares all refcounts.
    pub(super) async fn compare(
        &mut self,
        references: &References,
        pass: Pass,
    ) -> Result<Compared> {
        let mut compared = Compared::default();
        let stored = StoredRefcounts::open(self).await?;
        let bits = self.geometry.refblock_bits();
        let clusters = self.geometry.clusters(self.file_len).max(references.counts.end());
        let mut index = 0;
        while index << bits < clusters {
            let counted = references.counts.next_present(index << bits, clusters);
            let next = match (counted.map(|cluster| cluster >> bits), stored.next_block(index)) {
                (Some(counted), Some(block)) => counted.min(block),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => break,
            };
            let end = clusters.min((next + 1) << bits);
            if next << bits < end {
                self.compare_block(references, pass, &stored, next, end, &mut compared).await?;
            }
            index = next + 1;
        }
        if matches!(pass, Pass::Raise | Pass::Lower) {
            self.file.flush().await?;
        }
        Ok(compared)
    }

    /// Compares the refcounts of block `index`, for clusters before `end`.
    async fn compare_block(
        &mut self,
        references: &References,
        pass: Pass,
        stored: &StoredRefcounts<'_>,
        index: u64,
        end: u64,
        compared: &mut Compared,
    ) -> Result<()> {
        let codec = stored.codec;
        let offset = stored.block_offset(index);
        let mut block = match offset {
            Some(offset) => table_io::read(self.file, offset, self.geometry.cluster_size()).await?,
            None => IoBufMut::new(0),
        };
        let mut changed = false;
        let first = index << self.geometry.refblock_bits();
        for (slot, cluster) in (first..end).enumerate() {
            let refcount = codec.get(&block, slot);
            let count = references.counts.get(cluster);
            if refcount == 0 && count == 0 {
                continue;
            }
            let mut in_use = refcount.max(count);
            if refcount != count {
                let low = refcount < count;
                *(if low { &mut compared.too_low } else { &mut compared.too_high }) += 1;
                compared.rebuild |= refcount == 0;
                let fix = match pass {
                    Pass::Raise => low && offset.is_some() && count <= codec.max(),
                    Pass::Lower => !low,
                    Pass::Report | Pass::Quiet => false,
                };
                let word = match (fix, low) {
                    (true, _) => "Repairing",
                    (false, true) => "ERROR",
                    (false, false) => "Leaked",
                };
                if fix || pass == Pass::Report {
                    self.detail(format!(
                        "{word} cluster {cluster} refcount={refcount} reference={count}"
                    ));
                }
                if fix {
                    codec.set(&mut block, slot, count);
                    compared.fixed += 1;
                    changed = true;
                    in_use = count;
                }
            }
            if in_use > 0 {
                compared.highest = cluster;
            }
        }
        match offset {
            Some(offset) if changed => table_io::write(self.file, offset, &block).await,
            _ => Ok(()),
        }
    }
}
