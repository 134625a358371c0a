//! What `check` prints.

use std::fmt::Write as _;

use cairn_block::driver::{CheckReport, Repair};
use cairn_block::options::Dict;

use super::json_document;

/// What was repaired, before the second check.
pub fn repaired(report: &CheckReport) -> String {
    format!(
        "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} \
         corruptions\n\nDouble checking the fixed image now...\n",
        report.leaks_fixed, report.corruptions_fixed
    )
}

/// What a repair of what `planned` says would change.
pub fn would_repair(report: &CheckReport, planned: Repair) -> String {
    let count = |repair, found: u64| if planned.contains(repair) { found } else { 0 };
    format!(
        "Would repair {} leaked clusters and {} corruptions.\n",
        count(Repair::LEAKS, report.leaks),
        count(Repair::ERRORS, report.corruptions)
    )
}

/// The result for people.
pub fn human(report: &CheckReport) -> String {
    let mut text = String::new();
    if report.corruptions == 0 && report.leaks == 0 && report.check_errors == 0 {
        text.push_str("No errors were found on the image.\n");
    }
    if report.corruptions > 0 {
        let _ = write!(
            text,
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n",
            report.corruptions
        );
    }
    if report.leaks > 0 {
        let _ = write!(
            text,
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no \
             harm to data.\n",
            report.leaks
        );
    }
    if report.check_errors > 0 {
        let _ = write!(
            text,
            "\n{} internal errors have occurred during the check.\n",
            report.check_errors
        );
    }
    if report.total_clusters != 0 && report.allocated_clusters != 0 {
        let _ = writeln!(
            text,
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            report.allocated_clusters,
            report.total_clusters,
            percent(report.allocated_clusters, report.total_clusters),
            percent(report.fragmented_clusters, report.allocated_clusters),
            percent(report.compressed_clusters, report.allocated_clusters),
        );
    }
    if report.image_end_offset > 0 {
        let _ = writeln!(text, "Image end offset: {}", report.image_end_offset);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

/// The result for programs.
pub fn json(filename: &str, format: &str, report: &CheckReport) -> String {
    let mut dict = Dict::new();
    dict.insert("filename", filename);
    dict.insert("format", format);
    dict.insert("check-errors", report.check_errors);
    for (key, value) in [
        ("image-end-offset", report.image_end_offset),
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("corruptions-fixed", report.corruptions_fixed),
        ("leaks-fixed", report.leaks_fixed),
        ("total-clusters", report.total_clusters),
        ("allocated-clusters", report.allocated_clusters),
        ("fragmented-clusters", report.fragmented_clusters),
        ("compressed-clusters", report.compressed_clusters),
    ] {
        if value != 0 {
            dict.insert(key, value);
        }
    }
    json_document(dict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
No errors were found on the image.
158/1024 = 15.43% allocated, 0.63% fragmented, 0.00% compressed clusters
Image end offset: 10813440
";

    fn clean() -> CheckReport {
        CheckReport {
            total_clusters: 1024,
            allocated_clusters: 158,
            fragmented_clusters: 1,
            image_end_offset: 10_813_440,
            ..CheckReport::default()
        }
    }

    #[test]
    fn clean_image() {
        assert_eq!(human(&clean()), CLEAN);
        assert_eq!(
            json("f.qcow2", "qcow2", &clean()),
            r#"{
    "image-end-offset": 10813440,
    "total-clusters": 1024,
    "check-errors": 0,
    "allocated-clusters": 158,
    "filename": "f.qcow2",
    "format": "qcow2",
    "fragmented-clusters": 1
}
"#
        );
    }

    #[test]
    fn everything_wrong_at_once() {
        let report =
            CheckReport { corruptions: 2, leaks: 3, check_errors: 1, ..CheckReport::default() };
        assert_eq!(
            human(&report),
            "\n2 errors were found on the image.\nData may be corrupted, or further writes to the \
             image may corrupt it.\n\n3 leaked clusters were found on the image.\nThis means waste \
             of disk space, but no harm to data.\n\n1 internal errors have occurred during the \
             check.\n"
        );
    }
}
