//! `commit`: write what an overlay holds into an image below it.
//!
//! The overlay, with the layers between it and the base, is opened as a chain that ends above the
//! base; what these layers have allocated is copied into the base, which is opened for itself. The
//! overlay is emptied only when the base has everything durably.

use std::path::Path;
use std::sync::Arc;

use cairn_block::driver::Resize;
use cairn_block::graph::{Backend, Graph, Node, backing_of};
use cairn_block::options::{CacheMode, Dict, Value};

use super::convert::{Copy, Notice, Sources, Zeroes};
use super::image::{Access, ImageSpec};
use super::info::{ImageInfo, InfoRequest, info};
use crate::error::{Error, Result};

/// Requests in flight.
const PARALLEL: usize = 8;
/// Shortest run of zeroes in data that is written as zeroes, in bytes.
const SPARSE: u64 = 4096;

/// What to commit, and how.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The overlay.
    pub image: ImageSpec,
    /// The image of the chain to write to, as a name in it; by default the next one.
    pub base: Option<String>,
    /// Leave the overlay as it is.
    pub keep: bool,
    /// Highest rate of writing in bytes per second.
    pub rate: Option<u64>,
    /// Cache mode of both.
    pub cache: CacheMode,
}

/// What [`commit`] would do, after a look at the images.
pub async fn rehearse(graph: &Arc<Graph>, request: &CommitRequest) -> Result<String> {
    let chain = info(graph, &InfoRequest::chain(request.image.clone())).await?;
    let depth = base_depth(&chain, &request.image, request.base.as_deref())?;
    let spec = base_spec(&chain, depth)?;
    let access = Access { cache: request.cache, ..Access::default() };
    let top = open_top(graph, request, Access { exclusive: true, ..access }, depth).await?;
    let base = spec.open(graph, &Access { no_backing: true, ..access }).await?;
    let sources = Sources::new(vec![top]);
    let data = sources.allocated_bytes().await?;
    let label = request.image.label();
    let mut told = vec![format!("Would write {data} bytes of '{label}' into '{}'.", spec.label())];
    if base.size() < sources.size() {
        let (old, new) = (base.size(), sources.size());
        told.push(format!("Would grow '{}' from {old} to {new} bytes.", spec.label()));
    }
    if !keeps(request, depth) {
        told.push(format!("Would empty '{label}'."));
    }
    let closed = base.close().await;
    sources.close().await?;
    closed?;
    Ok(told.join("\n"))
}

/// Whether the overlay stays as it is.
fn keeps(request: &CommitRequest, depth: usize) -> bool {
    request.keep || depth > 1
}

/// Opens the overlay as a chain of `depth` layers.
async fn open_top(
    graph: &Arc<Graph>,
    request: &CommitRequest,
    access: Access,
    depth: usize,
) -> Result<Backend> {
    let mut without_base = Dict::new();
    without_base.insert("backing", cut_below(depth));
    let top = request.image.open_with(graph, &access, without_base).await?;
    if layers(&top.node()) != depth {
        return Err(Error::Usage(
            "the image options name a backing file; commit follows those that the images name"
                .to_owned(),
        ));
    }
    Ok(top)
}

/// Commits.
pub async fn commit(
    graph: &Arc<Graph>,
    request: &CommitRequest,
    notice: &dyn Notice,
) -> Result<()> {
    let chain = info(graph, &InfoRequest::chain(request.image.clone())).await?;
    let depth = base_depth(&chain, &request.image, request.base.as_deref())?;
    let spec = base_spec(&chain, depth)?;
    let access = Access { write: true, resize: true, cache: request.cache, ..Access::default() };
    let keep = keeps(request, depth);
    let top_access = Access { write: !keep, resize: !keep, exclusive: true, ..access };
    let top = open_top(graph, request, top_access, depth).await?;
    let base = spec.open(graph, &access).await?;
    let sources = Sources::new(vec![top]);
    let copied = copy(request, &sources, &base, notice).await;
    let closed = base.close().await;
    if !keep && copied.is_ok() && closed.is_ok() {
        empty(&sources).await?;
    }
    let sources_closed = sources.close().await;
    copied?;
    closed?;
    sources_closed
}

/// How many layers the base lies below the top.
fn base_depth(chain: &[ImageInfo], image: &ImageSpec, base: Option<&str>) -> Result<usize> {
    if chain.len() < 2 {
        return Err(Error::Usage(format!("'{}' has no backing file", image.label())));
    }
    let Some(base) = base else { return Ok(1) };
    // A relative name means what it means in the images.
    let real = Path::new(base).is_absolute().then(|| std::fs::canonicalize(base).ok()).flatten();
    let same = |overlay: &ImageInfo| {
        let stored = overlay.format_info.backing_file.as_deref();
        let full = overlay.full_backing_file.as_deref();
        let same_file = full.and_then(|name| std::fs::canonicalize(name).ok());
        stored == Some(base) || full == Some(base) || (real.is_some() && same_file == real)
    };
    chain.iter().position(same).map(|index| index + 1).ok_or_else(|| {
        Error::Usage(format!("'{base}' is not in the backing chain of '{}'", image.label()))
    })
}

fn base_spec(chain: &[ImageInfo], depth: usize) -> Result<ImageSpec> {
    let overlay = depth.checked_sub(1).and_then(|index| chain.get(index));
    overlay
        .and_then(|overlay| {
            let name = overlay.full_backing_file.clone()?;
            Some(ImageSpec::File { name, format: overlay.format_info.backing_format.clone() })
        })
        .ok_or_else(|| Error::Usage("cannot tell where the backing file is".to_owned()))
}

/// The value of `backing` with which a chain has only its first `depth` layers.
fn cut_below(depth: usize) -> Value {
    (1..depth).fold(Value::Null, |below, _| {
        let mut layer = Dict::new();
        layer.insert("backing", below);
        layer.into()
    })
}

fn layers(top: &Arc<Node>) -> usize {
    let mut count = 1;
    let mut node = Arc::clone(top);
    while let Some(next) = backing_of(&node) {
        node = next;
        count += 1;
    }
    count
}

async fn copy(
    request: &CommitRequest,
    sources: &Sources,
    base: &Backend,
    notice: &dyn Notice,
) -> Result<()> {
    if base.size() < sources.size() {
        let how = Resize { exact: false, zero_new: true, ..Resize::default() };
        base.resize(sources.size(), how).await?;
    }
    let copy = Copy {
        sources,
        target: base,
        target_start: 0,
        zeroes: Zeroes::Write,
        sparse: SPARSE,
        compressed_cluster: None,
        target_backing: None,
        allocated_only: true,
        parallel: PARALLEL,
        in_order: false,
        copy_range: false,
        rate: request.rate,
        salvage: false,
        start: 0,
        journal: None,
        verified_later: false,
    };
    copy.run(notice).await?;
    Ok(base.flush().await?)
}

/// Empties the overlay, if its format can.
async fn empty(sources: &Sources) -> Result<()> {
    for backend in sources.backends() {
        match backend.node().driver().make_empty().await {
            Err(error) if error.is_unsupported() => {}
            emptied => emptied?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(stored: Option<&str>, full: Option<&str>) -> ImageInfo {
        let mut info =
            ImageInfo { full_backing_file: full.map(str::to_owned), ..ImageInfo::default() };
        info.format_info.backing_file = stored.map(str::to_owned);
        info
    }

    #[test]
    fn a_base_is_found_by_its_stored_and_by_its_full_name() {
        let chain = [
            layer(Some("mid"), Some("dir/mid")),
            layer(Some("base"), Some("dir/base")),
            layer(None, None),
        ];
        let image = ImageSpec::Options("top".to_owned());
        let depth = |base| base_depth(&chain, &image, base).ok();
        assert_eq!(depth(None), Some(1));
        assert_eq!((depth(Some("mid")), depth(Some("dir/base"))), (Some(1), Some(2)));
        assert_eq!(depth(Some("other")), None);
        assert!(base_depth(&chain[2..], &image, None).is_err());
    }

    #[test]
    fn a_chain_is_cut_at_the_right_layer() {
        assert_eq!(cut_below(1), Value::Null);
        let Value::Dict(dict) = cut_below(2) else { panic!("a layer") };
        assert_eq!(dict.get("backing"), Some(&Value::Null));
    }
}
