//! `compress`: every write goes to the child compressed.

use std::sync::Arc;

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::IoBuf;
use crate::driver::{Driver, DriverFuture, DriverInfo, DriverKind, Limits, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::{Edge, OpenContext};

/// The driver's entry in the registry.
pub(crate) static COMPRESS: DriverInfo =
    DriverInfo { name: "compress", open: |context| Box::pin(open(context)), ..INFO };

struct Compress {
    file: Arc<Edge>,
    /// Unit of compression in bytes; writes are made to fit it.
    cluster_size: u32,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let file = context.child("file", FILTERED).await?;
    let layer = crate::graph::skip_filters(file.node());
    let facts = layer.driver().format_info().await?;
    let cluster_size = facts.cluster_size.and_then(|size| u32::try_from(size).ok());
    let can_compress = layer.driver().info().kind == DriverKind::Format;
    let Some(cluster_size) = cluster_size.filter(|_| can_compress) else {
        let what = format!("the format '{}' cannot store compressed data", layer.format());
        return Err(Error::unsupported(context.label(), what));
    };
    Ok(Box::new(Filtered(Compress { file, cluster_size })))
}

impl Filter for Compress {
    fn info(&self) -> &'static DriverInfo {
        &COMPRESS
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn limits(&self) -> Limits {
        Limits { request_alignment: self.cluster_size, ..self.file.node().driver().limits() }
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let mut at = offset;
            let mut rest = buf;
            let cluster = usize::try_from(self.cluster_size).unwrap_or(usize::MAX);
            // The node aligns requests, but the last cluster of a disk may be short.
            let end = self.size();
            while !rest.is_empty() && at < end {
                let present = usize::try_from(end - at).unwrap_or(usize::MAX);
                let len = rest.len().min(cluster).min(present);
                self.file.write_compressed(at, rest.slice(..len)).await?;
                rest = rest.slice(len..);
                at += len as u64;
            }
            if flags.contains(WriteFlags::FUA) { self.file.flush().await } else { Ok(()) }
        })
    }
}
