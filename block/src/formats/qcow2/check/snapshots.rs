//! The table of internal snapshots: what is wrong with it, and writing it anew.

use super::super::header::SNAPSHOTS_FIELDS;
use super::super::refcount::Codec;
use super::super::snapshot::{self, Oversize, SnapshotTable};
use super::super::table_io;
use super::Checker;
use super::compare::{Pass, StoredRefcounts};
use super::rebuild::free_run;
use super::refs::References;
use crate::driver::Repair;
use crate::error::Result;
use crate::num::AsUsize;

impl Checker<'_> {
    /// Reads the snapshot table and counts its flaws as corruptions. Where errors are to be repaired,
    /// what is too much for this program is cut off, and snapshots behind the limits are given up at
    /// once, so that their clusters count as leaked.
    pub(super) async fn read_snapshots(&mut self) -> Result<SnapshotTable> {
        let fix = self.repair.contains(Repair::ERRORS);
        let oversize = if fix { Oversize::Cut } else { Oversize::Refuse };
        let table = snapshot::read_table(self.file, self.header, self.label, oversize).await?;
        for &(entry, length) in &table.cut {
            self.corruption(format!(
                "Discarding too much extra metadata in snapshot table entry {entry} ({length} > 1024)"
            ));
        }
        let verb = if fix { "Repairing" } else { "ERROR" };
        for entry in &table.incomplete {
            self.corruption(format!("{verb} snapshot table entry {entry} is incomplete"));
        }
        if table.overhang > 0 {
            let limit = if table.too_big { " (snapshot table is too big)" } else { "" };
            let over = table.overhang;
            self.detail(format!("Discarding {over} overhanging snapshots{limit}"));
            // The table has no more entries than the header says.
            self.header.snapshot_count = u32::try_from(table.snapshots.len()).unwrap_or(u32::MAX);
            let count = self.header.snapshot_count.to_be_bytes();
            table_io::write(self.file, SNAPSHOTS_FIELDS.0 as u64, &count).await?;
            self.file.flush().await?;
            self.report.corruptions_fixed += u64::from(over);
        }
        Ok(table)
    }

    /// Replaces the snapshot table, all else being sound, and returns the highest cluster in use
    /// afterwards. The new table is durable before the header names it.
    pub(super) async fn rewrite_snapshots(&mut self, table: &mut SnapshotTable) -> Result<u64> {
        let flaws = self.report.corruptions;
        let bytes = table.serialise(self.header.size);
        let mut references = self.count(table).await?;
        let clusters = self.geometry.clusters(bytes.len() as u64);
        let place = free_run(&references.counts, clusters);
        let offset = place << self.geometry.cluster_bits;
        table_io::write(self.file, offset, &bytes).await?;
        references.counts.add(place, clusters, 1);
        if !self.count_as_used(place, clusters).await? {
            self.rebuild(&references.counts).await?;
        }
        self.file.flush().await?;
        drop(references);
        let count = self.header.snapshot_count;
        let fields = [&count.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        table_io::write(self.file, SNAPSHOTS_FIELDS.0 as u64, &fields).await?;
        self.file.flush().await?;
        self.header.snapshots_offset = offset;
        self.file_len = self.file.size();
        (table.bytes, table.cut, table.incomplete) = (bytes.len() as u64, Vec::new(), Vec::new());

        self.report.corruptions -= flaws;
        self.report.corruptions_fixed += flaws;
        let references = self.count(table).await?;
        // The old table, and the old refcount structures where they were replaced.
        self.lower_quietly(&references).await?;
        Ok(self.compare(&references, Pass::Quiet).await?.highest)
    }

    /// Gives free clusters a refcount of one, where the blocks for that are there. Returns whether they
    /// are; if not, nothing has changed.
    async fn count_as_used(&mut self, first: u64, clusters: u64) -> Result<bool> {
        let stored = StoredRefcounts::open(self).await?;
        let codec = Codec::new(self.header.refcount_order);
        let bits = self.geometry.refblock_bits();
        let blocks = (first >> bits)..=((first + clusters - 1) >> bits);
        if blocks.clone().any(|index| stored.block_offset(index).is_none()) {
            return Ok(false);
        }
        for index in blocks {
            let Some(offset) = stored.block_offset(index) else { continue };
            let mut block = table_io::read(self.file, offset, self.geometry.cluster_size()).await?;
            for cluster in (index << bits).max(first)..((index + 1) << bits).min(first + clusters) {
                codec.set(&mut block, (cluster - (index << bits)).as_usize(), 1);
            }
            table_io::write(self.file, offset, &block).await?;
        }
        Ok(true)
    }

    /// Lowers refcounts that are too high because of the repair itself: nobody need know.
    async fn lower_quietly(&mut self, references: &References) -> Result<()> {
        let known = self.report.details.len();
        let more = self.more_details;
        self.compare(references, Pass::Lower).await?;
        self.report.details.truncate(known);
        self.more_details = more;
        Ok(())
    }
}
