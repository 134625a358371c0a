//! The texts that users and programs read: pure functions from results to text.
//!
//! Layout and wording of results are part of the interface (programs parse them), so they are those
//! of the reference release, byte for byte.

pub mod bench;
pub mod check;
pub mod checksum;
pub mod compact;
pub mod compare;
pub mod info;
mod local_time;
pub mod map;
pub mod measure;
pub mod snapshot;

use std::fmt::{self, Write};

use cairn_block::options::json::Document;
use cairn_block::options::{Value, json};

/// Writes a JSON document that may be long, with its newline.
pub(crate) fn write_json(document: Document<'_>, out: &mut dyn Write) -> fmt::Result {
    json::write_pretty(document, out)?;
    out.write_char('\n')
}

/// A whole JSON document, with its newline.
pub(crate) fn json_document(value: impl Into<Value>) -> String {
    let mut text = json::pretty(&value.into());
    text.push('\n');
    text
}
