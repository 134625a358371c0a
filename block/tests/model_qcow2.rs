//! Random requests from two I/O threads to one qcow2 image, compared with a model.
//!
//! Each round several tasks on both threads write, zero, discard and read at once, either each in its
//! own stripes of the disk (of single sectors up to several clusters) or all over it. Then everything
//! is read: where no task wrote nothing may have changed, where one did its last request counts, and
//! where several did any of their last requests. The image is opened anew and resized between rounds;
//! at the end the stock tools check and compare it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_block::driver::{Repair, Resize};
use cairn_block::engine::{EngineConfig, IoThread, block_on};
use cairn_block::graph::Backend;
use cairn_block::{IoBufMut, Result};
use cairn_testkit::qcow2::Layout;
use cairn_testkit::{Op, Rng, TaskLog, Value, Watchdog, effect, perform, seeded, stock};
use futures_util::future::join_all;

/// Longest time that a round may take.
const PATIENCE: Duration = Duration::from_mins(2);
const ROUNDS: u64 = 8;
const TASKS: u64 = 6;
/// Requests of a task in a round.
const REQUESTS: u64 = 15;
const KIB: u64 = 1 << 10;

/// Where a task may write: the stripes of `unit` bytes whose number is `task` modulo [`TASKS`], or
/// everywhere.
#[derive(Clone, Copy, Debug)]
struct Stripes {
    task: u64,
    /// 0: everywhere.
    unit: u64,
    size: u64,
}

impl Stripes {
    /// A random range of a task, at most `longest` bytes.
    fn range(self, rng: &mut Rng, longest: u64) -> Option<(u64, u64)> {
        let Stripes { task, unit, size } = self;
        let (from, to) = if unit == 0 {
            (0, size)
        } else {
            let stripes = size.div_ceil(unit);
            let own = stripes.checked_sub(task + 1)? / TASKS + 1;
            let start = (rng.below(own) * TASKS + task) * unit;
            (start, size.min(start + unit))
        };
        let offset = match rng.below(3) {
            0 => from,
            1 => rng.between(from, to - 1) / 512 * 512,
            _ => rng.between(from, to - 1),
        };
        let offset = offset.max(from);
        let most = longest.min(to - offset);
        let len = if rng.chance(30) { most } else { rng.between(1, most) };
        Some((offset, len))
    }
}

/// One task of a round.
async fn task(image: &Backend, stripes: Stripes, cluster: u64, seed: u64) -> Result<TaskLog> {
    let mut rng = Rng::for_part(seed, &[stripes.task]);
    let mut log = TaskLog::default();
    for number in 0..REQUESTS {
        let Some((offset, len)) = stripes.range(&mut rng, 3 * cluster) else { break };
        let tag = u32::try_from((seed % 1000) * 1000 + stripes.task * 100 + number).unwrap();
        let op = match rng.below(100) {
            0..55 => Op::Write { offset, len, tag, fua: false },
            55..75 => Op::Zero { offset, len, unmap: rng.chance(50) },
            75..90 => Op::Discard { offset, len },
            90..94 => Op::Flush,
            _ => {
                image.read(offset, IoBufMut::new(usize::try_from(len).unwrap())).await?;
                continue;
            }
        };
        perform(image, &op).await?;
        if let Some((range, effect)) = effect(&op, false) {
            log.add(range, &effect);
        }
        if stripes.unit != 0 && matches!(op, Op::Write { .. }) {
            // Nobody else writes there: a read sees the write at once.
            let data = image.read(offset, IoBufMut::new(usize::try_from(len).unwrap())).await?;
            let expected = Value::Tag(tag).buffer(offset, len);
            assert!(data[..] == expected[..], "{op} is not read back");
        }
    }
    Ok(log)
}

/// One round of requests on two threads; returns what each task did.
async fn round(
    threads: &[IoThread; 2],
    image: &Arc<Backend>,
    layout: Layout,
    seed: u64,
) -> Vec<TaskLog> {
    let mut rng = Rng::new(seed);
    let cluster = layout.cluster;
    let units = [0, 512, (cluster / 4).max(512), cluster, 3 * cluster];
    let unit = units[usize::try_from(rng.below(5)).unwrap()];
    let size = image.size();
    let running = threads.iter().zip([0, TASKS / 2]).map(|(thread, first)| {
        let image = Arc::clone(image);
        thread.run(move || async move {
            let tasks = (first..first + TASKS / 2)
                .map(|number| task(&image, Stripes { task: number, unit, size }, cluster, seed));
            join_all(tasks).await.into_iter().collect::<Result<Vec<_>>>()
        })
    });
    let logs = join_all(running).await;
    logs.into_iter().flat_map(|log| log.expect("requests succeed")).collect()
}

async fn read_all(image: &Backend) -> Vec<u8> {
    let mut content = Vec::new();
    while (content.len() as u64) < image.size() {
        let len = (image.size() - content.len() as u64).min(1 << 20);
        let buf = IoBufMut::new(usize::try_from(len).unwrap());
        content.extend_from_slice(&image.read(content.len() as u64, buf).await.unwrap());
    }
    content
}

async fn close(image: Arc<Backend>) {
    Arc::into_inner(image).expect("no task is left").close().await.unwrap();
}

/// Fills every third cluster with compressed data.
async fn compress(image: &Backend, cluster: u64) {
    for at in (0..image.size() / cluster).filter(|at| at % 3 == 0) {
        let op = Op::Compressed { offset: at * cluster, len: cluster, tag: 77 };
        perform(image, &op).await.unwrap();
    }
}

/// The rounds of one layout in the directory `dir`.
async fn hammer(layout: Layout, compressed: bool, seed: u64, dir: &Path, watchdog: &Watchdog) {
    layout.create_in(dir).await.unwrap();
    let threads =
        ["first", "second"].map(|name| IoThread::spawn(name, EngineConfig::default()).unwrap());
    let mut image = Arc::new(layout.open_in(dir).await.unwrap());
    if compressed {
        compress(&image, layout.cluster).await;
    }
    let mut rng = Rng::new(seed);
    let mut content = read_all(&image).await;
    for number in 0..ROUNDS {
        let step = format!("{} (seed {seed:#x}), round {number}", layout.name);
        watchdog.step(&step);
        let logs = round(&threads, &image, layout, Rng::for_part(seed, &[number]).bits()).await;
        let now = read_all(&image).await;
        if let Some(mismatch) = TaskLog::compare(&logs, &content, &now) {
            panic!("{step}: {mismatch}");
        }
        content = now;
        if rng.chance(50) {
            close(image).await;
            image = Arc::new(layout.open_in(dir).await.unwrap());
            let now = read_all(&image).await;
            let differs = content.iter().zip(&now).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{step}: other data after reopening");
        }
        if rng.chance(25) {
            let size = rng.between(layout.size / 1024, layout.size / 512) * 512;
            image.resize(size, Resize { exact: true, ..Resize::default() }).await.unwrap();
            content.resize(usize::try_from(size).unwrap(), 0);
            let now = read_all(&image).await;
            let differs = content.iter().zip(&now).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{step}: other data after resizing to {size}");
        }
    }
    let report = image.node().driver().check(Repair::empty()).await.unwrap();
    assert_eq!(report.corruptions, 0, "{}: {:?}", layout.name, report.details);
    close(image).await;
    threads.into_iter().for_each(IoThread::join);
    judge(layout, dir, &content);
}

/// The stock tool finds nothing wrong with the image in `dir`, nor leaks.
fn stock_check(layout: Layout, dir: &Path) {
    let image = dir.join(Layout::IMAGE);
    let check = stock::qemu_img(["check", "-f", "qcow2", image.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(0), "{}: {}", layout.name, stock::text(&check));
}

/// The stock tools find the image in `dir` right and its content to be `content`.
fn judge(layout: Layout, dir: &Path, content: &[u8]) {
    stock_check(layout, dir);
    let image = dir.join(Layout::IMAGE);
    let raw = dir.join("expected");
    std::fs::write(&raw, content).unwrap();
    let (image, raw) = (image.to_str().unwrap(), raw.to_str().unwrap());
    let compare = stock::qemu_img(["compare", "-f", "qcow2", "-F", "raw", image, raw]);
    assert_eq!(compare.status.code(), Some(0), "{}: {}", layout.name, stock::text(&compare));
}

fn model(layout: Layout, compressed: bool) {
    let watchdog = Watchdog::start(PATIENCE);
    for seed in (1..=3).map(seeded) {
        let dir = tempfile::tempdir().unwrap();
        let hammered = hammer(layout, compressed, seed, dir.path(), &watchdog);
        block_on(&EngineConfig::default(), hammered).unwrap();
    }
}

#[test]
fn version_3() {
    model(Layout::new("v3", &[], 64 * KIB, 40), false);
}

#[test]
fn version_2() {
    model(Layout::new("v2", &[("compat", "0.10")], 64 * KIB, 40), false);
}

#[test]
fn clusters_of_512_bytes() {
    model(Layout::new("cluster512", &[], 512, 3000), false);
}

#[test]
fn clusters_of_4_kib() {
    model(Layout::new("cluster4k", &[], 4 * KIB, 600), false);
}

#[test]
fn clusters_of_2_mib() {
    model(Layout::new("cluster2M", &[], 2048 * KIB, 6), false);
}

#[test]
fn extended_l2() {
    model(Layout::new("ext_l2", &[("extended_l2", "on")], 64 * KIB, 40), false);
}

#[test]
fn extended_l2_overlay() {
    let layout = Layout::new("ext_l2_overlay", &[("extended_l2", "on")], 64 * KIB, 40);
    model(Layout { backing: Some(1_700_000), ..layout }, false);
}

#[test]
fn refcounts_of_1_bit() {
    model(Layout::new("refcount1", &[("refcount_bits", "1")], 64 * KIB, 40), false);
}

#[test]
fn refcounts_of_64_bits() {
    model(Layout::new("refcount64", &[("refcount_bits", "64")], 4 * KIB, 1200), false);
}

#[test]
fn overlay() {
    let layout = Layout::new("overlay", &[], 64 * KIB, 40);
    model(Layout { backing: Some(2_000_000), ..layout }, false);
}

#[test]
fn version_2_overlay() {
    let layout = Layout::new("v2_overlay", &[("compat", "0.10")], 64 * KIB, 40);
    model(Layout { backing: Some(2_000_000), ..layout }, false);
}

#[test]
fn data_file() {
    model(Layout { data_file: true, ..Layout::new("data_file", &[], 64 * KIB, 40) }, false);
}

#[test]
fn raw_data_file() {
    let layout = Layout::new("raw_data_file", &[("data_file_raw", "on")], 64 * KIB, 40);
    model(Layout { data_file: true, ..layout }, false);
}

#[test]
fn lazy_refcounts() {
    model(Layout::new("lazy", &[("lazy_refcounts", "on")], 64 * KIB, 40), false);
}

#[test]
fn compressed_zlib() {
    model(Layout::new("zlib", &[], 64 * KIB, 40), true);
}

#[test]
fn compressed_zstd() {
    model(Layout::new("zstd", &[("compression_type", "zstd")], 16 * KIB, 160), true);
}

#[test]
fn allocation_passes_more_full_refcount_blocks_than_memory_holds() {
    // A block counts 64 clusters here, so that 4 MiB fill 128 of them.
    let layout = Layout::new("blocks", &[("refcount_bits", "64")], 512, 16_384);
    let watchdog = Watchdog::start(PATIENCE);
    watchdog.step(layout.name);
    let dir = tempfile::tempdir().unwrap();
    let work = async {
        layout.create_in(dir.path()).await.unwrap();
        let half = layout.size / 2;
        let write = |offset, tag| Op::Write { offset, len: half, tag, fua: false };
        for (offset, tag) in [(0, 1), (half, 2)] {
            let image = layout.open_in(dir.path()).await.unwrap();
            perform(&image, &write(offset, tag)).await.unwrap();
            image.close().await.unwrap();
        }
        // A larger L1 table needs clusters in a row.
        let image = layout.open_in(dir.path()).await.unwrap();
        let size = 64 * layout.size;
        image.resize(size, Resize { exact: true, ..Resize::default() }).await.unwrap();
        let end = Op::Write { offset: size - half, len: half, tag: 3, fua: false };
        perform(&image, &end).await.unwrap();
        image.close().await.unwrap();
        let image = layout.open_in(dir.path()).await.unwrap();
        for (offset, tag) in [(0, 1), (half, 2), (size - half, 3)] {
            let buf = IoBufMut::new(usize::try_from(half).unwrap());
            let data = image.read(offset, buf).await.unwrap();
            assert!(data[..] == Value::Tag(tag).buffer(offset, half)[..], "at {offset:#x}");
        }
        let report = image.node().driver().check(Repair::empty()).await.unwrap();
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.details);
        image.close().await.unwrap();
        stock_check(layout, dir.path());
    };
    block_on(&EngineConfig::default(), work).unwrap();
}
