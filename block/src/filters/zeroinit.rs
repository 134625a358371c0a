//! `zeroinit`: a disk that is known to read as zeroes, though its driver cannot say so.
//!
//! Zeroes that are to be written where nothing was written yet are there already, so that copying to a
//! fresh volume with `convert -n` leaves its holes alone. Proxmox VE names such targets `zeroinit:IMAGE`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::IoBuf;
use crate::driver::{Driver, DriverFuture, DriverInfo, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::{Edge, OpenContext};

/// Prefix of names: `zeroinit:IMAGE`.
const PREFIX: &str = "zeroinit:";

/// The driver's entry in the registry.
pub(crate) static ZEROINIT: DriverInfo = DriverInfo {
    name: "zeroinit",
    open: |context| Box::pin(open(context)),
    prefixes: &["zeroinit"],
    parse_filename: Some(|name, options| {
        let image = name.strip_prefix(PREFIX).ok_or_else(|| {
            Error::unsupported(name, format!("names of this kind are {PREFIX}IMAGE"))
        })?;
        options.insert("x-filename", image);
        Ok(())
    }),
    options: Options::TABLE,
    ..INFO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// Name of the image.
        "x-filename" => image: Option<String>,
    }
}

struct ZeroInit {
    file: Arc<Edge>,
    /// Behind this offset, in bytes, nothing was written yet.
    written: AtomicU64,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    if let Some(image) = options.image {
        context.name_child("file", &image)?;
    }
    let file = context.child("file", FILTERED).await?;
    Ok(Box::new(Filtered(ZeroInit { file, written: AtomicU64::new(0) })))
}

impl ZeroInit {
    /// Notes a write before it begins.
    fn note(&self, offset: u64, buf: &IoBuf) {
        self.written.fetch_max(offset.saturating_add(buf.len() as u64), Ordering::Relaxed);
    }
}

impl Filter for ZeroInit {
    fn info(&self) -> &'static DriverInfo {
        &ZEROINIT
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        self.note(offset, &buf);
        Box::pin(self.file.write(offset, buf, flags))
    }

    fn write_compressed(&self, offset: u64, buf: IoBuf) -> DriverFuture<'_, ()> {
        self.note(offset, &buf);
        Box::pin(self.file.write_compressed(offset, buf))
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let behind = self.written.load(Ordering::Relaxed).saturating_sub(offset);
            if behind == 0 {
                return Ok(());
            }
            self.file.write_zeroes(offset, len.min(behind), flags).await
        })
    }

    fn has_zero_init(&self) -> bool {
        self.written.load(Ordering::Relaxed) == 0
    }
}
