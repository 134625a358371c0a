//! Permissions: what each user of a node does, and what it lets others do.
//!
//! Every edge carries a pair (used, shared). A node's parents must not exclude each other; what they
//! use and share together decides what the node in turn needs of its children, down to the protocol,
//! which turns it into file locks. A change is planned for the whole subtree first and applied only
//! if every node agrees; a refusal on the way leaves everything as it was.

use std::sync::Arc;

use super::node::Node;
use super::{Edge, Parent};
use crate::driver::{Perm, Role};
use crate::error::{Error, Result};

/// Permissions on a child that follow from its role alone.
///
/// * A filter passes its parents' permissions on.
/// * A format writes and grows its file whenever it is writable, since metadata changes even while
///   no guest writes, and lets nobody else write to it.
/// * A backing file is only read, and may change only where the parents do not mind.
pub fn default_child_perms(role: Role, perm: Perm, shared: Perm, read_only: bool) -> (Perm, Perm) {
    if role.contains(Role::FILTERED) {
        return (perm, shared | Perm::WRITE_UNCHANGED);
    }
    if role.contains(Role::COW) {
        let unchanged = Perm::CONSISTENT_READ | Perm::WRITE_UNCHANGED;
        let changes = Perm::WRITE | Perm::RESIZE;
        let shared = if shared.contains(Perm::WRITE) { unchanged | changes } else { unchanged };
        return (perm & Perm::CONSISTENT_READ, shared);
    }
    let mut used = perm;
    let mut shared = shared | Perm::WRITE_UNCHANGED;
    if role.contains(Role::METADATA) {
        used |= Perm::CONSISTENT_READ;
        if !read_only {
            used |= Perm::WRITE | Perm::RESIZE;
        }
        shared &= !(Perm::WRITE | Perm::RESIZE);
    }
    if role.contains(Role::DATA) {
        if used.contains(Perm::WRITE) {
            used |= Perm::RESIZE;
        }
        shared &= !Perm::RESIZE;
    }
    (used, shared)
}

/// Names of the permissions in a set, for messages.
pub(super) fn names(perm: Perm) -> String {
    let all = [
        (Perm::CONSISTENT_READ, "consistent read"),
        (Perm::WRITE, "write"),
        (Perm::WRITE_UNCHANGED, "write unchanged"),
        (Perm::RESIZE, "resize"),
    ];
    let used: Vec<_> = all.iter().filter(|(p, _)| perm.contains(*p)).map(|(_, n)| *n).collect();
    if used.is_empty() { "none".to_owned() } else { used.join(", ") }
}

/// Changes the permissions of `edge` to (used, shared) and those below it accordingly.
pub(super) fn set(edge: &Arc<Edge>, used: Perm, shared: Perm) -> Result<()> {
    let mut plan = Plan::default();
    plan.edges.push((Arc::clone(edge), used, shared));
    plan.visit(&edge.node())?;
    plan.apply()
}

/// Works the permissions of everything below `node` out anew, after a parent came, went or changed.
pub(super) fn refresh(node: &Arc<Node>) -> Result<()> {
    let mut plan = Plan::default();
    plan.visit(node)?;
    plan.apply()
}

/// New permissions for a subtree, before they are in force.
#[derive(Default)]
struct Plan {
    edges: Vec<(Arc<Edge>, Perm, Perm)>,
    nodes: Vec<(Arc<Node>, Perm, Perm)>,
}

impl Plan {
    /// Permissions of an edge as planned, else as they are.
    fn perms_of(&self, edge: &Arc<Edge>) -> (Perm, Perm) {
        self.edges
            .iter()
            .rev()
            .find(|(e, ..)| Arc::ptr_eq(e, edge))
            .map_or_else(|| edge.perms(), |(_, used, shared)| (*used, *shared))
    }

    fn visit(&mut self, node: &Arc<Node>) -> Result<()> {
        let parents = node.parents();
        let perms: Vec<_> = parents.iter().map(|edge| self.perms_of(edge)).collect();
        for (i, (used, _)) in perms.iter().enumerate() {
            for (j, (_, shared)) in perms.iter().enumerate() {
                let conflict = *used & !*shared;
                if i != j
                    && !conflict.is_empty()
                    && let (Some(user), Some(owner)) = (parents.get(i), parents.get(j))
                {
                    return Err(conflict_error(node, conflict, user, owner));
                }
            }
        }
        let used = perms.iter().fold(Perm::empty(), |all, (used, _)| all | *used);
        let shared = perms.iter().fold(Perm::all(), |all, (_, shared)| all & *shared);
        let changes = used & (Perm::WRITE | Perm::WRITE_UNCHANGED | Perm::RESIZE);
        if !changes.is_empty() && node.is_read_only() && !node.can_become_writable() {
            return Err(Error::ReadOnly { node: node.label() });
        }
        self.nodes.push((Arc::clone(node), used, shared));
        for edge in node.children() {
            let (used, mut shared) =
                node.driver().child_perms(edge.role(), used, shared, node.is_read_only());
            if node.flags().force_share {
                shared = Perm::all();
            }
            self.edges.push((Arc::clone(&edge), used, shared));
            self.visit(&edge.node())?;
        }
        Ok(())
    }

    fn apply(self) -> Result<()> {
        for (done, (node, used, shared)) in self.nodes.iter().enumerate() {
            if let Err(error) = node.driver().set_permissions(*used, *shared) {
                for (node, ..) in self.nodes.iter().take(done).rev() {
                    let (used, shared) = cumulative(node);
                    // The old permissions were in force a moment ago, so they can be had again.
                    let _ = node.driver().set_permissions(used, shared);
                }
                return Err(error);
            }
        }
        for (edge, used, shared) in self.edges {
            edge.store_perms(used, shared);
        }
        Ok(())
    }
}

/// What all parents of `node` together use, and all share.
fn cumulative(node: &Node) -> (Perm, Perm) {
    node.parents()
        .iter()
        .map(|edge| edge.perms())
        .fold((Perm::empty(), Perm::all()), |(all_used, all_shared), (used, shared)| {
            (all_used | used, all_shared & shared)
        })
}

fn conflict_error(node: &Node, conflict: Perm, user: &Edge, owner: &Edge) -> Error {
    let describe = |edge: &Edge| match edge.parent() {
        Parent::Node(name) => format!("node '{name}' (as '{}')", edge.name()),
        Parent::User(user) => user.name.clone(),
    };
    Error::Permission {
        message: format!(
            "'{}' is in use: {} needs '{}', which {} does not allow",
            node.label(),
            describe(user),
            names(conflict),
            describe(owner),
        ),
    }
}
