//! I/O errors at every request of qcow2 operations.
//!
//! Each test runs one operation again and again, and each time another request to the disks fails:
//! once or from then on, done in part or not at all. The error must be reported, the image must stay
//! free of corruption (leaks are allowed) and keep what was flushed, and once the disk works again the
//! operation must succeed.

use std::sync::Arc;
use std::time::Duration;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::driver::{Amendment, CompactWatch, Perm, Prealloc, Repair, Resize, Status};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags};
use cairn_block::options::Dict;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};
use cairn_block::{Error, IoBufMut, Result};
use cairn_testkit::qcow2::{Layout, boxed, damage};
use cairn_testkit::{
    Announce, Disk, Effect, Fault, Faults, Faulty, Knowledge, Memory, Model, Op, Profile, Rng,
    Value, Watchdog, Workload, effect, perform,
};
use futures_util::future::join_all;

/// Longest time that one run may take.
const PATIENCE: Duration = Duration::from_mins(1);
const KIB: u64 = 1 << 10;

/// Requests to an image, and what is known of the image then.
struct Progress {
    model: Model,
    /// Steps that a successful flush made durable.
    durable: usize,
}

impl Progress {
    fn new(model: Model) -> Progress {
        Progress { durable: model.steps(), model }
    }

    /// Sends requests all at once.
    async fn send(&mut self, image: &Backend, ops: &[Op]) -> Result<()> {
        let results = join_all(ops.iter().map(|op| perform(image, op))).await;
        let mut effects = Vec::new();
        for (op, result) in ops.iter().zip(&results) {
            if let Some((range, done)) = effect(op, false) {
                let effect = if result.is_ok() { done } else { done.uncertain() };
                effects.push((range, effect));
            }
        }
        self.model.step(&effects);
        let results: Result<()> = results.into_iter().collect();
        if results.is_ok() && ops.contains(&Op::Flush) {
            self.durable = self.model.steps();
        }
        results
    }

    async fn resize(&mut self, image: &Backend, size: u64, prealloc: Prealloc) -> Result<()> {
        let result = image.resize(size, Resize { exact: true, prealloc, zero_new: false }).await;
        match result {
            Ok(()) => self.model.resize(size),
            Err(_) => self.model.fail_resize(size),
        }
        result
    }

    async fn flush(&mut self, image: &Backend) -> Result<()> {
        self.send(image, &[Op::Flush]).await
    }

    fn known(&self) -> Knowledge {
        Knowledge { durable: self.durable, begun: self.model.steps() }
    }

    /// What an open image must show: all that succeeded.
    fn live(&self) -> Knowledge {
        self.model.all_done()
    }
}

/// An operation on an image, and what it starts from.
struct Operation<A> {
    name: &'static str,
    layout: Layout,
    disks: Vec<Disk>,
    model: Model,
    /// The operation itself.
    act: A,
    /// It can be done twice on one image.
    repeatable: bool,
    /// The image has corruptions until the operation succeeds.
    damaged: bool,
    /// Opening the image for writing corrects what a failure left.
    recovers: bool,
}

impl<A: AsyncFn(&Backend, &mut Progress, &Faults) -> Result<()>> Operation<A> {
    /// Runs the operation with each fault at each index. Returns the number of runs.
    async fn at_every_index(&self) -> usize {
        let watchdog = Watchdog::start(PATIENCE);
        let mut runs = 0;
        for fault in Fault::ALL {
            let mut index = 0;
            loop {
                let run = format!("{}, {fault:?} at request {index}", self.name);
                watchdog.step(&run);
                let _announce = Announce(run);
                runs += 1;
                if !self.run(fault, index).await {
                    break;
                }
                index += 1;
            }
        }
        println!("{}: {runs} runs", self.name);
        runs
    }

    /// Runs the operation with one fault, and looks at what it leaves. Returns whether it came so far.
    async fn run(&self, fault: Fault, index: u64) -> bool {
        let faults = Faults::default();
        let memory: Vec<_> = self.disks.iter().cloned().map(Memory::new).collect();
        let mut progress = Progress::new(self.model.clone());
        faults.arm(fault.rule(index));
        let outcome = self.attempt(fault, &faults, &memory, &mut progress).await;
        faults.disarm();
        let fired = faults.fired_kinds();
        let reported = outcome.is_err() || !fired.must_be_reported();
        assert!(reported, "an error of {fired:?} was not reported");
        if let Err(error) = &outcome {
            assert!(faults.fired() > 0, "failed without a fault: {error}");
        }
        self.examine(&memory, &progress, outcome.is_err() && self.damaged).await;
        if self.repeatable {
            let devices = faulty(&memory, &faults);
            let image = self.layout.open(devices, false).await.expect("opens for writing again");
            (self.act)(&image, &mut progress, &faults).await.expect("succeeds without faults");
            image.close().await.expect("closes without faults");
            progress.durable = progress.model.steps();
            self.examine(&memory, &progress, false).await;
        }
        faults.fired() > 0
    }

    /// Opens the image, runs the operation and closes it, with faults. The first error is returned.
    async fn attempt(
        &self,
        fault: Fault,
        faults: &Faults,
        memory: &[Memory],
        progress: &mut Progress,
    ) -> Result<()> {
        let image = self.layout.open(faulty(memory, faults), false).await?;
        let outcome = (self.act)(&image, progress, faults).await;
        if outcome.is_err() && !fault.until_close {
            faults.disarm();
            // An image may refuse all service after an error, but not show other data.
            if let Ok(wrong) = progress.model.verify(&image, progress.live()).await
                && let Some(mismatch) = wrong.first()
            {
                panic!("after {outcome:?} the open image is wrong: {mismatch}");
            }
            if image.flush().await.is_ok() {
                progress.durable = progress.model.steps();
            }
        }
        let closed = image.close().await;
        if outcome.is_ok() && closed.is_ok() {
            progress.durable = progress.model.steps();
        }
        outcome.and(closed)
    }

    async fn examine(&self, memory: &[Memory], progress: &Progress, damaged: bool) {
        let known = progress.known();
        if self.layout.is_lazy() || self.recovers {
            let image = self.layout.open(boxed(memory), false).await.expect("opens to be repaired");
            image.close().await.expect("closes");
        }
        let disks: Vec<_> = memory.iter().map(Memory::disk).collect();
        let image = self.layout.look(&disks).await.expect("opens again");
        let report = image.node().driver().check(Repair::empty()).await.expect("can be checked");
        assert_eq!(report.check_errors, 0, "{:?}", report.details);
        assert!(damaged || report.corruptions == 0, "{:?}", report.details);
        let sizes = progress.model.sizes(known);
        assert!(sizes.contains(&image.size()), "size {}, not of {sizes:?}", image.size());
        let wrong = progress.model.verify(&image, known).await.expect("can be read");
        assert!(wrong.is_empty(), "{known:?}: {}", wrong[0]);
    }
}

fn faulty(memory: &[Memory], faults: &Faults) -> Vec<Box<dyn cairn_block::driver::Driver>> {
    let wrap = |device| Box::new(Faulty::new(device, faults.clone())) as _;
    boxed(memory).into_iter().map(wrap).collect()
}

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

/// Runs a workload; reopening is left out.
async fn run_ops(
    image: &Backend,
    progress: &mut Progress,
    seed: u64,
    profile: &Profile,
) -> Result<()> {
    for op in Workload::generate(seed, profile).ops {
        match op {
            Op::Parallel(ops) => progress.send(image, &ops).await?,
            Op::Reopen => progress.flush(image).await?,
            op => progress.send(image, &[op]).await?,
        }
    }
    progress.flush(image).await
}

/// Layouts that write their metadata in different ways.
const LAYOUTS: [Layout; 6] = [
    Layout::new("v3", &[], 4 * KIB, 128),
    Layout::new("v2", &[("compat", "0.10")], 64 * KIB, 16),
    Layout::new("lazy", &[("lazy_refcounts", "on")], 64 * KIB, 16),
    Layout::new("ext_l2", &[("extended_l2", "on")], 64 * KIB, 16),
    Layout::new("cluster512", &[("refcount_bits", "64")], 512, 200),
    Layout { data_file: true, ..Layout::new("data_file", &[], 64 * KIB, 16) },
];

#[test]
fn create() {
    on_io_thread(async {
        let watchdog = Watchdog::start(PATIENCE);
        let metadata = Layout::new("metadata", &[("preallocation", "metadata")], 4 * KIB, 512);
        let full = Layout::new("full", &[("preallocation", "full")], 64 * KIB, 16);
        let encrypted = Layout { encrypted: true, ..Layout::new("encrypted", &[], 64 * KIB, 16) };
        for layout in LAYOUTS.into_iter().chain([metadata, full, encrypted]) {
            for fault in Fault::ALL {
                for index in 0.. {
                    let run = format!("create {}, {fault:?} at request {index}", layout.name);
                    watchdog.step(&run);
                    let _announce = Announce(run);
                    let faults = Faults::default();
                    let memory = vec![Memory::default(); layout.files()];
                    faults.arm(fault.rule(index));
                    let result = layout.create(faulty(&memory, &faults)).await;
                    faults.disarm();
                    let fired = faults.fired_kinds();
                    let reported = result.is_err() || !fired.must_be_reported();
                    assert!(reported, "an error of {fired:?} was not reported");
                    let disks: Vec<_> = memory.iter().map(Memory::disk).collect();
                    if let Ok(image) = layout.look(&disks).await {
                        let report = image.node().driver().check(Repair::empty()).await.unwrap();
                        assert_eq!(report.corruptions, 0, "{:?}", report.details);
                    }
                    layout.create(faulty(&memory, &faults)).await.expect("creates without faults");
                    let disks: Vec<_> = memory.iter().map(Memory::disk).collect();
                    let image = layout.look(&disks).await.expect("opens");
                    let report = image.node().driver().check(Repair::empty()).await.unwrap();
                    assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.details);
                    if faults.fired() == 0 {
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn writes_zeroes_and_discards() {
    on_io_thread(async {
        for layout in LAYOUTS {
            let profile = Profile { max_clusters: 6, ..layout.profile(12) };
            let (disks, model) = used(layout, &profile, 5).await;
            let operation = Operation {
                name: layout.name,
                layout,
                disks,
                model,
                act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    run_ops(image, progress, 6, &profile).await
                },
                repeatable: true,
                damaged: false,
                recovers: false,
            };
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
            let operation = Operation {
                name: layout.name,
                layout,
                disks: layout.blank().await.unwrap(),
                model: layout.model(),
                act: async |image: &Backend, progress: &mut Progress, faults: &Faults| {
                    let graph = Graph::new();
                    let device = Faulty::new(Box::new(from.clone()), faults.clone());
                    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
                    let node = graph.add_driver("source", flags, Box::new(device))?;
                    let used = Perm::CONSISTENT_READ;
                    let source = Backend::new(&graph, node, "test", used, Perm::all())?;
                    let piece = layout.cluster.max(16 * KIB);
                    copy(image, progress, &source, compress, piece).await
                },
                // A compressed cluster is written once.
                repeatable: !compress,
                damaged: false,
                recovers: false,
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
                let operation = Operation {
                    name: layout.name,
                    layout,
                    disks: disks.clone(),
                    model: model.clone(),
                    act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                        progress.resize(image, target, prealloc).await?;
                        progress.flush(image).await
                    },
                    repeatable: true,
                    damaged: false,
                    recovers: false,
                };
                operation.at_every_index().await;
            }
        }
    });
}

#[test]
fn repairs() {
    on_io_thread(async {
        let layout = Layout::new("repair", &[], 4 * KIB, 128);
        let (disks, model) = used(layout, &layout.profile(30), 9).await;
        for (errors, repair) in [(false, Repair::LEAKS), (true, Repair::LEAKS | Repair::ERRORS)] {
            let mut disks = disks.clone();
            damage(&mut disks[0], layout.cluster, errors);
            let operation = Operation {
                name: "repair",
                layout,
                disks,
                model: model.clone(),
                act: async |image: &Backend, _: &mut Progress, _: &Faults| {
                    let report = image.node().driver().check(repair).await?;
                    if report.check_errors > 0 {
                        return Err(Error::unsupported("test", "the check is incomplete"));
                    }
                    assert_eq!(report.corruptions, 0, "{:?}", report.details);
                    image.flush().await
                },
                repeatable: true,
                damaged: errors,
                recovers: false,
            };
            operation.at_every_index().await;
        }
    });
}

/// Creates a snapshot, writes, goes back and deletes the snapshot.
async fn come_and_go(image: &Backend, progress: &mut Progress) -> Result<()> {
    let (graph, node) = (Arc::clone(image.graph()), image.node());
    let new = NewSnapshot { name: "one".to_owned(), ..NewSnapshot::default() };
    let before = [Op::Write { offset: 0, len: 60 * KIB, tag: 70, fua: false }];
    progress.send(image, &before).await?;
    progress.flush(image).await?;
    let info = graph.create_snapshot(&node, new).await?;
    let key = || SnapshotKey::Exact { id: Some(info.id.clone()), name: None };
    progress.send(image, &[Op::Write { offset: 0, len: 30 * KIB, tag: 71, fua: false }]).await?;
    progress.flush(image).await?;
    let applied = graph.apply_snapshot(&node, key()).await;
    let back = Effect::set(Value::Tag(70));
    let back = if applied.is_ok() { back } else { back.uncertain() };
    progress.model.step(&[(0..30 * KIB, back)]);
    applied?;
    progress.durable = progress.model.steps();
    graph.delete_snapshot(&node, key()).await?;
    progress.flush(image).await
}

#[test]
fn snapshots() {
    on_io_thread(async {
        let refuses = |layout: &Layout| layout.data_file || layout.name == "v2";
        for layout in LAYOUTS.into_iter().filter(|layout| !refuses(layout)) {
            let profile = Profile { max_clusters: 6, ..layout.profile(12) };
            let (disks, model) = used(layout, &profile, 5).await;
            let operation = Operation {
                name: layout.name,
                layout,
                disks,
                model,
                act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    come_and_go(image, progress).await
                },
                repeatable: true,
                damaged: false,
                recovers: true,
            };
            operation.at_every_index().await;
        }
    });
}

/// Adds a bitmap, writes, merges the bitmap into another one and removes both.
async fn record(image: &Backend, progress: &mut Progress) -> Result<()> {
    let (graph, node) = (Arc::clone(image.graph()), image.node());
    for bitmap in graph.bitmaps(&node).await? {
        graph.change_bitmap(&node, &bitmap.name, BitmapChange::Remove).await?;
    }
    for name in ["one", "two"] {
        let add = BitmapChange::Add { granularity_bits: Some(9), enabled: true };
        graph.change_bitmap(&node, name, add).await?;
    }
    progress.send(image, &[Op::Write { offset: 0, len: 60 * KIB, tag: 72, fua: false }]).await?;
    progress.flush(image).await?;
    let one = Arc::new(graph.load_bitmap(&node, "one").await?);
    assert_eq!(one.next_dirty(0), Some(0..60 * KIB));
    graph.change_bitmap(&node, "two", BitmapChange::Merge(one)).await?;
    graph.change_bitmap(&node, "one", BitmapChange::Remove).await?;
    progress.send(image, &[Op::Write { offset: 0, len: 512, tag: 73, fua: false }]).await?;
    progress.flush(image).await
}

#[test]
fn bitmaps() {
    on_io_thread(async {
        for layout in LAYOUTS.into_iter().filter(|layout| layout.name != "v2") {
            let (disks, model) = used(layout, &layout.profile(5), 5).await;
            let operation = Operation {
                name: layout.name,
                layout,
                disks,
                model,
                act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    record(image, progress).await
                },
                repeatable: true,
                damaged: false,
                recovers: false,
            };
            operation.at_every_index().await;
        }
    });
}

#[test]
fn amendments() {
    on_io_thread(async {
        for (name, value) in [("refcount_bits", "32"), ("compat", "0.10"), ("compat", "1.1")] {
            let options: &[_] = if value == "1.1" { &[("compat", "0.10")] } else { &[] };
            let layout = Layout::new("amend", options, 4 * KIB, 128);
            let (disks, model) = used(layout, &layout.profile(20), 5).await;
            let operation = Operation {
                name,
                layout,
                disks,
                model,
                act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    let mut options = Dict::new();
                    options.insert(name, value);
                    image.node().driver().amend(image.graph(), Amendment::new(options)).await?;
                    progress.flush(image).await
                },
                repeatable: true,
                damaged: false,
                recovers: true,
            };
            operation.at_every_index().await;
        }
    });
}

/// Lets a compaction go on to its end.
struct ToTheEnd;

impl CompactWatch for ToTheEnd {
    fn total(&self, _bytes: u64) {}

    fn moved(&self, _bytes: u64) {}

    fn should_stop(&self) -> bool {
        false
    }
}

/// A used image with a snapshot, a bitmap and holes in its file.
async fn worn(layout: Layout) -> (Vec<Disk>, Model) {
    let (disks, model) = used(layout, &layout.profile(15), 5).await;
    let memory: Vec<_> = disks.into_iter().map(Memory::new).collect();
    let mut progress = Progress::new(model);
    let image = layout.open(boxed(&memory), false).await.unwrap();
    let (graph, node) = (Arc::clone(image.graph()), image.node());
    for name in ["gone", "kept"] {
        if !layout.data_file {
            let new = NewSnapshot { name: name.to_owned(), ..NewSnapshot::default() };
            graph.create_snapshot(&node, new).await.unwrap();
        }
        let tag = u32::from(name.as_bytes()[0]);
        let write = Op::Write { offset: 0, len: layout.size / 3, tag, fua: false };
        progress.send(&image, &[write]).await.unwrap();
    }
    if layout.name != "v2" {
        let add = BitmapChange::Add { granularity_bits: Some(9), enabled: true };
        graph.change_bitmap(&node, "record", add).await.unwrap();
    }
    if !layout.data_file {
        let gone = SnapshotKey::IdOrName("gone".to_owned());
        graph.delete_snapshot(&node, gone).await.unwrap();
    }
    image.close().await.unwrap();
    (memory.iter().map(Memory::disk).collect(), progress.model)
}

#[test]
fn compactions() {
    on_io_thread(async {
        for layout in LAYOUTS {
            let (disks, model) = worn(layout).await;
            let operation = Operation {
                name: layout.name,
                layout,
                disks,
                model,
                act: async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    image.graph().compact(&image.node(), &ToTheEnd).await?;
                    progress.flush(image).await
                },
                repeatable: true,
                damaged: false,
                recovers: false,
            };
            operation.at_every_index().await;
        }
    });
}
