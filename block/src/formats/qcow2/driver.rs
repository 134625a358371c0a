//! The driver: opening an image, and the operations of the block layer on it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::amend::AmendOptions;
use super::create_options::CreateOptions;
use super::feature::{Autoclear, Incompatible};
use super::header::{self, Header, HeaderError, MAGIC};
use super::image::{Children, Image};
use super::options::{Qcow2Options, Tuning};
use super::{Qcow2, create, crypt, info, measure};
use crate::buf::{IoBuf, IoBufMut};
use crate::crypto::SectorCipher;
use crate::dirty_bitmap::{BitmapChange, BitmapInfo, DirtyBitmap};
use crate::driver::{
    Amendment, CheckReport, CompactWatch, Compaction, Driver, DriverFuture, DriverInfo, DriverKind,
    Extent, FormatInfo, Limits, ReopenCommit, Repair, Resize, Role, SnapshotInfo, WriteFlags,
};
use crate::error::{Error, Result};
use crate::graph::{Edge, Graph, NodeFlags, OpenContext, Policy, Rule};
use crate::num::AsUsize;
use crate::options::{Dict, OptionDesc};
use crate::snapshot::{NewSnapshot, SnapshotKey};

/// The driver's entry in the registry.
pub(crate) static QCOW2: DriverInfo = DriverInfo {
    name: "qcow2",
    kind: DriverKind::Format,
    open: |context| Box::pin(open(context)),
    probe: Some(|head, _| if is_qcow2(head) { 100 } else { 0 }),
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: Qcow2Options::TABLE,
    create_options: CreateOptions::TABLE,
    create: Some(create::create),
    measure: Some(measure::measure),
    supports_backing: true,
};

/// Whether `head` begins with the magic number and a version of qcow2 (version 1 is another format).
fn is_qcow2(head: &[u8]) -> bool {
    let version = head.get(4..8).and_then(|v| v.try_into().ok()).map(u32::from_be_bytes);
    head.starts_with(&MAGIC) && version.is_some_and(|version| version >= 2)
}

/// Reads and parses the header of the image in `file`.
pub(crate) async fn read_header(file: &Edge) -> Result<Header> {
    let refuse = |error: HeaderError| {
        let label = file.node().label();
        if error.is_unsupported() {
            Error::unsupported(label, error.to_string())
        } else {
            Error::corrupt(label, error.to_string())
        }
    };
    let head = file.read(0, IoBufMut::new(512)).await?;
    let size = header::cluster_size(&head).map_err(refuse)?;
    let cluster = file.read(0, IoBufMut::new(size.as_usize())).await?;
    Header::parse(&cluster).map_err(refuse)
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Qcow2Options::take(&mut context.options)?;
    let file = context.child("file", Role::IMAGE).await?;
    let header = read_header(&file).await?;
    let flags = context.flags();
    if header.incompatible.contains(Incompatible::CORRUPT) && !flags.check {
        context.require_read_only("the image is marked as damaged; check and repair it first")?;
    }
    let (bound, count) = (context.policy().bounds.snapshots, header.snapshot_count);
    Policy::check_bound(bound, count.into(), &context.label(), Rule::Snapshots, || {
        format!("it has {count} internal snapshots")
    })?;
    if !flags.check {
        header.check_snapshots().map_err(|e| Error::corrupt(context.label(), e.to_string()))?;
    }
    let crypt = crypt::open(context, &file, &header, &options).await?;
    let tuning = Tuning::new(&options, &header, flags)?;
    let data_file = open_data_file(context, &header).await?;
    let stored = header.backing_file.as_deref();
    let format = header.extensions.backing_format.as_deref();
    let backing = context.backing(stored, format).await?;
    let children = Children { file, data_file, backing };
    let read_only = context.flags().read_only;
    let unclean = header.incompatible.contains(Incompatible::DIRTY) && !read_only;
    let (tuning, notices) = ((options, tuning), context.notices());
    let label = context.label();
    let image = Image::new(label, header, children, crypt, tuning, notices, read_only);
    let image = Arc::new(image);
    if unclean && !flags.check && !flags.no_io {
        image.recover().await?;
    }
    if !read_only && !flags.no_io {
        image.change_features(|header| header.autoclear &= Autoclear::KNOWN).await?;
    }
    Ok(Box::new(Qcow2 { image }))
}

async fn open_data_file(
    context: &mut OpenContext<'_>,
    header: &Header,
) -> Result<Option<Arc<Edge>>> {
    if context.flags().no_io && !context.options.contains("data-file") {
        // Who only looks at metadata must not be led to files that the image names.
        return Ok(None);
    }
    let stored = header.extensions.data_file.as_deref();
    let has_data_file = header.incompatible.contains(Incompatible::DATA_FILE);
    // Without the feature only the options can name one, which is then refused.
    let stored = stored.filter(|_| has_data_file);
    let data_file = context.optional_child("data-file", Role::DATA, stored).await?;
    match (has_data_file, &data_file) {
        (true, None) => {
            let what = "the image needs a data file but does not name it; give data-file.filename";
            Err(Error::unsupported(context.label(), what))
        }
        (false, Some(_)) => {
            let what = "a data file was given, but the image does not use one";
            Err(Error::unsupported(context.label(), what))
        }
        _ => Ok(data_file),
    }
}

impl Driver for Qcow2 {
    fn info(&self) -> &'static DriverInfo {
        &QCOW2
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.image.size()
    }

    fn limits(&self) -> Limits {
        let geometry = self.image.geometry();
        let encrypted = self.image.crypt.is_encrypted();
        Limits {
            request_alignment: if encrypted { SectorCipher::SECTOR_U32 } else { 1 },
            write_zeroes_alignment: 1 << geometry.subcluster_bits(),
            discard_alignment: 1 << geometry.cluster_bits,
            ..Limits::default()
        }
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(self.image.read(offset, buf))
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.image.write(offset, buf, flags))
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        Box::pin(self.image.write_compressed(offset, buf))
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.image.write_zeroes(offset, len, flags))
    }

    fn discards_unaligned(&self) -> bool {
        // Bitmaps record all of the range.
        true
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(self.image.discard(offset, len))
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.image.write_back())
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(self.image.block_status(offset, len, precise))
    }

    fn content_status(&self, offset: u64, len: u64) -> DriverFuture<'_, Extent> {
        Box::pin(self.image.content_status(offset, len))
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async {
            let image = &self.image;
            let file = image.file.node().driver().allocated_size().await?;
            let Some(data_file) = &image.data_file else { return Ok(file) };
            let data = data_file.node().driver().allocated_size().await?;
            Ok(file.zip(data).map(|(file, data)| file + data))
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(self.image.resize(size, how))
    }

    fn format_info(&self) -> DriverFuture<'_, FormatInfo> {
        Box::pin(async {
            let header = self.image.header.lock().clone();
            info::format_info(&self.image.file, &header, &self.image.label).await
        })
    }

    fn check(&self, repair: Repair) -> DriverFuture<'_, CheckReport> {
        Box::pin(self.image.check(repair))
    }

    fn compact<'a>(&'a self, watch: &'a dyn CompactWatch) -> DriverFuture<'a, Compaction> {
        Box::pin(self.image.compact(watch))
    }

    fn make_empty(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.image.make_empty())
    }

    fn amend_options(&self) -> &'static [OptionDesc] {
        AmendOptions::TABLE
    }

    fn amend<'a>(&'a self, graph: &'a Arc<Graph>, change: Amendment<'a>) -> DriverFuture<'a, ()> {
        Box::pin(self.image.amend(graph, change))
    }

    fn change_backing(&self, file: Option<String>, format: Option<String>) -> DriverFuture<'_, ()> {
        Box::pin(self.image.change_backing(file, format))
    }

    fn create_snapshot(&self, new: NewSnapshot) -> DriverFuture<'_, SnapshotInfo> {
        Box::pin(self.image.create_snapshot(new))
    }

    fn apply_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        Box::pin(self.image.apply_snapshot(snapshot))
    }

    fn delete_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        Box::pin(self.image.delete_snapshot(snapshot))
    }

    fn show_snapshot(&self, snapshot: SnapshotKey) -> DriverFuture<'_, ()> {
        Box::pin(self.image.show_snapshot(snapshot))
    }

    fn read_vm_state(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(self.image.read_vm_state(offset, buf))
    }

    fn write_vm_state(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        Box::pin(self.image.write_vm_state(offset, buf))
    }

    fn bitmaps(&self) -> DriverFuture<'_, Vec<BitmapInfo>> {
        Box::pin(self.image.bitmaps())
    }

    fn load_bitmap(&self, name: String) -> DriverFuture<'_, DirtyBitmap> {
        Box::pin(self.image.load_bitmap(name))
    }

    fn live_bitmap(&self, name: String) -> DriverFuture<'_, Arc<DirtyBitmap>> {
        Box::pin(self.image.live_bitmap(name))
    }

    fn change_bitmap(&self, name: String, change: BitmapChange) -> DriverFuture<'_, ()> {
        Box::pin(self.image.change_bitmap(name, change))
    }

    fn has_zero_init(&self) -> bool {
        self.image.is_blank()
    }

    fn prepare_reopen(
        &self,
        options: Dict,
        flags: NodeFlags,
    ) -> DriverFuture<'_, ReopenCommit<'_>> {
        Box::pin(async move {
            let image = &self.image;
            let options = Qcow2Options::parse(options, "driver 'qcow2'")?;
            let options = options.over(&image.options.lock().clone())?;
            let header = image.header.lock().clone();
            let tuning = Tuning::new(&options, &header, flags)?;
            if !image.read_only.load(Ordering::Acquire) {
                image.settle().await?;
                image.clear_dirty().await?;
            }
            let commit: ReopenCommit<'_> = Box::new(move || image.retune(options, tuning));
            Ok(commit)
        })
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if read_only {
                self.image.finish().await?;
            } else {
                self.image.require_clean()?;
            }
            self.image.read_only.store(read_only, Ordering::Release);
            Ok(())
        })
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async {
            if self.image.read_only.load(Ordering::Acquire) {
                return Ok(());
            }
            self.image.finish().await
        })
    }
}
