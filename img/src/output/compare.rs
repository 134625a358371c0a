//! What `compare` prints.

use std::fmt::Write as _;

use cairn_block::options::{Dict, Value, format_size};

use super::json_document;
use crate::ops::compare::{Statistics, Verdict};

/// The line before the end of the longer image is examined.
pub const SIZE_WARNING: &str = "Warning: Image size mismatch!\n";

/// The line for the verdict.
pub fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Identical => "Images are identical.\n".to_owned(),
        Verdict::ContentDiffers { offset } => format!("Content mismatch at offset {offset}!\n"),
        Verdict::SizeDiffers => "Strict mode: Image size mismatch!\n".to_owned(),
        Verdict::StatusDiffers { offset } => {
            format!("Strict mode: Offset {offset} block status mismatch!\n")
        }
    }
}

/// The statistics for people.
pub fn human(names: [&str; 2], found: &Statistics) -> String {
    let [first, second] = names;
    let mut text = String::new();
    for (label, bytes) in [
        (format!("size of '{first}'"), found.sizes[0]),
        (format!("size of '{second}'"), found.sizes[1]),
        ("same data".to_owned(), found.same),
        ("zero in both".to_owned(), found.zero),
        ("different data".to_owned(), found.different),
        (format!("data only in '{first}'"), found.only_first),
        (format!("data only in '{second}'"), found.only_second),
    ] {
        let _ = writeln!(text, "{label}: {} ({bytes} bytes)", format_size(bytes));
    }
    match found.first_difference {
        None => text.push_str("Images are identical.\n"),
        Some(offset) => {
            let more = if found.more_ranges { "more than " } else { "" };
            let ranges = found.ranges.len();
            let _ =
                writeln!(text, "ranges that differ: {more}{ranges}, the first at offset {offset}");
        }
    }
    text
}

/// The statistics for programs.
pub fn json(names: [&str; 2], found: &Statistics) -> String {
    let mut dict = Dict::new();
    dict.insert("filenames", names.to_vec());
    dict.insert("sizes", found.sizes.to_vec());
    dict.insert("identical", found.is_identical());
    dict.insert("same", found.same);
    dict.insert("zero", found.zero);
    dict.insert("different", found.different);
    dict.insert("only-first", found.only_first);
    dict.insert("only-second", found.only_second);
    dict.insert("first-difference", found.first_difference.map_or(Value::Null, Value::from));
    let ranges = found.ranges.iter().map(|range| {
        let mut entry = Dict::new();
        entry.insert("start", range.start);
        entry.insert("length", range.length);
        entry.insert("relation", range.relation.as_str());
        entry
    });
    dict.insert("ranges", ranges.collect::<Vec<Dict>>());
    dict.insert("more-ranges", found.more_ranges);
    json_document(dict)
}
