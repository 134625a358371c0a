//! Writing the table of internal snapshots anew, with what its entries lack.

use super::super::header::SNAPSHOTS_FIELDS;
use super::super::snapshot::SnapshotTable;
use super::super::table_io;
use super::Checker;
use super::compare::Pass;
use super::rebuild::free_run;
use crate::error::Result;

impl Checker<'_> {
    /// Replaces the snapshot table, all else being sound, and returns the highest cluster in use
    /// afterwards. Like new refcount structures, the new table is durable before the header names it.
    pub(super) async fn rewrite_snapshots(&mut self, table: &mut SnapshotTable) -> Result<u64> {
        let flaws = std::mem::take(&mut table.flaws).len() as u64;
        let bytes = table.serialise(self.header.size);
        let mut references = self.count(table).await?;
        let clusters = self.geometry.clusters(bytes.len() as u64);
        let place = free_run(&references.counts, clusters);
        let offset = place << self.geometry.cluster_bits;
        self.detail(format!("Repairing the snapshot table, which moves to {offset:#x}"));
        table_io::write(self.file, offset, &bytes).await?;
        references.counts.add(place, clusters, 1);
        self.rebuild(&references.counts).await?;
        drop(references);
        let count = self.header.snapshot_count;
        let fields = [&count.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        table_io::write(self.file, SNAPSHOTS_FIELDS.0 as u64, &fields).await?;
        self.file.flush().await?;
        self.header.snapshots_offset = offset;
        self.file_len = self.file.size();
        table.bytes = bytes.len() as u64;

        self.report.corruptions -= flaws;
        self.report.corruptions_fixed += flaws;
        let references = self.count(table).await?;
        // The old table and the old refcount structures.
        self.compare(&references, Pass::Lower).await?;
        Ok(self.compare(&references, Pass::Quiet).await?.highest)
    }
}
