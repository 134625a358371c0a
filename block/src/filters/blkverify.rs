//! `blkverify`: every request goes to two images, and what they return must be the same.
//!
//! The image under test is compared with a raw one, on which there is little to get wrong. A read that
//! finds a difference fails and tells where.

use std::sync::Arc;

use super::{FILTERED, Filter, Filtered, INFO, split_name};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Driver, DriverFuture, DriverInfo, Resize, Role, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::{Edge, OpenContext};

/// Prefix of names: `blkverify:RAW:IMAGE`.
const PREFIX: &str = "blkverify:";

/// The driver's entry in the registry.
pub(crate) static BLKVERIFY: DriverInfo = DriverInfo {
    name: "blkverify",
    open: |context| Box::pin(open(context)),
    prefixes: &["blkverify"],
    parse_filename: Some(|name, options| {
        let (raw, test) = split_name(name, PREFIX)?;
        options.insert("x-raw", raw);
        options.insert("x-image", test);
        Ok(())
    }),
    options: Options::TABLE,
    ..INFO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// Name of the raw image.
        "x-raw" => raw: Option<String>,
        /// Name of the image under test.
        "x-image" => test: Option<String>,
    }
}

struct BlkVerify {
    /// The image whose content is taken for right.
    raw: Arc<Edge>,
    /// The image under test.
    test: Arc<Edge>,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    for (key, name) in [("raw", options.raw), ("test", options.test)] {
        if let Some(name) = name {
            context.name_child(key, &name)?;
        }
    }
    let raw = context.child("raw", Role::DATA).await?;
    let test = context.child("test", FILTERED).await?;
    Ok(Box::new(Filtered(BlkVerify { raw, test })))
}

impl BlkVerify {
    /// Fails if the two images gave different bytes for a read at `offset`.
    fn compare(&self, offset: u64, right: &[u8], found: &[u8]) -> Result<()> {
        let Some(first) = right.iter().zip(found).position(|(a, b)| a != b) else {
            return Ok(());
        };
        Err(Error::corrupt(
            self.test.node().label(),
            format!(
                "byte {} differs from that of '{}'",
                offset.saturating_add(first as u64),
                self.raw.node().label()
            ),
        ))
    }

    /// Waits for a request to both images; either failure fails it.
    async fn both(
        raw: impl Future<Output = Result<()>>,
        test: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let (raw, test) = futures_util::join!(raw, test);
        test.and(raw)
    }
}

impl Filter for BlkVerify {
    fn info(&self) -> &'static DriverInfo {
        &BLKVERIFY
    }

    fn child(&self) -> &Arc<Edge> {
        &self.test
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let beside = IoBufMut::new(buf.len());
            let (right, found) =
                futures_util::join!(self.raw.read(offset, beside), self.test.read(offset, buf));
            let (right, found) = (right?, found?);
            self.compare(offset, &right, &found)?;
            Ok(found)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let raw = self.raw.write(offset, buf.clone(), flags);
            BlkVerify::both(raw, self.test.write(offset, buf, flags)).await
        })
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let raw = self.raw.write(offset, buf.clone(), WriteFlags::empty());
            BlkVerify::both(raw, self.test.write_compressed(offset, buf)).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let raw = self.raw.write_zeroes(offset, len, flags);
            BlkVerify::both(raw, self.test.write_zeroes(offset, len, flags)).await
        })
    }

    fn discard(&self, _: u64, _: u64) -> DriverFuture<'_, ()> {
        // What discarded ranges hold is not specified, so that the images could rightly differ.
        crate::driver::unsupported(BLKVERIFY.name, "discards would make the images differ")
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let how = Resize { zero_new: true, ..how };
            BlkVerify::both(self.raw.resize(size, how), self.test.resize(size, how)).await
        })
    }
}
