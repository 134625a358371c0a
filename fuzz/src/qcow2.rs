//! An image of arbitrary bytes, opened, looked at, read, checked and repaired.

use cairn_block::driver::{Perm, Repair};
use cairn_block::engine::{EngineConfig, Mode, block_on};
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenOptions};
use cairn_block::options::{Dict, Value};
use cairn_block::snapshot::SnapshotKey;
use cairn_block::{IoBufMut, Result};
use cairn_testkit::{Disk, Memory};
use std::sync::Arc;

/// Bytes of the disk that are read.
const READ: u64 = 256 * 1024;
/// Runs of block status that are asked for.
const RUNS: u32 = 64;

/// Treats `data` as an image.
pub fn qcow2(data: &[u8]) {
    // Threads start up faster than a ring, and nothing here does I/O outside memory.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, async {
        let _ = look(data).await;
        let _ = repair(data).await;
    })
    .expect("a runtime can be made");
}

/// Bitmaps of an image that are read.
const BITMAPS: usize = 4;
/// The first snapshot, whatever it is called.
const FIRST_SNAPSHOT: SnapshotKey = SnapshotKey::Exact { id: None, name: None };

/// Opens the image read-only and reads what a program would.
async fn look(data: &[u8]) -> Result<()> {
    let graph = Graph::new();
    let node = open(&graph, data, NodeFlags { read_only: true, ..NodeFlags::default() }).await?;
    let _ = node.driver().format_info().await;
    let _ = node.driver().check(Repair::empty()).await;
    for bitmap in node.driver().bitmaps().await.unwrap_or_default().iter().take(BITMAPS) {
        let _ = node.driver().load_bitmap(bitmap.name.clone()).await;
    }
    let _ = node.driver().show_snapshot(FIRST_SNAPSHOT).await;
    let backend = Backend::new(&graph, node, "fuzzer", Perm::CONSISTENT_READ, Perm::all())?;
    let end = backend.size().min(READ);
    if let Ok(len) = usize::try_from(end) {
        let _ = backend.read(0, IoBufMut::zeroed(len)).await;
    }
    let mut offset = 0;
    for _ in 0..RUNS {
        let rest = backend.size().saturating_sub(offset);
        if rest == 0 {
            break;
        }
        offset += backend.block_status(offset, rest, true).await?.len;
    }
    backend.close().await
}

/// Repairs the image; what was repaired completely must be clean when looked at again.
async fn repair(data: &[u8]) -> Result<()> {
    let graph = Graph::new();
    let flags = NodeFlags { check: true, ..NodeFlags::default() };
    let node = open(&graph, data, flags).await?;
    let backend = Backend::new(&graph, Arc::clone(&node), "fuzzer", Perm::all(), Perm::all())?;
    let repaired = node.driver().check(Repair::all()).await?;
    if repaired.check_errors == 0 {
        let again = node.driver().check(Repair::empty()).await?;
        assert_eq!((again.corruptions, again.leaks), (repaired.corruptions, repaired.leaks));
    }
    backend.close().await
}

/// Opens `data` as qcow2, with memory in the place of every other file.
async fn open(graph: &Arc<Graph>, data: &[u8], flags: NodeFlags) -> Result<Arc<Node>> {
    let mut disk = Disk::new(data.len() as u64);
    disk.write(0, data);
    graph.add_driver("file", flags, Box::new(Memory::new(disk)))?;
    graph.add_driver("data", flags, Box::new(Memory::new(Disk::new(1 << 20))))?;
    let mut options = Dict::default();
    options.insert("driver", "qcow2");
    options.insert("file", "file");
    options.insert("backing", Value::Null);
    if data.get(79).is_some_and(|features| features & 4 != 0) {
        options.insert("data-file", "data");
    }
    graph.open(OpenOptions { filename: None, options, flags }).await
}
