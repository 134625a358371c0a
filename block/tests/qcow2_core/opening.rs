//! Images that fail to be opened for writing: nothing stays locked, in the graph, or half done.

use std::path::Path;
use std::sync::Arc;

use cairn_block::driver::{Perm, Repair, WriteFlags};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, Node, OpenOptions, Policy};
use cairn_block::options::Dict;
use cairn_block::{Error, IoBuf, IoBufMut, Result};
use cairn_testkit::{Announce, Fault, Faults, Faulty, Memory};

use crate::image::{create, flags, open, qemu_img};

/// Opens the file at `path` for writing as the node `name`, with more options.
async fn open_file(
    graph: &Arc<Graph>,
    path: &Path,
    name: &str,
    more: &[(&'static str, &str)],
) -> Result<Arc<Node>> {
    let file = Dict::from([("driver", "file"), ("filename", path.to_str().expect("text"))]);
    let mut options = Dict::from([("driver", "qcow2"), ("node-name", name)]);
    options.insert("file", file);
    for (key, value) in more {
        options.insert(*key, *value);
    }
    graph.open(OpenOptions { filename: None, options, flags: flags() }).await
}

/// Whether others can use the file at `path` alone.
async fn is_free(path: &Path) -> Result<()> {
    let graph = Graph::new();
    let node = open_file(&graph, path, "alone", &[]).await?;
    let used = Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE;
    let image = Backend::new(&graph, node, "test", used, Perm::empty())?;
    let report = image.node().driver().check(Repair::empty()).await?;
    assert_eq!((report.corruptions, report.check_errors), (0, 0), "{:?}", report.details);
    image.close().await
}

#[test]
fn a_failure_after_the_driver_has_opened_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    // An image that was not closed, which opening it for writing repairs.
    create(dir.path(), "lazy_refcounts=on", &[], 4 << 20).store(&path).expect("stored");
    let kill = ["-c", "write -P 5 0 1M", "-c", "flush", "-c", "abort"];
    let io = std::process::Command::new("qemu-io").args(kill).arg(&path).output();
    assert!(!io.expect("qemu-io, which `cargo xtask test` installs").status.success());
    let unclean = std::fs::read(&path).expect("readable");
    assert_eq!(unclean[79] & 1, 1, "the image is dirty");
    let small = || {
        let mut policy = Policy::default();
        policy.bounds.virtual_size = Some(1 << 20);
        policy
    };
    let bomb = || {
        let mut policy = Policy::default();
        policy.bounds.expansion = Some(0);
        policy
    };
    for (policy, name, more, hint) in [
        (Policy::default(), "taken", &[][..], "in use already"),
        (Policy::default(), "image", &[("colour", "red")], "colour"),
        (small(), "image", &[], "max-virtual-size"),
        (bomb(), "image", &[], "max-expansion"),
    ] {
        std::fs::write(&path, &unclean).expect("writable");
        let opened = block_on(&EngineConfig::default(), async {
            let graph = Graph::with_policy(policy);
            let node = graph.add_driver("taken", flags(), Box::new(Memory::default()))?;
            let error = open_file(&graph, &path, name, more).await.expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
            assert!(graph.node("image").is_none(), "{hint}: the node is still there");
            assert!(Arc::ptr_eq(&graph.node("taken").expect("the other node"), &node));
            is_free(&path).await
        });
        opened.expect("an I/O thread").unwrap_or_else(|error| panic!("{hint}: {error}"));
        let path = path.to_str().expect("text");
        qemu_img(&["check", path]);
    }
}

#[test]
fn a_node_that_is_used_stays_when_an_image_above_it_fails_to_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = create(dir.path(), "cluster_size=4096", &[], 1 << 20);
    let done = block_on(&EngineConfig::default(), async {
        let graph = Graph::new();
        let memory = Memory::new(disk);
        let _file = graph.add_driver("file", flags(), Box::new(memory.clone()))?;
        let open_as = |name: &str| {
            let options = Dict::from([("driver", "qcow2"), ("file", "file"), ("node-name", name)]);
            graph.open(OpenOptions { filename: None, options, flags: flags() })
        };
        let error = open_as("file").await.expect_err("the name is taken");
        assert!(matches!(error, Error::Name { .. }), "{error}");
        // The same node serves an image that opens.
        let node = open_as("image").await?;
        let used = Perm::CONSISTENT_READ | Perm::WRITE;
        let image = Backend::new(&graph, node, "test", used, Perm::all())?;
        image.write(0, IoBuf::copy_of(&[7; 4096]), WriteFlags::empty()).await?;
        image.close().await?;
        let image = open(Memory::new(memory.disk()), &[], true).await?;
        let read = image.read(0, IoBufMut::new(4096)).await?;
        assert!(read.iter().all(|&byte| byte == 7));
        image.close().await
    });
    done.expect("an I/O thread").expect("the graph works");
}

#[test]
fn errors_while_an_unclean_image_is_opened_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = Memory::new(create(dir.path(), "lazy_refcounts=on", &[], 4 << 20));
    let unclean = block_on(&EngineConfig::default(), async {
        let image = open(memory.clone(), &[], false).await?;
        image.write(0, IoBuf::copy_of(&vec![5; 300_000]), WriteFlags::empty()).await?;
        image.flush().await?;
        let disk = memory.disk();
        image.close().await?;
        Ok::<_, Error>(disk)
    });
    let unclean = unclean.expect("an I/O thread").expect("written");
    for fault in Fault::ALL {
        for index in 0.. {
            let _announce = Announce(format!("{fault:?} at request {index}"));
            let faults = Faults::default();
            let memory = Memory::new(unclean.clone());
            let disk = Faulty::new(Box::new(memory.clone()), faults.clone());
            faults.arm(fault.rule(index));
            let looked = block_on(&EngineConfig::default(), async {
                let opened = open(disk, &[], false).await;
                let fired = faults.fired_kinds();
                let reported = opened.is_err() || !fired.must_be_reported();
                assert!(reported, "an error of {fired:?} was not reported");
                faults.disarm();
                if let Ok(image) = opened {
                    image.close().await?;
                }
                let image = open(memory.clone(), &[], false).await?;
                let report = image.node().driver().check(Repair::empty()).await?;
                assert_eq!(report.corruptions, 0, "{:?}", report.details);
                let read = image.read(0, IoBufMut::new(300_000)).await?;
                assert!(read.iter().all(|&byte| byte == 5));
                image.close().await
            });
            looked.expect("an I/O thread").expect("opens once the disk works");
            if faults.fired() == 0 {
                break;
            }
        }
    }
}
