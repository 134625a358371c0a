//! One image used by several I/O threads at once.

use std::sync::Arc;

use cairn_block::IoBufMut;
use cairn_block::engine::{EngineConfig, IoThread, block_on};
use cairn_block::graph::Backend;
use cairn_testkit::{Effect, Memory, Op, Rng, TaskLog, Value, Watchdog, perform};
use futures_util::future::join_all;

use crate::image::{KINDS, create, open, stock_check};

const THREADS: u64 = 3;
const TASKS: u64 = 4;
const OPS: u64 = 120;

/// Requests of one task: to sectors that are its own, in clusters that it shares with all others.
async fn task(disk: Arc<Backend>, number: u64, cluster: u64) -> TaskLog {
    let mut rng = Rng::new(number);
    let mut done = TaskLog::default();
    let stripe = cluster / 32;
    for step in 0..OPS {
        let clusters = disk.size() / cluster;
        let offset = rng.below(clusters) * cluster + number * stripe;
        let tag = u32::try_from(number * OPS + step + 1).unwrap();
        let op = match rng.below(12) {
            0 => Op::Flush,
            1 => Op::Zero { offset, len: stripe, unmap: true },
            _ => Op::Write { offset, len: stripe, tag, fua: false },
        };
        perform(&disk, &op).await.unwrap_or_else(|error| panic!("{op}: {error}"));
        let value = match op {
            Op::Write { tag, .. } => Value::Tag(tag),
            Op::Zero { .. } => Value::Zero,
            _ => continue,
        };
        done.add(offset..offset + stripe, &Effect::set(value));
        if rng.below(4) == 0 {
            let read =
                disk.read(offset, IoBufMut::new(usize::try_from(stripe).unwrap())).await.unwrap();
            assert!(read[..] == value.buffer(offset, stripe)[..], "task {number} lost {op}");
        }
    }
    done
}

#[test]
fn threads_share_clusters_without_losing_anything() {
    let _watchdog = Watchdog::start(std::time::Duration::from_mins(5));
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS.iter().filter(|kind| kind.cluster >= 16384) {
        let size = kind.cluster * 64;
        let memory = Memory::new(create(dir.path(), kind.options, &[], size));
        let threads: Vec<_> = (0..THREADS)
            .map(|n| IoThread::spawn(&format!("io{n}"), EngineConfig::default()).unwrap())
            .collect();
        block_on(&EngineConfig::default(), async {
            let disk = Arc::new(open(memory.clone(), kind.runtime, false).await.unwrap());
            let running = threads.iter().zip(0..).map(|(thread, number)| {
                let disk = Arc::clone(&disk);
                let cluster = kind.cluster;
                thread.run(move || async move {
                    let tasks = (0..TASKS).map(|t| task(disk.clone(), number * TASKS + t, cluster));
                    join_all(tasks).await
                })
            });
            let logs: Vec<_> = join_all(running).await.into_iter().flatten().collect();
            let disk = Arc::into_inner(disk).expect("all tasks are done");
            disk.close().await.unwrap();
            let disk = open(memory.clone(), &[], true).await.unwrap();
            let len = usize::try_from(size).unwrap();
            let after = disk.read(0, IoBufMut::new(len)).await.unwrap();
            let wrong = TaskLog::compare(&logs, &vec![0; len], &after);
            assert!(wrong.is_none(), "{}: {}", kind.options, wrong.unwrap());
        })
        .unwrap();
        stock_check(dir.path(), &memory.disk(), false, kind.options);
        threads.into_iter().for_each(IoThread::join);
    }
}
