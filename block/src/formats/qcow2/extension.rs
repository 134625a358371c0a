//! Header extensions (qcow2 specification, "Header extensions"). Unknown ones are kept as they are.

use thiserror::Error;

/// Extension types.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;

/// Longest backing format name that is accepted.
const MAX_FORMAT_NAME: usize = 15;
/// Most persistent bitmaps in an image.
pub(crate) const MAX_BITMAPS: u32 = 65_535;

/// Where the bitmap directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitmapsExtension {
    /// Number of bitmaps.
    pub(crate) count: u32,
    /// Size of the directory in bytes.
    pub(crate) directory_size: u64,
    /// Host offset of the directory.
    pub(crate) directory_offset: u64,
}

/// Where the encryption header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CryptoExtension {
    /// Host offset of the header.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

/// All extensions of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// Format of the backing file.
    pub(crate) backing_format: Option<String>,
    /// Name of the external data file.
    pub(crate) data_file: Option<String>,
    /// Encryption header.
    pub(crate) crypto: Option<CryptoExtension>,
    /// The feature name table as found.
    pub(crate) feature_names: Option<Vec<u8>>,
    /// Persistent bitmaps.
    pub(crate) bitmaps: Option<BitmapsExtension>,
    /// Everything else: type and content.
    pub(crate) unknown: Vec<(u32, Vec<u8>)>,
}

/// Why the extension area makes no sense.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ExtensionError {
    #[error("header extension {kind:#x} ({len} bytes) does not fit into the header area")]
    Overrun { kind: u32, len: u32 },
    #[error("header extension {kind:#x} has the wrong length {len}")]
    Length { kind: u32, len: usize },
    #[error("header extension {kind:#x} appears twice")]
    Twice { kind: u32 },
    #[error("the text of header extension {kind:#x} is not valid UTF-8")]
    Text { kind: u32 },
    #[error("the bitmaps extension is malformed: {0}")]
    Bitmaps(&'static str),
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn text(kind: u32, data: &[u8]) -> Result<String, ExtensionError> {
    String::from_utf8(data.to_vec()).map_err(|_| ExtensionError::Text { kind })
}

fn set<T>(slot: &mut Option<T>, kind: u32, value: T) -> Result<(), ExtensionError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ExtensionError::Twice { kind }),
    }
}

impl Extensions {
    /// Parses `area`: from the end of the header to the backing file name or the end of the cluster.
    /// A missing end marker is accepted at the end of the area.
    pub(crate) fn parse(area: &[u8]) -> Result<Extensions, ExtensionError> {
        let mut ext = Extensions::default();
        let mut rest = area;
        while let (Some(kind), Some(len)) = (be32(rest, 0), be32(rest, 4)) {
            if kind == END {
                break;
            }
            let overrun = ExtensionError::Overrun { kind, len };
            let len = usize::try_from(len).map_err(|_| overrun.clone())?;
            let data =
                len.checked_add(8).and_then(|end| rest.get(8..end)).ok_or(overrun.clone())?;
            ext.add(kind, data)?;
            // The padding of the last extension may be cut off by the end of the area.
            rest = rest.get(8 + len.next_multiple_of(8)..).unwrap_or_default();
        }
        match be32(rest, 0) {
            // The length of what begins here is cut off.
            Some(kind) if kind != END && rest.len() < 8 => {
                Err(ExtensionError::Overrun { kind, len: u32::MAX })
            }
            _ => Ok(ext),
        }
    }

    fn add(&mut self, kind: u32, data: &[u8]) -> Result<(), ExtensionError> {
        let length = ExtensionError::Length { kind, len: data.len() };
        match kind {
            BACKING_FORMAT if data.len() > MAX_FORMAT_NAME => Err(length),
            BACKING_FORMAT => {
                // Programs that changed the format have appended it; the last one counts.
                self.backing_format = Some(text(kind, data)?);
                Ok(())
            }
            DATA_FILE => set(&mut self.data_file, kind, text(kind, data)?),
            FEATURE_NAMES => set(&mut self.feature_names, kind, data.to_vec()),
            CRYPTO => match (data.len(), be64(data, 0), be64(data, 8)) {
                (16, Some(offset), Some(len)) => {
                    set(&mut self.crypto, kind, CryptoExtension { offset, length: len })
                }
                _ => Err(length),
            },
            BITMAPS => set(&mut self.bitmaps, kind, parse_bitmaps(data)?),
            _ => {
                self.unknown.push((kind, data.to_vec()));
                Ok(())
            }
        }
    }

    /// The extension area with its end marker. The feature name table is `names`, where given.
    pub(crate) fn serialise(&self, names: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |kind: u32, data: &[u8]| {
            out.extend(kind.to_be_bytes());
            // Every extension came from, or must fit into, one cluster.
            out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend(data);
            out.resize(out.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            put(BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            put(DATA_FILE, name.as_bytes());
        }
        if let Some(crypto) = &self.crypto {
            put(CRYPTO, &[crypto.offset.to_be_bytes(), crypto.length.to_be_bytes()].concat());
        }
        if let Some(names) = names {
            put(FEATURE_NAMES, names);
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut data = [0; 24];
            data[..4].copy_from_slice(&bitmaps.count.to_be_bytes());
            data[8..16].copy_from_slice(&bitmaps.directory_size.to_be_bytes());
            data[16..].copy_from_slice(&bitmaps.directory_offset.to_be_bytes());
            put(BITMAPS, &data);
        }
        for (kind, data) in &self.unknown {
            put(*kind, data);
        }
        put(END, &[]);
        out
    }
}

fn parse_bitmaps(data: &[u8]) -> Result<BitmapsExtension, ExtensionError> {
    let wrong = ExtensionError::Length { kind: BITMAPS, len: data.len() };
    let fields = (be32(data, 0), be32(data, 4), be64(data, 8), be64(data, 16));
    let (24, (Some(count), Some(reserved), Some(directory_size), Some(directory_offset))) =
        (data.len(), fields)
    else {
        return Err(wrong);
    };
    if reserved != 0 {
        return Err(ExtensionError::Bitmaps("the reserved field is not zero"));
    }
    if count == 0 || count > MAX_BITMAPS {
        return Err(ExtensionError::Bitmaps("the number of bitmaps is out of range"));
    }
    Ok(BitmapsExtension { count, directory_size, directory_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Extensions {
        Extensions {
            backing_format: Some("raw".into()),
            data_file: Some("disk.raw".into()),
            crypto: Some(CryptoExtension { offset: 0x10000, length: 4096 }),
            feature_names: Some(vec![0; 48]),
            bitmaps: Some(BitmapsExtension {
                count: 2,
                directory_size: 64,
                directory_offset: 0x30000,
            }),
            unknown: vec![(0x1234_5678, b"odd".to_vec()), (0x1234_5678, vec![])],
        }
    }

    #[test]
    fn every_extension_survives_a_rewrite() {
        let ext = full();
        let bytes = ext.serialise(ext.feature_names.as_deref());
        assert_eq!(Extensions::parse(&bytes), Ok(ext));
    }

    #[test]
    fn truncated_areas_are_refused_or_end_cleanly() {
        let ext = full();
        let bytes = ext.serialise(None);
        for len in 0..bytes.len() {
            // Any result will do, as long as there is one.
            let _ = Extensions::parse(&bytes[..len]);
        }
        let huge = [0x12, 0x34, 0x56, 0x78, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            Extensions::parse(&huge),
            Err(ExtensionError::Overrun { kind: 0x1234_5678, len: u32::MAX })
        );
    }

    /// The serialised form of [`full`] with `more` behind it.
    fn appended(more: &Extensions) -> Vec<u8> {
        let mut bytes = full().serialise(None);
        bytes.truncate(bytes.len() - 8);
        bytes.extend(more.serialise(None));
        bytes
    }

    #[test]
    fn the_last_backing_format_counts() {
        let later = Extensions { backing_format: Some("qcow2".into()), ..Extensions::default() };
        let parsed = Extensions::parse(&appended(&later)).expect("valid");
        assert_eq!(parsed.backing_format.as_deref(), Some("qcow2"));
        assert_eq!(parsed.data_file, full().data_file);
    }

    #[test]
    fn malformed_contents_are_refused() {
        let twice = appended(&full());
        assert_eq!(Extensions::parse(&twice), Err(ExtensionError::Twice { kind: DATA_FILE }));
        let mut ext = full();
        ext.bitmaps = Some(BitmapsExtension { count: 0, directory_size: 0, directory_offset: 0 });
        let parsed = Extensions::parse(&ext.serialise(None));
        assert!(matches!(parsed, Err(ExtensionError::Bitmaps(_))));
    }
}
