//! What `checksum` prints.

use cairn_block::options::Dict;

use super::json_document;
use crate::ops::checksum::{BLOCK, Checksum};

/// The digest and the name, as tools that compute digests of files print them.
pub fn human(name: &str, checksum: &Checksum) -> String {
    format!("{}  {name}\n", checksum.hex())
}

/// The result for programs.
pub fn json(name: &str, checksum: &Checksum) -> String {
    let mut dict = Dict::new();
    dict.insert("filename", name);
    dict.insert("algorithm", checksum.algorithm.as_str());
    if !checksum.whole {
        dict.insert("block-size", BLOCK);
    }
    dict.insert("size", checksum.size);
    dict.insert("checksum", checksum.hex());
    json_document(dict)
}
