//! Creating, repairing, amending and compacting images, snapshots and bitmaps.

use std::sync::Arc;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::driver::{Amendment, CompactWatch, Repair};
use cairn_block::graph::Backend;
use cairn_block::options::Dict;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};
use cairn_block::{Error, Result};
use cairn_testkit::qcow2::{Damage, Layout, boxed, damage};
use cairn_testkit::{
    Announce, Disk, Effect, Fault, Faults, Memory, Model, Op, Profile, Value, Watchdog,
};

use super::operation::{Operation, PATIENCE, Progress, faulty};
use super::{KIB, LAYOUTS, on_io_thread, used};

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
fn repairs() {
    on_io_thread(async {
        let layout = Layout::new("repair", &[], 4 * KIB, 128);
        let (disks, model) = used(layout, &layout.profile(30), 9).await;
        for (what, repair) in [
            (Damage::Leaks, Repair::LEAKS),
            (Damage::PartialLeaks, Repair::LEAKS),
            (Damage::Errors, Repair::LEAKS | Repair::ERRORS),
        ] {
            let mut disks = disks.clone();
            damage(&mut disks[0], layout.cluster, what);
            let operation = Operation::new(
                layout,
                (disks, model.clone()),
                async |image: &Backend, _: &mut Progress, _: &Faults| {
                    let report = image.node().driver().check(repair).await?;
                    if report.check_errors > 0 {
                        return Err(Error::unsupported("test", "the check is incomplete"));
                    }
                    assert_eq!(report.corruptions, 0, "{:?}", report.details);
                    image.flush().await
                },
            );
            let operation = Operation { damaged: what != Damage::Leaks, ..operation };
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
            let operation = Operation::new(
                layout,
                (disks, model),
                async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    come_and_go(image, progress).await
                },
            );
            let operation = Operation { recovers: true, ..operation };
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
            let operation = Operation::new(
                layout,
                (disks, model),
                async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    record(image, progress).await
                },
            );
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
            let operation = Operation::new(
                layout,
                (disks, model),
                async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    let mut options = Dict::new();
                    options.insert(name, value);
                    image.node().driver().amend(image.graph(), Amendment::new(options)).await?;
                    progress.flush(image).await
                },
            );
            let operation = Operation { recovers: true, ..operation };
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
            let operation = Operation::new(
                layout,
                (disks, model),
                async |image: &Backend, progress: &mut Progress, _: &Faults| {
                    image.graph().compact(&image.node(), &ToTheEnd).await?;
                    progress.flush(image).await
                },
            );
            operation.at_every_index().await;
        }
    });
}
