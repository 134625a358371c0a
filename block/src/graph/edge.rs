//! An edge: a named use of a node by its parent.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::backend::User;
use super::node::Node;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Extent, Perm, Resize, Role, WriteFlags};
use crate::error::Result;
use crate::event::Event;

/// Who holds an edge.
#[derive(Clone, Debug)]
pub enum Parent {
    /// The node of this name.
    Node(String),
    /// A user on top of the graph.
    User(Arc<User>),
}

/// A use of a node by a parent: its name, role and permissions. I/O goes through it.
///
/// The child is read without a lock; a graph change swaps it after draining the users above.
pub struct Edge {
    name: String,
    role: Role,
    parent: Parent,
    child: ArcSwap<Node>,
    /// Used and shared.
    perms: Mutex<(Perm, Perm)>,
}

impl Edge {
    /// Makes `child` a child of `parent`, at first using nothing and sharing everything.
    pub(super) fn attach(name: &str, role: Role, parent: Parent, child: Arc<Node>) -> Arc<Edge> {
        let edge = Arc::new(Edge {
            name: name.to_owned(),
            role,
            parent,
            child: ArcSwap::new(Arc::clone(&child)),
            perms: Mutex::new((Perm::empty(), Perm::all())),
        });
        child.add_parent(&edge);
        edge
    }

    /// Name of the edge below its parent: `file`, `backing`, `data-file` …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the parent uses the child for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who holds the edge.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    /// The child.
    pub fn node(&self) -> Arc<Node> {
        self.child.load_full()
    }

    /// Permissions used and shared.
    pub fn perms(&self) -> (Perm, Perm) {
        *self.perms.lock()
    }

    pub(super) fn store_perms(&self, used: Perm, shared: Perm) {
        *self.perms.lock() = (used, shared);
    }

    /// Puts `node` in the place of the present child. The caller has drained the users above.
    pub(super) fn replace(self: &Arc<Edge>, node: Arc<Node>) -> Arc<Node> {
        node.add_parent(self);
        let old = self.child.swap(node);
        old.remove_parent(self);
        old
    }

    pub(super) fn detach(self: &Arc<Edge>) {
        self.node().remove_parent(self);
    }

    /// Size of the child in bytes.
    pub fn size(&self) -> u64 {
        self.child.load().size()
    }

    /// See [`Node::read`].
    pub async fn read(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        self.node().read(offset, buf).await
    }

    /// See [`Node::write`].
    pub async fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> Result<()> {
        self.node().write(offset, buf, flags).await
    }

    /// Tells the child that a request of the parent passes `event`, if it wants to know; see
    /// [`crate::driver::Driver::event`]. Costs next to nothing if it does not.
    pub async fn event(&self, event: Event) {
        self.node().event(event).await;
    }

    /// See [`Node::write_compressed`].
    pub async fn write_compressed(&self, offset: u64, buf: IoBuf) -> Result<()> {
        self.node().write_compressed(offset, buf).await
    }

    /// See [`Node::write_zeroes`].
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> Result<()> {
        self.node().write_zeroes(offset, len, flags).await
    }

    /// See [`Node::discard`].
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.node().discard(offset, len).await
    }

    /// See [`Node::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.node().flush().await
    }

    /// See [`Node::block_status`].
    pub async fn block_status(&self, offset: u64, len: u64, precise: bool) -> Result<Extent> {
        self.node().block_status(offset, len, precise).await
    }

    /// See [`Node::resize`].
    pub async fn resize(&self, size: u64, how: Resize) -> Result<()> {
        self.node().resize(size, how).await
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edge({} -> {})", self.name, self.node().name())
    }
}

/// The parents of a node. Weak, since edges own nodes and not the other way round.
#[derive(Default)]
pub(super) struct Parents(Mutex<Vec<Weak<Edge>>>);

impl Parents {
    pub(super) fn add(&self, edge: &Arc<Edge>) {
        self.0.lock().push(Arc::downgrade(edge));
    }

    pub(super) fn remove(&self, edge: &Arc<Edge>) {
        self.0.lock().retain(|e| e.upgrade().is_some_and(|e| !Arc::ptr_eq(&e, edge)));
    }

    pub(super) fn list(&self) -> Vec<Arc<Edge>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
