//! Requests of guests, and changes of the disk's size.

use cairn_block::driver::{Perm, Prealloc, Status};
use cairn_block::graph::{Backend, Graph, NodeFlags};
use cairn_block::{IoBufMut, Result};
use cairn_testkit::qcow2::Layout;
use cairn_testkit::{Disk, Faults, Faulty, Memory, Op, Profile, Rng, Value};

use super::operation::{Operation, Progress, run_ops};
use super::{KIB, LAYOUTS, on_io_thread, used};

#[test]
fn writes_zeroes_and_discards() {
    on_io_thread(async {
        for layout in LAYOUTS {
            let profile = Profile { max_clusters: 6, ..layout.profile(12) };
            let (disks, model) = used(layout, &profile, 5).await;
            let operation = Operation::new(
                layout,
                (disks, model),
                async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    run_ops(image, progress, 6, &profile).await
                },
            );
            operation.at_every_index().await;
        }
    });
}

/// A raw disk with data, explicit zeroes and holes.
fn source(size: u64) -> Disk {
    let mut disk = Disk::new(size);
    let mut rng = Rng::new(7);
    let mut offset = 0;
    while offset < size {
        let len = (rng.between(1, 16) * 4 * KIB).min(size - offset);
        match rng.below(3) {
            0 => disk.write(offset, &Value::Tag(7).buffer(offset, len)),
            1 => disk.write(offset, &Value::Zero.buffer(offset, len)),
            _ => {}
        }
        offset += len;
    }
    disk
}

/// Copies `source` to `image`, several pieces at a time, with compression or without.
async fn copy(
    image: &Backend,
    progress: &mut Progress,
    source: &Backend,
    compressed: bool,
    piece: u64,
) -> Result<()> {
    let mut tag = 0;
    let mut offset = 0;
    while offset < source.size() {
        let mut ops = Vec::new();
        while ops.len() < 4 && offset < source.size() {
            let len = piece.min(source.size() - offset);
            let extent = source.block_status(offset, len, true).await?;
            let data = source.read(offset, IoBufMut::new(usize::try_from(len).unwrap())).await?;
            if extent.len == len && extent.status.contains(Status::ZERO) {
                ops.push(Op::Zero { offset, len, unmap: true });
            } else if compressed {
                ops.push(Op::Compressed { offset, len, tag });
            } else {
                ops.push(Op::Write { offset, len, tag, fua: false });
            }
            assert_eq!(data.len() as u64, len);
            tag += 1;
            offset += len;
        }
        progress.send(image, &ops).await?;
    }
    progress.flush(image).await
}

#[test]
fn copies_from_another_disk() {
    on_io_thread(async {
        let compressed = Layout::new("compressed", &[("compression_type", "zstd")], 64 * KIB, 16);
        for (layout, compress) in
            LAYOUTS.into_iter().map(|layout| (layout, false)).chain([(compressed, true)])
        {
            let from = Memory::new(source(layout.size));
            let before = from.disk();
            let operation = Operation::new(
                layout,
                (layout.blank().await.unwrap(), layout.model()),
                async |image: &Backend, progress: &mut Progress, faults: &Faults| {
                    let graph = Graph::new();
                    let device = Faulty::new(Box::new(from.clone()), faults.clone());
                    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
                    let node = graph.add_driver("source", flags, Box::new(device))?;
                    let used = Perm::CONSISTENT_READ;
                    let source = Backend::new(&graph, node, "test", used, Perm::all())?;
                    let piece = layout.cluster.max(16 * KIB);
                    copy(image, progress, &source, compress, piece).await
                },
            );
            let operation = Operation {
                // A compressed cluster is written once.
                repeatable: !compress,
                ..operation
            };
            operation.at_every_index().await;
            assert_eq!(from.disk().difference(&before), None, "the source was changed");
        }
    });
}

#[test]
fn resizes() {
    on_io_thread(async {
        let overlay = Layout { backing: Some(300_000), ..Layout::new("overlay", &[], 4 * KIB, 60) };
        for layout in LAYOUTS.into_iter().chain([overlay]) {
            let profile = Profile { max_clusters: 20, ..layout.profile(10) };
            let (disks, model) = used(layout, &profile, 8).await;
            for (target, prealloc) in [
                (layout.size * 9 / 4, Prealloc::Off),
                (layout.size * 5 / 2, Prealloc::Metadata),
                (layout.size * 3 / 2, Prealloc::Full),
                (layout.size / 3, Prealloc::Off),
            ] {
                if layout.backing.is_some() && prealloc != Prealloc::Off {
                    continue;
                }
                let target = target.next_multiple_of(512);
                let operation = Operation::new(
                    layout,
                    (disks.clone(), model.clone()),
                    async |image: &Backend, progress: &mut Progress, _: &Faults| {
                        progress.resize(image, target, prealloc).await?;
                        progress.flush(image).await
                    },
                );
                operation.at_every_index().await;
            }
        }
    });
}
