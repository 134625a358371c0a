//! What `info` shows of an image.

use super::bitmap::{self, BitmapEntry, BitmapFlags};
use super::extension::CryptoExtension;
use super::feature::{Autoclear, Compatible, Incompatible};
use super::geometry::Geometry;
use super::header::{Compression, Encryption, Header};
use super::snapshot::{self, Oversize, Snapshot};
use crate::crypto::luks::Area;
use crate::driver::FormatInfo;
use crate::error::{Error, Result};
use crate::graph::Edge;
use crate::options::{Dict, Value};

/// Describes the image in `file`. Snapshots and bitmaps are read from the file; nothing of the guest's
/// data is. `label` is what messages call the image.
pub(crate) async fn format_info(file: &Edge, header: &Header, label: &str) -> Result<FormatInfo> {
    let snapshots = match header.snapshot_count {
        0 => Vec::new(),
        _ => snapshot::read_table(file, header, label, Oversize::Refuse).await?.snapshots,
    };
    let bitmaps = match &header.extensions.bitmaps {
        Some(extension) if header.has_valid_bitmaps() => {
            // A damaged directory hides the bitmaps, not the image.
            match bitmap::read_directory(file, extension, label).await {
                Ok(entries) => entries,
                Err(Error::Corrupt { .. }) => Vec::new(),
                Err(error) => return Err(error),
            }
        }
        _ => Vec::new(),
    };
    let mut specific = specific(header, &bitmaps);
    if let Some(encryption) = describe_encryption(file, header).await? {
        specific.insert("encrypt", encryption);
    }
    let geometry = Geometry::of(header);
    Ok(FormatInfo {
        cluster_size: Some(1 << header.cluster_bits),
        vm_state_offset: geometry.l1_entries(header.size).checked_mul(geometry.l2_coverage()),
        dirty: Some(header.incompatible.contains(Incompatible::DIRTY)),
        encrypted: header.encryption != Encryption::None,
        compressed: false,
        backing_file: header.backing_file.clone(),
        backing_format: header.extensions.backing_format.clone(),
        snapshots: snapshots.into_iter().map(Snapshot::into_description).collect(),
        specific: Some(specific),
    })
}

/// The format's own facts.
fn specific(header: &Header, bitmaps: &[BitmapEntry]) -> Dict {
    let mut facts = Dict::default();
    facts.insert("compat", if header.version >= 3 { "1.1" } else { "0.10" });
    facts.insert(
        "compression-type",
        match header.compression {
            Compression::Deflate => "zlib",
            Compression::Zstd => "zstd",
        },
    );
    if header.version >= 3 {
        let lazy = header.compatible.contains(Compatible::LAZY_REFCOUNTS);
        facts.insert("lazy-refcounts", lazy);
        facts.insert("corrupt", header.incompatible.contains(Incompatible::CORRUPT));
        facts.insert("extended-l2", header.incompatible.contains(Incompatible::EXTENDED_L2));
        if !bitmaps.is_empty() {
            facts.insert("bitmaps", bitmaps.iter().map(describe_bitmap).collect::<Vec<Dict>>());
        }
        if header.incompatible.contains(Incompatible::DATA_FILE) {
            if let Some(name) = &header.extensions.data_file {
                facts.insert("data-file", name.as_str());
            }
            let raw = header.autoclear.contains(Autoclear::RAW_DATA_FILE);
            facts.insert("data-file-raw", raw);
        }
    }
    facts.insert("refcount-bits", 1u64 << header.refcount_order);
    facts
}

async fn describe_encryption(file: &Edge, header: &Header) -> Result<Option<Dict>> {
    let (name, mut facts) = match header.encryption {
        Encryption::None => return Ok(None),
        Encryption::Aes => ("aes", Dict::default()),
        Encryption::Luks => {
            let facts = match header.extensions.crypto {
                Some(CryptoExtension { offset, length: len }) => {
                    let area = Area { node: file.node(), offset, len };
                    match area.header(false).await {
                        Ok(luks) => luks.describe(false),
                        // A damaged header hides the facts, not the image.
                        Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => Dict::default(),
                        Err(error) => return Err(error),
                    }
                }
                None => Dict::default(),
            };
            ("luks", facts)
        }
    };
    facts.insert("format", name);
    Ok(Some(facts))
}

fn describe_bitmap(entry: &BitmapEntry) -> Dict {
    let names = [(BitmapFlags::IN_USE, "in-use"), (BitmapFlags::AUTO, "auto")];
    let flags = names.iter().filter(|(flag, _)| entry.flags.contains(*flag));
    let mut facts = Dict::default();
    facts.insert("flags", Value::List(flags.map(|(_, name)| Value::from(*name)).collect()));
    facts.insert("name", entry.name.as_str());
    facts.insert("granularity", 1u64 << entry.granularity_bits);
    facts
}
