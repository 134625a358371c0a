//! `info`: what an image is, from its metadata alone.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_block::driver::{DriverKind, FormatInfo, Role};
use cairn_block::graph::{Graph, Node};
use cairn_block::options::filename;

use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Sizes are shown in whole sectors of this many bytes.
const SECTOR: u64 = 512;

/// What is known of one node, and of those below it.
#[derive(Clone, Debug, Default)]
pub struct ImageInfo {
    /// The name that opens it again.
    pub filename: String,
    /// Format or protocol.
    pub format: String,
    /// It is a protocol: its size is the length of a file.
    pub is_protocol: bool,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of storage in use.
    pub allocated_size: Option<u64>,
    /// Backing file with the overlay's directory applied, where that can be known.
    pub full_backing_file: Option<String>,
    /// The format's facts.
    pub format_info: FormatInfo,
    /// Children other than the backing file, by name, newest first.
    pub children: Vec<(String, ImageInfo)>,
}

/// Describes `spec`, and with `backing_chain` the images below it, each opened for itself.
pub async fn info(
    graph: &Arc<Graph>,
    spec: ImageSpec,
    force_share: bool,
    backing_chain: bool,
) -> Result<Vec<ImageInfo>> {
    let access = Access { metadata_only: true, force_share, ..Access::default() };
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(spec);
    while let Some(spec) = next.take() {
        if !seen.insert(spec.label().to_owned()) {
            return Err(Error::Usage(format!(
                "backing file '{}' leads back to itself: the chain has no end",
                spec.label()
            )));
        }
        let image = spec.open(graph, &access).await?;
        let info = describe(&image.node()).await?;
        image.close().await?;
        if backing_chain && let Some(stored) = &info.format_info.backing_file {
            let name = info.full_backing_file.clone().ok_or_else(|| {
                Error::Usage(format!(
                    "cannot tell where the backing file '{stored}' of '{}' is",
                    info.filename
                ))
            })?;
            next = Some(ImageSpec::File { name, format: info.format_info.backing_format.clone() });
        }
        images.push(info);
    }
    Ok(images)
}

async fn describe(node: &Arc<Node>) -> Result<ImageInfo> {
    let format_info = node.driver().format_info().await?;
    let base = node.base_filename().unwrap_or_default();
    let full_backing_file = format_info
        .backing_file
        .as_deref()
        .and_then(|stored| filename::resolve_backing(stored, &base).ok());
    let mut children = Vec::new();
    for edge in node.children().iter().rev() {
        if !edge.role().contains(Role::COW) {
            children.push((edge.name().to_owned(), Box::pin(describe(&edge.node())).await?));
        }
    }
    Ok(ImageInfo {
        filename: node.filename(),
        format: node.format().to_owned(),
        is_protocol: node.driver().info().kind == DriverKind::Protocol,
        size: node.size().next_multiple_of(SECTOR),
        allocated_size: match node.driver().allocated_size().await? {
            Some(size) => Some(size),
            None => children_allocated(&children),
        },
        full_backing_file,
        format_info,
        children,
    })
}

/// What the children together use, if that is known of all of them.
fn children_allocated(children: &[(String, ImageInfo)]) -> Option<u64> {
    if children.is_empty() {
        return None;
    }
    children.iter().try_fold(0u64, |sum, (_, child)| sum.checked_add(child.allocated_size?))
}
