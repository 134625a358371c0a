//! Replacing the refcount structures.
//!
//! The new table and blocks are written where nothing else is, old structures included, and made
//! durable before one write of the header switches to them.

use std::collections::BTreeSet;

use super::super::header::{MAX_REFTABLE_BYTES, REFTABLE_FIELDS};
use super::super::refcount::Codec;
use super::super::table_io;
use super::Checker;
use super::counts::Counts;
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// Where the header fields end that a new refcount table changes: its place, and the width of refcounts.
const REFTABLE_END: usize = REFTABLE_FIELDS.0 + REFTABLE_FIELDS.1;
const REFCOUNT_ORDER_END: usize = 100;

/// Where the new structures go.
struct Plan {
    /// First cluster of a free run, where the blocks come first and then the table.
    start: u64,
    /// Numbers of the blocks that are needed, ascending.
    blocks: BTreeSet<u64>,
    reftable_clusters: u64,
}

impl Plan {
    fn clusters(&self) -> u64 {
        self.blocks.len() as u64 + self.reftable_clusters
    }

    fn contains(&self, cluster: u64) -> bool {
        (self.start..self.start + self.clusters()).contains(&cluster)
    }
}

impl Checker<'_> {
    /// Writes new refcount structures that say what `counts` says, and switches to them.
    pub(super) async fn rebuild(&mut self, counts: &Counts) -> Result<()> {
        let geometry = self.geometry;
        let plan = self.plan(counts)?;
        let codec = Codec::new(self.header.refcount_order);
        let too_large = || Error::corrupt(self.label, "the refcount table would become too large");
        let table_bytes = plan.reftable_clusters << geometry.cluster_bits;
        let reftable_clusters = u32::try_from(plan.reftable_clusters).map_err(|_| too_large())?;
        if table_bytes > MAX_REFTABLE_BYTES {
            return Err(too_large());
        }
        let mut reftable = vec![0; table_bytes.as_usize()];
        let bits = geometry.refblock_bits();
        for (place, &index) in (plan.start..).zip(&plan.blocks) {
            let offset = place << geometry.cluster_bits;
            let mut block = vec![0; geometry.cluster_size().as_usize()];
            for (slot, cluster) in (index << bits..(index + 1) << bits).enumerate() {
                let count = if plan.contains(cluster) { 1 } else { counts.get(cluster) };
                if count > codec.max() {
                    let detail = format!(
                        "cluster {cluster} has {count} references, more than refcounts can say"
                    );
                    return Err(Error::corrupt(self.label, detail));
                }
                if count > 0 {
                    codec.set(&mut block, slot, count);
                }
            }
            table_io::write(self.file, offset, &block).await?;
            let at = index.as_usize() * 8;
            if let Some(entry) = reftable.get_mut(at..at + 8) {
                entry.copy_from_slice(&offset.to_be_bytes());
            }
        }
        let offset = (plan.start + plan.blocks.len() as u64) << geometry.cluster_bits;
        table_io::write(self.file, offset, &reftable).await?;
        self.file.flush().await?;
        self.header.reftable_offset = offset;
        self.header.reftable_clusters = reftable_clusters;
        // Up to the width of refcounts, where the version has one, all in one sector.
        let end = if self.header.version >= 3 { REFCOUNT_ORDER_END } else { REFTABLE_END };
        let bytes =
            self.header.serialise().map_err(|e| Error::corrupt(self.label, e.to_string()))?;
        let fields = bytes.get(REFTABLE_FIELDS.0..end).unwrap_or_default();
        table_io::write(self.file, REFTABLE_FIELDS.0 as u64, fields).await?;
        self.file.flush().await
    }

    /// Finds a free run for all that is needed. The structures must also cover themselves, so that
    /// their number depends on their place.
    fn plan(&self, counts: &Counts) -> Result<Plan> {
        let bits = self.geometry.refblock_bits();
        let mut used = BTreeSet::new();
        let mut from = 0;
        while let Some(cluster) = counts.next_present(from, counts.end()) {
            used.insert(cluster >> bits);
            from = ((cluster >> bits) + 1) << bits;
        }
        let mut needed = used.len() as u64 + 1;
        loop {
            let start = free_run(counts, needed);
            let end = start
                .checked_add(needed)
                .ok_or_else(|| Error::corrupt(self.label, "there is no room for new refcounts"))?;
            let mut blocks = used.clone();
            blocks.extend((start >> bits)..=((end - 1) >> bits));
            let entries = blocks.last().map_or(0, |last| last + 1);
            let reftable_clusters = self.geometry.clusters(entries.saturating_mul(8));
            let plan = Plan { start, blocks, reftable_clusters };
            if plan.clusters() <= needed {
                return Ok(plan);
            }
            needed = plan.clusters();
        }
    }
}

/// The first cluster of the first `clusters` neighbouring ones without references. The first cluster
/// of an image is its header.
pub(super) fn free_run(counts: &Counts, clusters: u64) -> u64 {
    let mut start = 1;
    let mut at = 1;
    while at < counts.end() && at - start < clusters {
        match counts.next_present(at, counts.end()) {
            Some(cluster) if counts.get(cluster) == 0 => at = cluster + 1,
            Some(cluster) if cluster - start >= clusters => break,
            Some(cluster) => {
                at = cluster + 1;
                start = at;
            }
            None => break,
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_between_and_behind_clusters() {
        let mut counts = Counts::default();
        assert_eq!(free_run(&counts, 5), 1);
        counts.add(0, 4, 1);
        counts.add(6, 2, 1);
        counts.add(5000, 1, 1);
        assert_eq!(free_run(&counts, 2), 4);
        assert_eq!(free_run(&counts, 3), 8);
        assert_eq!(free_run(&counts, 4992), 8);
        assert_eq!(free_run(&counts, 4993), 5001);
    }
}
