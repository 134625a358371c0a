//! Images that share data: with a backing file, a data file, or internal snapshots.

use std::path::Path;

use cairn_block::Result;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_testkit::{Disk, Memory, Model, Profile, Reopen, Value, Workload, run};
use futures_util::future::LocalBoxFuture;

use crate::image::{Below, KINDS, Kind, create, open_on, qemu_img, stock_check};

/// An image on several devices.
struct Layered<'k> {
    devices: Vec<(&'static str, Memory)>,
    kind: &'k Kind,
}

impl Layered<'_> {
    fn below(&self) -> Below {
        let boxed = |(key, memory): &(&'static str, Memory)| (*key, Box::new(memory.clone()) as _);
        self.devices.iter().map(boxed).collect()
    }
}

impl Reopen for Layered<'_> {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open_on(self.below(), self.kind.runtime, false))
    }

    fn discard_bares(&self) -> bool {
        true
    }
}

/// Runs a workload on `image` and compares what it holds afterwards.
async fn exercise(image: &Layered<'_>, seed: u64, profile: &Profile, model: Model, what: &str) {
    let workload = Workload::generate(seed, profile);
    let run = run(image, &workload, model).await;
    let run = run.unwrap_or_else(|failure| panic!("{what}: {failure}"));
    let backend = open_on(image.below(), &[], true).await.unwrap();
    let wrong = run.model.verify(&backend, run.model.all_done()).await.unwrap();
    assert!(wrong.is_empty(), "{what}: {}", wrong[0]);
}

fn profile(kind: &Kind) -> Profile {
    Profile {
        compressed: kind.compressed,
        align: 1,
        ..Profile::new(kind.cluster * 80, kind.cluster, 100)
    }
}

/// A disk whose sectors all have content of their own.
fn filled(size: u64, tag: u32) -> Disk {
    let mut disk = Disk::new(size);
    disk.write(0, &Value::Tag(tag).buffer(0, size));
    disk
}

#[test]
fn a_backing_file_shows_through_where_nothing_was_written() {
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        for kind in KINDS.iter().filter(|k| !k.options.contains("preallocation")) {
            for seed in 0..4 {
                let what = format!("{} over a backing file, seed {seed}", kind.options);
                let profile = profile(kind);
                let base_size = profile.size / 4 * 3 + 512;
                let more = ["-u", "-b", "none", "-F", "raw"];
                let disk = Memory::new(create(dir.path(), kind.options, &more, profile.size));
                let base = Memory::new(filled(base_size, 77));
                let image = Layered {
                    devices: vec![("file", disk.clone()), ("backing", base.clone())],
                    kind,
                };
                let mut model = Model::new(profile.size);
                model.begin_with(0..base_size, Value::Tag(77));
                exercise(&image, seed, &profile, model, &what).await;
                assert_eq!(base.disk().difference(&filled(base_size, 77)), None, "{what}");
                stock_check(dir.path(), &disk.disk(), false, &what);
            }
        }
    })
    .unwrap();
}

#[test]
fn a_data_file_holds_all_guest_data() {
    let dir = tempfile::tempdir().unwrap();
    let raw_path = dir.path().join("data.raw");
    for (raw, extended) in [("off", "off"), ("off", "on"), ("on", "off")] {
        let options = format!(
            "data_file={},data_file_raw={raw},extended_l2={extended}",
            raw_path.to_str().unwrap()
        );
        block_on(&EngineConfig::default(), async {
            for seed in 0..4 {
                let what = format!("{options} seed {seed}");
                let kind = &Kind { compressed: 0, ..KINDS[0] };
                let profile = profile(kind);
                let disk = Memory::new(create(dir.path(), &options, &[], profile.size));
                let data = Memory::new(Disk::load(&raw_path).unwrap());
                let image = Layered {
                    devices: vec![("file", disk.clone()), ("data-file", data.clone())],
                    kind,
                };
                exercise(&image, seed, &profile, Model::new(profile.size), &what).await;
                data.disk().store(&raw_path).unwrap();
                stock_check(dir.path(), &disk.disk(), false, &what);
                if raw == "on" {
                    let path = dir.path().join("check.qcow2");
                    let (image, raw) = (path.to_str().unwrap(), raw_path.to_str().unwrap());
                    qemu_img(&["compare", "-f", "qcow2", "-F", "raw", image, raw]);
                }
            }
        })
        .unwrap();
    }
}

/// Has the reference take a snapshot of the image in `disk`.
fn snapshot(dir: &Path, disk: &Memory, name: &str) -> Memory {
    let path = dir.join("snapshot.qcow2");
    disk.disk().store(&path).unwrap();
    qemu_img(&["snapshot", "-c", name, path.to_str().unwrap()]);
    Memory::new(Disk::load(&path).unwrap())
}

/// What the snapshot `name` of the image in `disk` holds, as the reference reads it.
fn snapshot_content(dir: &Path, disk: &Memory, name: &str) -> Disk {
    let path = dir.join("snapshot.qcow2");
    let raw = dir.join("snapshot.raw");
    disk.disk().store(&path).unwrap();
    let (path, raw_name) = (path.to_str().unwrap(), raw.to_str().unwrap());
    qemu_img(&["convert", "-l", name, "-f", "qcow2", "-O", "raw", path, raw_name]);
    Disk::load(&raw).unwrap()
}

#[test]
fn writing_leaves_internal_snapshots_alone() {
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        for kind in KINDS.iter().filter(|k| !k.options.contains("refcount_bits=1")) {
            for seed in 0..2 {
                let what = format!("{} with snapshots, seed {seed}", kind.options);
                let profile = profile(kind);
                let mut disk = Memory::new(create(dir.path(), kind.options, &[], profile.size));
                let mut model = Model::new(profile.size);
                let mut kept: Vec<(String, Disk)> = Vec::new();
                for round in 0..3 {
                    let image = Layered { devices: vec![("file", disk.clone())], kind };
                    let workload = Workload::generate(seed + 10 * round, &profile);
                    let run = run(&image, &workload, model).await;
                    model = run.unwrap_or_else(|failure| panic!("{what}: {failure}")).model;
                    let backend = open_on(image.below(), &[], true).await.unwrap();
                    let wrong = model.verify(&backend, model.all_done()).await.unwrap();
                    assert!(wrong.is_empty(), "{what}: {}", wrong[0]);
                    stock_check(dir.path(), &disk.disk(), false, &what);
                    for (name, content) in &kept {
                        let now = snapshot_content(dir.path(), &disk, name);
                        assert_eq!(now.difference(content), None, "{what}: {name}");
                    }
                    let name = format!("s{round}");
                    disk = snapshot(dir.path(), &disk, &name);
                    kept.push((name.clone(), snapshot_content(dir.path(), &disk, &name)));
                }
            }
        }
    })
    .unwrap();
}
