//! An open image: what its parts share, and its header while it is open.
//!
//! Locking. Requests hold, in this order: a range of guest clusters (`ranges`, only to change the
//! mapping), one of `table_changes` (to give an L2 table a place), then short locks within the caches.
//! Nothing blocks while it waits for I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::alloc::Allocator;
use super::bitmap_track::{Tracked, Which};
use super::compress::ClusterCache;
use super::crypt::Crypt;
use super::entry::{EntryError, L1Entry, OFFSET};
use super::epoch::Epochs;
use super::feature::{Autoclear, Compatible, Incompatible};
use super::geometry::{Geometry, SharedGeometry};
use super::header::{Compression, FEATURES_OFFSET, Header, MAX_L1_BYTES};
use super::l1::{L1Table, PAGE_ENTRIES};
use super::l2::SliceCache;
use super::options::{Qcow2Options, Tuning};
use super::overlap::{MetadataMap, Structure};
use super::pending::Pending;
use super::refblocks::RefBlocks;
use super::snapshot::{self, Oversize, Snapshot};
use super::writeback::Rounds;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::graph::tracker::Tracker;
use crate::graph::{Edge, Notices};
use crate::num::AsUsize;

/// Locks that spread work on unrelated tables.
pub(super) const STRIPES: usize = 16;

/// Longest L1 table, in entries, of which all L2 tables are looked up before the first write.
const MAX_LISTED_L1: u64 = 128 << 10;

type Stripes = [AsyncMutex<()>; STRIPES];

/// An open image.
pub(crate) struct Image {
    /// What messages call it.
    pub(super) label: String,
    geometry: SharedGeometry,
    pub(super) compression: Compression,
    pub(super) file: Arc<Edge>,
    /// The external data file.
    pub(super) data_file: Option<Arc<Edge>>,
    pub(super) backing: Option<Arc<Edge>>,
    /// What encrypts guest data.
    pub(super) crypt: Crypt,
    tuning: ArcSwap<Tuning>,
    /// The options that `tuning` follows from.
    pub(super) options: Mutex<Qcow2Options>,
    /// The header as on disk.
    pub(super) header: Mutex<Header>,
    size: AtomicU64,
    pub(super) read_only: AtomicBool,
    /// Damage was found; nothing is written any more.
    corrupt: AtomicBool,
    /// The user was told of damage.
    told: AtomicBool,
    /// Where users are told of damage.
    pub(super) notices: Arc<Notices>,
    /// The feature bits allow writing guest data.
    claimed: AtomicBool,
    /// The dirty bit, where refcounts are lazy, is on disk.
    marked_dirty: AtomicBool,
    /// The image was dirty when it was loaded, or is in doubt: only a check takes the bit away.
    found_dirty: AtomicBool,
    pub(super) header_changes: AsyncMutex<()>,
    /// Held while the size changes, or all is checked.
    pub(super) size_changes: AsyncMutex<()>,

    pub(super) l1: ArcSwap<L1Table>,
    pub(super) l2: SliceCache,
    pub(super) alloc: Mutex<Allocator>,
    pub(super) l1_loads: AsyncMutex<()>,
    pub(super) l2_loads: Stripes,
    pub(super) refcount_loads: AsyncMutex<()>,
    pub(super) table_changes: Stripes,

    /// Guest clusters whose mapping is being changed.
    pub(super) ranges: Tracker,
    pub(super) epochs: Epochs,
    pub(super) pending: Pending,
    pub(super) rounds: Rounds,
    pub(super) metadata: MetadataMap,
    /// Persistent bitmaps in memory, which on disk are marked as in use.
    pub(super) tracked: ArcSwap<Vec<Arc<Tracked>>>,
    /// Held while persistent bitmaps are loaded or stored.
    pub(super) bitmap_changes: AsyncMutex<()>,
    pub(super) decompressed: ClusterCache,
    /// Whether metadata was allocated in advance, once that was found out.
    pub(super) preallocated: OnceCell<bool>,
    /// When unused metadata was dropped last.
    pub(super) cleaned: Mutex<Instant>,
}

/// The nodes below an image.
pub(crate) struct Children {
    /// Where the image is.
    pub(crate) file: Arc<Edge>,
    /// The external data file.
    pub(crate) data_file: Option<Arc<Edge>>,
    /// The backing file.
    pub(crate) backing: Option<Arc<Edge>>,
}

impl Image {
    /// The image that `header` describes. Nothing but the header is read.
    pub(super) fn new(
        label: String,
        header: Header,
        children: Children,
        crypt: Crypt,
        (options, tuning): (Qcow2Options, Tuning),
        notices: Arc<Notices>,
        read_only: bool,
    ) -> Image {
        let geometry = Geometry::of(&header);
        let metadata = MetadataMap::new(tuning.overlap_check);
        list_metadata(&metadata, &header);
        let alloc = new_allocator(&header, &tuning, children.file.size());
        Image {
            label,
            geometry: SharedGeometry::new(geometry),
            compression: header.compression,
            l1: ArcSwap::from_pointee(L1Table::new(header.l1_offset, header.l1_size)),
            l2: SliceCache::new(geometry, tuning.slice_size, tuning.l2_slices),
            alloc: Mutex::new(alloc),
            file: children.file,
            data_file: children.data_file,
            backing: children.backing,
            crypt,
            size: AtomicU64::new(header.size),
            read_only: AtomicBool::new(read_only),
            corrupt: AtomicBool::new(header.incompatible.contains(Incompatible::CORRUPT)),
            told: AtomicBool::new(false),
            notices,
            claimed: AtomicBool::new(false),
            marked_dirty: AtomicBool::new(false),
            found_dirty: AtomicBool::new(header.incompatible.contains(Incompatible::DIRTY)),
            header: Mutex::new(header),
            header_changes: AsyncMutex::default(),
            size_changes: AsyncMutex::default(),
            tuning: ArcSwap::from_pointee(tuning),
            options: Mutex::new(options),
            l1_loads: AsyncMutex::default(),
            l2_loads: Stripes::default(),
            refcount_loads: AsyncMutex::default(),
            table_changes: Stripes::default(),
            ranges: Tracker::default(),
            epochs: Epochs::default(),
            pending: Pending::default(),
            rounds: Rounds::default(),
            metadata,
            tracked: ArcSwap::default(),
            bitmap_changes: AsyncMutex::default(),
            decompressed: ClusterCache::default(),
            preallocated: OnceCell::new(),
            cleaned: Mutex::new(Instant::now()),
        }
    }

    /// Takes everything from disk anew, as `header` says, after tables were changed past the caches.
    /// Nothing is waiting to be written back and there are no requests.
    pub(super) fn reload(&self, header: Header) {
        self.metadata.clear();
        list_metadata(&self.metadata, &header);
        self.geometry.set(Geometry::of(&header));
        self.l1.store(Arc::new(L1Table::new(header.l1_offset, header.l1_size)));
        self.l2.clear();
        *self.alloc.lock() = new_allocator(&header, &self.tuning(), self.file.size());
        self.decompressed.forget(0, u64::MAX);
        self.store_size(header.size);
        self.corrupt.store(header.incompatible.contains(Incompatible::CORRUPT), Ordering::Release);
        self.claimed.store(false, Ordering::Release);
        self.marked_dirty.store(false, Ordering::Release);
        let dirty = header.incompatible.contains(Incompatible::DIRTY);
        self.found_dirty.store(dirty, Ordering::Release);
        *self.header.lock() = header;
    }

    /// The shape of the image's tables.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry.load()
    }

    /// Takes over what the header says about the shape of tables, after it was amended. There are no
    /// requests.
    pub(super) fn adopt_geometry(&self) {
        let geometry = Geometry::of(&self.header.lock());
        self.geometry.set(geometry);
    }

    /// How the image works.
    pub(super) fn tuning(&self) -> Tuning {
        **self.tuning.load()
    }

    /// Lets the image work as `tuning`, which follows from `options`, says. There are no requests, and
    /// everything has been written back.
    pub(super) fn retune(&self, options: Qcow2Options, tuning: Tuning) {
        self.tuning.store(Arc::new(tuning));
        *self.options.lock() = options;
        self.metadata.set_checked(tuning.overlap_check);
        self.l2.reconfigure(tuning.slice_size, tuning.l2_slices);
        let header = self.header.lock().clone();
        self.reload(header);
    }

    /// Size of the virtual disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Changes the size that requests see.
    pub(crate) fn store_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// The node that holds guest data.
    pub(super) fn data(&self) -> &Arc<Edge> {
        self.data_file.as_ref().unwrap_or(&self.file)
    }

    /// Whether the data file is a plain image of the virtual disk.
    pub(super) fn has_raw_data_file(&self) -> bool {
        self.data_file.is_some() && self.header.lock().autoclear.contains(Autoclear::RAW_DATA_FILE)
    }

    /// An error for something that the image's version or features do not offer.
    pub(super) fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(self.label.clone(), what)
    }

    /// Notes that metadata is damaged: marks the image if it is writable, so that no program writes
    /// to it before it was checked, and returns the error to report.
    pub(super) async fn corrupt(&self, detail: impl Into<String>) -> Error {
        let detail = detail.into();
        if self.read_only.load(Ordering::Acquire) {
            if !self.told.swap(true, Ordering::AcqRel) {
                self.notices.found(&format!(
                    "qcow2: Image is corrupt: {detail}; further non-fatal corruption events will be \
                     suppressed"
                ));
            }
        } else if !self.corrupt.swap(true, Ordering::AcqRel) {
            self.notices.found(&format!(
                "qcow2: Marking image as corrupt: {detail}; further corruption events will be \
                 suppressed"
            ));
            // The damage is what must be reported, whether or not the mark can be written.
            let _ =
                self.change_features(|header| header.incompatible |= Incompatible::CORRUPT).await;
        }
        Error::corrupt(self.label.clone(), detail)
    }

    /// Damage in the entry for guest offset `offset` of the L1 table.
    pub(super) async fn bad_l1_entry(&self, offset: u64, error: EntryError) -> Error {
        let index = hex(self.geometry().l1_index(offset));
        self.corrupt(match error {
            EntryError::Unaligned(raw) => {
                let table = hex(raw & OFFSET);
                format!("L2 table offset {table} unaligned (L1 index: {index})")
            }
            other => format!("in entry {index} of the L1 table, {other}"),
        })
        .await
    }

    /// Damage in entry `index` of the L2 table at `table`.
    pub(super) async fn bad_l2_entry(&self, table: u64, index: u64, error: EntryError) -> Error {
        let (table, index) = (hex(table), hex(index));
        self.corrupt(match error {
            EntryError::Unaligned(raw) => {
                let offset = hex(raw & OFFSET);
                format!(
                    "Cluster allocation offset {offset} unaligned (L2 offset: {table}, L2 index: \
                     {index})"
                )
            }
            other => format!("in entry {index} of the L2 table at {table}, {other}"),
        })
        .await
    }

    /// Changes feature bits on disk and in memory, durably. Version 2 has none: nothing happens.
    pub(super) async fn change_features(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let _changes = self.header_changes.lock().await;
        let mut header = self.header.lock().clone();
        let before = header.features();
        change(&mut header);
        let after = header.features();
        if header.version < 3 || before == after {
            return Ok(());
        }
        self.file.write(FEATURES_OFFSET, IoBuf::copy_of(&after), WriteFlags::empty()).await?;
        self.file.flush().await?;
        *self.header.lock() = header;
        Ok(())
    }

    /// Changes header fields outside the feature words: `len` bytes at `at` of the new header's
    /// serialised form are written, which must lie in the first sector. The caller sees to barriers.
    pub(super) async fn change_fields(
        &self,
        at: usize,
        len: usize,
        change: impl FnOnce(&mut Header),
    ) -> Result<()> {
        let _changes = self.header_changes.lock().await;
        let mut header = self.header.lock().clone();
        change(&mut header);
        let bytes =
            header.serialise().map_err(|e| Error::unsupported(&*self.label, e.to_string()))?;
        let bytes = IoBuf::copy_of(bytes.get(at..at + len).unwrap_or_default());
        self.file.write(at as u64, bytes, WriteFlags::empty()).await?;
        *self.header.lock() = header;
        Ok(())
    }

    /// Fails if the image must not be written to.
    pub(super) fn check_sound(&self) -> Result<()> {
        if self.corrupt.load(Ordering::Acquire) {
            let detail = "it must be checked and repaired before it can be written to";
            return Err(Error::corrupt(self.label.clone(), detail));
        }
        Ok(())
    }

    /// Lets the next change of guest-visible data prepare for it again.
    pub(super) fn unclaim(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// Lets nothing be written any more: what is in memory may contradict the disk.
    pub(super) fn stop_writing(&self) {
        self.found_dirty.store(true, Ordering::Release);
        self.corrupt.store(true, Ordering::Release);
    }

    /// To be called before guest-visible data changes. Persistent bitmaps begin to record, and the marks
    /// of features that are not kept up to date are cleared.
    pub(super) async fn begin_write(&self) -> Result<()> {
        self.check_sound()?;
        if self.claimed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.list_tables().await?;
        self.list_snapshots().await?;
        self.track_bitmaps(Which::Enabled).await?;
        self.change_features(|header| header.autoclear &= Autoclear::KNOWN).await?;
        self.claimed.store(true, Ordering::Release);
        Ok(())
    }

    /// Enters the tables of the active disk into the metadata map. Of very long L1 tables each part
    /// comes in when it is used.
    async fn list_tables(&self) -> Result<()> {
        if self.metadata.checks(Structure::REFCOUNT_BLOCK) {
            self.with_allocator(|alloc| Ok(alloc.refs.require_table()?)).await?;
        }
        let l1 = self.l1.load_full();
        if !self.metadata.checks(Structure::ACTIVE_L2) || l1.entries() > MAX_LISTED_L1 {
            return Ok(());
        }
        let mut index = 0;
        while index < l1.entries() {
            if l1.get(index).is_err() {
                self.load_l1_entry(index * self.geometry().l2_coverage()).await?;
            }
            index += PAGE_ENTRIES;
        }
        Ok(())
    }

    /// Enters the tables of internal snapshots into the metadata map.
    async fn list_snapshots(&self) -> Result<()> {
        let header = self.header.lock().clone();
        if header.snapshot_count == 0 || !self.metadata.checks(Structure::SNAPSHOTS) {
            return Ok(());
        }
        let table =
            snapshot::read_table(&self.file, &header, &self.label, Oversize::Refuse).await?;
        self.metadata.add(Structure::SNAPSHOT_TABLE, header.snapshots_offset, table.bytes);
        for snapshot in &table.snapshots {
            let len = u64::from(snapshot.l1_entries) * 8;
            self.metadata.add(Structure::INACTIVE_L1, snapshot.l1_offset, len);
            if self.metadata.checks(Structure::INACTIVE_L2) {
                self.check_snapshot_l1(snapshot)?;
                let buf = IoBufMut::new(len.as_usize());
                let l1 = self.file.read(snapshot.l1_offset, buf).await?;
                self.add_l2_tables(Structure::INACTIVE_L2, &l1);
            }
        }
        Ok(())
    }

    /// Fails if the L1 table of a snapshot cannot be read to look for its L2 tables.
    fn check_snapshot_l1(&self, snapshot: &Snapshot) -> Result<()> {
        let (offset, entries) = (snapshot.l1_offset, snapshot.l1_entries);
        let (errno, problem) = if self.geometry().in_cluster(offset) != 0 {
            (libc::EINVAL, format!("at {offset:#x} is not aligned to a cluster"))
        } else if u64::from(entries) * 8 > MAX_L1_BYTES {
            (libc::EFBIG, format!("has {entries} entries, more than any disk needs"))
        } else {
            return Ok(());
        };
        let source = std::io::Error::from_raw_os_error(errno);
        let what = format!("the L1 table of snapshot {} {problem}", snapshot.label());
        Err(Error::os(Op::Write, self.label.clone(), None, source).context(what))
    }

    /// Enters the L2 tables that the L1 entries in `bytes` lead to into the metadata map.
    pub(super) fn add_l2_tables(&self, structure: Structure, bytes: &[u8]) {
        for raw in bytes.chunks_exact(8) {
            let raw = u64::from_be_bytes(raw.try_into().unwrap_or_default());
            if let Ok(L1Entry { table: Some(table), .. }) = L1Entry::decode(raw, &self.geometry()) {
                self.metadata.add(structure, table, self.geometry().cluster_size());
            }
        }
    }

    /// Whether refcounts on disk may lag behind, with the dirty bit saying so.
    pub(super) fn has_lazy_refcounts(&self) -> bool {
        let header = self.header.lock();
        let stored = header.compatible.contains(Compatible::LAZY_REFCOUNTS);
        header.version >= 3 && self.tuning().lazy_refcounts.unwrap_or(stored)
    }

    /// To be called before refcounts change.
    pub(super) async fn begin_allocation(&self) -> Result<()> {
        if self.marked_dirty.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.has_lazy_refcounts() {
            self.change_features(|header| header.incompatible |= Incompatible::DIRTY).await?;
        }
        self.marked_dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the dirty bit away. Everything has been written back.
    pub(super) async fn clear_dirty(&self) -> Result<()> {
        let own =
            self.marked_dirty.load(Ordering::Acquire) && !self.found_dirty.load(Ordering::Acquire);
        if own && self.header.lock().incompatible.contains(Incompatible::DIRTY) {
            self.barrier().await?;
            self.change_features(|header| header.incompatible -= Incompatible::DIRTY).await?;
        }
        self.marked_dirty.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes completed writes durable before anything that follows.
    pub(super) async fn barrier(&self) -> Result<()> {
        if let Some(data_file) = &self.data_file {
            data_file.flush().await?;
        }
        self.file.event(Event::FlushToDisk).await;
        self.file.flush().await
    }
}

/// A number as programs that parse messages expect it: in hexadecimal, but for 0.
pub(super) fn hex(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number:#x}") }
}

/// Enters the structures that the header itself describes.
fn list_metadata(metadata: &MetadataMap, header: &Header) {
    let cluster_size = Geometry::of(header).cluster_size();
    metadata.add(Structure::HEADER, 0, cluster_size);
    metadata.add(Structure::ACTIVE_L1, header.l1_offset, u64::from(header.l1_size) * 8);
    let reftable = u64::from(header.reftable_clusters) * cluster_size;
    metadata.add(Structure::REFCOUNT_TABLE, header.reftable_offset, reftable);
    // Without the mark, nobody counts their clusters any more.
    if let Some(bitmaps) = header.extensions.bitmaps.filter(|_| header.has_valid_bitmaps()) {
        let (start, len) = (bitmaps.directory_offset, bitmaps.directory_size);
        metadata.add(Structure::BITMAP_DIRECTORY, start, len);
    }
}

fn new_allocator(header: &Header, tuning: &Tuning, file_size: u64) -> Allocator {
    let geometry = Geometry::of(header);
    let place = (header.reftable_offset, header.reftable_clusters);
    Allocator::new(geometry, RefBlocks::new(geometry, place, tuning.refcount_blocks), file_size)
}
