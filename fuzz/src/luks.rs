//! A LUKS header of arbitrary bytes, opened with a passphrase, looked at and read through.

use cairn_block::driver::Perm;
use cairn_block::engine::{EngineConfig, Mode, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::secret::Secret;
use cairn_block::{IoBufMut, Result};
use cairn_testkit::{Disk, Memory};

/// Length of the file that the payload is in, in bytes.
const PAYLOAD: u64 = 1 << 20;
/// Iterations of key derivation that are accepted, so that every input is quick.
const MAX_ITERATIONS: u64 = 20_000;

/// Treats `data` as the start of a volume.
pub fn luks(data: &[u8]) {
    // Threads start up faster than a ring, and nothing here does I/O outside memory.
    let config = EngineConfig { mode: Mode::Threads, ..EngineConfig::default() };
    block_on(&config, async {
        let _ = look(data, true).await;
        let _ = look(data, false).await;
    })
    .expect("a runtime can be made");
}

/// Opens the volume, without its passphrase for metadata alone, and reads from it.
async fn look(data: &[u8], locked: bool) -> Result<()> {
    let graph = Graph::new();
    graph.secrets().add("key", Secret::new(b"letmein".to_vec()))?;
    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
    let mut disk = Disk::new(PAYLOAD.max(data.len() as u64));
    disk.write(0, data);
    let _file = graph.add_driver("file", flags, Box::new(Memory::new(disk)))?;
    let mut options = Dict::default();
    options.insert("driver", "luks");
    options.insert("file", "file");
    options.insert("key-secret", "key");
    options.insert("max-iterations", MAX_ITERATIONS);
    let flags = NodeFlags { no_io: locked, ..flags };
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let _ = node.driver().format_info().await;
    let backend = Backend::new(&graph, node, "fuzzer", Perm::CONSISTENT_READ, Perm::all())?;
    let _ = backend.read(0, IoBufMut::zeroed(4096)).await;
    backend.close().await
}
