//! `copy-on-read`: what a read finds in a backing file is stored in the image above it.
//!
//! With `bottom` only the layers above that node's own backing file are copied from.

use std::sync::Arc;

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::{IoBuf, IoBufMut, is_zero};
use crate::driver::{Driver, DriverFuture, DriverInfo, Perm, Role, Status, WriteFlags};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::{
    Edge, Node, OpenContext, backing_of, default_child_perms, rejoin, skip_filters, status_above,
    tracker::Tracker,
};
use crate::num::AsUsize;

/// The driver's entry in the registry.
pub(crate) static COPY_ON_READ: DriverInfo = DriverInfo {
    name: "copy-on-read",
    open: |context| Box::pin(open(context)),
    options: Options::TABLE,
    ..INFO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// Node name of the lowest layer that is copied from; by default all are.
        "bottom" => bottom: Option<String>,
    }
}

struct CopyOnRead {
    file: Arc<Edge>,
    /// Layers from here on are not copied from.
    base: Option<Arc<Node>>,
    /// Keeps reads that copy apart from each other and from writes.
    tracker: Tracker,
    read_only: bool,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let file = context.child("file", FILTERED).await?;
    let base = match options.bottom {
        None => None,
        Some(name) => base_below(&file.node(), &name)?,
    };
    let read_only = context.flags().read_only;
    Ok(Box::new(Filtered(CopyOnRead { file, base, tracker: Tracker::default(), read_only })))
}

/// The backing file of the layer called `bottom` in the chain of `top`.
fn base_below(top: &Arc<Node>, bottom: &str) -> Result<Option<Arc<Node>>> {
    let mut layer = Some(Arc::clone(top));
    while let Some(node) = layer {
        if node.name() == bottom || skip_filters(Arc::clone(&node)).name() == bottom {
            return Ok(backing_of(&node));
        }
        layer = backing_of(&node);
    }
    Err(Error::Name {
        what: "node",
        name: bottom.to_owned(),
        problem: "is not in the chain that copy-on-read is above of",
    })
}

impl CopyOnRead {
    /// Reads a run that the top layer does not have, and stores it there.
    async fn copy(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let buf = self.file.read(offset, buf).await?.freeze();
        self.file.event(Event::CorWrite).await;
        if is_zero(&buf) {
            let len = buf.len() as u64;
            self.file.write_zeroes(offset, len, WriteFlags::MAY_UNMAP).await?;
        } else {
            self.file.write(offset, buf.clone(), WriteFlags::empty()).await?;
        }
        buf.into_mut().or_else(|shared| Ok(IoBufMut::copy_of(&shared)))
    }
}

impl Filter for CopyOnRead {
    fn info(&self) -> &'static DriverInfo {
        &COPY_ON_READ
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        if self.read_only {
            return Box::pin(self.file.read(offset, buf));
        }
        Box::pin(async move {
            let mut at = offset;
            let mut rest = buf;
            let mut done = rest.split_to(0);
            while !rest.is_empty() {
                let len = rest.len() as u64;
                let top = self.file.node();
                let own = top.block_status(at, len, false).await?;
                let run = own.len.clamp(1, len);
                if own.status.contains(Status::ALLOCATED) {
                    let piece = rest.split_to(run.as_usize());
                    done = rejoin(done, self.file.read(at, piece).await?);
                    at += run;
                    continue;
                }
                // Between the look and the copy nobody else may write here.
                let _alone = self.tracker.begin(at..at + run, true).await;
                let above = status_above(&top, self.base.as_ref(), at, run, false).await?.extent;
                let run = above.len.clamp(1, run);
                let piece = rest.split_to(run.as_usize());
                let still = top.block_status(at, run, false).await?;
                let mine = still.status.contains(Status::ALLOCATED);
                // With no `bottom`, what no layer has is zeroes, which are stored too.
                let wanted = self.base.is_none() || above.status.contains(Status::ALLOCATED);
                let piece = if mine || !wanted {
                    self.file.read(at, piece).await?
                } else {
                    self.copy(at, piece).await?
                };
                done = rejoin(done, piece);
                at += run;
            }
            Ok(done)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let end = offset.saturating_add(buf.len() as u64);
            let _beside = self.tracker.begin(offset..end, false).await;
            self.file.write(offset, buf, flags).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let _beside = self.tracker.begin(offset..offset.saturating_add(len), false).await;
            self.file.write_zeroes(offset, len, flags).await
        })
    }

    fn child_perms(&self, role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
        let (mut used, shared) = default_child_perms(role, perm, shared, read_only);
        used.set(Perm::WRITE_UNCHANGED, !read_only || used.contains(Perm::WRITE_UNCHANGED));
        (used, shared)
    }
}
