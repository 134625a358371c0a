//! The image header of versions 2 and 3 (qcow2 specification, "Header"): parsing with every limit
//! checked, and serialising.

use thiserror::Error;

use super::extension::{ExtensionError, Extensions};
use super::feature::{self, Autoclear, Compatible, Incompatible};
use super::geometry::Geometry;

/// First four bytes of every image.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of the header of version 2, in bytes.
const V2_LENGTH: usize = 72;
/// Shortest header of version 3, in bytes.
const V3_MIN_LENGTH: usize = 104;
/// Length of the header that is written for version 3: with the compression type and its padding.
const V3_LENGTH: usize = 112;
/// Host offset of the feature words; they lie in one sector, so that a write of them is atomic.
pub(crate) const FEATURES_OFFSET: u64 = 72;

/// Place and length in bytes of header fields that are written by themselves: the size of the disk.
pub(crate) const SIZE_FIELD: (usize, usize) = (24, 8);
/// The length and place of the active L1 table.
pub(crate) const L1_FIELDS: (usize, usize) = (36, 12);
/// The number and place of the internal snapshots.
pub(crate) const SNAPSHOTS_FIELDS: (usize, usize) = (60, 12);
/// The place and length of the refcount table.
pub(crate) const REFTABLE_FIELDS: (usize, usize) = (48, 12);

/// Smallest and largest base 2 logarithm of the cluster size (512 bytes to 2 MiB).
pub(crate) const MIN_CLUSTER_BITS: u32 = 9;
/// See [`MIN_CLUSTER_BITS`].
pub(crate) const MAX_CLUSTER_BITS: u32 = 21;
/// Largest L1 table in bytes.
pub(crate) const MAX_L1_BYTES: u64 = 32 << 20;
/// Largest refcount table in bytes.
pub(crate) const MAX_REFTABLE_BYTES: u64 = 8 << 20;
/// Most internal snapshots.
pub(crate) const MAX_SNAPSHOTS: u32 = 65_536;
/// Longest backing file name in bytes.
pub(crate) const MAX_BACKING_NAME: usize = 1023;
/// Smallest base 2 logarithm of the cluster size with extended L2 entries.
pub(crate) const MIN_EXTENDED_L2_BITS: u32 = 14;
/// Largest base 2 logarithm of the refcount width.
const MAX_REFCOUNT_ORDER: u32 = 6;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Raw deflate with a window of 4 KiB.
    #[default]
    Deflate,
    /// Zstandard.
    Zstd,
}

/// How guest data is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// AES-CBC with the password as key.
    Aes,
    /// LUKS.
    Luks,
}

/// A parsed header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// 2 or 3.
    pub(crate) version: u32,
    /// Name of the backing file as stored.
    pub(crate) backing_file: Option<String>,
    /// Base 2 logarithm of the cluster size.
    pub(crate) cluster_bits: u32,
    /// Size of the virtual disk in bytes.
    pub(crate) size: u64,
    /// Encryption of guest data.
    pub(crate) encryption: Encryption,
    /// Entries of the active L1 table.
    pub(crate) l1_size: u32,
    /// Host offset of the active L1 table.
    pub(crate) l1_offset: u64,
    /// Host offset of the refcount table.
    pub(crate) reftable_offset: u64,
    /// Clusters of the refcount table.
    pub(crate) reftable_clusters: u32,
    /// Number of internal snapshots.
    pub(crate) snapshot_count: u32,
    /// Host offset of the snapshot table.
    pub(crate) snapshots_offset: u64,
    /// Features that must be understood.
    pub(crate) incompatible: Incompatible,
    /// Features that may be ignored.
    pub(crate) compatible: Compatible,
    /// Features that are cleared by writers that do not maintain them.
    pub(crate) autoclear: Autoclear,
    /// Base 2 logarithm of the refcount width.
    pub(crate) refcount_order: u32,
    /// How compressed clusters are compressed.
    pub(crate) compression: Compression,
    /// Header fields behind those that are known, kept as they are.
    pub(crate) unknown_fields: Vec<u8>,
    /// Header extensions.
    pub(crate) extensions: Extensions,
}

/// Why a header was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum HeaderError {
    #[error("this is not a qcow2 image: the magic number is missing")]
    Magic,
    #[error("the header is cut off")]
    Truncated,
    #[error("qcow2 version {0} is not supported")]
    Version(u32),
    #[error("cluster size 2^{0} is not between 512 bytes and 2 MiB")]
    ClusterBits(u32),
    #[error("header length {0} is not valid")]
    Length(u32),
    #[error("the image needs features that are not supported: {0}")]
    Features(String),
    #[error("refcount width 2^{0} is larger than 64 bits")]
    RefcountOrder(u32),
    #[error("extended L2 entries need clusters of at least 16 KiB")]
    ExtendedL2,
    #[error("unknown encryption method {0}")]
    Encryption(u32),
    #[error("unknown compression type {0}")]
    Compression(u8),
    #[error("the compression type does not agree with its feature bit")]
    CompressionBit,
    #[error("the name of the backing file ({len} bytes at offset {offset}) is not valid")]
    BackingName { offset: u64, len: u32 },
    #[error("virtual disk size {0} is too large")]
    Size(u64),
    #[error("the {table} at offset {offset:#x} with {entries} entries is not valid")]
    Table { table: &'static str, offset: u64, entries: u64 },
    #[error("there is no refcount table")]
    NoReftable,
    #[error("the L1 table has {have} entries but the disk size needs {need}")]
    L1TooSmall { have: u32, need: u64 },
    #[error("{0} internal snapshots are more than supported")]
    Snapshots(u32),
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    #[error("the header does not fit into one cluster; shorten the file names in it")]
    TooLong,
}

impl HeaderError {
    /// The image may be sound, but needs something that this program does not have.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(
            self,
            HeaderError::Version(_)
                | HeaderError::Features(_)
                | HeaderError::Encryption(_)
                | HeaderError::Compression(_)
        )
    }
}

/// Big-endian fields of a byte string.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], HeaderError> {
        let bytes = self.0.get(at..at + N).and_then(|b| b.try_into().ok());
        bytes.ok_or(HeaderError::Truncated)
    }

    fn u32(&self, at: usize) -> Result<u32, HeaderError> {
        Ok(u32::from_be_bytes(self.bytes(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64, HeaderError> {
        Ok(u64::from_be_bytes(self.bytes(at)?))
    }
}

/// The cluster size in bytes that the image beginning with `head` (at least 24 bytes) claims, once
/// magic, version and the size itself are sound: what must be read to parse all of the header.
pub(crate) fn cluster_size(head: &[u8]) -> Result<u64, HeaderError> {
    let fields = Fields(head);
    if fields.bytes(0)? != MAGIC {
        return Err(HeaderError::Magic);
    }
    let version = fields.u32(4)?;
    if version != 2 && version != 3 {
        return Err(HeaderError::Version(version));
    }
    let cluster_bits = fields.u32(20)?;
    if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
        return Err(HeaderError::ClusterBits(cluster_bits));
    }
    Ok(1 << cluster_bits)
}

impl Header {
    /// Parses the first cluster of an image.
    pub(crate) fn parse(cluster: &[u8]) -> Result<Header, HeaderError> {
        let fields = Fields(cluster);
        let cluster_size = cluster_size(cluster)?;
        let version = fields.u32(4)?;
        let mut header = Header {
            version,
            cluster_bits: fields.u32(20)?,
            size: fields.u64(24)?,
            encryption: match fields.u32(32)? {
                0 => Encryption::None,
                1 => Encryption::Aes,
                2 => Encryption::Luks,
                other => return Err(HeaderError::Encryption(other)),
            },
            l1_size: fields.u32(36)?,
            l1_offset: fields.u64(40)?,
            reftable_offset: fields.u64(48)?,
            reftable_clusters: fields.u32(56)?,
            snapshot_count: fields.u32(60)?,
            snapshots_offset: fields.u64(64)?,
            refcount_order: 4,
            ..Header::default()
        };
        let mut length = V2_LENGTH;
        if version >= 3 {
            header.incompatible = Incompatible::from_bits_retain(fields.u64(72)?);
            header.compatible = Compatible::from_bits_retain(fields.u64(80)?);
            header.autoclear = Autoclear::from_bits_retain(fields.u64(88)?);
            header.refcount_order = fields.u32(96)?;
            let stored = fields.u32(100)?;
            length = usize::try_from(stored)
                .ok()
                .filter(|&len| len >= V3_MIN_LENGTH && len as u64 <= cluster_size)
                .ok_or(HeaderError::Length(stored))?;
            if length > V3_LENGTH {
                let unknown = cluster.get(V3_LENGTH..length).ok_or(HeaderError::Truncated)?;
                header.unknown_fields = unknown.to_vec();
            }
        }
        let area_end = header.parse_backing_name(cluster, length)?;
        let area = cluster.get(length..area_end.min(cluster.len())).unwrap_or_default();
        let extensions = Extensions::parse(area);
        // A feature that is not known may also change the meaning of the rest: look at it first.
        header.check_features(extensions.as_ref().ok())?;
        header.extensions = extensions?;
        header.compression = header.parse_compression(&fields, length)?;
        header.check_limits()?;
        Ok(header)
    }

    /// Returns the end of the extension area: the backing file name, or the end of the cluster.
    fn parse_backing_name(&mut self, cluster: &[u8], length: usize) -> Result<usize, HeaderError> {
        let fields = Fields(cluster);
        let (offset, len) = (fields.u64(8)?, fields.u32(16)?);
        if offset == 0 {
            return Ok(1 << self.cluster_bits);
        }
        let invalid = HeaderError::BackingName { offset, len };
        let start = usize::try_from(offset).map_err(|_| invalid.clone())?;
        let size = usize::try_from(len).map_err(|_| invalid.clone())?;
        if start < length || size > MAX_BACKING_NAME {
            return Err(invalid);
        }
        let name = start.checked_add(size).and_then(|end| cluster.get(start..end));
        let name = name.ok_or_else(|| invalid.clone())?;
        let name = std::str::from_utf8(name).map_err(|_| invalid)?;
        if !name.is_empty() {
            self.backing_file = Some(name.to_owned());
        }
        Ok(start)
    }

    fn check_features(&self, extensions: Option<&Extensions>) -> Result<(), HeaderError> {
        if Incompatible::KNOWN.contains(self.incompatible) {
            return Ok(());
        }
        let table = extensions.and_then(|e| e.feature_names.as_deref());
        Err(HeaderError::Features(feature::describe_unknown(self.incompatible, table)))
    }

    fn parse_compression(
        &self,
        fields: &Fields<'_>,
        length: usize,
    ) -> Result<Compression, HeaderError> {
        let stored = if length > V3_MIN_LENGTH { fields.bytes::<1>(V3_MIN_LENGTH)?[0] } else { 0 };
        let compression = match stored {
            0 => Compression::Deflate,
            1 => Compression::Zstd,
            other => return Err(HeaderError::Compression(other)),
        };
        let bit = self.incompatible.contains(Incompatible::COMPRESSION);
        if bit == (compression == Compression::Deflate) {
            return Err(HeaderError::CompressionBit);
        }
        Ok(compression)
    }

    /// Checks what the fields say against each other and against the limits of the format.
    pub(crate) fn check_limits(&self) -> Result<(), HeaderError> {
        if self.refcount_order > MAX_REFCOUNT_ORDER {
            return Err(HeaderError::RefcountOrder(self.refcount_order));
        }
        let extended = self.incompatible.contains(Incompatible::EXTENDED_L2);
        if extended && self.cluster_bits < MIN_EXTENDED_L2_BITS {
            return Err(HeaderError::ExtendedL2);
        }
        let geometry = Geometry::of(self);
        if self.size > i64::MAX as u64 {
            return Err(HeaderError::Size(self.size));
        }
        let table = |table, offset: u64, entries: u64, bytes: Option<u64>, max: u64| {
            let fits = bytes.is_some_and(|bytes| {
                let end = offset.checked_add(bytes);
                bytes <= max && end.is_some_and(|end| i64::try_from(end).is_ok())
            });
            if fits && geometry.in_cluster(offset) == 0 {
                Ok(())
            } else {
                Err(HeaderError::Table { table, offset, entries })
            }
        };
        if self.reftable_clusters == 0 {
            return Err(HeaderError::NoReftable);
        }
        let clusters = u64::from(self.reftable_clusters);
        let bytes = clusters.checked_mul(geometry.cluster_size());
        table("refcount table", self.reftable_offset, clusters, bytes, MAX_REFTABLE_BYTES)?;
        let l1_size = u64::from(self.l1_size);
        table("L1 table", self.l1_offset, l1_size, Some(l1_size * 8), MAX_L1_BYTES)?;
        let need = geometry.l1_entries(self.size);
        if l1_size < need {
            return Err(HeaderError::L1TooSmall { have: self.l1_size, need });
        }
        // The size of the table is known only when it is read.
        table("snapshot table", self.snapshots_offset, u64::from(self.snapshot_count), Some(0), 0)
    }

    /// Fails if there are too many internal snapshots. Only a repair can work with those.
    pub(crate) fn check_snapshots(&self) -> Result<(), HeaderError> {
        if self.snapshot_count > MAX_SNAPSHOTS {
            return Err(HeaderError::Snapshots(self.snapshot_count));
        }
        Ok(())
    }

    /// Whether the persistent bitmaps can be trusted.
    pub(crate) fn has_valid_bitmaps(&self) -> bool {
        self.autoclear.contains(Autoclear::BITMAPS) && self.extensions.bitmaps.is_some()
    }

    /// The first cluster of the image, up to the end of the backing file name. Everything behind it
    /// in the cluster is to be zero.
    pub(crate) fn serialise(&self) -> Result<Vec<u8>, HeaderError> {
        let names = (self.version >= 3).then(feature::name_table);
        match self.serialise_with(names.as_deref(), None) {
            Err(HeaderError::TooLong) if names.is_some() => self.serialise_with(None, None),
            other => other,
        }
    }

    /// The first cluster of the image without what it can do without, up to the backing file name,
    /// which is at `name_offset`.
    pub(crate) fn serialise_apart(&self, name_offset: u64) -> Result<Vec<u8>, HeaderError> {
        self.serialise_with(None, Some(name_offset))
    }

    /// `name_offset` is where the backing file name is; without it the name follows the extensions.
    fn serialise_with(
        &self,
        names: Option<&[u8]>,
        name_offset: Option<u64>,
    ) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1024);
        out.extend(MAGIC);
        out.extend(self.version.to_be_bytes());
        out.extend([0; 12]); // Backing file name: filled in below.
        out.extend(self.cluster_bits.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend((self.encryption as u32).to_be_bytes());
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.reftable_offset.to_be_bytes());
        out.extend(self.reftable_clusters.to_be_bytes());
        out.extend(self.snapshot_count.to_be_bytes());
        out.extend(self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            out.extend(self.features());
            out.extend(self.refcount_order.to_be_bytes());
            let length = u32::try_from(V3_LENGTH + self.unknown_fields.len());
            out.extend(length.map_err(|_| HeaderError::TooLong)?.to_be_bytes());
            out.extend([self.compression as u8, 0, 0, 0, 0, 0, 0, 0]);
            out.extend(&self.unknown_fields);
        }
        out.extend(self.extensions.serialise(names));
        if let Some(name) = &self.backing_file {
            let offset = name_offset.unwrap_or(out.len() as u64);
            let len = u32::try_from(name.len()).map_err(|_| HeaderError::TooLong)?;
            if name.len() > MAX_BACKING_NAME {
                return Err(HeaderError::BackingName { offset, len });
            }
            out[8..16].copy_from_slice(&offset.to_be_bytes());
            out[16..20].copy_from_slice(&len.to_be_bytes());
            if name_offset.is_none() {
                out.extend(name.bytes());
            }
        }
        if out.len() > 1 << self.cluster_bits { Err(HeaderError::TooLong) } else { Ok(out) }
    }

    /// The three feature words, as stored at [`FEATURES_OFFSET`].
    pub(crate) fn features(&self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.incompatible.bits().to_be_bytes());
        out[8..16].copy_from_slice(&self.compatible.bits().to_be_bytes());
        out[16..].copy_from_slice(&self.autoclear.bits().to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::extension::BitmapsExtension;
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Header {
        Header {
            version: 3,
            backing_file: Some("base.qcow2".into()),
            cluster_bits: 16,
            size: 1 << 30,
            l1_size: 2,
            l1_offset: 0x30000,
            reftable_offset: 0x10000,
            reftable_clusters: 1,
            refcount_order: 4,
            extensions: Extensions {
                backing_format: Some("qcow2".into()),
                bitmaps: Some(BitmapsExtension {
                    count: 1,
                    directory_size: 32,
                    directory_offset: 0x50000,
                }),
                unknown: vec![(0xcafe, vec![1, 2, 3])],
                ..Extensions::default()
            },
            autoclear: Autoclear::BITMAPS,
            ..Header::default()
        }
    }

    fn cluster(header: &Header) -> Vec<u8> {
        let mut bytes = header.serialise().expect("fits");
        bytes.resize(1 << header.cluster_bits, 0);
        bytes
    }

    #[test]
    fn a_header_survives_a_rewrite() {
        let mut header = sample();
        header.unknown_fields = vec![7; 16];
        let parsed = Header::parse(&cluster(&header)).expect("valid");
        header.extensions.feature_names = Some(feature::name_table());
        assert_eq!(parsed, header);
        let header = Header { version: 2, ..sample() };
        let header = Header { autoclear: Autoclear::empty(), ..header };
        assert_eq!(Header::parse(&cluster(&header)).expect("valid"), header);
    }

    #[test]
    fn feature_names_give_way_when_there_is_no_room() {
        let mut header = sample();
        header.cluster_bits = 9;
        (header.l1_size, header.size) = (32, 1 << 20);
        (header.l1_offset, header.reftable_offset) = (0x600, 0x200);
        let parsed = Header::parse(&cluster(&header)).expect("valid");
        assert_eq!(parsed.extensions.feature_names, None);
        header.backing_file = Some("x".repeat(400));
        assert_eq!(header.serialise(), Err(HeaderError::TooLong));
    }

    #[test]
    fn limits_are_enforced() {
        type Edit = fn(&mut Header);
        type Expected = fn(&HeaderError) -> bool;
        let cases: [(Edit, Expected); 11] = [
            (|h| h.size = u64::MAX, |e| matches!(e, HeaderError::Size(_))),
            (|h| h.l1_size = 1, |e| matches!(e, HeaderError::L1TooSmall { .. })),
            (|h| h.l1_size = (4 << 20) + 1, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.l1_offset += 512, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.l1_offset = 1 << 63, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.reftable_clusters = 0, |e| matches!(e, HeaderError::NoReftable)),
            (|h| h.reftable_clusters = u32::MAX, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.reftable_offset = 1, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.snapshots_offset = 512, |e| matches!(e, HeaderError::Table { .. })),
            (|h| h.refcount_order = 7, |e| matches!(e, HeaderError::RefcountOrder(7))),
            (
                |h| h.incompatible = Incompatible::from_bits_retain(1 << 5),
                |e| matches!(e, HeaderError::Features(_)),
            ),
        ];
        for (number, (edit, expected)) in cases.into_iter().enumerate() {
            let mut header = sample();
            edit(&mut header);
            let error = Header::parse(&cluster(&header)).expect_err("must be refused");
            assert!(expected(&error), "case {number}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_cleanly(
            at in 0usize..160,
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            len in 0usize..1024,
        ) {
            let mut image = cluster(&sample());
            image[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = Header::parse(&image);
            let _ = Header::parse(&image[..len]);
        }
    }
}
