//! "Creating" an image in an export: its size is what the server says, so that only its beginning is
//! cleared, as for devices.

use std::sync::Arc;

use crate::buf::IoBuf;
use crate::driver::WriteFlags;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeFlags, OpenOptions};
use crate::num::AsUsize;
use crate::options::{Dict, Size};

/// Bytes at the beginning that are cleared, so that no earlier format is recognised.
const HEADER: u64 = 512;

crate::options! {
    /// Options for preparing an export.
    pub(super) struct CreateOptions {
        /// Size that the export must at least have.
        "size" => size: Size = "0",
    }
}

/// Prepares the export called `filename` for a new image.
pub(super) async fn create(graph: &Arc<Graph>, filename: &str, options: Dict) -> Result<()> {
    let options = CreateOptions::parse(options, "driver 'nbd'")?;
    let node = graph.open(OpenOptions::file(filename, Some("nbd"), NodeFlags::default())).await?;
    let present = node.size();
    let result = if present < options.size.0 {
        let needed = options.size.0;
        let what = format!("the export has {present} bytes, {needed} are needed");
        Err(Error::unsupported(filename, what))
    } else {
        let header = IoBuf::zeroed(present.min(HEADER).as_usize());
        node.write(0, header, WriteFlags::FUA).await
    };
    let closed = node.driver().close().await;
    result.and(closed)
}
