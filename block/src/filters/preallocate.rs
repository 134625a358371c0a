//! `preallocate`: the file grows in large steps ahead of the writes, so that a format above need not
//! extend it for every cluster. What was not used in the end is cut off again.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::IoBuf;
use crate::driver::{Driver, DriverFuture, DriverInfo, Perm, Resize, Role, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::{Edge, OpenContext, default_child_perms};
use crate::options::{OptionError, Size};

/// The driver's entry in the registry.
pub(crate) static PREALLOCATE: DriverInfo = DriverInfo {
    name: "preallocate",
    open: |context| Box::pin(open(context)),
    options: Options::TABLE,
    ..INFO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// The file ends at multiples of this.
        "prealloc-align" => align: Size = "1M",
        /// How much more than needed the file grows.
        "prealloc-size" => size: Size = "128M",
    }
}

/// Smallest unit of preallocation in bytes.
const SECTOR: u64 = 512;

struct Preallocate {
    file: Arc<Edge>,
    align: u64,
    ahead: u64,
    ends: Mutex<Ends>,
    /// One growth at a time.
    growing: AsyncMutex<()>,
}

/// Where things end, in bytes.
#[derive(Clone, Copy)]
struct Ends {
    /// What was written or asked for: the size that others see.
    data: u64,
    /// The file.
    file: u64,
    /// The file cannot be extended cheaply; not tried again.
    gave_up: bool,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let align = options.align.0;
    if align == 0 || !align.is_multiple_of(SECTOR) {
        let value = align.into();
        let expected = format!("a multiple of {SECTOR} above 0");
        return Err(OptionError::invalid("prealloc-align", &value, expected).into());
    }
    let file = context.child("file", FILTERED).await?;
    let size = file.size();
    Ok(Box::new(Filtered(Preallocate {
        file,
        align,
        ahead: options.size.0,
        ends: Mutex::new(Ends { data: size, file: size, gave_up: false }),
        growing: AsyncMutex::new(()),
    })))
}

impl Preallocate {
    /// Where the file should end so that a write up to `end` and more fit.
    fn target(&self, end: u64) -> Option<u64> {
        end.checked_add(self.ahead)?.checked_next_multiple_of(self.align)
    }

    /// Makes room for a write that ends at `end`.
    async fn reserve(&self, end: u64) {
        if end <= self.ends.lock().file {
            return;
        }
        let _one = self.growing.lock().await;
        let Ends { file, gave_up, .. } = *self.ends.lock();
        let Some(target) = self.target(end) else { return };
        if end <= file || gave_up {
            return;
        }
        let flags = WriteFlags::NO_FALLBACK;
        let grown = self.file.write_zeroes(file, target - file, flags).await;
        let mut ends = self.ends.lock();
        match grown {
            Ok(()) => ends.file = ends.file.max(target),
            // Growing ahead is a help, not a duty: the write itself will say what is wrong.
            Err(error) => ends.gave_up = error.is_unsupported(),
        }
    }

    /// Notes that there is data up to `end`.
    fn note(&self, end: u64) {
        let mut ends = self.ends.lock();
        ends.data = ends.data.max(end);
        ends.file = ends.file.max(end);
    }

    /// Runs a write that ends at `end`.
    async fn writing(&self, end: u64, write: impl Future<Output = Result<()>>) -> Result<()> {
        self.reserve(end).await;
        write.await?;
        self.note(end);
        Ok(())
    }

    /// Cuts off what was not used.
    async fn trim(&self) -> Result<()> {
        let _one = self.growing.lock().await;
        let Ends { data, file, .. } = *self.ends.lock();
        if file <= data {
            return Ok(());
        }
        let how = Resize { exact: true, ..Resize::default() };
        self.file.resize(data, how).await.map_err(|error: Error| {
            error.context(format!("cannot cut '{}' to its data", self.file.node().label()))
        })?;
        self.ends.lock().file = data;
        Ok(())
    }
}

impl Filter for Preallocate {
    fn info(&self) -> &'static DriverInfo {
        &PREALLOCATE
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn size(&self) -> u64 {
        self.ends.lock().data
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let end = offset.saturating_add(buf.len() as u64);
        Box::pin(self.writing(end, self.file.write(offset, buf, flags)))
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        let end = offset.saturating_add(len);
        Box::pin(self.writing(end, self.file.write_zeroes(offset, len, flags)))
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.trim().await?;
            self.file.resize(size, how).await?;
            let size = self.file.size();
            let mut ends = self.ends.lock();
            (ends.data, ends.file) = (size, size);
            Ok(())
        })
    }

    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        let (mut used, shared) = default_child_perms(role, perm, shared, read_only);
        if used.contains(Perm::WRITE) {
            used |= Perm::RESIZE;
        }
        (used, shared)
    }

    fn reopen(&self, read_only: bool) -> DriverFuture<'_, ()> {
        Box::pin(async move { if read_only { self.trim().await } else { Ok(()) } })
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.trim())
    }
}
