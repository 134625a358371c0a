//! `snapshot`: list, create, apply and delete internal snapshots.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_block::driver::SnapshotInfo;
use cairn_block::graph::Graph;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};

use super::image::{Access, ImageSpec};
use crate::error::{Error, Result};

/// What to do with the snapshots of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep the present content under this name.
    Create(String),
    /// Go back to the snapshot with this ID or name.
    Apply(String),
    /// Delete the snapshot with this ID or name.
    Delete(String),
}

/// The snapshots of an image.
pub async fn list(
    graph: &Arc<Graph>,
    spec: &ImageSpec,
    force_share: bool,
) -> Result<Vec<SnapshotInfo>> {
    let access = Access { metadata_only: true, force_share, ..Access::default() };
    let image = spec.open(graph, &access).await?;
    let info = image.node().driver().format_info().await;
    image.close().await?;
    Ok(info?.snapshots)
}

/// Changes the snapshots of an image.
pub async fn change(graph: &Arc<Graph>, spec: &ImageSpec, action: Action) -> Result<()> {
    let access = Access { write: true, resize: true, ..Access::default() };
    let image = spec.open(graph, &access).await?;
    let node = image.node();
    let (verb, name, result) = match action {
        Action::Create(name) => {
            let new = now(name.clone());
            ("create", name, graph.create_snapshot(&node, new).await.map(|_| ()))
        }
        Action::Apply(key) => {
            let snapshot = SnapshotKey::IdOrName(key.clone());
            ("apply", key, graph.apply_snapshot(&node, snapshot).await)
        }
        Action::Delete(key) => {
            let snapshot = SnapshotKey::IdOrName(key.clone());
            ("delete", key, graph.delete_snapshot(&node, snapshot).await)
        }
    };
    drop(node);
    let closed = image.close().await;
    result
        .map_err(|error| Error::Block(error.context(format!("cannot {verb} snapshot '{name}'"))))?;
    Ok(closed?)
}

/// What [`change`] would do, after a look at the image.
pub async fn rehearse(graph: &Arc<Graph>, spec: &ImageSpec, action: &Action) -> Result<String> {
    let list = list(graph, spec, false).await?;
    let (verb, key) = match action {
        Action::Create(name) => ("create", name),
        Action::Apply(key) => ("apply", key),
        Action::Delete(key) => ("delete", key),
    };
    let found = SnapshotKey::IdOrName(key.clone());
    if !matches!(action, Action::Create(_)) && found.find(&list).is_none() {
        let error = found.not_found().context(format!("cannot {verb} snapshot '{key}'"));
        return Err(error.into());
    }
    Ok(format!("Would {verb} snapshot '{key}' of '{}'.", spec.label()))
}

/// A snapshot of a disk that no machine is running on.
fn now(name: String) -> NewSnapshot {
    // A clock before 1970 shows as 1970.
    let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NewSnapshot {
        name,
        date_sec: u32::try_from(date.as_secs()).unwrap_or(u32::MAX),
        date_nsec: date.subsec_nanos(),
        icount: Some(0),
        ..NewSnapshot::default()
    }
}
