//! What a driver is: the trait that formats, filters and protocols implement, and their registry.
//!
//! # Contract
//! * **Threads**: any I/O thread may call any method at any time; a future stays on the thread that
//!   made it (it need not be `Send`), so drivers keep shared state in `Sync` types and never hold a
//!   blocking lock across an `await`.
//! * **Requests** arrive checked by the node: aligned to [`Limits::request_alignment`], at most
//!   [`Limits::max_transfer`] long, never empty, never a write to a read-only node. Reads begin inside
//!   the node and end at most at its size rounded up to the alignment. Writes stay inside the node,
//!   except that a protocol (and a filter over it) grows when written beyond its end.
//! * **Order**: no order holds between requests that overlap in time. A completed flush makes every
//!   write that completed before the flush began durable, including metadata.
//! * **Cancellation**: dropping a future may leave the request done, undone or partly done, but
//!   leaves the image consistent.

use std::sync::Arc;

use bitflags::bitflags;
use futures_util::future::LocalBoxFuture;

use crate::buf::{IoBuf, IoBufMut};
use crate::dirty_bitmap::{BitmapChange, BitmapInfo, DirtyBitmap};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::filters;
use crate::formats::{luks, qcow2, raw};
use crate::graph::{Edge, Graph, NodeFlags, OpenContext};
use crate::options::{Dict, OptionDesc, OptionError};
use crate::protocols::{file, nbd, null};
use crate::snapshot::{NewSnapshot, SnapshotKey};

bitflags! {
    /// How a write is to be done.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WriteFlags: u8 {
        /// Durable before completion (force unit access).
        const FUA = 1;
        /// A zero write may deallocate.
        const MAY_UNMAP = 2;
        /// A zero write fails with `ENOTSUP` rather than write zero data slowly.
        const NO_FALLBACK = 4;
    }
}

bitflags! {
    /// What is known of a range, in the words of the reference's block status.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The range has data of its own in this node's layer.
        const DATA = 1;
        /// The range reads as zeroes.
        const ZERO = 2;
        /// `Extent::map` holds the place of the data.
        const OFFSET_VALID = 4;
        /// A filter's answer: ask the mapped child instead.
        const RAW = 8;
        /// This layer, not the backing chain, decides the content.
        const ALLOCATED = 16;
        /// The range ends at the end of the node.
        const EOF = 32;
        /// The mapped child may know more about zeroes.
        const RECURSE = 64;
        /// The data is compressed.
        const COMPRESSED = 128;
    }
}

/// A run of bytes with one status.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Length in bytes; at least 1, at most what was asked for.
    pub len: u64,
    /// What is known of the run.
    pub status: Status,
    /// Where the data is: the child edge and the offset in it. Valid with `OFFSET_VALID`.
    pub map: Option<(Arc<Edge>, u64)>,
}

/// Sizes and alignments that requests to a node must or should keep. All in bytes; 0 means "no limit"
/// for maxima and "none" for optima.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Offsets and lengths of requests are multiples of this power of two.
    pub request_alignment: u32,
    /// Memory of requests starts at multiples of this.
    pub min_mem_alignment: u32,
    /// Memory alignment that avoids copies.
    pub opt_mem_alignment: u32,
    /// Longest read or write.
    pub max_transfer: u64,
    /// Length that works best.
    pub opt_transfer: u64,
    /// Longest zero write.
    pub max_write_zeroes: u64,
    /// Zero writes that keep this alignment need no read-modify-write.
    pub write_zeroes_alignment: u32,
    /// Longest discard.
    pub max_discard: u64,
    /// Discards that keep this alignment have full effect.
    pub discard_alignment: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_alignment: 1,
            min_mem_alignment: 1,
            opt_mem_alignment: 4096,
            max_transfer: 0,
            opt_transfer: 0,
            max_write_zeroes: 0,
            write_zeroes_alignment: 0,
            max_discard: 0,
            discard_alignment: 0,
        }
    }
}

bitflags! {
    /// What the parent of an edge does with the child.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Role: u8 {
        /// Stores guest-visible data there.
        const DATA = 1;
        /// Stores its own metadata there.
        const METADATA = 2;
        /// Passes everything through, transformed or watched.
        const FILTERED = 4;
        /// Reads from it what it does not have itself.
        const COW = 8;
        /// The child that decides names and sizes.
        const PRIMARY = 16;
        /// The usual `file` child of a format.
        const IMAGE = Self::DATA.bits() | Self::METADATA.bits() | Self::PRIMARY.bits();
    }
}

bitflags! {
    /// What the user of an edge does to the child, or lets others do to it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Perm: u8 {
        /// Relies on reads being consistent.
        const CONSISTENT_READ = 1;
        /// Changes visible data.
        const WRITE = 2;
        /// Writes, but never changes visible data.
        const WRITE_UNCHANGED = 4;
        /// Changes the size.
        const RESIZE = 8;
    }
}

/// How much storage a new or grown image gets at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prealloc {
    /// None.
    #[default]
    Off,
    /// The format's tables, not the data.
    Metadata,
    /// Data reserved by `fallocate`.
    Falloc,
    /// Data written out as zeroes.
    Full,
}

/// How to change a node's size.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resize {
    /// The size must be met exactly; otherwise the node may end up longer.
    pub exact: bool,
    /// Storage for the grown part.
    pub prealloc: Prealloc,
    /// The grown part must read as zeroes.
    pub zero_new: bool,
}

bitflags! {
    /// What a check may repair.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Repair: u8 {
        /// Free clusters that nothing refers to.
        const LEAKS = 1;
        /// Correct wrong metadata.
        const ERRORS = 2;
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Inconsistencies that lose or endanger data.
    pub corruptions: u64,
    /// Clusters that are in use but that nothing refers to.
    pub leaks: u64,
    /// Places that could not be examined.
    pub check_errors: u64,
    /// Corruptions repaired.
    pub corruptions_fixed: u64,
    /// Leaks repaired.
    pub leaks_fixed: u64,
    /// First byte behind the last used cluster.
    pub image_end_offset: u64,
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// Clusters with data.
    pub allocated_clusters: u64,
    /// Clusters not stored behind their predecessor.
    pub fragmented_clusters: u64,
    /// Compressed clusters.
    pub compressed_clusters: u64,
    /// One line for each finding, in the order found, for people.
    pub details: Vec<String>,
}

/// What watches a compaction, and may end it early.
pub trait CompactWatch {
    /// So many bytes are in the way. Told once, first.
    fn total(&self, bytes: u64);
    /// So many more bytes were moved.
    fn moved(&self, bytes: u64);
    /// Whether to end, with the image valid.
    fn should_stop(&self) -> bool;
}

/// What a compaction did. All sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// What was moved.
    pub moved: u64,
    /// Length of the file before.
    pub before: u64,
    /// Length of the file afterwards.
    pub after: u64,
    /// It was ended early.
    pub stopped: bool,
}

/// What a new image would need, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// File size when only the present data is stored.
    pub required: u64,
    /// File size when every cluster is allocated.
    pub fully_allocated: u64,
    /// Size of persistent bitmaps, where source and target support them.
    pub bitmaps: Option<u64>,
}

/// What `info` shows of a node beyond its name and size.
#[derive(Clone, Debug, Default)]
pub struct FormatInfo {
    /// Cluster size in bytes.
    pub cluster_size: Option<u64>,
    /// Where saved machine state begins, in bytes from the start of the disk.
    pub vm_state_offset: Option<u64>,
    /// The image was not closed cleanly (formats that know).
    pub dirty: Option<bool>,
    /// The image is encrypted.
    pub encrypted: bool,
    /// All of the image is compressed.
    pub compressed: bool,
    /// Backing file name as stored in the image.
    pub backing_file: Option<String>,
    /// Backing format as stored in the image.
    pub backing_format: Option<String>,
    /// Internal snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// The format's own facts, as they appear below `format-specific` → `data`.
    pub specific: Option<Dict>,
}

/// One internal snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Unique number as text.
    pub id: String,
    /// Name given by the user.
    pub name: String,
    /// Bytes of saved machine state.
    pub vm_state_size: u64,
    /// Seconds since 1970.
    pub date_sec: u32,
    /// Nanoseconds of the date.
    pub date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Guest instruction count.
    pub icount: Option<u64>,
}

/// Result of an asynchronous driver operation.
pub type DriverFuture<'a, T> = LocalBoxFuture<'a, Result<T>>;

/// What [`Driver::amend`] is to do.
pub struct Amendment<'a> {
    /// New values of options.
    pub options: Dict,
    /// Also where that loses data.
    pub force: bool,
    /// Is told how far a change is that takes long: steps done, steps in total.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Amendment<'_> {
    /// The change to `options`, with nobody watching.
    pub fn new(options: Dict) -> Amendment<'static> {
        Amendment { options, force: false, progress: &|_, _| () }
    }
}

/// Puts options in force that were found to be valid; cannot fail.
pub type ReopenCommit<'a> = Box<dyn FnOnce() + 'a>;

/// A driver instance. See the module's contract.
///
/// Every operation that a driver does not offer has a default which fails with
/// [`Error::Unsupported`], so that the caller can fall back.
pub trait Driver: Send + Sync + 'static {
    /// The driver's entry in the registry.
    fn info(&self) -> &'static DriverInfo;

    /// Present size in bytes.
    fn size(&self) -> u64;

    /// Present limits for requests.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Whether requests spend their time on a network, so that many of them should be under way.
    fn is_remote(&self) -> bool {
        false
    }

    /// Flags that `write` and `write_zeroes` honour themselves; the node emulates `FUA` by a flush.
    fn write_flags(&self) -> WriteFlags {
        WriteFlags::empty()
    }

    /// Reads `buf.len()` bytes at `offset` and hands the same buffer back, filled.
    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut>;

    /// Writes `buf` at `offset`. `flags` holds at most `FUA`.
    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let _ = (offset, buf, flags);
        unsupported(self.info().name, "writing is not supported")
    }

    /// Writes one compressed cluster (the last one of the image may be short). An empty buffer ends a
    /// stream of compressed writes.
    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        let _ = (offset, buf);
        unsupported(self.info().name, "compression is not supported for this format")
    }

    /// Makes a range read as zeroes without transferring data.
    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let _ = (offset, len, flags);
        unsupported(self.info().name, "efficient zero writes are not supported")
    }

    /// Whether [`Driver::discard`] wants ranges as the user gave them, aligned or not, since it does not
    /// only give storage back.
    fn discards_unaligned(&self) -> bool {
        false
    }

    /// Gives storage back; the content of the range becomes unspecified or zero.
    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        let _ = (offset, len);
        unsupported(self.info().name, "discard is not supported")
    }

    /// Whether [`Driver::flush`] makes durable what the children have written, so that the node need not
    /// flush them.
    fn flushes_children(&self) -> bool {
        false
    }

    /// Writes out what the driver caches, so that a flush of the children makes it durable. The node
    /// flushes the children afterwards.
    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Status of a range beginning at `offset`. With `precise` false an answer that is cheap but
    /// coarse is welcome (data where there may be zeroes).
    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        let _ = (offset, precise);
        let extent = Extent { len, status: Status::DATA | Status::ALLOCATED, map: None };
        Box::pin(async move { Ok(extent) })
    }

    /// Reads saved machine state: bytes that the image stores beside its disk, counted from their own
    /// beginning.
    fn read_vm_state(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        let _ = (offset, buf);
        unsupported(self.info().name, "machine state is not stored in this format")
    }

    /// Writes saved machine state.
    fn write_vm_state(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        let _ = (offset, buf);
        unsupported(self.info().name, "machine state is not stored in this format")
    }

    /// As a precise `block_status`, but the place of data does not matter: an answer without it may
    /// cover what lies in many places.
    fn content_status(&self, offset: u64, len: u64) -> DriverFuture<'_, Extent> {
        self.block_status(offset, len, true)
    }

    /// Whether [`Driver::event`] is to be called.
    fn watches_events(&self) -> bool {
        false
    }

    /// A request of the format above (or to this very node) passes `event`; it goes on when the
    /// future is done.
    fn event(&self, event: Event) -> LocalBoxFuture<'_, ()> {
        let _ = event;
        Box::pin(async {})
    }

    /// Copies from another file of the same driver inside the kernel.
    fn copy_range_from<'a>(
        &'a self,
        source: &'a dyn Driver,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> DriverFuture<'a, ()> {
        let _ = (source, source_offset, offset, len);
        unsupported(self.info().name, "copy offloading is not supported")
    }

    /// The concrete driver, for operations between two nodes of one driver.
    fn as_any(&self) -> &dyn std::any::Any;

    /// Changes the size.
    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        let _ = (size, how);
        unsupported(self.info().name, "the size cannot be changed")
    }

    /// Bytes of storage in use, where that is known.
    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether a newly created image reads as zeroes all over.
    fn has_zero_init(&self) -> bool {
        false
    }

    /// Facts for `info`.
    fn format_info(&self) -> DriverFuture<'_, FormatInfo> {
        Box::pin(async { Ok(FormatInfo::default()) })
    }

    /// Checks the metadata and repairs what `repair` allows.
    fn check(&self, repair: Repair) -> DriverFuture<'_, CheckReport> {
        let _ = repair;
        unsupported(self.info().name, "this image format does not support checks")
    }

    /// Moves what the image stores to the front of its file, and cuts the file. No requests are under
    /// way, here and below. A crash at any moment leaves a valid image.
    fn compact<'a>(&'a self, watch: &'a dyn CompactWatch) -> DriverFuture<'a, Compaction> {
        let _ = watch;
        unsupported(self.info().name, "images of this format cannot be compacted")
    }

    /// Drops all data of this layer, so that the backing file shows through.
    fn make_empty(&self) -> DriverFuture<'_, ()> {
        unsupported(self.info().name, "the image cannot be emptied")
    }

    /// Changes the backing file named in the image.
    fn change_backing(&self, file: Option<String>, format: Option<String>) -> DriverFuture<'_, ()> {
        let _ = (file, format);
        unsupported(self.info().name, "the backing file cannot be changed")
    }

    /// Options that [`Driver::amend`] understands.
    fn amend_options(&self) -> &'static [OptionDesc] {
        &[]
    }

    /// Changes options of the image in place; they refer to secrets in `graph`.
    fn amend<'a>(&'a self, graph: &'a Arc<Graph>, change: Amendment<'a>) -> DriverFuture<'a, ()> {
        let _ = (graph, change);
        unsupported(self.info().name, "the options of the image cannot be changed")
    }

    /// Keeps the present content, and the machine state saved before, as an internal snapshot. No
    /// requests are under way, here and below.
    fn create_snapshot(&self, new: NewSnapshot) -> DriverFuture<'_, SnapshotInfo> {
        let _ = new;
        unsupported(self.info().name, "internal snapshots are not supported")
    }

    /// Makes the content that of an internal snapshot. No requests are under way, here and below.
    fn apply_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        let _ = snapshot;
        unsupported(self.info().name, "internal snapshots are not supported")
    }

    /// Deletes an internal snapshot. No requests are under way, here and below.
    fn delete_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        let _ = snapshot;
        unsupported(self.info().name, "internal snapshots are not supported")
    }

    /// Shows an internal snapshot instead of the present content, until the node is closed. The node is
    /// read-only, and no requests are under way.
    fn show_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        let _ = snapshot;
        unsupported(self.info().name, "internal snapshots are not supported")
    }

    /// The persistent bitmaps.
    fn bitmaps(&self) -> DriverFuture<'_, Vec<BitmapInfo>> {
        unsupported(self.info().name, "persistent bitmaps are not supported")
    }

    /// Content of a persistent bitmap.
    fn load_bitmap(&self, name: String) -> DriverFuture<'_, DirtyBitmap> {
        let _ = name;
        unsupported(self.info().name, "persistent bitmaps are not supported")
    }

    /// Content of a persistent bitmap. If the bitmap records changes and the node is writable, the content
    /// follows them for as long as nobody changes the image's bitmaps.
    fn live_bitmap(&self, name: String) -> DriverFuture<'_, Arc<DirtyBitmap>> {
        let _ = name;
        unsupported(self.info().name, "persistent bitmaps are not supported")
    }

    /// Changes a persistent bitmap, durably. No requests are under way, here and below.
    fn change_bitmap(&self, name: String, change: BitmapChange) -> DriverFuture<'_, ()> {
        let _ = (name, change);
        unsupported(self.info().name, "persistent bitmaps are not supported")
    }

    /// Permissions needed on, and shared for, a child with `role`, given what this node's parents
    /// use and share.
    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        crate::graph::default_child_perms(role, perm, shared, read_only)
    }

    /// Takes notice of what the parents use and share (protocols take their locks here). Called
    /// before the new permissions are used; on failure the old ones stay in force.
    fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        let _ = (perm, shared);
        Ok(())
    }

    /// Checks options of the driver that are to change while the node is open, and gets ready for them;
    /// `flags` are those that the node will have. Options that are not given stay as they are. What is
    /// returned puts them in force. No requests are under way, here and below.
    fn prepare_reopen(
        &self,
        options: Dict,
        flags: NodeFlags,
    ) -> DriverFuture<'_, ReopenCommit<'_>> {
        let _ = flags;
        Box::pin(async move {
            let nothing: ReopenCommit<'_> = Box::new(|| ());
            match options.iter().next() {
                None => Ok(nothing),
                Some((name, _)) => Err(Error::Option(OptionError::Conflict {
                    name: name.to_owned(),
                    problem: "cannot change while the node is open".to_owned(),
                })),
            }
        })
    }

    /// Switches between read-only and writable, after the children were switched.
    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        let _ = read_only;
        Box::pin(async { Ok(()) })
    }

    /// Switches between using the page cache and going around it. No requests are under way.
    fn set_direct(&self, direct: bool) -> DriverFuture<'_, ()> {
        let _ = direct;
        Box::pin(async { Ok(()) })
    }

    /// Writes everything back and releases what must be released in order. Called once, when the node
    /// has no users and no requests left.
    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A future that fails with [`Error::Unsupported`].
pub fn unsupported<'a, T: 'a>(driver: &'static str, what: &'static str) -> DriverFuture<'a, T> {
    Box::pin(async move { Err(Error::unsupported(driver, what)) })
}

/// Place of a driver in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// A leaf that reaches storage itself.
    Protocol,
    /// Interprets the bytes of its `file` child.
    Format,
    /// Passes the data of one child through.
    Filter,
}

/// Function that opens a driver instance.
pub type OpenFn = for<'a> fn(&'a mut OpenContext<'_>) -> DriverFuture<'a, Box<dyn Driver>>;

/// A driver's entry in the registry.
pub struct DriverInfo {
    /// Name, as in `driver=`.
    pub name: &'static str,
    /// Place in the graph.
    pub kind: DriverKind,
    /// Opens an instance.
    pub open: OpenFn,
    /// Score (0 to 100) for the first bytes of a file: how sure the driver is that it is its own.
    pub probe: Option<fn(head: &[u8], filename: &str) -> u32>,
    /// Prefixes of legacy filenames that choose this protocol, without the colon.
    pub prefixes: &'static [&'static str],
    /// Turns a legacy filename into options.
    pub parse_filename: Option<fn(filename: &str, options: &mut Dict) -> Result<()>>,
    /// Score for a path being a device of this driver.
    pub probe_device: Option<fn(path: &str) -> u32>,
    /// Options understood by `open`.
    pub options: &'static [OptionDesc],
    /// Options understood by `create`.
    pub create_options: &'static [OptionDesc],
    /// Creates an image.
    pub create: Option<CreateFn>,
    /// Computes the size of an image to be created.
    pub measure: Option<MeasureFn>,
    /// Images can have a backing file.
    pub supports_backing: bool,
}

impl DriverInfo {
    /// Whether file names stand for nodes of this driver: a protocol, or a filter whose names tell of
    /// its children.
    pub(crate) fn has_names(&self) -> bool {
        self.kind == DriverKind::Protocol || self.parse_filename.is_some()
    }
}

/// Function that creates an image: the file's name and the creation options.
pub type CreateFn = for<'a> fn(
    graph: &'a Arc<crate::graph::Graph>,
    filename: &'a str,
    options: Dict,
) -> DriverFuture<'a, ()>;

/// Function that measures an image to be created from `source`, or of the size in `options`.
pub type MeasureFn = for<'a> fn(
    options: Dict,
    source: Option<&'a crate::graph::Backend>,
) -> DriverFuture<'a, Measure>;

/// All drivers, in the order in which they are probed.
static DRIVERS: &[&DriverInfo] = &[
    &luks::LUKS,
    &qcow2::QCOW2,
    &raw::RAW,
    // Filters.
    &filters::blkdebug::BLKDEBUG,
    &filters::blklogwrites::BLKLOGWRITES,
    &filters::blkverify::BLKVERIFY,
    &filters::compress::COMPRESS,
    &filters::copy_on_read::COPY_ON_READ,
    &filters::preallocate::PREALLOCATE,
    &filters::quorum::QUORUM,
    &filters::throttle::THROTTLE,
    &filters::zeroinit::ZEROINIT,
    // Protocols.
    &file::FILE,
    &file::HOST_DEVICE,
    &nbd::NBD,
    &null::NULL_CO,
    &null::NULL_AIO,
];

/// All drivers, in the order in which they are probed.
pub fn drivers() -> impl Iterator<Item = &'static DriverInfo> {
    DRIVERS.iter().copied()
}

/// The options that images of a format can be amended by; `None` if they cannot.
pub fn amend_options(format: &str) -> Option<&'static [OptionDesc]> {
    match format {
        "luks" => Some(luks::AmendOptions::TABLE),
        "qcow2" => Some(qcow2::amend::AmendOptions::TABLE),
        _ => None,
    }
}

/// Finds a driver by name.
pub fn find(name: &str) -> Option<&'static DriverInfo> {
    drivers().find(|d| d.name == name)
}
