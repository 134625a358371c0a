//! L1, L2 and refcount table entries (qcow2 specification, "Cluster mapping" and "Extended L2
//! Entries").
//!
//! Both kinds of L2 entries decode to one form, [`Cluster`]: a standard entry is a cluster with one
//! subcluster.

use thiserror::Error;

use super::geometry::{Geometry, MAX_HOST_OFFSET};

pub(crate) const COPIED: u64 = 1 << 63;
pub(crate) const COMPRESSED: u64 = 1 << 62;
pub(crate) const ZERO: u64 = 1;
pub(crate) const OFFSET: u64 = (MAX_HOST_OFFSET - 1) & !0x1ff;
/// Unit of the size in a compressed cluster descriptor.
const SECTOR: u64 = 512;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum EntryError {
    #[error("entry {0:#x} has reserved bits set")]
    Reserved(u64),
    #[error("entry {0:#x} points to an offset that is not aligned to a cluster")]
    Unaligned(u64),
    #[error("entry {0:#x} points beyond the largest offset that is possible")]
    Range(u64),
    #[error("subcluster bitmap {0:#x} has a subcluster both allocated and zero")]
    Contradiction(u64),
    #[error("subcluster bitmap {0:#x} has allocated subclusters in a cluster without storage")]
    NoStorage(u64),
    #[error("compressed entry {0:#x} in an image with an external data file")]
    Compressed(u64),
    #[error("entry {entry:#x} is not where a data file holds guest offset {guest:#x}")]
    NotIdentity { entry: u64, guest: u64 },
}

/// An L1 entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct L1Entry {
    /// Host offset of the L2 table, if there is one.
    pub(crate) table: Option<u64>,
    /// The table's refcount is exactly one.
    pub(crate) copied: bool,
}

impl L1Entry {
    /// Decodes an entry.
    pub(crate) fn decode(raw: u64, geometry: &Geometry) -> Result<L1Entry, EntryError> {
        if raw & !(OFFSET | COPIED) != 0 {
            return Err(EntryError::Reserved(raw));
        }
        let table = raw & OFFSET;
        if geometry.in_cluster(table) != 0 {
            return Err(EntryError::Unaligned(raw));
        }
        Ok(L1Entry { table: (table != 0).then_some(table), copied: raw & COPIED != 0 })
    }

    /// The on-disk form.
    pub(crate) fn encode(self) -> u64 {
        self.table.unwrap_or(0) | if self.copied { COPIED } else { 0 }
    }
}

/// Decodes a refcount table entry: the host offset of the refcount block, if there is one.
pub(crate) fn decode_reftable(raw: u64, geometry: &Geometry) -> Result<Option<u64>, EntryError> {
    if raw & 0x1ff != 0 {
        return Err(EntryError::Reserved(raw));
    }
    if geometry.in_cluster(raw) != 0 {
        return Err(EntryError::Unaligned(raw));
    }
    if raw >= 1 << 63 {
        return Err(EntryError::Range(raw));
    }
    Ok((raw != 0).then_some(raw))
}

/// An L2 entry as stored: the descriptor and, with extended L2 entries, the bitmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawEntry {
    /// Cluster descriptor.
    pub(crate) descriptor: u64,
    /// Subcluster bitmap; 0 without extended L2 entries.
    pub(crate) bitmap: u64,
}

/// Place of a compressed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compressed {
    /// Host offset of the first byte.
    pub(crate) offset: u64,
    /// Bytes up to the end of the last 512-byte sector.
    pub(crate) len: u64,
}

/// How a standard cluster is stored. Bit n of a bitmap is subcluster n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standard {
    /// Host offset of the cluster, if it has storage.
    pub(crate) host: Option<u64>,
    /// The cluster's refcount is exactly one: it may be written in place.
    pub(crate) copied: bool,
    /// Subclusters whose content is in the host cluster.
    pub(crate) allocated: u32,
    /// Subclusters that read as zeroes.
    pub(crate) zero: u32,
}

/// A decoded L2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// Compressed as a whole.
    Compressed(Compressed),
    /// Anything else.
    Standard(Standard),
}

impl Default for Cluster {
    /// A cluster that the image does not have.
    fn default() -> Cluster {
        Cluster::Standard(Standard::default())
    }
}

impl Cluster {
    /// Decodes an entry.
    pub(crate) fn decode(raw: RawEntry, geometry: &Geometry) -> Result<Cluster, EntryError> {
        let RawEntry { descriptor, bitmap } = raw;
        if descriptor & COMPRESSED != 0 {
            return Self::decode_compressed(descriptor, geometry);
        }
        let zero_flag =
            if geometry.zero_flag && !geometry.extended_l2 { descriptor & ZERO } else { 0 };
        if descriptor & !(OFFSET | COPIED | zero_flag) != 0 {
            return Err(EntryError::Reserved(descriptor));
        }
        let offset = descriptor & OFFSET;
        if geometry.in_cluster(offset) != 0 {
            return Err(EntryError::Unaligned(descriptor));
        }
        let copied = descriptor & COPIED != 0;
        // Offset 0 is the image header, but in an external data file it is guest data.
        let has_storage = offset != 0 || (geometry.external_data && copied);
        let host = has_storage.then_some(offset);
        let (allocated, zero) = if geometry.extended_l2 {
            let [.., a3, a2, a1, a0] = bitmap.to_be_bytes();
            let [z3, z2, z1, z0, ..] = bitmap.to_be_bytes();
            (u32::from_be_bytes([a3, a2, a1, a0]), u32::from_be_bytes([z3, z2, z1, z0]))
        } else {
            let zero = u32::from(zero_flag != 0);
            (u32::from(has_storage) & !zero, zero)
        };
        if allocated & zero != 0 {
            return Err(EntryError::Contradiction(bitmap));
        }
        if allocated != 0 && host.is_none() {
            return Err(EntryError::NoStorage(bitmap));
        }
        Ok(Cluster::Standard(Standard { host, copied: copied && has_storage, allocated, zero }))
    }

    fn decode_compressed(descriptor: u64, geometry: &Geometry) -> Result<Cluster, EntryError> {
        if geometry.external_data {
            return Err(EntryError::Compressed(descriptor));
        }
        if descriptor & COPIED != 0 {
            return Err(EntryError::Reserved(descriptor));
        }
        let shift = geometry.compressed_shift();
        let offset = descriptor & ((1 << shift) - 1);
        if offset >= MAX_HOST_OFFSET {
            return Err(EntryError::Reserved(descriptor));
        }
        let sectors = ((descriptor & !COMPRESSED) >> shift) + 1;
        let len = sectors * SECTOR - offset % SECTOR;
        if offset < geometry.cluster_size() {
            // The first cluster is the image header.
            return Err(EntryError::Range(descriptor));
        }
        Ok(Cluster::Compressed(Compressed { offset, len }))
    }

    /// The on-disk form.
    pub(crate) fn encode(self, geometry: &Geometry) -> RawEntry {
        match self {
            Cluster::Compressed(c) => {
                let sectors = (c.offset % SECTOR + c.len).div_ceil(SECTOR);
                let count = sectors.saturating_sub(1) << geometry.compressed_shift();
                RawEntry { descriptor: COMPRESSED | count | c.offset, bitmap: 0 }
            }
            Cluster::Standard(s) => {
                let mut descriptor = s.host.unwrap_or(0);
                if s.copied && s.host.is_some() {
                    descriptor |= COPIED;
                }
                if geometry.extended_l2 {
                    let bitmap = u64::from(s.zero) << 32 | u64::from(s.allocated);
                    RawEntry { descriptor, bitmap }
                } else {
                    descriptor |= u64::from(s.zero & 1);
                    RawEntry { descriptor, bitmap: 0 }
                }
            }
        }
    }
}

impl Compressed {
    /// First host cluster that the data touches, and the number of clusters touched.
    pub(crate) fn host_clusters(&self, geometry: &Geometry) -> (u64, u64) {
        let first = geometry.cluster_start(self.offset);
        let end = self.offset + self.len;
        (first, geometry.clusters(end - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(cluster_bits: u32, extended_l2: bool) -> Geometry {
        Geometry {
            cluster_bits,
            refcount_order: 4,
            extended_l2,
            external_data: false,
            zero_flag: true,
        }
    }

    fn decode(descriptor: u64, geometry: &Geometry) -> Result<Cluster, EntryError> {
        Cluster::decode(RawEntry { descriptor, bitmap: 0 }, geometry)
    }

    #[test]
    fn standard_entries_decode_as_specified() {
        let g = geometry(16, false);
        let host = 0x5_0000;
        let standard = |host, copied, allocated, zero| {
            Ok(Cluster::Standard(Standard { host, copied, allocated, zero }))
        };
        assert_eq!(decode(0, &g), standard(None, false, 0, 0));
        assert_eq!(decode(1, &g), standard(None, false, 0, 1));
        assert_eq!(decode(host | COPIED, &g), standard(Some(host), true, 1, 0));
        assert_eq!(decode(host | 1, &g), standard(Some(host), false, 0, 1));
        assert_eq!(decode(host | 2, &g), Err(EntryError::Reserved(host | 2)));
        assert_eq!(decode(host | 1 << 60, &g), Err(EntryError::Reserved(host | 1 << 60)));
        assert_eq!(decode(host | 512, &g), Err(EntryError::Unaligned(host | 512)));
    }

    #[test]
    fn version_2_has_no_zero_flag() {
        let g = Geometry { zero_flag: false, ..geometry(16, false) };
        assert_eq!(decode(1, &g), Err(EntryError::Reserved(1)));
    }

    #[test]
    fn offset_zero_is_storage_only_in_a_data_file() {
        let g = Geometry { external_data: true, ..geometry(16, false) };
        let Ok(Cluster::Standard(s)) = decode(COPIED, &g) else { panic!("a standard cluster") };
        assert_eq!((s.host, s.allocated), (Some(0), 1));
        let Ok(Cluster::Standard(s)) = decode(0, &g) else { panic!("a standard cluster") };
        assert_eq!((s.host, s.allocated), (None, 0));
        assert!(matches!(decode(COMPRESSED | 1 << 20, &g), Err(EntryError::Compressed(_))));
    }

    #[test]
    fn contradicting_bitmaps_are_refused() {
        let g = geometry(16, true);
        let entry = |bitmap, descriptor| Cluster::decode(RawEntry { descriptor, bitmap }, &g);
        assert!(matches!(entry(1 | 1 << 32, 0x10000), Err(EntryError::Contradiction(_))));
        assert!(matches!(entry(1, 0), Err(EntryError::NoStorage(_))));
        assert!(entry(1 << 32 | 2, 0x10000).is_ok());
    }

    #[test]
    fn compressed_entries_end_on_a_sector() {
        let g = geometry(16, false);
        // x = 62 - (16 - 8) = 54
        let raw = COMPRESSED | 2 << 54 | 0x1_0234;
        let Ok(Cluster::Compressed(c)) = decode(raw, &g) else { panic!("a compressed cluster") };
        assert_eq!(c, Compressed { offset: 0x1_0234, len: 3 * 512 - 0x34 });
        assert_eq!(Cluster::Compressed(c).encode(&g).descriptor, raw);
        assert_eq!(c.host_clusters(&g), (0x1_0000, 1));
        let crossing = Compressed { offset: 0x1_fe00, len: 1024 };
        assert_eq!(crossing.host_clusters(&g), (0x1_0000, 2));
    }

    proptest! {
        #[test]
        fn decoding_never_fails_badly_and_encodes_back(
            descriptor: u64,
            bitmap: u64,
            bits in 14u32..=21,
            ext: bool,
            mask in prop::sample::select(vec![0, 0x1fe, 0x3f00_0000_0000_01ff, 0x3f00_0000_001f_ffff]),
        ) {
            let g = geometry(bits, ext);
            let raw = RawEntry { descriptor: descriptor & !mask, bitmap: if ext { bitmap } else { 0 } };
            if let Ok(cluster) = Cluster::decode(raw, &g) {
                let again = cluster.encode(&g);
                prop_assert_eq!(Cluster::decode(again, &g), Ok(cluster));
            }
        }
    }
}
