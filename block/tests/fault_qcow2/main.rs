//! I/O errors at every request of qcow2 operations.
//!
//! Each test runs one operation again and again, and each time another request to the disks fails:
//! once or from then on, done in part or not at all. The error must be reported, the image must stay
//! free of corruption (leaks are allowed) and keep what was flushed, and once the disk works again the
//! operation must succeed.

mod content;
mod operation;
mod structure;

use cairn_block::engine::{EngineConfig, block_on};
use cairn_testkit::Disk;
use cairn_testkit::qcow2::{Layout, boxed};
use cairn_testkit::{Memory, Model, Profile};

use operation::{Progress, run_ops};

const KIB: u64 = 1 << 10;

/// Layouts that write their metadata in different ways.
const LAYOUTS: [Layout; 6] = [
    Layout::new("v3", &[], 4 * KIB, 128),
    Layout::new("v2", &[("compat", "0.10")], 64 * KIB, 16),
    Layout::new("lazy", &[("lazy_refcounts", "on")], 64 * KIB, 16),
    Layout::new("ext_l2", &[("extended_l2", "on")], 64 * KIB, 16),
    Layout::new("cluster512", &[("refcount_bits", "64")], 512, 200),
    Layout { data_file: true, ..Layout::new("data_file", &[], 64 * KIB, 16) },
];

fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).unwrap()
}

/// An image after a workload that ended with a flush.
async fn used(layout: Layout, profile: &Profile, seed: u64) -> (Vec<Disk>, Model) {
    let memory: Vec<_> = layout.blank().await.unwrap().into_iter().map(Memory::new).collect();
    let mut progress = Progress::new(layout.model());
    let image = layout.open(boxed(&memory), false).await.unwrap();
    run_ops(&image, &mut progress, seed, profile).await.unwrap();
    image.close().await.unwrap();
    (memory.iter().map(Memory::disk).collect(), progress.model)
}
