//! `bitmap`: change persistent dirty bitmaps.

use std::sync::Arc;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::graph::{Backend, Graph};

use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the bitmap.
    Add,
    /// Make it clean.
    Clear,
    /// Let it record changes no longer.
    Disable,
    /// Let it record changes.
    Enable,
    /// Mark what is dirty in the bitmap of this name.
    Merge(String),
    /// Delete it.
    Remove,
    /// Delete all bitmaps.
    RemoveAll,
}

impl Action {
    fn verb(&self) -> &'static str {
        match self {
            Action::Add => "add",
            Action::Clear => "clear",
            Action::Disable => "disable",
            Action::Enable => "enable",
            Action::Merge(_) => "merge into",
            Action::Remove | Action::RemoveAll => "remove",
        }
    }
}

/// What to change.
#[derive(Clone, Debug)]
pub struct BitmapRequest {
    /// The image.
    pub image: ImageSpec,
    /// The bitmap; empty if the actions need none.
    pub name: String,
    /// Changes, in this order.
    pub actions: Vec<Action>,
    /// Base 2 logarithm of the granularity of a new bitmap.
    pub granularity_bits: Option<u32>,
    /// The image that bitmaps to be merged are in; by default the same one.
    pub source: Option<ImageSpec>,
}

/// Changes bitmaps. Each change is durable before the next one begins.
pub async fn change(graph: &Arc<Graph>, request: &BitmapRequest) -> Result<()> {
    let access = Access { no_backing: true, ..Access::default() };
    let writer = Access { write: true, resize: true, ..access };
    let image = request.image.open(graph, &writer).await?;
    let source = match &request.source {
        Some(source) => Some(source.open(graph, &access).await?),
        None => None,
    };
    let mut result = Ok(());
    for action in &request.actions {
        let changed = act(graph, request, action, &image, source.as_ref()).await;
        result = changed.map_err(|error| {
            Error::Block(error.context(format!(
                "cannot {} bitmap '{}'",
                action.verb(),
                request.name
            )))
        });
        if result.is_err() {
            break;
        }
    }
    if let Some(source) = source {
        source.close().await?;
    }
    let closed = image.close().await;
    result?;
    Ok(closed?)
}

/// What [`change`] would do, a line for each action, after a look at the images.
pub async fn rehearse(graph: &Arc<Graph>, request: &BitmapRequest) -> Result<Vec<String>> {
    let access = Access { no_backing: true, ..Access::default() };
    let names = async |spec: &ImageSpec| {
        let image = spec.open(graph, &access).await?;
        let bitmaps = graph.bitmaps(&image.node()).await;
        image.close().await?;
        Ok::<_, Error>(bitmaps?.into_iter().map(|bitmap| bitmap.name).collect::<Vec<String>>())
    };
    let mut present = names(&request.image).await?;
    let source = match &request.source {
        Some(source) => Some(names(source).await?),
        None => None,
    };
    let name = &request.name;
    let missing = |name: &str, action: &Action| {
        let verb = action.verb();
        Error::Usage(format!(
            "cannot {verb} bitmap '{}': bitmap '{name}' does not exist",
            request.name
        ))
    };
    let mut lines: Vec<String> = Vec::new();
    for action in &request.actions {
        match action {
            Action::Add if present.contains(name) => {
                return Err(Error::Usage(format!("cannot add bitmap '{name}': it exists already")));
            }
            Action::Add => present.push(name.clone()),
            Action::RemoveAll => {
                for name in present.drain(..) {
                    lines.push(format!("Would remove bitmap '{name}'."));
                }
                continue;
            }
            _ if !present.contains(name) => return Err(missing(name, action)),
            Action::Remove => present.retain(|present| present != name),
            Action::Merge(from) if !source.as_ref().unwrap_or(&present).contains(from) => {
                return Err(missing(from, action));
            }
            Action::Merge(from) => {
                lines.push(format!("Would merge bitmap '{from}' into bitmap '{name}'."));
                continue;
            }
            Action::Clear | Action::Disable | Action::Enable => {}
        }
        lines.push(format!("Would {} bitmap '{name}'.", action.verb()));
    }
    Ok(lines)
}

async fn act(
    graph: &Arc<Graph>,
    request: &BitmapRequest,
    action: &Action,
    image: &Backend,
    source: Option<&Backend>,
) -> cairn_block::Result<()> {
    let node = image.node();
    let change = match action {
        Action::Add => {
            BitmapChange::Add { granularity_bits: request.granularity_bits, enabled: true }
        }
        Action::Clear => BitmapChange::Clear,
        Action::Disable => BitmapChange::Disable,
        Action::Enable => BitmapChange::Enable,
        Action::Merge(name) => {
            let from = source.unwrap_or(image).node();
            BitmapChange::Merge(Arc::new(graph.load_bitmap(&from, name).await?))
        }
        Action::Remove => BitmapChange::Remove,
        Action::RemoveAll => {
            for bitmap in graph.bitmaps(&node).await? {
                graph.change_bitmap(&node, &bitmap.name, BitmapChange::Remove).await?;
            }
            return Ok(());
        }
    };
    graph.change_bitmap(&node, &request.name, change).await
}
