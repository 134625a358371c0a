//! Changing the width of refcounts: the refcount structures are written anew.

use super::super::geometry::Geometry;
use super::super::header::Header;
use super::super::refcount::Codec;
use super::super::snapshot::{self, Oversize};
use super::Checker;
use super::compare::Pass;
use crate::driver::{CheckReport, Repair};
use crate::error::{Error, Result};
use crate::graph::Edge;

/// Gives the image in `file` refcounts of `1 << order` bits. Its references are counted; an image with
/// damage is refused.
///
/// Nothing else may use the file meanwhile. `header` changes with the file.
pub(crate) async fn change_refcount_width(
    file: &Edge,
    header: &mut Header,
    label: &str,
    order: u32,
) -> Result<()> {
    let mut checker = Checker {
        file,
        geometry: Geometry::of(header),
        header,
        label,
        repair: Repair::LEAKS,
        file_len: file.size(),
        report: CheckReport::default(),
        more_details: 0,
    };
    let snapshots = snapshot::read_table(file, checker.header, label, Oversize::Refuse).await?;
    let references = checker.count(&snapshots).await?;
    if references.rebuild || checker.report.corruptions > 0 {
        return Err(Error::unsupported(label, "the image is damaged; check and repair it first"));
    }
    let max = Codec::new(order).max();
    let mut from = 0;
    while let Some(cluster) = references.counts.next_present(from, references.counts.end()) {
        let count = references.counts.get(cluster);
        if count > max {
            return Err(Error::unsupported(
                label,
                format!(
                    "refcounts cannot have {} bits: cluster {cluster} has {count} references",
                    1u64 << order
                ),
            ));
        }
        from = cluster + 1;
    }
    checker.header.refcount_order = order;
    checker.geometry = Geometry::of(checker.header);
    checker.rebuild(&references.counts).await?;
    drop(references);
    checker.file_len = file.size();
    // The old structures.
    let references = checker.count(&snapshots).await?;
    checker.compare(&references, Pass::Lower).await?;
    file.flush().await
}
