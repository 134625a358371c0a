//! Feature bits of the header and the feature name table (qcow2 specification, "Header" and "Feature
//! name table").

use bitflags::bitflags;

bitflags! {
    /// Features that a program must know to open the image at all.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Incompatible: u64 {
        /// Refcounts may be wrong: the image was not closed.
        const DIRTY = 1;
        /// Metadata is known to be damaged; the image must not be written.
        const CORRUPT = 1 << 1;
        /// Guest data is in an external file.
        const DATA_FILE = 1 << 2;
        /// Compressed clusters are not deflate.
        const COMPRESSION = 1 << 3;
        /// L2 entries have subcluster bitmaps.
        const EXTENDED_L2 = 1 << 4;
        const _ = !0;
    }
}

bitflags! {
    /// Features that may be ignored.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Compatible: u64 {
        /// Refcount updates may be put off while the dirty bit is set.
        const LAZY_REFCOUNTS = 1;
        const _ = !0;
    }
}

bitflags! {
    /// Features whose bit a writer that does not maintain them clears.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Autoclear: u64 {
        /// The persistent bitmaps are up to date.
        const BITMAPS = 1;
        /// The external data file is a raw image of the virtual disk.
        const RAW_DATA_FILE = 1 << 1;
        const _ = !0;
    }
}

impl Autoclear {
    /// The bits that this implementation understands. Others go when an image is opened for writing.
    pub(crate) const KNOWN: Autoclear = Autoclear::BITMAPS.union(Autoclear::RAW_DATA_FILE);
}

impl Incompatible {
    /// The bits that this implementation understands.
    pub(crate) const KNOWN: Incompatible = Incompatible::DIRTY
        .union(Incompatible::CORRUPT)
        .union(Incompatible::DATA_FILE)
        .union(Incompatible::COMPRESSION)
        .union(Incompatible::EXTENDED_L2);
}

/// Which of the three feature words a name belongs to; the values are those of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FeatureClass {
    Incompatible = 0,
    Compatible = 1,
    Autoclear = 2,
}

/// Length of one entry in the feature name table.
const NAME_ENTRY: usize = 48;

/// Names written into every image, as the reference does, so that older programs can tell the user
/// what they lack.
const NAMES: [(FeatureClass, u8, &str); 8] = [
    (FeatureClass::Incompatible, 0, "dirty bit"),
    (FeatureClass::Incompatible, 1, "corrupt bit"),
    (FeatureClass::Incompatible, 2, "external data file"),
    (FeatureClass::Incompatible, 3, "compression type"),
    (FeatureClass::Incompatible, 4, "extended L2 entries"),
    (FeatureClass::Compatible, 0, "lazy refcounts"),
    (FeatureClass::Autoclear, 0, "bitmaps"),
    (FeatureClass::Autoclear, 1, "raw external data"),
];

/// The feature name table that is written into images.
pub(crate) fn name_table() -> Vec<u8> {
    let mut table = Vec::with_capacity(NAMES.len() * NAME_ENTRY);
    for (class, bit, name) in NAMES {
        let end = table.len() + NAME_ENTRY;
        table.extend([class as u8, bit]);
        table.extend(name.bytes());
        table.resize(end, 0);
    }
    table
}

/// What the image itself, or else its number, calls each of the unknown incompatible bits.
pub(crate) fn describe_unknown(bits: Incompatible, table: Option<&[u8]>) -> String {
    let unknown = bits.difference(Incompatible::KNOWN).bits();
    let names: Vec<String> = (0..64u8)
        .filter(|bit| unknown & (1 << bit) != 0)
        .map(|bit| {
            table
                .and_then(|table| find_name(table, FeatureClass::Incompatible, bit))
                .unwrap_or_else(|| format!("unknown feature {bit}"))
        })
        .collect();
    names.join(", ")
}

fn find_name(table: &[u8], class: FeatureClass, bit: u8) -> Option<String> {
    table.chunks_exact(NAME_ENTRY).find_map(|entry| match entry {
        [c, b, name @ ..] if *c == class as u8 && *b == bit => {
            let name: Vec<u8> = name.iter().copied().take_while(|&b| b != 0).collect();
            let name = String::from_utf8_lossy(&name);
            // The name comes from the image: keep control characters off the user's terminal.
            Some(name.chars().filter(|c| !c.is_control()).collect::<String>())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_named_from_the_image() {
        let mut table = name_table();
        let mut entry = vec![0u8, 9];
        entry.extend(b"time travel");
        entry.resize(NAME_ENTRY, 0);
        table.extend(entry);
        let bits = Incompatible::from_bits_retain(1 | 1 << 9 | 1 << 63);
        assert_eq!(describe_unknown(bits, Some(&table)), "time travel, unknown feature 63");
        assert_eq!(describe_unknown(bits, None), "unknown feature 9, unknown feature 63");
    }
}
