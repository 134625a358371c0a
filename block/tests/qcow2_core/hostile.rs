//! Images with damaged metadata: any error will do, but no panic and no hang.

use std::time::Duration;

use cairn_block::engine::{EngineConfig, block_on};
use cairn_testkit::{Disk, Memory, Op, Profile, Rng, Watchdog, Workload, perform};

use crate::image::{KINDS, Kind, create, open};

const MUTANTS: u64 = 150;

/// Damages a few bytes, most of them in tables, since those are where anything but zeroes is.
fn mutate(disk: &mut Disk, rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let at = (0..50).map(|_| rng.below(disk.size().min(1 << 19))).find(|&at| {
            let mut byte = [0];
            disk.read(at, &mut byte);
            byte[0] != 0
        });
        let at = at.unwrap_or(rng.below(4096));
        let bytes = rng.bits().to_le_bytes();
        let len = 1 + usize::try_from(rng.below(8)).unwrap();
        disk.write(at, &bytes[..len]);
    }
}

async fn use_all(disk: Disk, kind: &Kind, workload: &Workload) {
    let Ok(backend) = open(Memory::new(disk), kind.runtime, false).await else { return };
    let size = backend.size().min(4 << 20);
    let mut at = 0;
    while at < size {
        let len = size.min(at + (1 << 18)) - at;
        let _ = backend.read(at, cairn_block::IoBufMut::new(usize::try_from(len).unwrap())).await;
        let _ = backend.block_status(at, len, true).await;
        at += len;
    }
    for op in &workload.ops {
        if !matches!(op, Op::Parallel(_) | Op::Reopen) {
            let _ = perform(&backend, op).await;
        }
    }
    let _ = backend.close().await;
}

#[test]
fn damaged_images_fail_cleanly() {
    let watchdog = Watchdog::start(Duration::from_mins(10));
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        for (number, kind) in KINDS.iter().enumerate() {
            let profile = Profile {
                compressed: kind.compressed,
                ..Profile::new(kind.cluster * 60, kind.cluster, 40)
            };
            let memory = Memory::new(create(dir.path(), kind.options, &[], profile.size));
            let workload = Workload::generate(1, &profile);
            use_all(memory.disk(), kind, &workload).await;
            let disk = open(memory.clone(), kind.runtime, false).await.unwrap();
            for op in &workload.ops {
                if !matches!(op, Op::Parallel(_) | Op::Reopen) {
                    perform(&disk, op).await.unwrap();
                }
            }
            disk.close().await.unwrap();
            for mutant in 0..MUTANTS {
                watchdog.step(format!("{} mutant {mutant}", kind.options));
                let mut rng = Rng::for_part(5, &[number as u64, mutant]);
                let mut disk = memory.disk();
                mutate(&mut disk, &mut rng);
                use_all(disk, kind, &Workload::generate(mutant, &profile)).await;
            }
        }
    })
    .unwrap();
}
