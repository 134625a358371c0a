//! `info`: what an image is, from its metadata alone.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_block::driver::{DriverKind, FormatInfo, Limits, Role};
use cairn_block::graph::{Graph, Node, Policy, Rule};
use cairn_block::options::{CacheMode, filename};

use super::image::{Access, ImageSpec};
use super::limits::limits;
use super::safety::{Safety, Subject, judge};
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
    /// What requests must or should keep, if that was asked for.
    pub limits: Option<Limits>,
    /// Whether the image may be used, if that was asked for.
    pub safety: Option<Safety>,
    /// Children other than the backing file, by name, newest first.
    pub children: Vec<(String, ImageInfo)>,
}

/// What to describe.
#[derive(Clone, Debug)]
pub struct InfoRequest {
    /// The image.
    pub image: ImageSpec,
    /// Others may be writing to it.
    pub force_share: bool,
    /// Describe the images below it as well, each opened for itself.
    pub backing_chain: bool,
    /// Cache mode, which limits depend on.
    pub cache: CacheMode,
    /// Describe limits for requests.
    pub limits: bool,
    /// Judge the images by this policy.
    pub judge: Option<Policy>,
}

impl InfoRequest {
    /// The image and those below it.
    pub fn chain(image: ImageSpec) -> InfoRequest {
        InfoRequest {
            image,
            force_share: false,
            backing_chain: true,
            cache: CacheMode::Writeback,
            limits: false,
            judge: None,
        }
    }
}

/// Describes images.
pub async fn info(graph: &Arc<Graph>, request: &InfoRequest) -> Result<Vec<ImageInfo>> {
    let access = Access {
        metadata_only: true,
        force_share: request.force_share,
        cache: request.cache,
        ..Access::default()
    };
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(request.image.clone());
    while let Some(spec) = next.take() {
        if !seen.insert(spec.label().to_owned()) {
            return Err(Error::Usage(format!(
                "backing file '{}' leads back to itself: the chain has no end",
                spec.label()
            )));
        }
        let image = spec.open(graph, &access).await?;
        let node = image.node();
        let mut info = describe(&node, request.limits).await?;
        if let Some(policy) = &request.judge {
            let subject = Subject {
                node: &node,
                format_info: &info.format_info,
                backing_file: info.full_backing_file.as_deref(),
            };
            info.safety = Some(judge(&subject, policy).await);
        }
        let base = node.base_filename().unwrap_or_default();
        drop(node);
        image.close().await?;
        if request.backing_chain && info.format_info.backing_file.is_some() {
            next = Some(backing_spec(graph, &info, &base, images.len() + 2)?);
        }
        images.push(info);
    }
    Ok(images)
}

/// The backing file of an image called `base`, which would be image number `depth` of its chain.
fn backing_spec(graph: &Graph, info: &ImageInfo, base: &str, depth: usize) -> Result<ImageSpec> {
    let stored = info.format_info.backing_file.as_deref().unwrap_or_default();
    let name = info.full_backing_file.clone().ok_or_else(|| {
        Error::Usage(format!(
            "cannot tell where the backing file '{stored}' of '{}' is",
            info.filename
        ))
    })?;
    let policy = graph.policy();
    policy.check_reference(base, "backing file", &name)?;
    if let Some(most) = policy.bounds.chain_depth.filter(|&most| depth > most) {
        let what = format!("its chain of backing files has more than {most} images");
        return Err(cairn_block::Error::refused(base, Rule::ChainDepth, what).into());
    }
    Ok(ImageSpec::File { name, format: info.format_info.backing_format.clone() })
}

async fn describe(node: &Arc<Node>, with_limits: bool) -> Result<ImageInfo> {
    let mut format_info = node.driver().format_info().await?;
    if !node.is_remote() {
        // Of files it is known that they are never dirty; of what a server has nothing is known.
        format_info.dirty.get_or_insert(false);
    }
    let base = node.base_filename().unwrap_or_default();
    let full_backing_file = format_info
        .backing_file
        .as_deref()
        .and_then(|stored| filename::resolve_backing(stored, &base).ok());
    let mut children = Vec::new();
    for edge in node.children().iter().rev() {
        if !edge.role().contains(Role::COW) {
            let child = Box::pin(describe(&edge.node(), with_limits)).await?;
            children.push((edge.name().to_owned(), child));
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
        limits: with_limits.then(|| limits(node)),
        safety: None,
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
