//! Checking the flags in L1 and L2 entries against the refcounts, and correcting damaged entries.

use super::super::entry::{COPIED, OFFSET, RawEntry};
use super::super::table_io::{self, raw_entries};
use super::Checker;
use super::compare::StoredRefcounts;
use super::entries::{Reference, examine};
use super::refs::{L2Table, References};
use crate::driver::Repair;
use crate::error::Result;

/// Bytes of the L1 table that are read at once.
const PIECE: u64 = 64 << 10;

/// Where the refcounts of clusters come from.
enum Refcounts<'a> {
    /// The file.
    Stored(StoredRefcounts<'a>),
    /// The references: what the file will say when the repair is done.
    Repaired(&'a References),
}

impl Refcounts<'_> {
    async fn get(&mut self, cluster: u64) -> Result<u64> {
        match self {
            Refcounts::Stored(stored) => stored.get(cluster).await,
            Refcounts::Repaired(references) => Ok(references.counts.get(cluster)),
        }
    }
}

/// What to correct in tables.
#[derive(Clone, Copy)]
struct Fix {
    /// Damaged entries.
    entries: bool,
    /// Flags that contradict the refcounts.
    flags: bool,
}

/// An entry that does not say what it should.
struct Wrong {
    line: String,
    /// What to write instead.
    correction: RawEntry,
}

impl Checker<'_> {
    /// Checks the entries of the active tables, and corrects damaged entries of all tables.
    ///
    /// Damaged entries are corrected only where errors are to be repaired. The refcounts that flags must
    /// agree with are then those after the repair. Where only leaks are to be repaired and nothing else
    /// is wrong, flags are corrected, too: the last reference to a cluster that was leaked in part does
    /// not say yet that it is the only one.
    pub(super) async fn check_tables(&mut self, references: &References) -> Result<()> {
        let all = self.repair.contains(Repair::ERRORS);
        let report = &self.report;
        let sound = report.corruptions == 0 && report.check_errors == 0 && report.leaks == 0;
        let fix = Fix { entries: all, flags: all || self.repair.contains(Repair::LEAKS) && sound };
        let mut refcounts = if self.repair.contains(Repair::ERRORS | Repair::LEAKS) {
            Refcounts::Repaired(references)
        } else {
            Refcounts::Stored(StoredRefcounts::open(self).await?)
        };
        self.check_l1_table(&mut refcounts, references, fix).await?;
        for table in &references.l2_tables {
            if table.active > 0 || (fix.entries && table.correctable) {
                self.check_l2_table(&mut refcounts, references, table, fix).await?;
            }
        }
        if fix.flags { self.file.flush().await } else { Ok(()) }
    }

    /// Whether a table shares no cluster with anything else, so that it may be written.
    fn is_alone(&self, references: &References, offset: u64, times: u64) -> bool {
        references.counts.get(offset >> self.geometry.cluster_bits) == times
    }

    /// Notes a wrong entry; true if it is to be corrected.
    fn wrong_entry(&mut self, line: &str, fix: bool) -> bool {
        if fix {
            self.detail(format!("Repairing {line}"));
            self.report.corruptions_fixed += 1;
        } else {
            self.corruption(format!("ERROR {line}"));
        }
        fix
    }

    async fn check_l1_table(
        &mut self,
        refcounts: &mut Refcounts<'_>,
        references: &References,
        fix: Fix,
    ) -> Result<()> {
        let start = self.header.l1_offset;
        let len = u64::from(self.header.l1_size) * 8;
        let end = (start + len).min(self.file_len.next_multiple_of(8));
        let mut at = start;
        while at < end {
            let fix = fix.flags && self.is_alone(references, at, 1);
            let mut piece = table_io::read(self.file, at, (end - at).min(PIECE)).await?;
            let entries: Vec<u64> = table_io::words(&piece).collect();
            let mut changed = false;
            for (slot, raw) in entries.into_iter().enumerate() {
                let offset = raw & OFFSET;
                if offset == 0 || self.geometry.in_cluster(offset) != 0 {
                    continue;
                }
                let refcount = refcounts.get(offset >> self.geometry.cluster_bits).await?;
                if (refcount == 1) == (raw & COPIED != 0) {
                    continue;
                }
                let index = (at - start) / 8 + slot as u64;
                let line = format!(
                    "OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={raw:x} refcount={refcount}"
                );
                if self.wrong_entry(&line, fix)
                    && let Some(place) = piece.get_mut(slot * 8..slot * 8 + 8)
                {
                    place.copy_from_slice(&(raw ^ COPIED).to_be_bytes());
                    changed = true;
                }
            }
            if changed {
                table_io::write(self.file, at, &piece).await?;
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn check_l2_table(
        &mut self,
        refcounts: &mut Refcounts<'_>,
        references: &References,
        table: &L2Table,
        fix: Fix,
    ) -> Result<()> {
        let alone = self.is_alone(references, table.offset, table.times());
        let extended = self.geometry.extended_l2;
        let cluster_size = self.geometry.cluster_size();
        let mut bytes = table_io::read(self.file, table.offset, cluster_size).await?;
        let entries: Vec<RawEntry> = raw_entries(&bytes, extended).collect();
        let width = if extended { 16 } else { 8 };
        let mut changed = false;
        for (slot, raw) in entries.into_iter().enumerate() {
            if raw == RawEntry::default() {
                continue;
            }
            let mut entry = raw;
            if alone
                && fix.entries
                && let Some(correction) = examine(raw, &self.geometry).correction
            {
                let times = table.times();
                self.detail(format!(
                    "Repairing entry {slot} of the L2 table at {:#x}",
                    table.offset
                ));
                self.report.corruptions = self.report.corruptions.saturating_sub(times);
                self.report.corruptions_fixed = self.report.corruptions_fixed.saturating_add(times);
                entry = correction;
            }
            if table.active > 0
                && let Some(wrong) = self.check_copied(refcounts, entry).await?
                && self.wrong_entry(&wrong.line, alone && fix.flags)
            {
                entry = wrong.correction;
            }
            if entry != raw
                && let Some(place) = bytes.get_mut(slot * width..(slot + 1) * width)
            {
                let (descriptor, bitmap) = place.split_at_mut(8);
                descriptor.copy_from_slice(&entry.descriptor.to_be_bytes());
                if !bitmap.is_empty() {
                    bitmap.copy_from_slice(&entry.bitmap.to_be_bytes());
                }
                changed = true;
            }
        }
        if changed { table_io::write(self.file, table.offset, &bytes).await } else { Ok(()) }
    }

    /// An entry whose `COPIED` flag contradicts the refcount of its cluster.
    async fn check_copied(
        &self,
        refcounts: &mut Refcounts<'_>,
        raw: RawEntry,
    ) -> Result<Option<Wrong>> {
        let verdict = examine(raw, &self.geometry);
        let Reference::Cluster(offset) = verdict.reference else { return Ok(None) };
        if self.geometry.in_cluster(offset) != 0 {
            return Ok(None);
        }
        // A data file has no refcounts; its clusters belong to one entry each.
        let refcount = if self.geometry.external_data {
            1
        } else {
            refcounts.get(offset >> self.geometry.cluster_bits).await?
        };
        if (refcount == 1) == verdict.copied {
            return Ok(None);
        }
        let line =
            format!("OFLAG_COPIED data cluster: l2_entry={:x} refcount={refcount}", raw.descriptor);
        let correction = RawEntry { descriptor: raw.descriptor ^ COPIED, ..raw };
        Ok(Some(Wrong { line, correction }))
    }
}
