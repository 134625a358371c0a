//! `dd`: copy a part of an image into a new image.

use std::ops::Range;
use std::sync::Arc;

use cairn_block::graph::{Backend, Graph};
use cairn_block::options::CacheMode;

use super::convert::{Copy, Sources, Zeroes};
use super::create::{CreateRequest, NewImage, Plan};
use super::image::{Access, ImageSpec};
use crate::error::Result;

/// Requests in flight.
const PARALLEL: usize = 8;

/// What to copy where.
#[derive(Clone, Debug)]
pub struct DdRequest {
    /// Source image.
    pub source: ImageSpec,
    /// Others may be writing to the source.
    pub force_share: bool,
    /// File name of the image to create.
    pub target: String,
    /// Its format.
    pub target_format: String,
    /// Bytes of a block.
    pub block: u64,
    /// Blocks of the source to look at, from its beginning; `None` for all.
    pub count: Option<u64>,
    /// Blocks at the beginning of the source to leave out.
    pub skip: u64,
}

/// Result of [`dd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The part was copied.
    All,
    /// What was to be left out is more than there is: the new image is empty.
    SkippedBeyondEnd,
}

/// The part of a source that is to be copied, and the image to create for it.
struct Task {
    source: Backend,
    part: Range<u64>,
    new: CreateRequest,
    copied: Copied,
}

impl Task {
    async fn new(graph: &Arc<Graph>, request: DdRequest) -> Result<Task> {
        let access = Access::read(CacheMode::Writeback, request.force_share);
        let source = request.source.open(graph, &access).await?;
        let size = source.size();
        let end = match request.count {
            Some(count) => size.min(count.saturating_mul(request.block)),
            None => size,
        };
        let wanted = request.skip.saturating_mul(request.block);
        let part = wanted.min(end)..end;
        let new = CreateRequest {
            filename: request.target,
            format: request.target_format,
            size: Some(part.end - part.start),
            ..CreateRequest::default()
        };
        let copied = if wanted > size { Copied::SkippedBeyondEnd } else { Copied::All };
        Ok(Task { source, part, new, copied })
    }
}

/// What [`dd`] would do.
pub async fn rehearse(graph: &Arc<Graph>, request: DdRequest) -> Result<String> {
    let Task { source, part, new, .. } = Task::new(graph, request).await?;
    let plan = Plan::new(graph, &new).await?;
    let told = plan.rehearse(graph).await;
    source.close().await?;
    Ok(format!(
        "{}\nWould copy {} bytes from offset {} on into it.",
        told?,
        part.end - part.start,
        part.start
    ))
}

/// Copies. Every byte of the part is written, zeroes too.
pub async fn dd(graph: &Arc<Graph>, request: DdRequest) -> Result<Copied> {
    let Task { source, part, new, copied: result } = Task::new(graph, request).await?;
    let plan = Plan::new(graph, &new).await?;
    let image = NewImage::create(graph, &plan).await?;
    let spec =
        ImageSpec::File { name: image.filename.clone(), format: Some(plan.driver.name.to_owned()) };
    let access = Access { write: true, ..Access::default() };
    let target = image.with_name(spec.open(graph, &access).await)?;
    let sources = Sources::part(source, part);
    let copied = Copy {
        sources: &sources,
        target: &target,
        zeroes: Zeroes::AsData,
        sparse: 0,
        compressed_cluster: None,
        target_backing: None,
        allocated_only: false,
        parallel: PARALLEL,
        in_order: true,
        copy_range: false,
        rate: None,
        salvage: false,
        verified_later: false,
    }
    .run(&())
    .await;
    let closed = (target.close().await, sources.close().await);
    image.with_name(copied)?;
    image.with_name(closed.0.map_err(Into::into))?;
    closed.1?;
    image.commit()?;
    Ok(result)
}
