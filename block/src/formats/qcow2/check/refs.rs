//! Counting references: the walk over everything in the image that refers to host clusters.

use super::super::bitmap;
use super::super::entry::{COPIED, OFFSET, RawEntry};
use super::super::header::MAX_L1_BYTES;
use super::super::snapshot::SnapshotTable;
use super::super::table_io::{self, raw_entries};
use super::Checker;
use super::claims::Claims;
use super::counts::Counts;
use super::entries::{Reference, examine};
use crate::driver::Repair;
use crate::error::Result;
use crate::num::AsUsize;

/// Bytes of L1 and bitmap tables that are read at once.
const PIECE: u64 = 64 << 10;

/// An L2 table, and how often it is referred to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct L2Table {
    /// Host offset.
    pub(super) offset: u64,
    /// Entries of the active L1 table that refer to it.
    pub(super) active: u64,
    /// Entries of the L1 tables of snapshots that refer to it.
    pub(super) inactive: u64,
    /// It has entries that can be corrected.
    pub(super) correctable: bool,
}

impl L2Table {
    pub(super) fn times(&self) -> u64 {
        self.active.saturating_add(self.inactive)
    }
}

/// What refers to what.
#[derive(Default)]
pub(super) struct References {
    /// References to each cluster.
    pub(super) counts: Counts,
    /// L2 tables that can be read, each once.
    pub(super) l2_tables: Vec<L2Table>,
    /// The refcount structures themselves are damaged.
    pub(super) rebuild: bool,
    /// Clusters of metadata, to be added to the counts.
    claims: Claims,
}

impl Checker<'_> {
    /// Counts all references, and fills in the statistics of the report.
    pub(super) async fn count(&mut self, snapshots: &SnapshotTable) -> Result<References> {
        let mut references = References::default();
        let mut l1 = Claims::default();
        self.report.total_clusters = self.geometry.clusters(self.header.size);
        self.report.allocated_clusters = 0;
        self.report.fragmented_clusters = 0;
        self.report.compressed_clusters = 0;

        self.claim(&mut references, "the image header", 0, 1);
        let (l1_offset, l1_bytes) = (self.header.l1_offset, u64::from(self.header.l1_size) * 8);
        self.claim(&mut references, "the active L1 table", l1_offset, l1_bytes);
        l1.add(l1_offset, l1_offset.saturating_add(l1_bytes), 1);
        self.collect_l2_tables(l1, true, &mut references).await?;
        self.claim_snapshots(snapshots, &mut references).await?;
        self.merge_l2_tables(&mut references);

        let reftable_bytes = u64::from(self.header.reftable_clusters) << self.geometry.cluster_bits;
        let (offset, len) = (self.header.reftable_offset, reftable_bytes);
        self.claim(&mut references, "the refcount table", offset, len);
        if let Some(crypto) = self.header.extensions.crypto {
            self.claim(&mut references, "the encryption header", crypto.offset, crypto.length);
        }
        self.claim_bitmaps(&mut references).await?;
        for range in std::mem::take(&mut references.claims).ranges() {
            references.counts.add(range.start, range.end - range.start, range.times);
        }
        for index in 0..references.l2_tables.len() {
            self.count_l2_table(&mut references, index).await?;
        }
        self.count_refblocks(&mut references).await?;
        Ok(references)
    }

    /// Claims the clusters of a table once, if they can be there.
    fn claim(&mut self, references: &mut References, what: &str, offset: u64, len: u64) {
        if !self.is_present(offset, len) {
            let line = format!(
                "ERROR {what} at {offset:#x} ({len} bytes) lies beyond the end of the file"
            );
            self.corruption(line);
            return;
        }
        if len > 0 {
            let first = offset >> self.geometry.cluster_bits;
            let last = (offset + (len - 1)) >> self.geometry.cluster_bits;
            references.claims.add(first, last + 1, 1);
        }
    }

    async fn claim_snapshots(
        &mut self,
        table: &SnapshotTable,
        references: &mut References,
    ) -> Result<()> {
        let mut l1 = Claims::default();
        for snapshot in &table.snapshots {
            let (offset, bytes) = (snapshot.l1_offset, u64::from(snapshot.l1_entries) * 8);
            let (label, entries) = (snapshot.label(), snapshot.l1_entries);
            if self.geometry.in_cluster(offset) != 0 {
                self.corruption(format!(
                    "ERROR snapshot {label} l1_offset={offset:#x}: L1 table is not cluster aligned; \
                     snapshot table entry corrupted"
                ));
            } else if bytes > MAX_L1_BYTES {
                self.corruption(format!(
                    "ERROR snapshot {label} l1_size={entries:#x}: L1 table is too large; snapshot \
                     table entry corrupted"
                ));
            } else {
                let what = format!("the L1 table of snapshot {label}");
                self.claim(references, &what, offset, bytes);
                l1.add(offset, offset.saturating_add(bytes), 1);
            }
        }
        if table.bytes > 0 {
            let offset = self.header.snapshots_offset;
            self.claim(references, "the snapshot table", offset, table.bytes);
        }
        self.collect_l2_tables(l1, false, references).await
    }

    /// Reads L1 entries, and notes the L2 tables they refer to.
    async fn collect_l2_tables(
        &mut self,
        l1: Claims,
        active: bool,
        references: &mut References,
    ) -> Result<()> {
        for range in l1.ranges() {
            let end = range.end.min(self.file_len.next_multiple_of(8));
            let mut at = range.start;
            while at < end {
                let piece = table_io::read(self.file, at, (end - at).min(PIECE)).await?;
                for raw in table_io::words(&piece).filter(|&raw| raw != 0) {
                    let offset = raw & OFFSET;
                    if raw & !(OFFSET | COPIED) != 0 {
                        let line = format!("ERROR L1 entry {raw:#x} has reserved bits set");
                        self.corruptions(range.times, line);
                    }
                    let table = L2Table { offset, ..L2Table::default() };
                    references.l2_tables.push(if active {
                        L2Table { active: range.times, ..table }
                    } else {
                        L2Table { inactive: range.times, ..table }
                    });
                }
                at += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// Makes each L2 table appear once, checks its place, and claims it.
    fn merge_l2_tables(&mut self, references: &mut References) {
        let mut tables = std::mem::take(&mut references.l2_tables);
        tables.sort_unstable_by_key(|table| table.offset);
        tables.dedup_by(|next, first| {
            let same = next.offset == first.offset;
            if same {
                first.active = first.active.saturating_add(next.active);
                first.inactive = first.inactive.saturating_add(next.inactive);
            }
            same
        });
        tables.retain(|table| {
            let offset = table.offset;
            let problem = if offset == 0 {
                return false;
            } else if self.geometry.in_cluster(offset) != 0 {
                "is not aligned to a cluster"
            } else if !self.is_present(offset, self.geometry.cluster_size()) {
                "lies beyond the end of the file"
            } else {
                let cluster = offset >> self.geometry.cluster_bits;
                references.claims.add(cluster, cluster + 1, table.times());
                return true;
            };
            self.corruptions(table.times(), format!("ERROR L2 table at {offset:#x} {problem}"));
            false
        });
        references.l2_tables = tables;
    }

    async fn count_l2_table(&mut self, references: &mut References, index: usize) -> Result<()> {
        let Some(table) = references.l2_tables.get_mut(index) else { return Ok(()) };
        let geometry = self.geometry;
        let bytes = table_io::read(self.file, table.offset, geometry.cluster_size()).await?;
        let times = table.times();
        // Neighbouring clusters are counted at once.
        let mut run = (0, 0);
        // The first cluster of a table has no predecessor.
        let mut expected = 0;
        for (number, raw) in raw_entries(&bytes, geometry.extended_l2).enumerate() {
            if raw == RawEntry::default() {
                continue;
            }
            let verdict = examine(raw, &geometry);
            if let Some(problem) = verdict.problem {
                let line = format!(
                    "ERROR entry {number} of the L2 table at {:#x} ({:#x}): {problem}",
                    table.offset, raw.descriptor
                );
                self.corruptions(times, line);
            }
            table.correctable |= verdict.correction.is_some();
            let reference = match verdict.correction {
                // The storage is given up together with the damaged entry.
                Some(correction) if self.repair.contains(Repair::ERRORS) => {
                    examine(correction, &geometry).reference
                }
                _ => verdict.reference,
            };
            let (offset, len) = match reference {
                Reference::None => continue,
                Reference::Cluster(offset) => {
                    self.report.allocated_clusters += table.active;
                    if expected != 0 && offset != expected {
                        self.report.fragmented_clusters += table.active;
                    }
                    expected = offset.saturating_add(geometry.cluster_size());
                    if geometry.external_data {
                        continue;
                    }
                    (offset, geometry.cluster_size())
                }
                Reference::Compressed(data) => {
                    self.report.allocated_clusters += table.active;
                    self.report.compressed_clusters += table.active;
                    // Compressed clusters never lie in place.
                    self.report.fragmented_clusters += table.active;
                    (data.offset, data.len)
                }
            };
            if !self.is_present(offset, len) {
                let line = format!(
                    "ERROR entry {number} of the L2 table at {:#x}: data at {offset:#x} lies beyond the end of the file",
                    table.offset
                );
                self.corruptions(times, line);
                continue;
            }
            let first = offset >> geometry.cluster_bits;
            let clusters = ((offset + (len - 1)) >> geometry.cluster_bits) + 1 - first;
            if run.0 + run.1 == first {
                run.1 += clusters;
            } else {
                references.counts.add(run.0, run.1, times);
                run = (first, clusters);
            }
        }
        references.counts.add(run.0, run.1, times);
        Ok(())
    }

    async fn claim_bitmaps(&mut self, references: &mut References) -> Result<()> {
        if !self.header.has_valid_bitmaps() {
            return Ok(());
        }
        let Some(extension) = self.header.extensions.bitmaps else { return Ok(()) };
        let (offset, len) = (extension.directory_offset, extension.directory_size);
        self.claim(references, "the bitmap directory", offset, len);
        let directory = match bitmap::read_directory(self.file, &extension, self.label).await {
            Ok(directory) => directory,
            Err(error @ crate::Error::Corrupt { .. }) => {
                self.corruption(format!("ERROR {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut tables = Claims::default();
        for entry in &directory {
            let (offset, bytes) = (entry.table_offset, u64::from(entry.table_entries) * 8);
            let what = format!("the table of bitmap '{}'", entry.name.escape_debug());
            if self.geometry.in_cluster(offset) != 0 {
                self.corruption(format!("ERROR {what} at {offset:#x} is not aligned to a cluster"));
                continue;
            }
            self.claim(references, &what, offset, bytes);
            tables.add(offset, offset.saturating_add(bytes), 1);
        }
        for range in tables.ranges() {
            let end = range.end.min(self.file_len.next_multiple_of(8));
            let mut at = range.start;
            while at < end {
                let piece = table_io::read(self.file, at, (end - at).min(PIECE)).await?;
                for raw in table_io::words(&piece) {
                    self.claim_bitmap_data(references, raw, range.times);
                }
                at += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// Claims the cluster that an entry of a bitmap table refers to.
    fn claim_bitmap_data(&mut self, references: &mut References, raw: u64, times: u64) {
        let offset = raw & OFFSET;
        // Bit 0 says "all ones", and only where no cluster is named.
        let allowed = if offset == 0 { 1 } else { OFFSET };
        if raw & !allowed != 0 || self.geometry.in_cluster(offset) != 0 {
            self.corruptions(times, format!("ERROR bitmap table entry {raw:#x} is not valid"));
        } else if offset == 0 {
        } else if !self.is_present(offset, self.geometry.cluster_size()) {
            let line = format!("ERROR bitmap data at {offset:#x} lies beyond the end of the file");
            self.corruptions(times, line);
        } else {
            let cluster = offset >> self.geometry.cluster_bits;
            references.claims.add(cluster, cluster + 1, times);
        }
    }

    async fn count_refblocks(&mut self, references: &mut References) -> Result<()> {
        for (index, raw) in (0u64..).zip(self.read_reftable().await?) {
            if raw == 0 {
                continue;
            }
            let problem = if raw & 0x1ff != 0 {
                "has reserved bits set"
            } else if self.geometry.in_cluster(raw) != 0 {
                "is not aligned to a cluster"
            } else if raw.checked_add(1).is_none_or(|end| end > self.file_len) {
                "lies beyond the end of the file"
            } else {
                let cluster = raw >> self.geometry.cluster_bits;
                references.counts.add(cluster, 1, 1);
                match references.counts.get(cluster) {
                    1 => continue,
                    _ => "is used for something else, too",
                }
            };
            self.corruption(format!("ERROR refcount block {index} ({raw:#x}) {problem}"));
            references.rebuild = true;
        }
        Ok(())
    }

    /// The entries of the refcount table that the file really has.
    pub(super) async fn read_reftable(&self) -> Result<Vec<u64>> {
        let start = self.header.reftable_offset;
        let len = u64::from(self.header.reftable_clusters) << self.geometry.cluster_bits;
        let len = len.min(self.file_len.saturating_sub(start));
        let mut entries = Vec::with_capacity((len / 8).as_usize());
        let mut at = 0;
        while at < len {
            let piece = table_io::read(self.file, start + at, (len - at).min(PIECE)).await?;
            entries.extend(table_io::words(&piece));
            at += piece.len() as u64;
        }
        Ok(entries)
    }
}
