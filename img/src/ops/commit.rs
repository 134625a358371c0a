//! `commit`: write what an overlay holds into an image below it.
//!
//! The overlay, with the layers between it and the base, is opened as a chain that ends above the
//! base; what these layers have allocated is copied into the base, which is opened for itself. The
//! overlay is emptied only when the base has everything durably.

use std::sync::Arc;

use cairn_block::driver::Resize;
use cairn_block::graph::{Backend, Graph, OpenOptions, backing_of, skip_filters};
use cairn_block::options::{CacheMode, Dict, Value, filename};

use super::convert::{Copy, Notice, Sources, Zeroes};
use super::image::{Access, ImageSpec, open};
use crate::error::{Error, Result};

/// Requests in flight.
const PARALLEL: usize = 8;

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
    let access = Access { cache: request.cache, ..Access::default() };
    let (top_access, base_access) =
        (Access { exclusive: true, ..access }, Access { no_backing: true, ..access });
    let Pair { sources, base, base_name, keep } =
        open_pair(graph, request, |_| (top_access, base_access)).await?;
    let data = sources.allocated_bytes().await?;
    let label = request.image.label();
    let mut told = vec![format!("Would write {data} bytes of '{label}' into '{base_name}'.")];
    if base.size() < sources.size() {
        let (old, new) = (base.size(), sources.size());
        told.push(format!("Would grow '{base_name}' from {old} to {new} bytes."));
    }
    if !keep {
        told.push(format!("Would empty '{label}'."));
    }
    let closed = base.close().await;
    sources.close().await?;
    closed?;
    Ok(told.join("\n"))
}

/// The two ends of a commit.
struct Pair {
    /// The overlay, as a chain of the layers above the base.
    sources: Sources,
    base: Backend,
    /// What messages call the base.
    base_name: String,
    /// The overlay stays as it is.
    keep: bool,
}

/// Opens both ends with the access that `access` names for the overlay and for the base, depending on
/// whether the overlay stays as it is.
async fn open_pair(
    graph: &Arc<Graph>,
    request: &CommitRequest,
    access: impl Fn(bool) -> (Access, Access),
) -> Result<Pair> {
    let chain = chain(graph, request).await?;
    let depth = base_depth(&chain, request.image.label(), request.base.as_deref())?;
    let keep = request.keep || depth > 1;
    let (top_access, base_access) = access(keep);
    let mut top = request.image.describe(&top_access)?;
    let base = describe_base(&chain, depth, &top.options, &base_access)?;
    cut_below(&mut top.options, depth);
    let base_name = chain.get(depth).map(|layer| layer.name.clone()).unwrap_or_default();
    let sources = Sources::new(vec![open(graph, &top_access, top).await?]);
    let base = open(graph, &base_access, base).await?;
    Ok(Pair { sources, base, base_name, keep })
}

/// Commits.
pub async fn commit(
    graph: &Arc<Graph>,
    request: &CommitRequest,
    notice: &dyn Notice,
) -> Result<()> {
    let access = Access { write: true, resize: true, cache: request.cache, ..Access::default() };
    let top = |keep: bool| Access { write: !keep, resize: !keep, exclusive: true, ..access };
    let base = Access { fill: true, ..access };
    let Pair { sources, base, keep, .. } =
        open_pair(graph, request, |keep| (top(keep), base)).await?;
    write_down(sources, base, keep, request.rate, notice).await
}

/// Writes what `top` holds into `base` and closes both. `top` is opened without the base and without
/// what is below it; unless `keep`, it is emptied when the base has everything durably.
pub async fn merge(
    top: Backend,
    base: Backend,
    keep: bool,
    rate: Option<u64>,
    notice: &dyn Notice,
) -> Result<()> {
    write_down(Sources::new(vec![top]), base, keep, rate, notice).await
}

async fn write_down(
    sources: Sources,
    base: Backend,
    keep: bool,
    rate: Option<u64>,
    notice: &dyn Notice,
) -> Result<()> {
    let copied = copy(&sources, &base, rate, notice).await;
    let closed = base.close().await;
    if !keep && copied.is_ok() && closed.is_ok() {
        empty(&sources).await?;
    }
    let sources_closed = sources.close().await;
    copied?;
    closed?;
    sources_closed
}

/// One image of the chain.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// The name that opens it again.
    name: String,
    /// The file that relative names in it start from.
    own_file: String,
    /// Backing file as stored in it.
    backing_file: Option<String>,
    /// Format of the backing file as stored in it.
    backing_format: Option<String>,
}

/// The images of the chain, the overlay first.
async fn chain(graph: &Arc<Graph>, request: &CommitRequest) -> Result<Vec<Layer>> {
    let top = request.image.open(graph, &Access::read(request.cache, false)).await?;
    let mut chain = Vec::new();
    let mut next = Some(top.node());
    while let Some(node) = next {
        let info = skip_filters(Arc::clone(&node)).driver().format_info().await?;
        chain.push(Layer {
            name: node.filename(),
            own_file: node.base_filename().unwrap_or_default(),
            backing_file: info.backing_file,
            backing_format: info.backing_format,
        });
        next = backing_of(&node);
    }
    top.close().await?;
    Ok(chain)
}

/// How many layers the base lies below the top, which messages call `label`.
fn base_depth(chain: &[Layer], label: &str, base: Option<&str>) -> Result<usize> {
    if chain.len() < 2 {
        return Err(Error::Usage(format!("'{label}' has no backing file")));
    }
    let Some(base) = base else { return Ok(1) };
    let real = |name: &str| std::fs::canonicalize(name).ok();
    let is_base = |pair: &[Layer]| {
        let [overlay, below] = pair else { return false };
        if overlay.backing_file.as_deref() == Some(base) {
            return true;
        }
        // A relative name means what it means in the images.
        filename::resolve_backing(base, &overlay.own_file).is_ok_and(|meant| {
            meant == below.name || (real(&meant).is_some() && real(&meant) == real(&below.name))
        })
    };
    chain
        .windows(2)
        .position(is_base)
        .map(|index| index + 1)
        .ok_or_else(|| Error::Usage(format!("'{base}' is not in the backing chain of '{label}'")))
}

/// How to open the base, which lies `depth` layers below the top, by itself: as the `options` of the
/// top say, and else as the overlay above the base does.
fn describe_base(
    chain: &[Layer],
    depth: usize,
    options: &Dict,
    access: &Access,
) -> Result<OpenOptions> {
    let mut given = Some(options);
    for _ in 0..depth {
        given = given.and_then(|options| options.get("backing")).and_then(Value::as_dict);
    }
    let mut options = given.cloned().unwrap_or_default();
    if options.contains("file") || options.contains("filename") {
        return Ok(OpenOptions { filename: None, options, flags: access.flags() });
    }
    let overlay = depth.checked_sub(1).and_then(|index| chain.get(index));
    let stored = overlay.and_then(|overlay| {
        let name = overlay.backing_file.as_deref()?;
        filename::resolve_backing(name, &overlay.own_file).ok().zip(Some(overlay))
    });
    let (name, overlay) =
        stored.ok_or_else(|| Error::Usage("cannot tell where the backing file is".to_owned()))?;
    if let Some(format) = &overlay.backing_format
        && !options.contains("driver")
    {
        options.insert("driver", format.as_str());
    }
    Ok(OpenOptions { filename: Some(name), options, flags: access.flags() })
}

/// Makes a chain have only its first `depth` layers.
fn cut_below(options: &mut Dict, depth: usize) {
    if depth <= 1 {
        options.insert("backing", Value::Null);
        return;
    }
    let mut below = match options.remove("backing") {
        Some(Value::Dict(below)) => below,
        _ => Dict::new(),
    };
    cut_below(&mut below, depth - 1);
    options.insert("backing", below);
}

async fn copy(
    sources: &Sources,
    base: &Backend,
    rate: Option<u64>,
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
        // What the overlay stores as data stays data in the base.
        sparse: 0,
        compressed_cluster: None,
        target_backing: None,
        allocated_only: true,
        parallel: PARALLEL,
        in_order: false,
        copy_range: false,
        rate,
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

    fn layer(name: &str, backing_file: Option<&str>) -> Layer {
        Layer {
            name: name.to_owned(),
            own_file: name.to_owned(),
            backing_file: backing_file.map(str::to_owned),
            backing_format: None,
        }
    }

    #[test]
    fn a_base_is_found_by_its_name_as_images_mean_it() {
        let chain = [
            layer("dir/top", Some("mid")),
            layer("dir/mid", Some("/x/base")),
            layer("/x/base", None),
        ];
        let depth = |base| base_depth(&chain, "dir/top", base).ok();
        assert_eq!(depth(None), Some(1));
        assert_eq!((depth(Some("mid")), depth(Some("/x/base"))), (Some(1), Some(2)));
        assert_eq!(depth(Some("./mid")), None, "names are compared where there are no files");
        assert_eq!((depth(Some("dir/mid")), depth(Some("other"))), (None, None));
        assert!(base_depth(&chain[2..], "/x/base", None).is_err());
    }

    #[test]
    fn a_chain_is_cut_at_the_right_layer() {
        let mut options = Dict::new();
        cut_below(&mut options, 1);
        assert_eq!(options.get("backing"), Some(&Value::Null));
        let mut options = Dict::new();
        options.insert("backing", Dict::from([("driver", "qcow2")]));
        cut_below(&mut options, 2);
        let below = options.get("backing").and_then(Value::as_dict).expect("a layer");
        assert_eq!(below.get("backing"), Some(&Value::Null));
        assert_eq!(below.get("driver").and_then(Value::as_str), Some("qcow2"));
    }

    #[test]
    fn a_base_keeps_the_options_that_the_user_gave() {
        let chain = [layer("dir/top", Some("base")), layer("dir/base", None)];
        let mut options = Dict::new();
        options.insert("backing", Dict::from([("encrypt.key-secret", "s0")]));
        let base = describe_base(&chain, 1, &options, &Access::default()).expect("described");
        assert_eq!(base.filename.as_deref(), Some("dir/base"));
        assert!(base.options.contains("encrypt.key-secret"));
        options.insert("backing", Dict::from([("filename", "other")]));
        let base = describe_base(&chain, 1, &options, &Access::default()).expect("described");
        assert_eq!((base.filename, base.options.contains("filename")), (None, true));
    }
}
