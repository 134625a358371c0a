//! `null-co` and `null-aio`: a device of any size that keeps nothing, for tests and measurements.

use std::any::Any;
use std::time::Duration;

use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Driver, DriverFuture, DriverInfo, DriverKind, Extent, Status, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::OpenContext;
use crate::options::Size;

/// The synchronous variant of the reference.
pub(crate) static NULL_CO: DriverInfo = DriverInfo {
    name: "null-co",
    kind: DriverKind::Protocol,
    open: |context| Box::pin(async move { open(context, &NULL_CO) }),
    probe: None,
    prefixes: &["null-co"],
    parse_filename: Some(|name, _| check_filename(name, "null-co://")),
    probe_device: None,
    options: Options::TABLE,
    create_options: &[],
    create: None,
    measure: None,
    supports_backing: false,
};

/// The asynchronous variant of the reference; here there is no difference.
pub(crate) static NULL_AIO: DriverInfo = DriverInfo {
    name: "null-aio",
    open: |context| Box::pin(async move { open(context, &NULL_AIO) }),
    prefixes: &["null-aio"],
    parse_filename: Some(|name, _| check_filename(name, "null-aio://")),
    ..NULL_CO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// Size of the device.
        "size" => size: Size = "1G" [strong],
        /// Time that each request takes, in nanoseconds.
        "latency-ns" => latency_ns: u64 = "0",
        /// Reads return zeroes; else they leave the buffer as it is.
        "read-zeroes" => read_zeroes: bool = "off" [strong],
    }
}

fn check_filename(name: &str, only: &'static str) -> Result<()> {
    if name == only {
        return Ok(());
    }
    Err(Error::unsupported(name, format!("the only name for this driver is '{only}'")))
}

fn open(context: &mut OpenContext<'_>, info: &'static DriverInfo) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    context.set_filename(format!("{}://", info.name));
    Ok(Box::new(Null {
        info,
        size: options.size.0,
        latency: Duration::from_nanos(options.latency_ns),
        read_zeroes: options.read_zeroes,
    }))
}

struct Null {
    info: &'static DriverInfo,
    size: u64,
    latency: Duration,
    read_zeroes: bool,
}

impl Null {
    async fn pause(&self) -> Result<()> {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        Ok(())
    }
}

impl Driver for Null {
    fn info(&self) -> &'static DriverInfo {
        self.info
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, _offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            self.pause().await?;
            if self.read_zeroes {
                buf.fill(0);
            }
            Ok(buf)
        })
    }

    fn write(&self, _offset: u64, _buf: IoBuf, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.pause())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(self.pause())
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(self.pause())
    }

    fn block_status(&self, _offset: u64, len: u64, _precise: bool) -> DriverFuture<'_, Extent> {
        let mut status = Status::DATA | Status::OFFSET_VALID;
        status.set(Status::ZERO, self.read_zeroes);
        Box::pin(async move { Ok(Extent { len, status, map: None }) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async { Ok(Some(0)) })
    }
}
