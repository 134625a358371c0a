//! What `compact` prints.

use cairn_block::options::{Dict, format_size};

use super::json_document;
use crate::ops::compact::Compacted;

/// The result for people.
pub fn human(name: &str, compacted: &Compacted) -> String {
    let Compacted { zeroes, file, used_before, used_after } = compacted;
    let disk = match (used_before, used_after) {
        (Some(before), Some(after)) => {
            format!(", disk size {} instead of {}", format_size(*after), format_size(*before))
        }
        _ => String::new(),
    };
    format!(
        "Image '{name}' compacted: {} of zeroes given up, {} moved, file length {} instead of \
         {}{disk}.\n",
        format_size(*zeroes),
        format_size(file.moved),
        format_size(file.after),
        format_size(file.before),
    )
}

/// The result for programs.
pub fn json(name: &str, compacted: &Compacted) -> String {
    let mut dict = Dict::new();
    dict.insert("filename", name);
    dict.insert("zeroes", compacted.zeroes);
    dict.insert("moved", compacted.file.moved);
    dict.insert("length-before", compacted.file.before);
    dict.insert("length-after", compacted.file.after);
    if let (Some(before), Some(after)) = (compacted.used_before, compacted.used_after) {
        dict.insert("disk-size-before", before);
        dict.insert("disk-size-after", after);
    }
    json_document(dict)
}
