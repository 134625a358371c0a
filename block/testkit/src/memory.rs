//! A protocol whose storage is memory.

use std::any::Any;
use std::sync::Arc;

use cairn_block::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, Resize, Status, WriteFlags, unsupported,
};
use cairn_block::{IoBuf, IoBufMut};
use parking_lot::Mutex;

use crate::Disk;

/// Registry entry of a driver that only tests make.
pub(crate) const fn protocol(name: &'static str) -> DriverInfo {
    DriverInfo {
        name,
        kind: DriverKind::Protocol,
        open: |_| unsupported("test device", "it is made by the test, not opened"),
        probe: None,
        prefixes: &[],
        parse_filename: None,
        probe_device: None,
        options: &[],
        create_options: &[],
        create: None,
        measure: None,
        supports_backing: false,
    }
}

static INFO: DriverInfo = protocol("test-memory");

/// Status of the run at `offset` of `disk`, at most `len` long.
pub(crate) fn extent(disk: &Disk, offset: u64, len: u64) -> Extent {
    let (run, stored) = disk.run(offset);
    let kind = if stored { Status::DATA } else { Status::ZERO };
    let run = run.clamp(1, len);
    let mut status = kind | Status::ALLOCATED;
    status.set(Status::EOF, offset + run >= disk.size());
    Extent { len: run, status, map: None }
}

/// A protocol that keeps its data in memory. Clones share it, and so a test keeps a handle to what a
/// graph uses.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Disk>>);

impl Memory {
    /// A device that begins with the content of `disk`.
    pub fn new(disk: Disk) -> Memory {
        Memory(Arc::new(Mutex::new(disk)))
    }

    /// The present content.
    pub fn disk(&self) -> Disk {
        self.0.lock().clone()
    }
}

impl Driver for Memory {
    fn info(&self) -> &'static DriverInfo {
        &INFO
    }

    fn size(&self) -> u64 {
        self.0.lock().size()
    }

    fn read(&self, offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            self.0.lock().read(offset, &mut buf);
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.0.lock().write(offset, &buf);
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let mut disk = self.0.lock();
            if offset + len > disk.size() {
                disk.resize(offset + len);
            }
            disk.punch(offset, len);
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.0.lock().punch(offset, len);
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64, _precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move { Ok(extent(&self.0.lock(), offset, len)) })
    }

    fn resize(&self, size: u64, _how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.0.lock().resize(size);
            Ok(())
        })
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async move { Ok(Some(self.0.lock().allocated())) })
    }

    fn has_zero_init(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
