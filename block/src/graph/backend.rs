//! A backend: the user's end of the graph. Tools, exports, jobs and guest devices do I/O through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::edge::{Edge, Parent};
use super::node::Node;
use super::{Graph, perms};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Extent, Perm, Resize, Role, WriteFlags};
use crate::error::{Error, Op, Result};

/// One user of the graph: its name for messages, and the gate that a drain closes.
#[derive(Debug)]
pub struct User {
    /// What the user is, for messages: "cairn-img", "export 'x'" …
    pub name: String,
    in_flight: AtomicUsize,
    /// Number of drains that keep new requests waiting.
    quiesced: AtomicUsize,
    idle: Notify,
    resumed: Notify,
}

/// A request of a user under way.
struct Passage<'u>(&'u User);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl User {
    fn new(name: String) -> Arc<User> {
        Arc::new(User {
            name,
            in_flight: AtomicUsize::new(0),
            quiesced: AtomicUsize::new(0),
            idle: Notify::new(),
            resumed: Notify::new(),
        })
    }

    /// Enters the graph; waits while it is drained.
    async fn enter(&self) -> Passage<'_> {
        loop {
            // Count first: a drain that comes now sees this request, or this request sees the drain.
            self.in_flight.fetch_add(1, Ordering::AcqRel);
            let passage = Passage(self);
            if self.quiesced.load(Ordering::Acquire) == 0 {
                return passage;
            }
            let resumed = self.resumed.notified();
            drop(passage);
            if self.quiesced.load(Ordering::Acquire) != 0 {
                resumed.await;
            }
        }
    }

    pub(super) fn quiesce(&self) {
        self.quiesced.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn resume(&self) {
        self.quiesced.fetch_sub(1, Ordering::AcqRel);
        self.resumed.notify_waiters();
    }

    pub(super) async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// The root of a tree of nodes, as seen by one user. Requests are checked against the node's size.
///
/// May be used from several I/O threads at once. Close it when done: that writes back what formats
/// keep in memory, and reports what goes wrong with it.
pub struct Backend {
    graph: Arc<Graph>,
    root: Arc<Edge>,
    user: Arc<User>,
    /// Every write is followed by a flush.
    write_through: bool,
}

impl Backend {
    /// Makes `user` a user of `node` that needs the permissions `used` and leaves `shared` to others.
    pub fn new(
        graph: &Arc<Graph>,
        node: Arc<Node>,
        user: impl Into<String>,
        used: Perm,
        shared: Perm,
    ) -> Result<Backend> {
        let user = User::new(user.into());
        let root = Edge::attach(
            "root",
            Role::FILTERED | Role::PRIMARY,
            Parent::User(Arc::clone(&user)),
            node,
        );
        if let Err(error) = graph.mutate(|| perms::set(&root, used, shared)) {
            root.detach();
            return Err(error);
        }
        graph.add_user(&root);
        Ok(Backend { graph: Arc::clone(graph), root, user, write_through: false })
    }

    /// Makes every write durable before it completes, or no longer.
    pub fn set_write_through(&mut self, on: bool) {
        self.write_through = on;
    }

    /// The graph that the node belongs to.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The node on top.
    pub fn node(&self) -> Arc<Node> {
        self.root.node()
    }

    /// What this user needs and shares.
    pub fn permissions(&self) -> (Perm, Perm) {
        self.root.perms()
    }

    /// Changes what this user needs and shares.
    pub fn set_permissions(&self, used: Perm, shared: Perm) -> Result<()> {
        self.graph.mutate(|| perms::set(&self.root, used, shared))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.root.size()
    }

    fn check(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        let size = self.size();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Error::OutOfRange { op, node: self.node().label(), offset, len, size });
        }
        Ok(())
    }

    fn flags(&self, flags: WriteFlags) -> WriteFlags {
        if self.write_through { flags | WriteFlags::FUA } else { flags }
    }

    /// Reads `buf.len()` bytes at `offset`.
    pub async fn read(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let _passage = self.user.enter().await;
        self.check(Op::Read, offset, buf.len() as u64)?;
        self.root.read(offset, buf).await
    }

    /// Writes `buf` at `offset`.
    pub async fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> Result<()> {
        let _passage = self.user.enter().await;
        self.check(Op::Write, offset, buf.len() as u64)?;
        self.root.write(offset, buf, self.flags(flags)).await
    }

    /// Writes one compressed cluster; see [`crate::driver::Driver::write_compressed`].
    pub async fn write_compressed(&self, offset: u64, buf: IoBuf) -> Result<()> {
        let _passage = self.user.enter().await;
        self.check(Op::Write, offset, buf.len() as u64)?;
        self.root.write_compressed(offset, buf).await
    }

    /// Makes a range read as zeroes.
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> Result<()> {
        let _passage = self.user.enter().await;
        self.check(Op::WriteZeroes, offset, len)?;
        self.root.write_zeroes(offset, len, self.flags(flags)).await
    }

    /// Gives storage back.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _passage = self.user.enter().await;
        self.check(Op::Discard, offset, len)?;
        self.root.discard(offset, len).await
    }

    /// Makes completed writes durable.
    pub async fn flush(&self) -> Result<()> {
        let _passage = self.user.enter().await;
        self.root.flush().await
    }

    /// Reads saved machine state; see [`crate::driver::Driver::read_vm_state`].
    pub async fn read_vm_state(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let _passage = self.user.enter().await;
        self.node().read_vm_state(offset, buf).await
    }

    /// Writes saved machine state; see [`crate::driver::Driver::write_vm_state`].
    pub async fn write_vm_state(&self, offset: u64, buf: IoBuf) -> Result<()> {
        let _passage = self.user.enter().await;
        self.node().write_vm_state(offset, buf).await?;
        if self.write_through { self.root.flush().await } else { Ok(()) }
    }

    /// Changes the size.
    pub async fn resize(&self, size: u64, how: Resize) -> Result<()> {
        let _passage = self.user.enter().await;
        self.root.resize(size, how).await
    }

    /// Status of the first run of a range of the top layer.
    pub async fn block_status(&self, offset: u64, len: u64, precise: bool) -> Result<Extent> {
        let _passage = self.user.enter().await;
        self.root.block_status(offset, len, precise).await
    }

    /// Status of the first run of a range of the chain above `base`; see [`super::status_above`].
    pub async fn status_above(
        &self,
        base: Option<&Arc<Node>>,
        offset: u64,
        len: u64,
        precise: bool,
    ) -> Result<super::ChainExtent> {
        let _passage = self.user.enter().await;
        super::status_above(&self.node(), base, offset, len, precise).await
    }

    /// What the first run of a range of the chain above `base` holds; see [`super::content_above`].
    pub async fn content_above(
        &self,
        base: Option<&Arc<Node>>,
        offset: u64,
        len: u64,
    ) -> Result<super::ChainExtent> {
        let _passage = self.user.enter().await;
        super::content_above(&self.node(), base, offset, len).await
    }

    /// Copies a range of `source` inside the kernel; fails with an unsupported-error where that cannot
    /// be done, and then nothing was changed that a normal write would not overwrite.
    pub async fn copy_range_from(
        &self,
        source: &Backend,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let _passage = (self.user.enter().await, source.user.enter().await);
        self.check(Op::CopyRange, offset, len)?;
        source.check(Op::CopyRange, source_offset, len)?;
        self.node().copy_range_from(&source.node(), source_offset, offset, len).await
    }

    /// Gives the node up. If nobody else uses it, it is flushed and closed, with its children.
    pub async fn close(self) -> Result<()> {
        self.user.wait_idle().await;
        let node = self.node();
        self.graph.remove_user(&self.root);
        let graph = Arc::clone(&self.graph);
        self.root.detach();
        drop(self);
        graph.release(node).await
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.graph.remove_user(&self.root);
        self.root.detach();
    }
}
