//! Filters: nodes that pass the data of a child through, and change or watch what happens to it.
//!
//! A filter says what it does differently by overriding methods of [`Filter`]; everything else goes
//! to its child. [`Filtered`] makes a driver of it.

pub mod blkdebug;
pub(crate) mod blklogwrites;
pub(crate) mod blkverify;
pub(crate) mod compress;
pub(crate) mod copy_on_read;
pub(crate) mod preallocate;
pub(crate) mod quorum;
pub mod throttle;
pub(crate) mod zeroinit;

use std::any::Any;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, Limits, Perm, Resize, Role, Status,
    WriteFlags,
};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::{Edge, OpenContext, default_child_perms};
use crate::options::OptionDesc;

/// Role of the child whose data a filter passes through.
pub(crate) const FILTERED: Role = Role::FILTERED.union(Role::PRIMARY);
/// Longest name behind a filter's prefix that is looked at, in bytes; such names nest.
const MAX_NAME: usize = 4096;

/// A driver that leaves to its child what it does not do itself.
///
/// The contract is that of [`Driver`].
pub(crate) trait Filter: Send + Sync + 'static {
    /// The driver's entry in the registry.
    fn info(&self) -> &'static DriverInfo;

    /// The filtered child.
    fn child(&self) -> &Arc<Edge>;

    /// See [`Driver::size`].
    fn size(&self) -> u64 {
        self.child().size()
    }

    /// See [`Driver::limits`]. The child's node aligns requests itself.
    fn limits(&self) -> Limits {
        Limits { request_alignment: 1, ..self.child().node().driver().limits() }
    }

    /// See [`Driver::read`].
    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(self.child().read(offset, buf))
    }

    /// See [`Driver::write`].
    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.child().write(offset, buf, flags))
    }

    /// See [`Driver::write_compressed`].
    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        Box::pin(self.child().write_compressed(offset, buf))
    }

    /// See [`Driver::write_zeroes`].
    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.child().write_zeroes(offset, len, flags))
    }

    /// See [`Driver::discard`].
    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(self.child().discard(offset, len))
    }

    /// See [`Driver::flush`]; the node flushes the child afterwards.
    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// See [`Driver::block_status`].
    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        let _ = precise;
        Box::pin(async move { Ok(status_of_child(self.child(), offset, len)) })
    }

    /// See [`Driver::resize`].
    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(self.child().resize(size, how))
    }

    /// See [`Driver::watches_events`].
    fn watches_events(&self) -> bool {
        false
    }

    /// See [`Driver::event`].
    fn event(&self, event: Event) -> LocalBoxFuture<'_, ()> {
        let _ = event;
        Box::pin(async {})
    }

    /// See [`Driver::has_zero_init`].
    fn has_zero_init(&self) -> bool {
        self.child().node().driver().has_zero_init()
    }

    /// See [`Driver::child_perms`].
    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        default_child_perms(role, perm, shared, read_only)
    }

    /// See [`Driver::set_permissions`].
    fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        let _ = (perm, shared);
        Ok(())
    }

    /// See [`Driver::reopen`].
    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        let _ = read_only;
        Box::pin(async { Ok(()) })
    }

    /// See [`Driver::close`].
    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// The answer that leads block status on to a filter's child.
pub(crate) fn status_of_child(child: &Arc<Edge>, offset: u64, len: u64) -> Extent {
    let map = Some((Arc::clone(child), offset));
    Extent { len, status: Status::RAW | Status::OFFSET_VALID, map }
}

/// The driver that a [`Filter`] is.
pub(crate) struct Filtered<F>(pub(crate) F);

impl<F: Filter> Driver for Filtered<F> {
    fn info(&self) -> &'static DriverInfo {
        self.0.info()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn write_flags(&self) -> WriteFlags {
        // The child's node emulates what its driver cannot do.
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        self.0.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        self.0.write(offset, buf, flags)
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        self.0.write_compressed(offset, buf)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        self.0.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        self.0.discard(offset, len)
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        self.0.flush()
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        self.0.block_status(offset, len, precise)
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        self.0.resize(size, how)
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async { self.0.child().node().driver().allocated_size().await })
    }

    fn watches_events(&self) -> bool {
        self.0.watches_events()
    }

    fn event(&self, event: Event) -> LocalBoxFuture<'_, ()> {
        self.0.event(event)
    }

    fn has_zero_init(&self) -> bool {
        self.0.has_zero_init()
    }

    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        self.0.child_perms(role, perm, shared, read_only)
    }

    fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        self.0.set_permissions(perm, shared)
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        self.0.reopen(read_only)
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        self.0.close()
    }
}

/// A filter's entry in the registry, but for its name, options and way to open it.
pub(crate) const INFO: DriverInfo = DriverInfo {
    name: "",
    kind: DriverKind::Filter,
    open: no_open,
    probe: None,
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: &[] as &[OptionDesc],
    create_options: &[],
    create: None,
    measure: None,
    supports_backing: false,
};

fn no_open<'a>(_: &'a mut OpenContext<'_>) -> DriverFuture<'a, Box<dyn Driver>> {
    crate::driver::unsupported("filter", "a filter without a name cannot be opened")
}

/// Takes a name of the form `PREFIX:FIRST:IMAGE` apart; returns `FIRST` and `IMAGE`.
pub(crate) fn split_name<'n>(name: &'n str, prefix: &str) -> Result<(&'n str, &'n str)> {
    let shape = || Error::unsupported(name, format!("names of this kind are {prefix}…:IMAGE"));
    let rest = name.strip_prefix(prefix).filter(|_| name.len() <= MAX_NAME).ok_or_else(shape)?;
    rest.split_once(':').ok_or_else(shape)
}
