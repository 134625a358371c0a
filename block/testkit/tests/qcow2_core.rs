//! Requests to qcow2 images against a model, against power cuts, and against the reference tools.

use std::path::Path;

use cairn_block::Result;
use cairn_block::driver::Perm;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_testkit::{
    Disk, Memory, Model, Plan, Profile, Recorder, Reopen, Volatile, Workload, run, stock,
};
use futures_util::future::LocalBoxFuture;

/// A kind of image: creation options for `qemu-img`, cluster size, whether it can be compressed.
struct Kind {
    options: &'static str,
    cluster: u64,
    compressed: u64,
    runtime: &'static [(&'static str, &'static str)],
}

const SMALL_CACHE: &[(&str, &str)] = &[("l2-cache-size", "1024"), ("l2-cache-entry-size", "512")];

const KINDS: &[Kind] = &[
    Kind { options: "cluster_size=65536", cluster: 65536, compressed: 10, runtime: &[] },
    Kind { options: "cluster_size=4096", cluster: 4096, compressed: 10, runtime: &[] },
    Kind { options: "cluster_size=512", cluster: 512, compressed: 10, runtime: SMALL_CACHE },
    Kind { options: "compat=0.10", cluster: 65536, compressed: 10, runtime: &[] },
    Kind {
        options: "cluster_size=16384,extended_l2=on",
        cluster: 16384,
        compressed: 5,
        runtime: &[],
    },
    Kind {
        options: "cluster_size=4096,refcount_bits=1",
        cluster: 4096,
        compressed: 10,
        runtime: &[],
    },
    Kind {
        options: "cluster_size=512,refcount_bits=64",
        cluster: 512,
        compressed: 10,
        runtime: &[],
    },
    Kind { options: "compression_type=zstd", cluster: 65536, compressed: 20, runtime: &[] },
    Kind {
        options: "cluster_size=4096",
        cluster: 4096,
        compressed: 10,
        runtime: &[("discard-no-unref", "on")],
    },
];

fn flags() -> NodeFlags {
    NodeFlags { unmap: true, ..NodeFlags::default() }
}

/// Opens the qcow2 image in `disk`.
async fn open(
    disk: impl cairn_block::driver::Driver,
    runtime: &[(&str, &str)],
    read_only: bool,
) -> Result<Backend> {
    let graph = Graph::new();
    let flags = NodeFlags { read_only, ..flags() };
    let _disk = graph.add_driver("disk", flags, Box::new(disk))?;
    let mut options = Dict::new();
    options.insert("driver", "qcow2");
    options.insert("file", "disk");
    for (name, value) in runtime {
        options.insert(*name, *value);
    }
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let write = if read_only { Perm::empty() } else { Perm::WRITE };
    Backend::new(&graph, node, "test", Perm::CONSISTENT_READ | write, Perm::all())
}

/// A new image as the reference creates it.
fn create(dir: &Path, options: &str, size: u64) -> Disk {
    let path = dir.join("new.qcow2");
    let size = size.to_string();
    let path_text = path.to_str().unwrap();
    let output = stock::qemu_img(["create", "-q", "-f", "qcow2", "-o", options, path_text, &size]);
    assert!(output.status.success(), "{}", stock::text(&output));
    Disk::load(&path).unwrap()
}

/// Asserts that the reference finds nothing wrong with `disk`, but leaks if those are allowed.
fn stock_check(dir: &Path, disk: &Disk, leaks: bool, what: &str) {
    let path = dir.join("check.qcow2");
    disk.store(&path).unwrap();
    let output = stock::qemu_img(["check", "-f", "qcow2", path.to_str().unwrap()]);
    let code = output.status.code();
    let fine = code == Some(0) || (leaks && code == Some(3));
    if !fine {
        disk.store(Path::new("/tmp/failed.qcow2")).unwrap();
    }
    assert!(fine, "{what}: {}", stock::text(&output));
}

struct Plain<'k> {
    disk: Memory,
    kind: &'k Kind,
}

impl Reopen for Plain<'_> {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open(self.disk.clone(), self.kind.runtime, false))
    }

    fn discard_bares(&self) -> bool {
        true
    }
}

#[test]
fn any_workload_reads_back_and_satisfies_the_reference() {
    if stock::version().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    block_on(&EngineConfig::default(), async {
        for kind in KINDS {
            for seed in 0..8 {
                let what = format!("{} seed {seed}", kind.options);
                let profile = Profile {
                    align: if seed % 2 == 0 { 512 } else { 1 },
                    compressed: kind.compressed,
                    max_clusters: if seed % 4 == 3 { 20 } else { 3 },
                    ..Profile::new(kind.cluster * 150 + 512, kind.cluster, 150)
                };
                let disk = Memory::new(create(dir.path(), kind.options, profile.size));
                let image = Plain { disk: disk.clone(), kind };
                let workload = Workload::generate(seed, &profile);
                let run = run(&image, &workload, Model::new(profile.size)).await;
                let run = run.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                let backend = open(disk.clone(), &[], true).await.unwrap();
                let wrong = run.model.verify(&backend, run.model.all_done()).await.unwrap();
                assert!(wrong.is_empty(), "{what}: {}", wrong[0]);
                stock_check(dir.path(), &disk.disk(), false, &what);
            }
        }
    })
    .unwrap();
}

struct Crashing<'k> {
    machine: Recorder,
    disk: Volatile,
    kind: &'k Kind,
}

impl Reopen for Crashing<'_> {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(open(self.disk.clone(), self.kind.runtime, false))
    }

    fn discard_bares(&self) -> bool {
        true
    }

    fn position(&self) -> usize {
        self.machine.position()
    }
}

#[test]
fn every_power_cut_leaves_what_was_flushed_and_at_most_leaks() {
    if stock::version().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut states = 0;
    block_on(&EngineConfig::default(), async {
        for kind in KINDS {
            for seed in 0..3 {
                let what = format!("{} seed {seed}", kind.options);
                let profile = Profile {
                    compressed: kind.compressed,
                    ..Profile::new(kind.cluster * 60, kind.cluster, 50)
                };
                let machine = Recorder::new(seed);
                let disk = machine.add(create(dir.path(), kind.options, profile.size));
                let image = Crashing { machine: machine.clone(), disk, kind };
                let workload = Workload::generate(seed, &profile);
                let run = run(&image, &workload, Model::new(profile.size)).await;
                let run = run.unwrap_or_else(|failure| panic!("{what}: {failure}"));
                let log = machine.log();
                for state in log.states(&Plan { seed, subsets: 10, torn: 1 }) {
                    let what = format!("{what} {}", state.id);
                    let known = run.known(state.position);
                    let memory = Memory::new(state.disks[0].clone());
                    let backend = open(memory, &[], true).await.unwrap();
                    let wrong = run.model.verify(&backend, known).await;
                    let wrong = wrong.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert!(wrong.is_empty(), "{what}: {}\n{:?}", wrong[0], state.events);
                    if states % 37 == 0 {
                        stock_check(dir.path(), &state.disks[0], true, &what);
                    }
                    states += 1;
                }
            }
        }
    })
    .unwrap();
    println!("{states} states");
}
