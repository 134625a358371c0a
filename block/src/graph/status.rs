//! Block status: what is known of a range of a node, alone or with its backing chain.

use std::sync::Arc;

use super::node::Node;
use crate::driver::{DriverFuture, DriverKind, Extent, Status};
use crate::error::{Error, Op, Result};

/// What a query wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// What is cheap to find out.
    Hint,
    /// Where there is data and where there are zeroes.
    Content,
    /// The same, and where the data is.
    Place,
}

impl Ask {
    fn new(precise: bool) -> Ask {
        if precise { Ask::Place } else { Ask::Hint }
    }
}

/// Status of a range of a chain of overlays.
#[derive(Clone, Debug)]
pub struct ChainExtent {
    /// The extent. `ALLOCATED` is set if some layer of the chain decides the content.
    pub extent: Extent,
    /// Layer that decides the content: 0 is the top.
    pub depth: usize,
    /// The node of that layer.
    pub node: Arc<Node>,
}

impl Node {
    /// Status of the first run of a range. With `precise` false, zeroes may be reported as data where
    /// finding out costs a query below this node.
    ///
    /// `len` must not be 0. A range that begins beyond the end has no data and ends with `EOF`.
    pub async fn block_status(&self, offset: u64, len: u64, precise: bool) -> Result<Extent> {
        self.status(offset, len, Ask::new(precise)).await
    }

    async fn status(&self, offset: u64, len: u64, ask: Ask) -> Result<Extent> {
        let _busy = self.enter();
        let size = self.size();
        if offset >= size {
            return Ok(Extent { len, status: Status::EOF, map: None });
        }
        let len = len.min(size - offset);
        let align = u64::from(self.driver.limits().request_alignment.max(1));
        let mut start = offset / align * align;
        let end = (offset + len).next_multiple_of(align);
        let mut extent = self.ask_driver(start, end - start, ask).await?;
        // An extent may end inside an aligned block, where a file does.
        while extent.len > 0 && start + extent.len <= offset {
            start += extent.len;
            extent = self.ask_driver(start, end - start, ask).await?;
        }
        let skipped = offset - start;
        if extent.len <= skipped {
            return Err(Error::corrupt(self.label(), "a driver reported an empty extent"));
        }
        extent.len = (extent.len - skipped).min(len);
        if let Some((_, at)) = &mut extent.map {
            *at += skipped;
        }
        self.refine(offset, ask, &mut extent).await?;
        if offset + extent.len == size {
            extent.status |= Status::EOF;
        }
        Ok(extent)
    }

    fn ask_driver(&self, offset: u64, len: u64, ask: Ask) -> DriverFuture<'_, Extent> {
        match ask {
            Ask::Content => self.driver.content_status(offset, len),
            Ask::Hint | Ask::Place => self.driver.block_status(offset, len, ask == Ask::Place),
        }
    }

    /// Adds what follows from the children.
    async fn refine(&self, offset: u64, ask: Ask, extent: &mut Extent) -> Result<()> {
        if extent.status.contains(Status::RAW)
            && let Some((edge, at)) = extent.map.clone()
        {
            // The mapped child answers for this node.
            let mut below = Box::pin(edge.node().status(at, extent.len, ask)).await?;
            if below.status.contains(Status::OFFSET_VALID) && below.map.is_none() {
                // A protocol's data is where it was asked for.
                below.map = Some((edge, at));
            }
            *extent = below;
            return Ok(());
        }
        if extent.status.intersects(Status::DATA | Status::ZERO) {
            extent.status |= Status::ALLOCATED;
        } else if self.driver.info().supports_backing {
            match self.backing() {
                None => extent.status |= Status::ZERO,
                Some(backing) if ask != Ask::Hint && offset >= backing.size() => {
                    extent.status |= Status::ZERO;
                }
                Some(_) => {}
            }
        }
        let look_below = Status::DATA | Status::OFFSET_VALID | Status::RECURSE;
        if ask != Ask::Hint
            && extent.status.contains(look_below)
            && !extent.status.contains(Status::ZERO)
            && let Some((edge, at)) = extent.map.clone()
        {
            let below = Box::pin(edge.node().status(at, extent.len, ask)).await?;
            if below.status.contains(Status::EOF)
                && !below.status.intersects(Status::DATA | Status::ZERO)
            {
                // Beyond the end of the file everything reads as zeroes.
                extent.status |= Status::ZERO;
            } else {
                extent.len = extent.len.min(below.len);
                extent.status |= below.status & Status::ZERO;
            }
        }
        Ok(())
    }
}

/// Skips filters: the node that formats would call the layer.
pub fn skip_filters(node: Arc<Node>) -> Arc<Node> {
    let mut node = node;
    while node.driver().info().kind == DriverKind::Filter {
        match node.filtered() {
            Some(edge) => node = edge.node(),
            None => break,
        }
    }
    node
}

/// The next layer below `node` in its backing chain.
pub fn backing_of(node: &Arc<Node>) -> Option<Arc<Node>> {
    skip_filters(Arc::clone(node)).backing().map(|edge| edge.node())
}

/// Status of the first run of a range of the chain from `top` down to, but without, `base`.
///
/// The run is not allocated if no layer above `base` decides its content.
pub async fn status_above(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    offset: u64,
    len: u64,
    precise: bool,
) -> Result<ChainExtent> {
    chain_status(top, base, offset, len, Ask::new(precise)).await
}

/// As a precise [`status_above`], for those to whom the place of data does not matter: one run may
/// cover what lies in many places.
pub async fn content_above(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    offset: u64,
    len: u64,
) -> Result<ChainExtent> {
    chain_status(top, base, offset, len, Ask::Content).await
}

async fn chain_status(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    offset: u64,
    len: u64,
    ask: Ask,
) -> Result<ChainExtent> {
    let mut node = Arc::clone(top);
    let mut len = len;
    let mut depth = 0;
    // Beyond the end of a short layer the chain reads as zeroes, whatever lies below.
    let mut short: Option<(usize, Arc<Node>)> = None;
    loop {
        let mut extent = node.status(offset, len, ask).await?;
        let beyond = offset >= node.size();
        if depth > 0 && beyond {
            // The layer above asked for bytes that this layer does not have: they are zeroes, and
            // it is the layer above that makes them so.
            let (depth, node) = short.unwrap_or((depth - 1, node));
            extent.len = len;
            extent.status = Status::ZERO | Status::ALLOCATED;
            return Ok(ChainExtent { extent, depth, node });
        }
        let allocated = extent.status.contains(Status::ALLOCATED);
        let next = if allocated { None } else { backing_of(&node) };
        let at_base = |n: &Arc<Node>| base.is_some_and(|b| Arc::ptr_eq(b, n));
        match next {
            Some(next) if !at_base(&next) => {
                if extent.len == 0 {
                    return Err(Error::Os {
                        op: Op::BlockStatus,
                        node: node.label(),
                        offset: Some(offset),
                        source: std::io::ErrorKind::InvalidData.into(),
                    });
                }
                len = extent.len;
                short = Some((depth, Arc::clone(&node)));
                node = next;
                depth += 1;
            }
            _ => {
                if depth > 0 {
                    // The end of a lower layer is not the end of the top.
                    extent.status.set(Status::EOF, offset + extent.len >= top.size());
                }
                return Ok(ChainExtent { extent, depth, node });
            }
        }
    }
}
