//! What an image stores beside its present content: internal snapshots and persistent bitmaps. While
//! they change, everything that uses the node is kept waiting.

use std::sync::Arc;

use super::Graph;
use super::node::Node;
use super::status::skip_filters;
use crate::dirty_bitmap::{BitmapChange, BitmapInfo, DirtyBitmap};
use crate::driver::{CompactWatch, Compaction, SnapshotInfo};
use crate::error::{Error, Result};
use crate::snapshot::{NewSnapshot, SnapshotKey};

impl Graph {
    /// Keeps the content of `node` as an internal snapshot.
    pub async fn create_snapshot(
        &self,
        node: &Arc<Node>,
        new: NewSnapshot,
    ) -> Result<SnapshotInfo> {
        let node = writable(node)?;
        let _drained = self.drain(&node).await;
        node.driver().create_snapshot(new).await
    }

    /// Makes the content of `node` that of an internal snapshot.
    pub async fn apply_snapshot(&self, node: &Arc<Node>, snapshot: SnapshotKey) -> Result<()> {
        let node = writable(node)?;
        let _drained = self.drain(&node).await;
        node.driver().apply_snapshot(snapshot).await
    }

    /// Deletes an internal snapshot of `node`.
    pub async fn delete_snapshot(&self, node: &Arc<Node>, snapshot: SnapshotKey) -> Result<()> {
        let node = writable(node)?;
        let _drained = self.drain(&node).await;
        node.driver().delete_snapshot(snapshot).await
    }

    /// Makes `node`, which is read-only, show an internal snapshot until it is closed.
    pub async fn show_snapshot(&self, node: &Arc<Node>, snapshot: SnapshotKey) -> Result<()> {
        let node = skip_filters(Arc::clone(node));
        let _drained = self.drain(&node).await;
        node.driver().show_snapshot(snapshot).await
    }

    /// Moves what the image of `node` stores to the front of its file, and cuts the file.
    pub async fn compact(&self, node: &Arc<Node>, watch: &dyn CompactWatch) -> Result<Compaction> {
        let node = writable(node)?;
        let _drained = self.drain(&node).await;
        node.driver().compact(watch).await
    }

    /// The persistent bitmaps of `node`.
    pub async fn bitmaps(&self, node: &Arc<Node>) -> Result<Vec<BitmapInfo>> {
        skip_filters(Arc::clone(node)).driver().bitmaps().await
    }

    /// Content of a persistent bitmap of `node`.
    pub async fn load_bitmap(&self, node: &Arc<Node>, name: &str) -> Result<DirtyBitmap> {
        let node = skip_filters(Arc::clone(node));
        let _drained = self.drain(&node).await;
        node.driver().load_bitmap(name.to_owned()).await
    }

    /// Changes a persistent bitmap of `node`.
    pub async fn change_bitmap(
        &self,
        node: &Arc<Node>,
        name: &str,
        change: BitmapChange,
    ) -> Result<()> {
        let node = writable(node)?;
        let _drained = self.drain(&node).await;
        node.driver().change_bitmap(name.to_owned(), change).await
    }
}

/// The layer that `node` stands for, if it can be written to.
fn writable(node: &Arc<Node>) -> Result<Arc<Node>> {
    let node = skip_filters(Arc::clone(node));
    if node.is_read_only() {
        return Err(Error::ReadOnly { node: node.label() });
    }
    Ok(node)
}
