//! `dd`: copy a part of an image or of standard input into an image or to standard output.

mod stream;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cairn_block::graph::{Backend, Graph};
use cairn_block::options::CacheMode;
use cairn_block::snapshot::SnapshotKey;

use self::stream::{Inflow, write_out};
use super::convert::{Copy, Notice, Sources, Zeroes};
use super::create::{CreateRequest, NewImage, Plan};
use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// Requests in flight.
const PARALLEL: usize = 8;
/// Shortest run of zeroes that is not written out where zeroes are not, in bytes.
const SPARSE: u64 = 4096;

/// Where the data comes from.
#[derive(Clone, Debug)]
pub enum Input {
    /// An image.
    Image {
        /// Which one.
        image: ImageSpec,
        /// Its internal snapshot to read, instead of what it has now.
        snapshot: Option<SnapshotKey>,
        /// Others may be writing to it.
        force_share: bool,
    },
    /// Standard input.
    Stdin,
}

/// Whether the target is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// A new image is created, in the place of what may be there.
    Replaced,
    /// What is there is written to; a new image is created if there is nothing.
    Kept,
    /// It must be there, and is written to.
    Required,
}

/// Where the data goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// An image.
    Image {
        /// Its file name.
        name: String,
        /// Its format.
        format: String,
        /// What happens to an image that is there.
        existing: Existing,
    },
    /// Standard output.
    Stdout,
}

/// What to copy where.
#[derive(Clone, Debug)]
pub struct DdRequest {
    /// Where from.
    pub input: Input,
    /// Where to.
    pub output: Output,
    /// Bytes of a block.
    pub block: u64,
    /// Blocks of the input to look at, from its beginning; `None` for all.
    pub count: Option<u64>,
    /// Blocks at the beginning of the input to leave out.
    pub skip: u64,
    /// Blocks at the beginning of the output to leave out.
    pub seek: u64,
    /// Bytes that the input has, and of which none may be missing.
    pub input_size: Option<u64>,
    /// Size of the image to create, in bytes; what does not fit is left out.
    pub output_size: Option<u64>,
    /// Do not write zeroes out as data.
    pub sparse: bool,
    /// Sectors that cannot be read become zeroes.
    pub salvage: bool,
    /// Have all of it on the disk at the end.
    pub flush: bool,
}

/// Result of [`dd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes.
    pub bytes: u64,
    /// What was to be left out is more than there is: nothing was copied.
    pub skipped_beyond_end: bool,
}

/// An opened source, and what of it is copied.
enum Source {
    Image { source: Backend, part: Range<u64>, skipped_beyond_end: bool },
    Stdin { skip: u64, most: Option<u64> },
}

impl DdRequest {
    /// First byte of the output that is written.
    fn at(&self) -> u64 {
        self.seek.saturating_mul(self.block)
    }

    /// Bytes of the input to look at, from its beginning.
    fn limit(&self) -> Option<u64> {
        let counted = self.count.map(|count| count.saturating_mul(self.block));
        [counted, self.input_size].into_iter().flatten().min()
    }

    /// Bytes that fit behind [`DdRequest::at`], if that is limited.
    fn room(&self) -> Option<u64> {
        self.output_size.map(|size| size.saturating_sub(self.at()))
    }

    async fn open_source(&self, graph: &Arc<Graph>) -> Result<Source> {
        let skip = self.skip.saturating_mul(self.block);
        let limit = self.limit();
        let Input::Image { image, snapshot, force_share } = &self.input else {
            let wanted = limit.map(|limit| limit.saturating_sub(skip));
            let most = [wanted, self.room()].into_iter().flatten().min();
            return Ok(Source::Stdin { skip, most });
        };
        let access = Access::read(CacheMode::Writeback, *force_share);
        let source = image.open(graph, &access).await?;
        if let Some(snapshot) = snapshot {
            let shown = graph.show_snapshot(&source.node(), snapshot.clone()).await;
            shown.map_err(|error| error.context(format!("cannot read snapshot '{snapshot}'")))?;
        }
        let size = source.size();
        if let Some(wanted) = self.input_size.filter(|&wanted| wanted > size) {
            return Err(Error::Usage(format!(
                "'{}' has {size} bytes, fewer than the {wanted} of isize=",
                image.label()
            )));
        }
        let end = limit.map_or(size, |limit| limit.min(size));
        let start = skip.min(end);
        let end = self.room().map_or(end, |room| end.min(start.saturating_add(room)));
        Ok(Source::Image { source, part: start..end, skipped_beyond_end: skip > size })
    }
}

impl Source {
    /// Bytes that are copied, if that is known.
    fn len(&self) -> Option<u64> {
        match self {
            Source::Image { part, .. } => Some(part.end - part.start),
            Source::Stdin { most, .. } => *most,
        }
    }

    async fn close(self) -> Result<()> {
        match self {
            Source::Image { source, .. } => Ok(source.close().await?),
            Source::Stdin { .. } => Ok(()),
        }
    }
}

/// The image that is to be created for what comes from `source`, unless an existing one is written to.
fn new_image(request: &DdRequest, source: &Source) -> Result<Option<CreateRequest>> {
    let Output::Image { name, format, existing } = &request.output else { return Ok(None) };
    let kept = match existing {
        Existing::Replaced => false,
        Existing::Kept => Path::new(name).exists(),
        Existing::Required => true,
    };
    if kept {
        return Ok(None);
    }
    let needed = source.len().map(|len| request.at().saturating_add(len));
    let Some(size) = request.output_size.or(needed) else {
        return Err(Error::Usage(
            "the length of standard input is not known: give osize= or isize=".to_owned(),
        ));
    };
    let new = CreateRequest {
        filename: name.clone(),
        format: format.clone(),
        size: Some(size),
        ..CreateRequest::default()
    };
    Ok(Some(new))
}

/// What [`dd`] would do.
pub async fn rehearse(graph: &Arc<Graph>, request: DdRequest) -> Result<String> {
    let source = request.open_source(graph).await?;
    let told = match new_image(&request, &source)? {
        Some(new) => Plan::new(graph, &new).await?.rehearse(graph).await?,
        None => match &request.output {
            Output::Image { name, .. } => format!("Would write into '{name}'."),
            Output::Stdout => "Would write to standard output.".to_owned(),
        },
    };
    let what = match (&source, source.len()) {
        (Source::Image { part, .. }, _) => {
            format!("{} bytes from offset {} on", part.end - part.start, part.start)
        }
        (Source::Stdin { .. }, Some(most)) => format!("at most {most} bytes of standard input"),
        (Source::Stdin { .. }, None) => "all of standard input".to_owned(),
    };
    source.close().await?;
    Ok(format!("{told}\nWould copy {what}."))
}

/// Copies. Unless told otherwise, every byte of the part is written, zeroes too.
pub async fn dd(graph: &Arc<Graph>, request: DdRequest, notice: &dyn Notice) -> Result<Copied> {
    let source = request.open_source(graph).await?;
    notice.total(source.len().unwrap_or(0));
    let Some(new) = new_image(&request, &source)? else {
        return copy(graph, &request, None, source, notice).await;
    };
    let plan = Plan::new(graph, &new).await?;
    let image = NewImage::create(graph, &plan).await?;
    let copied = copy(graph, &request, Some(&image.filename), source, notice).await;
    let copied = image.with_name(copied)?;
    image.commit()?;
    Ok(copied)
}

/// Copies to where the request says; an image is called `temporary` if it does not have its name yet.
async fn copy(
    graph: &Arc<Graph>,
    request: &DdRequest,
    temporary: Option<&str>,
    source: Source,
    notice: &dyn Notice,
) -> Result<Copied> {
    let (name, format) = match &request.output {
        Output::Image { name, format, .. } => (temporary.unwrap_or(name), format),
        Output::Stdout => return copy_out(source, notice).await,
    };
    let spec = ImageSpec::File { name: name.to_owned(), format: Some(format.clone()) };
    let target = spec.open(graph, &Access { write: true, ..Access::default() }).await?;
    let copied = copy_in(request, &target, source, notice).await;
    let flushed = match &copied {
        Ok(_) if request.flush => target.flush().await,
        _ => Ok(()),
    };
    let closed = target.close().await;
    let copied = copied?;
    flushed?;
    closed?;
    Ok(copied)
}

async fn copy_out(source: Source, notice: &dyn Notice) -> Result<Copied> {
    let Source::Image { source, part, skipped_beyond_end } = source else {
        return Err(Error::Usage("give an image as if=FILE or of=FILE".to_owned()));
    };
    let copied = write_out(&source, part.clone(), notice).await;
    let closed = source.close().await;
    copied?;
    closed?;
    Ok(Copied { bytes: part.end - part.start, skipped_beyond_end })
}

async fn copy_in(
    request: &DdRequest,
    target: &Backend,
    source: Source,
    notice: &dyn Notice,
) -> Result<Copied> {
    let at = request.at();
    let (source, part, skipped_beyond_end) = match source {
        Source::Image { source, part, skipped_beyond_end } => (source, part, skipped_beyond_end),
        Source::Stdin { skip, most } => {
            let wanted = request.input_size.map_or(0, |size| size.saturating_sub(skip));
            let least = most.map_or(0, |most| most.min(wanted));
            let sparse = request.sparse;
            let bytes = Inflow { target, at, skip, most, least, sparse }.run(notice).await?;
            return Ok(Copied { bytes, skipped_beyond_end: false });
        }
    };
    let bytes = part.end - part.start;
    let sources = Sources::part(source, part);
    let copied = if at.saturating_add(bytes) > target.size() {
        Err(Error::Usage(format!(
            "the target is too small: it has {} bytes, and {bytes} are to be written at offset {at}",
            target.size()
        )))
    } else {
        let (zeroes, sparse) =
            if request.sparse { (Zeroes::Write, SPARSE) } else { (Zeroes::AsData, 0) };
        Copy {
            sources: &sources,
            target,
            target_start: at,
            zeroes,
            sparse,
            compressed_cluster: None,
            target_backing: None,
            allocated_only: false,
            parallel: PARALLEL,
            in_order: true,
            copy_range: false,
            rate: None,
            salvage: request.salvage,
            start: 0,
            journal: None,
            verified_later: false,
        }
        .run(notice)
        .await
    };
    let closed = sources.close().await;
    copied?;
    closed?;
    Ok(Copied { bytes, skipped_beyond_end })
}
