//! `convert`: copy images into another.
//!
//! One pipeline does it: lanes take turns to claim the next piece of the sources (by its block
//! status), read it, look for zeroes in it and write it. The lanes of a run share a bounded number of
//! buffers, so that reading, scanning, compressing and writing overlap while memory stays bounded.

mod pipeline;
mod rate;
mod source;
mod sparse;

use std::sync::Arc;

use cairn_block::dirty_bitmap::{BitmapChange, BitmapInfo};
use cairn_block::graph::{Backend, Graph, backing_of};
use cairn_block::options::{CacheMode, Dict};
use cairn_block::snapshot::SnapshotKey;

pub use pipeline::Notice;
pub(super) use pipeline::{Copy, Zeroes};
pub(super) use source::Sources;

use super::create::{CreateRequest, NewImage, Plan};
use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Sizes of images are counted in sectors of this many bytes where several are joined.
pub const SECTOR: u64 = 512;

/// What to convert into.
#[derive(Clone, Debug)]
pub enum Target {
    /// An image to be created; its size is that of the sources.
    New(CreateRequest),
    /// An image that is there.
    Existing {
        /// The image.
        image: ImageSpec,
        /// It reads as zeroes all over.
        is_zero: bool,
        /// It has a backing file that provides what the top layer of the source does not store.
        has_backing: bool,
    },
}

/// Persistent bitmaps that go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitmaps {
    /// None.
    None,
    /// All; inconsistent ones prevent the copy.
    All,
    /// All but the inconsistent ones.
    Sound,
}

/// What to copy, and how.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// Source images, to be joined.
    pub sources: Vec<ImageSpec>,
    /// Cache mode of the sources.
    pub source_cache: CacheMode,
    /// Others may be writing to the sources.
    pub force_share: bool,
    /// Copy this internal snapshot of the source.
    pub snapshot: Option<SnapshotKey>,
    /// Which persistent bitmaps of the source to copy.
    pub bitmaps: Bitmaps,
    /// Where to.
    pub target: Target,
    /// Cache mode of the target.
    pub target_cache: CacheMode,
    /// Compress the data.
    pub compress: bool,
    /// Shortest run of zeroes in data that is left out, in bytes; 0 writes out all zeroes as data.
    pub sparse: u64,
    /// Requests in flight.
    pub parallel: usize,
    /// Write in any order.
    pub any_order: bool,
    /// Let the kernel copy where it can.
    pub copy_range: bool,
    /// Highest rate of writing in bytes per second.
    pub rate: Option<u64>,
    /// Go on after read errors.
    pub salvage: bool,
}

/// Converts. `notice` is told about progress and about what was salvaged.
pub async fn convert(
    graph: &Arc<Graph>,
    request: ConvertRequest,
    notice: &dyn Notice,
) -> Result<()> {
    let access =
        Access { exclusive: true, ..Access::read(request.source_cache, request.force_share) };
    let mut images = Vec::with_capacity(request.sources.len());
    for spec in &request.sources {
        let image = spec.open(graph, &access).await?;
        if let Some(snapshot) = &request.snapshot {
            let shown = graph.show_snapshot(&image.node(), snapshot.clone()).await;
            shown.map_err(|error| error.context(format!("cannot read snapshot '{snapshot}'")))?;
        }
        images.push(image);
    }
    let sources = Sources::new(images);
    let bitmaps = chosen_bitmaps(graph, &request, &sources, notice).await?;
    let created = prepare(graph, &request, &sources).await?;
    let result = copy(graph, &request, &created, &sources, &bitmaps, notice).await;
    let closed = sources.close().await;
    let Some(image) = created.image else { return result.and(closed) };
    image.with_name(result)?;
    closed?;
    image.commit()
}

/// The bitmaps of the source that are to be copied.
async fn chosen_bitmaps(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    sources: &Sources,
    notice: &dyn Notice,
) -> Result<Vec<BitmapInfo>> {
    let Some(source) = sources.backends().next().filter(|_| request.bitmaps != Bitmaps::None)
    else {
        return Ok(Vec::new());
    };
    let mut chosen = Vec::new();
    for bitmap in graph.bitmaps(&source.node()).await? {
        if !bitmap.inconsistent {
            chosen.push(bitmap);
        } else if request.bitmaps == Bitmaps::Sound {
            notice.salvaged(&format!("bitmap '{}' is inconsistent and left out", bitmap.name));
        } else {
            return Err(Error::Usage(format!(
                "bitmap '{}' is inconsistent; use --skip-broken-bitmaps to leave it out, or remove it",
                bitmap.name
            )));
        }
    }
    Ok(chosen)
}

async fn copy_bitmaps(
    graph: &Arc<Graph>,
    sources: &Sources,
    target: &Backend,
    bitmaps: &[BitmapInfo],
) -> Result<()> {
    let Some(source) = sources.backends().next() else { return Ok(()) };
    for BitmapInfo { name, granularity_bits, enabled, .. } in bitmaps {
        let node = target.node();
        let content = Arc::new(graph.load_bitmap(&source.node(), name).await?);
        let add =
            BitmapChange::Add { granularity_bits: Some(*granularity_bits), enabled: *enabled };
        for change in [add, BitmapChange::Merge(content)] {
            let changed = graph.change_bitmap(&node, name, change).await;
            changed.map_err(|error| error.context(format!("cannot copy bitmap '{name}'")))?;
        }
    }
    Ok(())
}

/// The target before it is opened.
struct Prepared {
    /// The image that was created for this run.
    image: Option<NewImage>,
    spec: ImageSpec,
    /// What opens the image besides its name.
    options: Dict,
    /// Data that a backing file of the target has need not be written.
    has_backing: bool,
}

async fn prepare(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    sources: &Sources,
) -> Result<Prepared> {
    let new = match &request.target {
        Target::Existing { image, has_backing, .. } => {
            let (spec, options) = (image.clone(), Dict::new());
            return Ok(Prepared { image: None, spec, options, has_backing: *has_backing });
        }
        Target::New(new) => CreateRequest { size: Some(sources.size()), ..new.clone() },
    };
    let plan = Plan::new(graph, &new).await?;
    let has_backing = plan.text("backing_file").is_some();
    if has_backing && request.sources.len() > 1 {
        return Err(Error::Usage(
            "joining several sources and a backing file for the target exclude each other"
                .to_owned(),
        ));
    }
    if request.compress {
        for name in ["preallocation", "encryption", "encrypt.format"] {
            if plan.text(name).is_some_and(|value| value != "off") {
                return Err(Error::Usage(format!(
                    "compressed images cannot be created with option '{name}'"
                )));
            }
        }
    }
    let image = NewImage::create(graph, &plan).await?;
    let spec =
        ImageSpec::File { name: image.filename.clone(), format: Some(plan.driver.name.to_owned()) };
    Ok(Prepared { image: Some(image), spec, options: plan.open_options(), has_backing })
}

async fn copy(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    prepared: &Prepared,
    sources: &Sources,
    bitmaps: &[BitmapInfo],
    notice: &dyn Notice,
) -> Result<()> {
    let access = Access {
        write: true,
        fill: prepared.image.is_some(),
        cache: request.target_cache,
        ..Access::default()
    };
    let target = prepared.spec.open_with(graph, &access, prepared.options.clone()).await?;
    let copied = async {
        if request.bitmaps != Bitmaps::None {
            // Finds out now whether the target can have any.
            graph.bitmaps(&target.node()).await?;
        }
        if target.size() < sources.size() {
            return Err(Error::Usage(format!(
                "the target is too small: it has {} bytes, the source {}",
                target.size(),
                sources.size()
            )));
        }
        let zeroes = match &request.target {
            _ if request.sparse == 0 => Zeroes::AsData,
            Target::Existing { is_zero: true, .. } => Zeroes::Present,
            Target::New(_) if !prepared.has_backing && target.node().driver().has_zero_init() => {
                Zeroes::Present
            }
            _ => Zeroes::Write,
        };
        let cluster = if request.compress { Some(compressed_unit(&target).await?) } else { None };
        Copy {
            sources,
            target: &target,
            zeroes,
            sparse: request.sparse,
            compressed_cluster: cluster,
            target_backing: prepared
                .has_backing
                .then(|| backing_of(&target.node()).map_or(0, |node| node.size())),
            allocated_only: false,
            parallel: request.parallel,
            in_order: !request.any_order,
            copy_range: request.copy_range,
            rate: request.rate,
            salvage: request.salvage,
        }
        .run(notice)
        .await?;
        copy_bitmaps(graph, sources, &target, bitmaps).await
    }
    .await;
    let closed = target.close().await;
    copied?;
    closed?;
    Ok(())
}

/// Bytes of one compressed unit of `target`.
async fn compressed_unit(target: &Backend) -> Result<u64> {
    let node = target.node();
    node.driver().format_info().await?.cluster_size.ok_or_else(|| {
        Error::Usage(format!("format '{}' does not support compression", node.format()))
    })
}
