//! `check`: find damage in an image's metadata, and repair it.

use cairn_block::driver::{CheckReport, Repair};
use cairn_block::graph::Backend;

use crate::error::{Error, Result};

/// Exit status of a check that could not be completed.
const EXIT_INCOMPLETE: u8 = 1;
/// Exit status for a damaged image.
const EXIT_CORRUPT: u8 = 2;
/// Exit status for leaked clusters.
const EXIT_LEAKS: u8 = 3;
/// Exit status for a format that has no check.
pub const EXIT_NO_CHECK: u8 = 63;

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the check found, or when it repaired something, what the second check found. The counts
    /// of repairs are those of the first.
    pub report: CheckReport,
    /// Details of the first check, if there was a second.
    pub repaired: bool,
}

impl Checked {
    /// The exit status that tells what was found.
    pub fn exit_status(&self) -> u8 {
        if self.report.check_errors > 0 {
            EXIT_INCOMPLETE
        } else if self.report.corruptions > 0 {
            EXIT_CORRUPT
        } else if self.report.leaks > 0 {
            EXIT_LEAKS
        } else {
            0
        }
    }
}

/// Checks `image`. If something was repaired it is checked again, after `on_repaired` was told what.
/// `on_detail` gets each finding, in order.
pub async fn check(
    image: &Backend,
    repair: Repair,
    mut on_detail: impl FnMut(&str),
    on_repaired: impl FnOnce(&CheckReport) -> Result<()>,
) -> Result<Checked> {
    let node = image.node();
    let first = node.driver().check(repair).await.map_err(|error| {
        if error.is_unsupported() {
            // Scripts look for these very words.
            let what = "This image format does not support checks".to_owned();
            return Error::Usage(what).with_status(EXIT_NO_CHECK);
        }
        Error::from(error).with_status(EXIT_INCOMPLETE)
    })?;
    first.details.iter().for_each(|line| on_detail(line));
    if first.leaks_fixed == 0 && first.corruptions_fixed == 0 {
        return Ok(Checked { report: first, repaired: false });
    }
    on_repaired(&first)?;
    let second = node.driver().check(Repair::empty()).await?;
    second.details.iter().for_each(|line| on_detail(line));
    let report = CheckReport {
        leaks_fixed: first.leaks_fixed,
        corruptions_fixed: first.corruptions_fixed,
        ..second
    };
    Ok(Checked { report, repaired: true })
}
