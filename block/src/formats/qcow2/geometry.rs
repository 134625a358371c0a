//! Sizes that follow from the header. Only amending an image can change them while it is open.

use std::sync::atomic::{AtomicU64, Ordering};

use super::feature::Incompatible;
use super::header::Header;

/// Highest host offset that an L1 or L2 entry can hold, plus one (bits 9 to 55).
pub(crate) const MAX_HOST_OFFSET: u64 = 1 << 56;

/// The shape of an image's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Base 2 logarithm of the cluster size.
    pub(crate) cluster_bits: u32,
    /// Base 2 logarithm of the refcount width in bits.
    pub(crate) refcount_order: u32,
    /// L2 entries have subcluster bitmaps.
    pub(crate) extended_l2: bool,
    /// Guest data is in an external data file.
    pub(crate) external_data: bool,
    /// Standard L2 entries have a zero flag (version 3).
    pub(crate) zero_flag: bool,
}

/// The geometry of an open image, which any thread may ask for.
pub(crate) struct SharedGeometry(AtomicU64);

impl SharedGeometry {
    const EXTENDED_L2: u64 = 1 << 16;
    const EXTERNAL_DATA: u64 = 1 << 17;
    const ZERO_FLAG: u64 = 1 << 18;

    /// Holds `geometry`.
    pub(crate) fn new(geometry: Geometry) -> SharedGeometry {
        let shared = SharedGeometry(AtomicU64::new(0));
        shared.set(geometry);
        shared
    }

    /// Holds `geometry` from now on. Nobody works with the former one meanwhile.
    pub(crate) fn set(&self, geometry: Geometry) {
        let flag = |on, bit| if on { bit } else { 0 };
        let packed = u64::from(geometry.cluster_bits)
            | u64::from(geometry.refcount_order) << 8
            | flag(geometry.extended_l2, Self::EXTENDED_L2)
            | flag(geometry.external_data, Self::EXTERNAL_DATA)
            | flag(geometry.zero_flag, Self::ZERO_FLAG);
        self.0.store(packed, Ordering::Release);
    }

    /// The geometry.
    pub(crate) fn load(&self) -> Geometry {
        let packed = self.0.load(Ordering::Acquire);
        let [.., refcount_order, cluster_bits] = packed.to_be_bytes();
        Geometry {
            cluster_bits: u32::from(cluster_bits),
            refcount_order: u32::from(refcount_order),
            extended_l2: packed & Self::EXTENDED_L2 != 0,
            external_data: packed & Self::EXTERNAL_DATA != 0,
            zero_flag: packed & Self::ZERO_FLAG != 0,
        }
    }
}

impl Geometry {
    /// The geometry that `header` describes.
    pub(crate) fn of(header: &Header) -> Geometry {
        Geometry {
            cluster_bits: header.cluster_bits,
            refcount_order: header.refcount_order,
            extended_l2: header.incompatible.contains(Incompatible::EXTENDED_L2),
            external_data: header.incompatible.contains(Incompatible::DATA_FILE),
            zero_flag: header.version >= 3,
        }
    }

    /// Cluster size in bytes.
    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Offset of `offset` within its cluster.
    pub(crate) fn in_cluster(&self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }

    /// Start of the cluster that holds `offset`.
    pub(crate) fn cluster_start(&self, offset: u64) -> u64 {
        offset & !(self.cluster_size() - 1)
    }

    /// Clusters that `bytes` take.
    pub(crate) fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }

    /// Independently allocated parts of a cluster: 32 with extended L2 entries, else 1.
    pub(crate) fn subclusters(&self) -> u32 {
        if self.extended_l2 { 32 } else { 1 }
    }

    /// Base 2 logarithm of the subcluster size.
    pub(crate) fn subcluster_bits(&self) -> u32 {
        if self.extended_l2 { self.cluster_bits - 5 } else { self.cluster_bits }
    }

    /// Size in bytes of the smallest part of a cluster that is allocated by itself.
    pub(crate) fn subcluster_size(&self) -> u64 {
        1 << self.subcluster_bits()
    }

    /// Number of the subcluster, within its cluster, that holds `offset`.
    pub(crate) fn subcluster_index(&self, offset: u64) -> u32 {
        let index = self.in_cluster(offset) >> self.subcluster_bits();
        // At most 5 bits remain.
        u32::try_from(index).unwrap_or(0)
    }

    /// Bitmap with one set bit for each subcluster of a cluster.
    pub(crate) fn all_subclusters(&self) -> u32 {
        if self.extended_l2 { u32::MAX } else { 1 }
    }

    /// Size of an L2 entry in bytes.
    pub(crate) fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Base 2 logarithm of the number of entries in an L2 table.
    pub(crate) fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended_l2 { 4 } else { 3 }
    }

    /// Index of the L1 entry that covers the guest offset.
    pub(crate) fn l1_index(&self, offset: u64) -> u64 {
        offset >> (self.cluster_bits + self.l2_bits())
    }

    /// Index, within its L2 table, of the entry that covers the guest offset.
    pub(crate) fn l2_index(&self, offset: u64) -> u64 {
        (offset >> self.cluster_bits) & ((1 << self.l2_bits()) - 1)
    }

    /// Guest bytes that one L2 table covers.
    pub(crate) fn l2_coverage(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// L1 entries needed for a virtual disk of `size` bytes.
    pub(crate) fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(self.l2_coverage())
    }

    /// Base 2 logarithm of the number of refcounts in a refcount block.
    pub(crate) fn refblock_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }

    /// What counts the references to `clusters` clusters and to itself: refcount blocks, and clusters of
    /// the refcount table.
    pub(crate) fn refcount_structures(&self, clusters: u64) -> (u64, u64) {
        let (mut blocks, mut table) = (0, 0);
        // Both grow only, and each by less than what it describes: this ends.
        loop {
            let needed = (clusters + blocks + table).div_ceil(1 << self.refblock_bits());
            let needed_table = self.clusters(needed * 8);
            if (needed, needed_table) == (blocks, table) {
                return (blocks, table);
            }
            (blocks, table) = (needed, needed_table);
        }
    }

    /// Position of the sector count in a compressed cluster descriptor.
    pub(crate) fn compressed_shift(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }

    /// First host offset that a compressed cluster descriptor cannot hold.
    pub(crate) fn max_compressed_offset(&self) -> u64 {
        MAX_HOST_OFFSET.min(1 << self.compressed_shift())
    }
}
