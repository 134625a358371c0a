//! The block graph: nodes, the edges between them, and the users on top.
//!
//! I/O takes no lock of the graph. Changes (opening, closing, permissions, replacing a child) take the
//! graph's mutation lock, and those that requests could notice drain the users above first.

mod align;
mod backend;
mod edge;
mod flags;
mod node;
mod notice;
mod open;
mod perms;
mod policy;
mod reopen;
mod status;
mod stored;
pub(crate) mod tracker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use backend::{Backend, User};
pub use edge::{Edge, Parent};
pub use flags::NodeFlags;
pub(crate) use node::rejoin;
pub use node::{MAX_REQUEST, MAX_SIZE, Node};
pub(crate) use notice::Notices;
pub use open::{OpenContext, OpenOptions, probe};
pub use perms::default_child_perms;
pub use policy::{Bounds, Place, Policy, References, Rule, data_bytes, stored_length};
pub use status::{ChainExtent, backing_of, content_above, skip_filters, status_above};

use crate::authz::Authorizers;
use crate::error::{Error, Result};
use crate::filters::throttle::ThrottleGroups;
use crate::options::Dict;
use crate::options::filename::identify;
use crate::secret::Secrets;
use crate::tls::TlsCredentials;

/// All nodes and users of one program.
#[derive(Default)]
pub struct Graph {
    nodes: Mutex<HashMap<String, Weak<Node>>>,
    users: Mutex<Vec<Arc<Edge>>>,
    next_id: AtomicU64,
    mutation: Mutex<()>,
    throttle_groups: ThrottleGroups,
    notices: Arc<Notices>,
    secrets: Secrets,
    tls_credentials: TlsCredentials,
    authorizers: Authorizers,
    policy: Policy,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Arc<Graph> {
        Arc::default()
    }

    /// An empty graph whose images may ask for what `policy` allows.
    pub fn with_policy(policy: Policy) -> Arc<Graph> {
        Arc::new(Graph { policy, ..Graph::default() })
    }

    /// What images may ask for.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Has `listener` told of what users should know though nothing failed, one text each, possibly of
    /// several lines. The first listener stays; without one, warnings go nowhere.
    pub fn on_warning(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.notices.on_warning(Box::new(listener));
    }

    /// Has `listener` told of damage that shows while images are in use, and of repairs that are made
    /// when they are opened, one line each. The first listener stays.
    pub fn on_finding(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.notices.on_finding(Box::new(listener));
    }

    /// The throttle groups that nodes refer to.
    pub fn throttle_groups(&self) -> &ThrottleGroups {
        &self.throttle_groups
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.lock().get(name).and_then(Weak::upgrade)
    }

    /// The secrets that options of nodes may refer to.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The TLS credentials that options of nodes may refer to.
    pub fn tls_credentials(&self) -> &TlsCredentials {
        &self.tls_credentials
    }

    /// The authorizers that servers may refer to.
    pub fn authorizers(&self) -> &Authorizers {
        &self.authorizers
    }

    /// Where to tell of what users should know.
    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// A node name that no user can give.
    fn generated_name(&self) -> String {
        format!("#block{:03}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn register(&self, node: &Arc<Node>) -> Result<()> {
        let mut nodes = self.nodes.lock();
        if nodes.get(node.name()).is_some_and(|n| n.strong_count() > 0) {
            return Err(Error::Name {
                what: "node name",
                name: node.name().to_owned(),
                problem: "is in use already",
            });
        }
        nodes.retain(|_, n| n.strong_count() > 0);
        nodes.insert(node.name().to_owned(), Arc::downgrade(node));
        Ok(())
    }

    /// Puts a driver instance that was made outside into the graph, as the node `name`.
    pub fn add_driver(
        &self,
        name: &str,
        flags: NodeFlags,
        driver: Box<dyn crate::driver::Driver>,
    ) -> Result<Arc<Node>> {
        let identity = identify(driver.info(), &Dict::new(), None, &[], false);
        let node = Node::new(name.to_owned(), identity, flags, driver, Vec::new());
        self.register(&node)?;
        Ok(node)
    }

    /// Runs a change of the graph's shape or permissions, one at a time.
    fn mutate<T>(&self, change: impl FnOnce() -> T) -> T {
        let _guard = self.mutation.lock();
        change()
    }

    fn add_user(&self, root: &Arc<Edge>) {
        self.users.lock().push(Arc::clone(root));
    }

    fn remove_user(&self, root: &Arc<Edge>) {
        self.users.lock().retain(|edge| !Arc::ptr_eq(edge, root));
    }

    /// Keeps the users above `node` from sending requests and waits until none is under way, there or
    /// in the node, until the guard is dropped.
    pub async fn drain(&self, node: &Arc<Node>) -> Drained {
        let users: Vec<_> = self
            .users
            .lock()
            .iter()
            .filter(|root| reaches(&root.node(), node))
            .filter_map(|root| match root.parent() {
                Parent::User(user) => Some(Arc::clone(user)),
                Parent::Node(_) => None,
            })
            .collect();
        for user in &users {
            user.quiesce();
        }
        let drained = Drained(users);
        for user in &drained.0 {
            user.wait_idle().await;
        }
        node.wait_idle().await;
        drained
    }

    /// Makes `edge` lead to `node` instead of its present child, with all users above drained.
    /// Returns the former child.
    pub async fn replace(&self, edge: &Arc<Edge>, node: Arc<Node>) -> Result<Arc<Node>> {
        let _drained = self.drain(&edge.node()).await;
        self.mutate(|| {
            let old = edge.replace(Arc::clone(&node));
            if let Err(error) = perms::refresh(&node) {
                edge.replace(old);
                return Err(error);
            }
            perms::refresh(&old)?;
            Ok(old)
        })
    }

    /// Closes `node` and those below it that nobody uses any more.
    async fn release(&self, node: Arc<Node>) -> Result<()> {
        if !node.parents().is_empty() {
            return self.mutate(|| perms::refresh(&node));
        }
        if !node.begin_close() {
            return Ok(());
        }
        node.wait_idle().await;
        let mut result = if node.is_read_only() { Ok(()) } else { node.flush_now().await };
        let closed = node.driver().close().await;
        result = result.and(closed);
        for edge in node.take_children() {
            let child = edge.node();
            edge.detach();
            let released = Box::pin(self.release(child)).await;
            result = result.and(released);
        }
        result
    }
}

/// Whether `to` is `from` or lies below it.
fn reaches(from: &Arc<Node>, to: &Arc<Node>) -> bool {
    Arc::ptr_eq(from, to) || from.children().iter().any(|edge| reaches(&edge.node(), to))
}

/// While it lives, the users above a node send no requests.
pub struct Drained(Vec<Arc<User>>);

impl Drop for Drained {
    fn drop(&mut self) {
        for user in &self.0 {
            user.resume();
        }
    }
}
