//! `reopen`: change flags of the open image.

use cairn_block::driver::Perm;
use cairn_block::graph::{Node, NodeFlags};
use cairn_block::options::{CacheMode, Dict, NodeOptions, Value};
use futures_util::future::LocalBoxFuture;

use super::open::options;
use crate::cli::args::cache_or;
use crate::io::command::{Call, Fault};
use crate::io::session::Session;

pub(in crate::io) const DETAILS: &str = "
  -c MODE     cache mode
  -o OPTIONS  options of the image, as key=value,…
  -r          read-only
  -w          writable

Example: reopen -w -c writeback
";

fn refuse<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Error(text.into()))
}

pub(in crate::io) fn reopen<'a>(
    session: &'a mut Session,
    call: Call<'a>,
) -> LocalBoxFuture<'a, Result<(), Fault>> {
    Box::pin(async move {
        let flags = call.flags("c:o:rw")?;
        if flags.has('r') && flags.has('w') {
            return refuse("-r and -w exclude each other");
        }
        let cache = match flags.value('c') {
            Some(word) => Some(cache_or(Some(word), CacheMode::Writethrough)?),
            None => None,
        };
        let lists: Vec<&str> = flags.values('o').collect();
        let mut given = options(&lists)?;
        if !flags.operands.is_empty() {
            return Err(Fault::Usage(None));
        }
        if (flags.has('r') || flags.has('w')) && given.contains("read-only") {
            return refuse("-r and -w exclude the option 'read-only'");
        }
        if cache.is_some() && given.get_path("cache").is_some() {
            return refuse("-c excludes the options 'cache.direct' and 'cache.no-flush'");
        }
        let image = session.image_mut().await?;
        let mut new = with_options(&image.node, &mut given)?;
        same_children(&image.node, &mut given)?;
        if flags.has('r') || flags.has('w') {
            new.read_only = flags.has('r');
        }
        if let Some(cache) = cache {
            new.direct = cache.direct();
            new.no_flush = cache.no_flush();
        }
        let (used, shared) = image.backend.permissions();
        if new.read_only {
            let kept = used - (Perm::WRITE | Perm::WRITE_UNCHANGED | Perm::RESIZE);
            image.backend.set_permissions(kept, shared)?;
        }
        let graph = std::sync::Arc::clone(image.backend.graph());
        if let Err(error) = graph.reopen_with(&image.node, new, given).await {
            image.backend.set_permissions(used, shared)?;
            return Err(error.into());
        }
        if let Some(cache) = cache {
            image.backend.set_write_through(cache.writethrough());
        }
        Ok(())
    })
}

/// The flags of `node` with what `given` says about options that every node has.
fn with_options(node: &Node, given: &mut Dict) -> Result<NodeFlags, Fault> {
    let common = NodeOptions::take(given).map_err(cairn_block::Error::from)?;
    let keeps_driver = common.driver.as_ref().is_none_or(|driver| driver == node.format());
    let keeps_name = common.node_name.as_ref().is_none_or(|name| name.as_str() == node.name());
    if !keeps_driver || !keeps_name {
        return refuse("the driver and the name of a node cannot change");
    }
    Ok(node.flags().with(&common)?)
}

/// Takes the children of `node` out of `given`, which can say only what holds for them already.
fn same_children(node: &Node, given: &mut Dict) -> Result<(), Fault> {
    for edge in node.children() {
        match given.remove(edge.name()) {
            None => {}
            Some(Value::Str(name)) if name == edge.node().name() => {}
            Some(Value::Dict(mut options)) => {
                let child = edge.node();
                let flags = with_options(&child, &mut options)?;
                same_children(&child, &mut options)?;
                if flags != child.flags() || !options.is_empty() {
                    return refuse(format!("cannot change the options of '{}'", edge.name()));
                }
            }
            Some(_) => return refuse(format!("cannot replace the child '{}'", edge.name())),
        }
    }
    Ok(())
}
