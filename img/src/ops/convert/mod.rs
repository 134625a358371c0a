//! `convert`: copy images into another.
//!
//! One pipeline does it: lanes take turns to claim the next piece of the sources (by its block
//! status), read it, look for zeroes in it and write it. The lanes of a run share a bounded number of
//! buffers, so that reading, scanning, compressing and writing overlap while memory stays bounded.

mod journal;
mod pipeline;
mod rate;
mod reader;
mod source;
mod sparse;
mod verify;

use std::sync::Arc;

use cairn_block::dirty_bitmap::{BitmapChange, BitmapInfo};
use cairn_block::driver::{Repair, WriteFlags};
use cairn_block::graph::{Backend, Graph, backing_of};
use cairn_block::options::{CacheMode, Dict};
use cairn_block::snapshot::SnapshotKey;

pub(super) use journal::Journal;
use journal::{Description, Found};
pub use pipeline::Notice;
pub(super) use pipeline::{Copy, Zeroes};
pub(super) use source::Sources;

use super::create::{CreateRequest, NewImage, Plan};
use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Sizes of images are counted in sectors of this many bytes where several are joined.
pub const SECTOR: u64 = 512;

/// Requests in flight between local files: enough to keep disk and processors busy.
const LOCAL_REQUESTS: usize = 8;
/// Requests in flight where some go over a network: while they wait they cost memory only, one piece each.
const REMOTE_REQUESTS: usize = 48;

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
    /// Requests in flight; as many as suit the images if absent.
    pub parallel: Option<usize>,
    /// Write in any order.
    pub any_order: bool,
    /// Let the kernel copy where it can.
    pub copy_range: bool,
    /// Highest rate of writing in bytes per second.
    pub rate: Option<u64>,
    /// Go on after read errors.
    pub salvage: bool,
    /// Read what was written again, and compare it with the sources.
    pub verify: bool,
    /// Record how far the copy is, and go on where an earlier run has ended.
    pub resume: bool,
}

/// Converts. `notice` is told about progress and about what was salvaged.
pub async fn convert(
    graph: &Arc<Graph>,
    request: ConvertRequest,
    notice: &dyn Notice,
) -> Result<()> {
    let sources = open_sources(graph, &request).await?;
    let bitmaps = chosen_bitmaps(graph, &request, &sources, notice).await?;
    let created = prepare(graph, &request, &sources).await?;
    let result = copy(graph, &request, &created, &sources, &bitmaps, notice).await;
    let closed = sources.close().await;
    let Some(image) = created.image else { return result.and(closed) };
    image.with_name(result)?;
    closed?;
    image.commit()?;
    created.journal.map_or(Ok(()), |journal| journal.remove())
}

/// What [`convert`] would do, after a look at the sources and the target.
pub async fn rehearse(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    notice: &dyn Notice,
) -> Result<String> {
    let sources = open_sources(graph, request).await?;
    chosen_bitmaps(graph, request, &sources, notice).await?;
    let told = match &request.target {
        Target::New(new) => {
            let (plan, _) = plan_target(graph, request, new, &sources).await?;
            plan.rehearse(graph).await?
        }
        Target::Existing { image, .. } => {
            let access = Access { no_backing: true, ..Access::read(request.target_cache, false) };
            let target = image.open(graph, &access).await?;
            let checked = check_room(&target, &sources);
            target.close().await?;
            checked?;
            format!("Would write into '{}'.", image.label())
        }
    };
    let data = sources.data_bytes().await?;
    let size = sources.size();
    sources.close().await?;
    Ok(format!("{told}\nWould copy {data} bytes of data, of {size} bytes in all."))
}

async fn open_sources(graph: &Arc<Graph>, request: &ConvertRequest) -> Result<Sources> {
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
    Ok(Sources::new(images))
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
    /// Where to record how far the copy is.
    journal: Option<Journal>,
    /// What an earlier run has written: everything before this offset.
    done: Option<u64>,
    /// Zeroes may take no storage.
    unmap: bool,
}

async fn prepare(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    sources: &Sources,
) -> Result<Prepared> {
    let new = match &request.target {
        Target::Existing { image, has_backing, .. } => {
            let (spec, options) = (image.clone(), Dict::new());
            return Ok(Prepared {
                image: None,
                spec,
                options,
                has_backing: *has_backing,
                journal: None,
                done: None,
                unmap: true,
            });
        }
        Target::New(new) => new,
    };
    let (plan, has_backing) = plan_target(graph, request, new, sources).await?;
    let (image, journal, done) = if request.resume {
        let (image, journal, done) = prepare_lasting(graph, request, &plan, sources).await?;
        (image, Some(journal), done)
    } else {
        (NewImage::create(graph, &plan).await?, None, None)
    };
    let spec =
        ImageSpec::File { name: image.filename.clone(), format: Some(plan.driver.name.to_owned()) };
    let unmap = plan.text("preallocation").is_none_or(|mode| mode == "off");
    let options = plan.open_options(graph)?;
    Ok(Prepared { image: Some(image), spec, options, has_backing, journal, done, unmap })
}

/// A target that another run can go on with, or that an earlier one has left. In the latter case also
/// up to where it is complete.
async fn prepare_lasting(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    plan: &Plan,
    sources: &Sources,
) -> Result<(NewImage, Journal, Option<u64>)> {
    if plan.text("backing_file").is_some() {
        return Err(Error::Usage(
            "--resume and a backing file for the target exclude each other".to_owned(),
        ));
    }
    let ConvertRequest { snapshot, bitmaps, compress, sparse, salvage, .. } = request;
    let how = format!(
        "{} sources={:?} snapshot={snapshot:?} bitmaps={bitmaps:?} compress={compress} \
         sparse={sparse} salvage={salvage}",
        plan.describe(),
        request.sources
    );
    let description = Description::new(how, sources)?;
    let (staging, is_there) = plan.stage_lasting()?;
    let place = staging.companion().zip(staging.temporary().map(str::to_owned));
    let Some((journal, part)) = place else {
        return Err(Error::Usage("--resume needs a name in UTF-8".to_owned()));
    };
    let shown = journal.display().to_string();
    let journal = Journal::new(journal, description);
    let done = match journal.find()? {
        Found::Position(done) if is_there => Some(done),
        Found::Other(why) if is_there => {
            return Err(Error::Usage(format!(
                "'{part}' cannot be completed: {why}; remove it and '{shown}' to begin anew"
            )));
        }
        // A target without its journal, or a journal without its target, is of no use.
        Found::Nothing | Found::Position(_) | Found::Other(_) => None,
    };
    if done.is_none() {
        journal.remove()?;
    }
    let image = NewImage::create_lasting(graph, plan, staging, done.is_some()).await?;
    if done.is_none() {
        journal.store(0)?;
    }
    Ok((image, journal, done))
}

/// Makes a target that an earlier run has left fit to go on with: nothing is lost in it, and it is zero
/// from `done` on.
async fn tidy(graph: &Arc<Graph>, target: &Backend, done: u64, unmap: bool) -> Result<()> {
    let node = target.node();
    match node.driver().check(Repair::LEAKS).await {
        Err(error) if error.is_unsupported() => {}
        checked => {
            let found = checked?;
            if found.corruptions + found.check_errors > 0 {
                let detail = "it was not left in a valid state; remove it to begin anew";
                return Err(cairn_block::Error::corrupt(node.label(), detail).into());
            }
        }
    }
    if let Ok(bitmaps) = graph.bitmaps(&node).await {
        for bitmap in bitmaps {
            graph.change_bitmap(&node, &bitmap.name, BitmapChange::Remove).await?;
        }
    }
    let rest = target.size().saturating_sub(done);
    if rest > 0 && node.driver().has_zero_init() {
        let flags = if unmap { WriteFlags::MAY_UNMAP } else { WriteFlags::empty() };
        target.write_zeroes(done, rest, flags).await?;
    }
    Ok(())
}

/// The plan of a new target, and whether it has a backing file.
async fn plan_target(
    graph: &Arc<Graph>,
    request: &ConvertRequest,
    new: &CreateRequest,
    sources: &Sources,
) -> Result<(Plan, bool)> {
    let new = CreateRequest { size: Some(sources.size()), ..new.clone() };
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
    Ok((plan, has_backing))
}

fn check_room(target: &Backend, sources: &Sources) -> Result<()> {
    if target.size() >= sources.size() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the target is too small: it has {} bytes, the source {}",
        target.size(),
        sources.size()
    )))
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
    let remote = sources.is_remote() || target.node().is_remote();
    let usual = if remote { REMOTE_REQUESTS } else { LOCAL_REQUESTS };
    let parallel = request.parallel.unwrap_or(usual);
    let copied = async {
        if request.bitmaps != Bitmaps::None {
            // Finds out now whether the target can have any.
            graph.bitmaps(&target.node()).await?;
        }
        check_room(&target, sources)?;
        if let Some(done) = prepared.done {
            tidy(graph, &target, done, prepared.unmap).await?;
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
            target_start: 0,
            zeroes,
            sparse: request.sparse,
            compressed_cluster: cluster,
            target_backing: prepared
                .has_backing
                .then(|| backing_of(&target.node()).map_or(0, |node| node.size())),
            allocated_only: false,
            parallel,
            in_order: !request.any_order,
            copy_range: request.copy_range,
            rate: request.rate,
            salvage: request.salvage,
            start: prepared.done.unwrap_or(0),
            journal: prepared.journal.as_ref(),
            verified_later: request.verify,
        }
        .run(notice)
        .await?;
        copy_bitmaps(graph, sources, &target, bitmaps).await
    }
    .await;
    let closed = target.close().await;
    copied?;
    closed?;
    if request.verify {
        let target = open_written(graph, prepared).await?;
        let verified = verify::verify(sources, &target, parallel, notice).await;
        let closed = target.close().await;
        verified?;
        closed?;
    }
    Ok(())
}

/// Opens the target for reading, past the page cache where that is possible.
async fn open_written(graph: &Arc<Graph>, prepared: &Prepared) -> Result<Backend> {
    let open = async |cache| {
        let access = Access::read(cache, false);
        prepared.spec.open_with(graph, &access, prepared.options.clone()).await
    };
    match open(CacheMode::None).await {
        Ok(target) => Ok(target),
        // Not every file system has direct I/O; what is wrong otherwise, the second attempt tells.
        Err(_) => open(CacheMode::Writeback).await,
    }
}

/// Bytes of one compressed unit of `target`.
async fn compressed_unit(target: &Backend) -> Result<u64> {
    let node = target.node();
    node.driver().format_info().await?.cluster_size.ok_or_else(|| {
        Error::Usage(format!("format '{}' does not support compression", node.format()))
    })
}
