//! Local storage: regular files (`file`) and devices (`host_device`).
//!
//! Requests go to the engine as they are; the node keeps them aligned for `O_DIRECT`. The permissions
//! of the parents become image locks that the reference's programs respect, and with
//! `auto-read-only` they decide whether the descriptor is writable.

mod bulk;
mod create;
mod holder;
mod lock;
mod options;
mod resize;
mod seek;
mod storage;
mod usage;
mod zero;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, FormatInfo, Limits, Perm, Prealloc,
    Resize, Status, WriteFlags, unsupported,
};
use crate::engine::{Aio, File, sys};
use crate::error::{Error, Op, Result};
use crate::graph::OpenContext;
use crate::options::filename::strip_prefix;
use crate::options::{Dict, OptionError, Value};

use bulk::Bulk;
use lock::ImageLock;
pub(crate) use options::Preallocation;
use seek::Extents;
use storage::{Access, Kind};
use usage::Usage;
use zero::{Missing, Zero, is_unsupported};

/// Regular files.
pub(crate) static FILE: DriverInfo = DriverInfo {
    name: "file",
    kind: DriverKind::Protocol,
    open: |context| Box::pin(async move { open(context, &FILE) }),
    probe: None,
    prefixes: &["file"],
    parse_filename: Some(|name, options| {
        options.insert("filename", strip_prefix(name, "file:"));
        Ok(())
    }),
    probe_device: None,
    options: options::RuntimeOptions::TABLE,
    create_options: options::CreateOptions::TABLE,
    create: Some(|_, filename, options| Box::pin(create::file(filename, options))),
    measure: None,
    supports_backing: false,
};

/// Block and character devices.
pub(crate) static HOST_DEVICE: DriverInfo = DriverInfo {
    name: "host_device",
    open: |context| Box::pin(async move { open(context, &HOST_DEVICE) }),
    prefixes: &["host_device"],
    parse_filename: Some(|name, options| {
        options.insert("filename", strip_prefix(name, "host_device:"));
        Ok(())
    }),
    probe_device: Some(probe_device),
    create_options: options::DeviceCreateOptions::TABLE,
    create: Some(|_, filename, options| Box::pin(create::device(filename, options))),
    ..FILE
};

/// Devices are recognised by what the path leads to, through links.
fn probe_device(path: &str) -> u32 {
    use std::os::unix::fs::FileTypeExt;
    let is_device = std::fs::metadata(path)
        .is_ok_and(|meta| meta.file_type().is_block_device() || meta.file_type().is_char_device());
    if is_device { 100 } else { 0 }
}

/// Refuses what the driver is not made for.
fn check_kind(info: &'static DriverInfo, kind: Kind, path: &str) -> Result<()> {
    if info.name == FILE.name && kind != Kind::Regular {
        let hint = if kind.is_device() { "; use the driver 'host_device'" } else { "" };
        return Err(Error::unsupported(path, format!("this is not a regular file{hint}")));
    }
    if info.name == HOST_DEVICE.name && !kind.is_device() {
        return Err(Error::unsupported(path, "this is not a block or character device"));
    }
    Ok(())
}

fn open(context: &mut OpenContext<'_>, info: &'static DriverInfo) -> Result<Box<dyn Driver>> {
    let options = options::RuntimeOptions::take(&mut context.options)?;
    let flags = context.flags();
    options.check(flags)?;
    let path = options.filename.clone();
    let access = options.access(flags);
    let writable = !flags.read_only && !flags.auto_read_only;
    let fail = |e: io::Error| Error::os(Op::Open, &path, None, e);
    let fd = access.open(&path, writable).map_err(fail)?;
    let kind = Kind::of(&fd).map_err(fail)?;
    check_kind(info, kind, &path)?;
    let file_options = access.file_options(&fd, kind);
    let file = File::new(fd, file_options);
    let lock = ImageLock::new(&file, &path, options.locking)?;
    let size = storage::size(&file, kind).map_err(fail)?;
    let bulk = (flags.bulk && writable && !flags.direct && kind == Kind::Regular)
        .then(|| Bulk::open(&file, access, size))
        .flatten();
    context.set_filename(&path);
    Ok(Box::new(FileDriver {
        info,
        kind,
        usage: Usage::new(access, file_options),
        sector: storage::sector_size(&file).filter(|_| kind == Kind::BlockDevice).unwrap_or(1),
        file: ArcSwap::from_pointee(file),
        size: AtomicU64::new(size),
        mode: Mutex::new(Mode {
            lock,
            read_only: flags.read_only,
            auto_read_only: flags.auto_read_only,
            writable,
            written: false,
        }),
        extents: Extents::default(),
        missing: Missing::default(),
        bulk,
        flush_error: AtomicI32::new(0),
        path,
    }))
}

/// In which way the file is open.
struct Mode {
    lock: Option<ImageLock>,
    /// The node is read-only.
    read_only: bool,
    /// The descriptor is writable only while a parent writes.
    auto_read_only: bool,
    /// The present descriptor is writable.
    writable: bool,
    /// A parent writes or resizes.
    written: bool,
}

impl Mode {
    fn wants_writable(&self) -> bool {
        !self.read_only && (self.written || !self.auto_read_only)
    }
}

/// An open file or device.
struct FileDriver {
    info: &'static DriverInfo,
    path: String,
    kind: Kind,
    usage: Usage,
    /// Logical sector size of a block device in bytes, else 1.
    sector: u32,
    file: ArcSwap<File>,
    /// Last known size in bytes.
    size: AtomicU64,
    mode: Mutex<Mode>,
    extents: Extents,
    missing: Missing,
    /// The way around the page cache for whoever fills the whole file.
    bulk: Option<Bulk>,
    /// Error number of the first failed flush through the page cache, else 0.
    flush_error: AtomicI32,
}

impl FileDriver {
    fn file(&self) -> Arc<File> {
        self.file.load_full()
    }

    fn os_error(&self, op: Op, offset: u64, e: io::Error) -> Error {
        Error::os(op, &self.path, Some(offset), e)
    }

    fn node_error(&self, op: Op, e: io::Error) -> Error {
        Error::os(op, &self.path, None, e)
    }

    /// An error with which the caller falls back to other means, if that is what `e` asks for.
    fn or_unsupported(&self, op: Op, offset: u64, e: io::Error, what: &str) -> Error {
        if is_unsupported(&e) {
            Error::unsupported(&self.path, what)
        } else {
            self.os_error(op, offset, e)
        }
    }

    /// Looks at the size again; others may have changed it.
    fn refresh_size(&self) {
        if self.bulk.is_some() {
            // The system sees the file longer than it is.
            return;
        }
        // A failure leaves the last known size, and the next request meets the error itself.
        if let Ok(size) = storage::size(&**self.file.load(), self.kind) {
            self.size.store(size, Ordering::Release);
        }
    }

    /// Notes that the file reaches up to `end` now.
    fn note_written(&self, end: u64) {
        if self.kind == Kind::Regular && end > self.size.load(Ordering::Acquire) {
            self.size.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// Opens the file anew if it should be writable and is not, or the other way round.
    fn adapt_descriptor(&self, mode: &mut Mode) -> Result<()> {
        let writable = mode.wants_writable();
        if writable != mode.writable {
            let fd = self
                .usage
                .access()
                .reopen(&**self.file.load(), writable)
                .map_err(|e| self.node_error(Op::Open, e))?;
            // Requests in flight keep the former descriptor.
            self.file.store(Arc::new(File::new(fd, self.usage.file_options())));
            mode.writable = writable;
        }
        Ok(())
    }

    /// Opens the file anew, with or without the page cache.
    fn change_direct(&self, direct: bool) -> Result<()> {
        let mode = self.mode.lock();
        let access = Access { direct, ..self.usage.access() };
        if access.aio == Aio::Native && !direct {
            return Err(Error::Option(OptionError::Conflict {
                name: "cache.direct".to_owned(),
                problem: "cannot be switched off with aio=native".to_owned(),
            }));
        }
        let fd = access
            .reopen(&**self.file.load(), mode.writable)
            .map_err(|e| self.node_error(Op::Open, e))?;
        let options = access.file_options(&fd, self.kind);
        self.usage.switch(access, options);
        self.file.store(Arc::new(File::new(fd, options)));
        Ok(())
    }

    /// Gives the file its true size, where bulk writes made it longer.
    fn trim(&self) -> io::Result<()> {
        self.bulk.as_ref().map_or(Ok(()), |bulk| bulk.trim(self.size()))
    }

    async fn sync(&self) -> Result<()> {
        let failed = self.flush_error.load(Ordering::Acquire);
        if failed != 0 {
            // The kernel has dropped the dirty pages that it could not write; a flush that succeeds
            // now would hide that.
            let e = io::Error::from_raw_os_error(failed);
            return Err(self
                .node_error(Op::Flush, e)
                .context("an earlier flush failed and its data may be lost"));
        }
        self.file().data_sync().await.map_err(|e| {
            if !self.usage.access().direct {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                self.flush_error.store(errno, Ordering::Release);
            }
            self.node_error(Op::Flush, e)
        })
    }

    async fn copy_from(&self, source: &FileDriver, mut from: u64, to: u64, len: u64) -> Result<()> {
        let (target, origin) = (self.file(), source.file());
        let mut done = 0;
        while done < len {
            let result = target.copy_from(to + done, &origin, from, len - done).await;
            match result {
                Ok(0) => return Err(Error::unsupported(&self.path, "the source ends early")),
                Ok(n) => {
                    done += n;
                    from += n;
                }
                Err(e) if is_unsupported(&e) || e.raw_os_error() == Some(libc::EXDEV) => {
                    let what = "the kernel cannot copy between these files";
                    return Err(Error::unsupported(&self.path, what));
                }
                Err(e) => return Err(self.os_error(Op::CopyRange, to + done, e)),
            }
        }
        self.note_written(to + len);
        Ok(())
    }

    async fn resize_file(&self, size: u64, prealloc: Prealloc) -> Result<()> {
        self.trim().map_err(|e| self.node_error(Op::Resize, e))?;
        let old =
            storage::size(&*self.file(), self.kind).map_err(|e| self.node_error(Op::Resize, e))?;
        if prealloc == Prealloc::Metadata {
            return Err(Error::unsupported(
                &self.path,
                "Unsupported preallocation mode 'metadata'",
            ));
        }
        if prealloc != Prealloc::Off && size < old {
            let what = "preallocation is only possible when the file grows";
            return Err(Error::unsupported(&self.path, what));
        }
        let result = resize::set_size(&self.file(), old, size, prealloc).await;
        self.extents.forget();
        if let (Some(bulk), Ok(())) = (&self.bulk, &result) {
            bulk.resized(size);
            self.size.store(size, Ordering::Release);
        }
        self.refresh_size();
        result.map_err(|e| self.node_error(Op::Resize, e))
    }

    fn resize_device(&self, size: u64, how: Resize) -> Result<()> {
        self.refresh_size();
        let present = self.size();
        if how.prealloc != Prealloc::Off {
            return Err(Error::unsupported(&self.path, "devices cannot be preallocated"));
        }
        if size > present || (how.exact && size != present) {
            let what = format!("the size of a device is fixed, here to {present} bytes");
            return Err(Error::unsupported(&self.path, what));
        }
        Ok(())
    }
}

impl Drop for FileDriver {
    fn drop(&mut self) {
        // For files that are not closed in order, after a failure that was reported.
        let _ = self.trim();
    }
}

impl Driver for FileDriver {
    fn info(&self) -> &'static DriverInfo {
        self.info
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn limits(&self) -> Limits {
        let (memory_alignment, offset_alignment) = self.usage.alignment();
        Limits {
            request_alignment: offset_alignment,
            min_mem_alignment: memory_alignment,
            write_zeroes_alignment: self.sector,
            discard_alignment: self.sector,
            ..Limits::default()
        }
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let result = self.file().read_at(offset, buf).await;
            let (n, mut buf) = result.map_err(|e| self.os_error(Op::Read, offset, e))?;
            if n < buf.len() {
                buf[n..].fill(0);
                if offset + (n as u64) < self.size() {
                    // Somebody shortened the file.
                    self.refresh_size();
                }
            }
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let end = offset + buf.len() as u64;
            let fua = flags.contains(WriteFlags::FUA);
            let direct = match &self.bulk {
                Some(bulk) if !fua => bulk.write(offset, &buf).await,
                _ => None,
            };
            let result = match direct {
                Some(result) => result,
                None => self.file().write_at(offset, buf, fua).await,
            };
            result.map_err(|e| self.os_error(Op::Write, offset, e))?;
            self.note_written(end);
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let zero = Zero {
                offset,
                len,
                size: self.size(),
                unmap: flags.contains(WriteFlags::MAY_UNMAP),
                no_fallback: flags.contains(WriteFlags::NO_FALLBACK),
            };
            self.extents.forget();
            let result = self.missing.zero(&self.file(), self.kind, zero).await;
            self.extents.forget();
            result.map_err(|e| {
                let what = "the storage cannot zero a range efficiently";
                self.or_unsupported(Op::WriteZeroes, offset, e, what)
            })?;
            self.note_written(offset + len);
            if flags.contains(WriteFlags::FUA) { self.sync().await } else { Ok(()) }
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let len = len.min(self.size().saturating_sub(offset));
            if len == 0 {
                return Ok(());
            }
            self.extents.forget();
            let result = self.missing.discard(&self.file(), self.kind, offset, len).await;
            self.extents.forget();
            result.map_err(|e| {
                let what = "the storage cannot discard a range";
                self.or_unsupported(Op::Discard, offset, e, what)
            })
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.sync())
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            let mut extent = Extent { len, status: Status::DATA | Status::OFFSET_VALID, map: None };
            if !precise || self.kind != Kind::Regular {
                return Ok(extent);
            }
            let end = (offset + len).min(self.size());
            if offset >= end {
                extent.status = Status::ZERO | Status::OFFSET_VALID;
                return Ok(extent);
            }
            let run = self
                .extents
                .query(&self.file(), offset, end)
                .await
                .map_err(|e| self.os_error(Op::BlockStatus, offset, e))?;
            // The part of an aligned request behind the end belongs to the last run.
            extent.len = if offset + run.len == end { len } else { run.len };
            if !run.data {
                extent.status = Status::ZERO | Status::OFFSET_VALID;
            }
            Ok(extent)
        })
    }

    fn copy_range_from<'a>(
        &'a self,
        source: &'a dyn Driver,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> DriverFuture<'a, ()> {
        match source.as_any().downcast_ref::<FileDriver>() {
            Some(source) => Box::pin(self.copy_from(source, source_offset, offset, len)),
            None => unsupported(self.info.name, "the source is not a local file"),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            match self.kind {
                Kind::Regular => self.resize_file(size, how.prealloc).await,
                _ => self.resize_device(size, how),
            }
        })
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async move {
            storage::allocated_size(&*self.file())
                .map(Some)
                .map_err(|e| self.node_error(Op::BlockStatus, e))
        })
    }

    fn has_zero_init(&self) -> bool {
        self.kind == Kind::Regular
    }

    fn format_info(&self) -> DriverFuture<'_, FormatInfo> {
        Box::pin(async move {
            let mut specific = Dict::default();
            if let Ok(hint @ 1..) = sys::extent_size_hint(&*self.file()) {
                specific.insert("extent-size-hint", Value::Int(i64::from(hint)));
            }
            Ok(FormatInfo { specific: Some(specific), ..FormatInfo::default() })
        })
    }

    fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        let mut mode = self.mode.lock();
        let before = mode.lock.as_mut().map(|lock| lock.set(perm, shared)).transpose()?;
        let written = mode.written;
        mode.written = perm.intersects(Perm::WRITE | Perm::WRITE_UNCHANGED | Perm::RESIZE);
        if let Err(error) = self.adapt_descriptor(&mut mode) {
            mode.written = written;
            if let (Some(lock), Some((perm, shared))) = (mode.lock.as_mut(), before) {
                // These locks were held a moment ago, and are a subset of those taken since.
                let _ = lock.set(perm, shared);
            }
            return Err(error);
        }
        self.refresh_size();
        Ok(())
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let mut mode = self.mode.lock();
            let before = std::mem::replace(&mut mode.read_only, read_only);
            self.adapt_descriptor(&mut mode).inspect_err(|_| mode.read_only = before)
        })
    }

    fn set_direct(&self, direct: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move { self.change_direct(direct) })
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            // A write that nobody waits for must not come after the locks are gone.
            self.file().settle().await;
            let trimmed = self.trim().map_err(|e| self.node_error(Op::Resize, e));
            // Not left to the descriptor: another thread may be about to let go of it.
            self.mode.lock().lock = None;
            trimmed
        })
    }
}
