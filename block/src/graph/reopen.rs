//! Reopen: changing the flags of a node and what its children inherit of them, while users stay.

use std::sync::Arc;

use super::flags::NodeFlags;
use super::node::Node;
use super::{Graph, perms};
use crate::error::{Error, Result};
use crate::options::Dict;

impl Graph {
    /// Gives `node` new flags. The children follow as far as they inherit them. Requests wait
    /// meanwhile; on failure everything is as before.
    ///
    /// Only flags that can change in an open node are taken over: `read_only`, `auto_read_only`,
    /// `direct`, `no_flush`, `unmap` and `detect_zeroes`.
    pub async fn reopen(&self, node: &Arc<Node>, flags: NodeFlags) -> Result<()> {
        self.reopen_with(node, flags, Dict::new()).await
    }

    /// As [`reopen`](Self::reopen), with new values for `options` of the node's driver. Fails for
    /// options that cannot change while a node is open.
    pub async fn reopen_with(
        &self,
        node: &Arc<Node>,
        flags: NodeFlags,
        options: Dict,
    ) -> Result<()> {
        let _drained = self.drain(node).await;
        let commit = node.driver().prepare_reopen(options, flags).await?;
        if flags.read_only && !node.is_read_only() {
            node.flush_now().await?;
        }
        let mut steps = Vec::new();
        plan(node, flags, &mut steps);
        let former: Vec<_> = steps.iter().map(|(node, _)| node.flags()).collect();
        let mut steps: Vec<_> = steps.into_iter().zip(former).collect();
        // Storage becomes writable from the bottom up, and read-only from the top down.
        if !flags.read_only {
            steps.reverse();
        }
        let mut done = 0;
        let switched = async {
            for ((node, new), _) in &steps {
                switch(node, *new).await?;
                done += 1;
            }
            // What a node does to those below it follows from its mode.
            self.mutate(|| perms::refresh(node))
        };
        if let Err(error) = switched.await {
            // The former mode was in force a moment ago; the first failure is the one to report.
            for ((node, _), former) in steps.iter().take(done).rev() {
                let _ = switch(node, *former).await;
            }
            let _ = self.mutate(|| perms::refresh(node));
            return Err(error);
        }
        commit();
        Ok(())
    }
}

/// The nodes that change, from the top down, with their new flags.
fn plan(node: &Arc<Node>, flags: NodeFlags, steps: &mut Vec<(Arc<Node>, NodeFlags)>) {
    let old = node.flags();
    let new = NodeFlags {
        read_only: flags.read_only,
        auto_read_only: flags.auto_read_only,
        direct: flags.direct,
        no_flush: flags.no_flush,
        unmap: flags.unmap,
        detect_zeroes: flags.detect_zeroes,
        ..old
    };
    if new == old {
        return;
    }
    steps.push((Arc::clone(node), new));
    for edge in node.children() {
        let child = edge.node();
        let (before, after) = (old.inherited(edge.role()), new.inherited(edge.role()));
        let current = child.flags();
        // Only what the child has by inheritance changes with the parent, and others may go on writing.
        let mut next = current;
        let is_shared = child.parents().len() > 1;
        if current.read_only == before.read_only && !(after.read_only && is_shared) {
            next.read_only = after.read_only;
        }
        if current.direct == before.direct {
            next.direct = after.direct;
        }
        if current.no_flush == before.no_flush {
            next.no_flush = after.no_flush;
        }
        plan(&child, next, steps);
    }
}

async fn switch(node: &Arc<Node>, flags: NodeFlags) -> Result<()> {
    let old = node.flags();
    if old.read_only != flags.read_only {
        node.driver().reopen(flags.read_only).await.map_err(|error: Error| {
            let mode = if flags.read_only { "read-only" } else { "writable" };
            error.context(format!("cannot make '{}' {mode}", node.label()))
        })?;
    }
    if old.direct != flags.direct {
        node.driver().set_direct(flags.direct).await.map_err(|error: Error| {
            error.context(format!("cannot change cache.direct of '{}'", node.label()))
        })?;
    }
    node.store_flags(flags);
    Ok(())
}
