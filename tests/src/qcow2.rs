//! qcow2 images written byte by byte, for states that no tool would make.
//!
//! Field offsets are those of the format's published description ("The QCOW2 image format", Header and
//! Header extensions). Nothing here is shared with the driver under test.

/// Size of every cluster in a [`Builder`]'s image.
pub const CLUSTER: usize = 64 * 1024;
/// Header extension: format of the backing file.
pub const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Header extension: name of the external data file.
pub const EXT_DATA_FILE: u32 = 0x4441_5441;
/// Incompatible feature: guest data lies in an external file.
pub const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// L2 entry: the cluster is compressed.
pub const L2_COMPRESSED: u64 = 1 << 62;
/// L1 and L2 entries: the reference count is exactly one.
pub const COPIED: u64 = 1 << 63;

/// A big-endian number of a file.
pub trait Field {
    /// Reads the number at the start of `bytes`.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! fields {
    ($($number:ty),+) => {
        $(
            impl Field for $number {
                fn read(bytes: &[u8]) -> Self {
                    let bytes = bytes.first_chunk().expect("the file does not end before the number");
                    Self::from_be_bytes(*bytes)
                }
            }
        )+
    };
}
fields!(u16, u32, u64);

/// The big-endian number at `offset`.
pub fn field<N: Field>(bytes: &[u8], offset: usize) -> N {
    N::read(&bytes[offset..])
}

/// Where a [`Builder`]'s image keeps its structures, in bytes.
pub mod place {
    /// Refcount table.
    pub const REFCOUNT_TABLE: usize = 0x1_0000;
    /// The one refcount block.
    pub const REFCOUNT_BLOCK: usize = 0x2_0000;
    /// L1 table.
    pub const L1_TABLE: usize = 0x3_0000;
    /// First cluster that the image leaves free.
    pub const FREE: usize = 0x4_0000;
}

/// A 1 MiB version-3 image whose bytes can be set at will. Starts as a valid, empty disk of 512 MiB.
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    next_extension: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The valid, empty disk.
    pub fn new() -> Self {
        let mut image = Self { bytes: vec![0; 1 << 20], next_extension: 112 };
        image
            .put(0, b"QFI\xfb")
            .u32(4, 3)
            .u32(20, 16)
            .size(512 << 20)
            .l1(1, place::L1_TABLE as u64)
            .u64(48, place::REFCOUNT_TABLE as u64)
            .u32(56, 1)
            .u32(96, 4)
            .u32(100, 112)
            .u64(place::REFCOUNT_TABLE, place::REFCOUNT_BLOCK as u64)
            .refcounts(0..4, 1);
        image
    }

    /// Replaces bytes at `offset`.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Sets a 32-bit field.
    pub fn u32(&mut self, offset: usize, value: u32) -> &mut Self {
        self.put(offset, &value.to_be_bytes())
    }

    /// Sets a 64-bit field.
    pub fn u64(&mut self, offset: usize, value: u64) -> &mut Self {
        self.put(offset, &value.to_be_bytes())
    }

    /// Sets the virtual size in bytes.
    pub fn size(&mut self, bytes: u64) -> &mut Self {
        self.u64(24, bytes)
    }

    /// Sets how many entries the L1 table has and where it is.
    pub fn l1(&mut self, entries: u32, offset: u64) -> &mut Self {
        self.u32(36, entries).u64(40, offset)
    }

    /// Sets how many snapshots there are and where their table is.
    pub fn snapshots(&mut self, count: u32, offset: u64) -> &mut Self {
        self.u32(60, count).u64(64, offset)
    }

    /// Sets the incompatible feature bits.
    pub fn incompatible(&mut self, bits: u64) -> &mut Self {
        self.u64(72, bits)
    }

    /// Sets the 16-bit reference counts of some clusters.
    pub fn refcounts(&mut self, clusters: std::ops::Range<usize>, count: u16) -> &mut Self {
        for cluster in clusters {
            self.put(place::REFCOUNT_BLOCK + 2 * cluster, &count.to_be_bytes());
        }
        self
    }

    /// Appends a header extension; the zeroes behind it end the list.
    pub fn extension(&mut self, kind: u32, data: &[u8]) -> &mut Self {
        let at = self.next_extension;
        let len = u32::try_from(data.len()).expect("a short extension");
        self.next_extension = at + 8 + data.len().next_multiple_of(8);
        self.u32(at, kind).u32(at + 4, len).put(at + 8, data)
    }

    /// Names a backing file; call it after all extensions.
    pub fn backing(&mut self, name: &str) -> &mut Self {
        let at = self.next_extension + 16;
        let len = u32::try_from(name.len()).expect("a short name");
        self.u64(8, at as u64).u32(16, len).put(at, name.as_bytes())
    }

    /// The image's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
