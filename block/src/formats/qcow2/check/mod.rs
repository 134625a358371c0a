//! Checking and repairing an image.
//!
//! The check counts every reference to a host cluster, compares the counts with the stored refcounts,
//! and then the flags in the tables with the refcounts. It reads and writes the file directly: the
//! driver's caches are written back before, and dropped after.
//!
//! Time and memory are bounded by what the file really holds, however often a hostile image refers to
//! it: bytes that several tables claim are read once, and counted as often as they are claimed.
//!
//! Repairs keep the order in which a crash does no further harm: refcounts are raised first, then the
//! tables are corrected, then refcounts are lowered.

mod claims;
mod compare;
mod counts;
mod entries;
mod rebuild;
mod refs;
mod snapshots;
mod tables;
mod width;

use super::feature::Incompatible;
use super::geometry::Geometry;
use super::header::{FEATURES_OFFSET, Header};
use super::snapshot::SnapshotTable;
use super::table_io;
use crate::driver::{CheckReport, Repair};
use crate::error::{Error, Result};
use crate::graph::Edge;

use compare::{Compared, Pass};
use refs::References;
pub(crate) use width::change_refcount_width;

/// Lines of details that are kept; a damaged image may have millions of findings.
const MAX_DETAILS: usize = 10_000;

/// The state of a check.
struct Checker<'a> {
    file: &'a Edge,
    header: &'a mut Header,
    geometry: Geometry,
    label: &'a str,
    repair: Repair,
    /// Length of the file in bytes.
    file_len: u64,
    report: CheckReport,
    /// Findings beyond [`MAX_DETAILS`].
    more_details: u64,
}

/// Checks the image in `file`, whose header is `header`, and repairs what `repair` allows. `label` is
/// what messages call the image.
///
/// Nothing else may use the file meanwhile. A repair may change `header`, and the place of the
/// refcount table: the caller loads again what it has in memory.
pub(crate) async fn check(
    file: &Edge,
    header: &mut Header,
    label: &str,
    repair: Repair,
) -> Result<CheckReport> {
    let geometry = Geometry::of(header);
    let mut checker = Checker {
        file,
        header,
        geometry,
        label,
        repair,
        file_len: file.size(),
        report: CheckReport::default(),
        more_details: 0,
    };
    checker.run().await?;
    let Checker { mut report, more_details, .. } = checker;
    if more_details > 0 {
        report.details.push(format!("... and {more_details} more findings"));
    }
    Ok(report)
}

impl Checker<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut snapshots = self.read_snapshots().await?;
        let flaws = self.report.corruptions;
        let references = self.count(&snapshots).await?;
        let found = self.compare(&references, Pass::Report).await?;
        let mut highest = found.highest;
        let damaged = references.rebuild || found.rebuild;
        if damaged && self.repair.contains(Repair::ERRORS) {
            highest = self.repair_by_rebuilding(references, &found, &snapshots, flaws).await?;
        } else if damaged && !self.repair.is_empty() {
            self.detail("ERROR need to rebuild refcount structures".to_owned());
            let what = "the refcount structures must be rebuilt; repair all to do that";
            return Err(Error::corrupt(self.label, what));
        } else {
            self.repair_in_place(&references, found).await?;
        }
        if flaws > 0 && self.repair.contains(Repair::ERRORS) && self.report.corruptions == flaws {
            highest = self.rewrite_snapshots(&mut snapshots).await?;
        }
        self.report.image_end_offset = (highest + 1) << self.geometry.cluster_bits;
        if !self.repair.is_empty() && self.report.check_errors == 0 && self.report.corruptions == 0
        {
            self.mark_sound().await?;
        }
        Ok(())
    }

    /// Corrects refcounts where they are, and the tables.
    async fn repair_in_place(&mut self, references: &References, found: Compared) -> Result<()> {
        self.report.corruptions += found.too_low;
        self.report.leaks += found.too_high;
        if self.repair.contains(Repair::ERRORS) {
            if found.too_low > 0 {
                let fixed = self.compare(references, Pass::Raise).await?.fixed;
                self.report.corruptions -= fixed;
                self.report.corruptions_fixed += fixed;
            }
            self.check_tables(references).await?;
            self.lower_refcounts(references, &found).await
        } else {
            self.lower_refcounts(references, &found).await?;
            self.check_tables(references).await
        }
    }

    async fn lower_refcounts(&mut self, references: &References, found: &Compared) -> Result<()> {
        if self.repair.contains(Repair::LEAKS) && found.too_high > 0 {
            let fixed = self.compare(references, Pass::Lower).await?.fixed;
            self.report.leaks -= fixed;
            self.report.leaks_fixed += fixed;
        }
        Ok(())
    }

    /// Replaces the refcount structures, and returns the highest cluster in use afterwards.
    async fn repair_by_rebuilding(
        &mut self,
        references: References,
        found: &Compared,
        snapshots: &SnapshotTable,
        flaws: u64,
    ) -> Result<u64> {
        let corruptions = self.report.corruptions + found.too_low;
        let leaks = self.report.leaks + found.too_high;
        self.detail("Rebuilding refcount structure".to_owned());
        self.rebuild(&references.counts).await?;
        self.file_len = self.file.size();
        drop(references);
        // What remains is found by looking again. The flaws of the snapshot table are still there.
        self.report.corruptions = flaws;
        self.report.leaks = 0;
        let references = self.count(snapshots).await?;
        let mut left = self.compare(&references, Pass::Quiet).await?;
        if references.rebuild || left.rebuild {
            let what = "the refcount structures are still damaged after they were rebuilt";
            return Err(Error::corrupt(self.label, what));
        }
        if self.repair.contains(Repair::LEAKS) && left.too_high > 0 {
            // The old refcount structures are among these.
            let lowered = self.compare(&references, Pass::Lower).await?;
            left.too_high -= lowered.fixed;
            left.highest = self.compare(&references, Pass::Quiet).await?.highest;
        }
        self.report.corruptions += left.too_low;
        self.report.leaks += left.too_high;
        self.report.corruptions_fixed += corruptions.saturating_sub(self.report.corruptions);
        self.report.leaks_fixed += leaks.saturating_sub(self.report.leaks);
        self.check_tables(&references).await?;
        Ok(left.highest)
    }

    /// Clears the bits that say that the image may be, or is, damaged.
    async fn mark_sound(&mut self) -> Result<()> {
        let doubts = Incompatible::DIRTY | Incompatible::CORRUPT;
        self.file.flush().await?;
        if self.header.incompatible.intersects(doubts) {
            self.header.incompatible.remove(doubts);
            table_io::write(self.file, FEATURES_OFFSET, &self.header.features()).await?;
            self.file.flush().await?;
        }
        Ok(())
    }

    /// Keeps a line for people.
    fn detail(&mut self, line: String) {
        if self.report.details.len() < MAX_DETAILS {
            self.report.details.push(line);
        } else {
            self.more_details += 1;
        }
    }

    fn corruption(&mut self, line: String) {
        self.corruptions(1, line);
    }

    /// Notes damage that was found `times` times in one place.
    fn corruptions(&mut self, times: u64, line: String) {
        self.report.corruptions = self.report.corruptions.saturating_add(times);
        self.detail(line);
    }

    /// Whether a range of the file ends less than one cluster behind its end. What lies further out
    /// cannot have been written.
    fn is_present(&self, offset: u64, len: u64) -> bool {
        let limit = self.file_len.saturating_add(self.geometry.cluster_size());
        offset.checked_add(len).is_some_and(|end| end < limit || len == 0)
    }
}
