//! Power cuts while images are created, resized and repaired: at every moment the disk has one of two
//! sizes, the data that was there before, and at most leaks.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cairn_block::driver::{Driver, Perm, Prealloc, Repair, Resize};
use cairn_block::formats::qcow2::create::format_node;
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::{IoBufMut, Result};
use cairn_testkit::{Disk, Memory, Plan, Recorder};

use super::stock::{dict, expect, options, run};

/// Puts `disk` into a graph, under a user that lets others do what they like.
fn add(disk: impl Driver, used: Perm) -> Result<(Arc<Graph>, Backend)> {
    let graph = Graph::new();
    let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
    let node = graph.add_driver("disk", flags, Box::new(disk))?;
    let user = Backend::new(&graph, node, "disk", used, Perm::all())?;
    Ok((graph, user))
}

async fn open(graph: &Arc<Graph>, flags: NodeFlags) -> Result<Backend> {
    let options = dict(&[("driver", "qcow2"), ("file", "disk")]);
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let write = if flags.read_only { Perm::empty() } else { Perm::WRITE | Perm::RESIZE };
    Backend::new(graph, node, "test", Perm::CONSISTENT_READ | write, Perm::all())
}

/// The first sign of damage in an image: what its own check finds, but leaks.
async fn damage(disk: &Disk) -> Result<Option<String>> {
    let (graph, user) = add(Memory::new(disk.clone()), Perm::empty())?;
    let flags = NodeFlags { read_only: true, check: true, ..NodeFlags::default() };
    let image = open(&graph, flags).await?;
    let report = image.node().driver().check(Repair::empty()).await?;
    image.close().await?;
    user.close().await?;
    let sound = report.corruptions + report.check_errors == 0;
    Ok((!sound).then(|| report.details.join("\n")))
}

async fn content(disk: &Disk) -> Result<Vec<u8>> {
    let (graph, user) = add(Memory::new(disk.clone()), Perm::empty())?;
    let flags = NodeFlags { read_only: true, ..NodeFlags::default() };
    let image = open(&graph, flags).await?;
    let len = usize::try_from(image.size()).expect("small");
    let bytes = image.read(0, IoBufMut::new(len)).await?.to_vec();
    image.close().await?;
    user.close().await?;
    Ok(bytes)
}

const PLAN: Plan = Plan { seed: 7, subsets: 6, torn: 1 };

/// An image by the reference, with `commands` run on it.
fn image(dir: &Path, list: &str, commands: &[&str]) -> Disk {
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "-o", list, "image", "1M"]);
    for command in commands {
        expect(dir, &["qemu-io", "-c", command, "image"]);
    }
    Disk::load(&dir.join("image")).expect("an image")
}

#[test]
fn a_new_image_is_no_image_before_it_is_sound() {
    for list in ["size=1M", "size=3M,cluster_size=512", "size=2M,preallocation=metadata"] {
        let mut old = Disk::new(2 << 20);
        old.write(0, &vec![0xaa; 2 << 20]);
        let machine = Recorder::new(1);
        let disk = machine.add(old);
        run(async {
            let used = Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE;
            let (graph, user) = add(disk, used)?;
            format_node(&graph, &user, None, options(list)).await?;
            user.close().await
        })
        .unwrap_or_else(|error| panic!("{list}: {error}"));
        for state in machine.log().states(&PLAN) {
            let mut magic = [0; 4];
            state.disks[0].read(0, &mut magic);
            if magic != *b"QFI\xfb" {
                continue;
            }
            let found = run(damage(&state.disks[0])).expect("can be checked");
            assert_eq!(found, None, "{list} {}", state.id);
            let content = run(content(&state.disks[0])).expect("can be read");
            assert!(content.iter().all(|&byte| byte == 0), "{list} {}: old data shows", state.id);
        }
    }
}

#[test]
fn resizing_keeps_what_both_sizes_have() {
    let kinds: &[(&str, &[&str])] = &[
        ("cluster_size=512", &["write -P 3 0 300k", "write -P 4 700k 300k"]),
        ("cluster_size=4k,refcount_bits=64", &["write -P 3 100k 300k"]),
        ("compat=0.10", &["write -P 3 100k 300k"]),
        ("cluster_size=16k,extended_l2=on", &["write -P 3 100k 300k"]),
        ("cluster_size=4k,lazy_refcounts=on", &["write -P 3 100k 300k"]),
    ];
    for (list, commands) in kinds {
        for (size, prealloc) in
            [(3 << 20, Prealloc::Off), (2 << 20, Prealloc::Metadata), (200 << 10, Prealloc::Off)]
        {
            let dir = tempfile::tempdir().expect("a directory");
            let old = image(dir.path(), list, commands);
            let before = run(content(&old)).expect("can be read");
            let machine = Recorder::new(1);
            let disk = machine.add(old);
            run(async {
                let (graph, user) = add(disk, Perm::empty())?;
                let image = open(&graph, NodeFlags { unmap: true, ..NodeFlags::default() }).await?;
                let how = Resize { exact: true, prealloc, zero_new: false };
                image.resize(size, how).await?;
                image.close().await?;
                user.close().await
            })
            .unwrap_or_else(|error| panic!("{list}: {error}"));
            for state in machine.log().states(&PLAN) {
                let what = format!("{list} to {size}, {}", state.id);
                let disk = &state.disks[0];
                let mut features = [0; 8];
                disk.read(72, &mut features);
                if !list.contains("lazy") || features[7] & 1 == 0 {
                    let found = run(damage(disk)).expect("can be checked");
                    assert_eq!(found, None, "{what}");
                }
                let after = run(content(disk)).unwrap_or_else(|error| panic!("{what}: {error}"));
                let new = usize::try_from(size).expect("small");
                assert!(after.len() == before.len() || after.len() == new, "{what}");
                let kept = before.len().min(new);
                assert!(after[..kept] == before[..kept], "{what}: data changed");
                if new > before.len() {
                    assert!(after[before.len()..].iter().all(|&byte| byte == 0), "{what}");
                }
            }
        }
    }
}

#[test]
fn repairs_can_be_cut_off_and_repeated() {
    // Refcounts too high and zero, an entry without its flag, a lost refcount block.
    type Damage = fn(&mut Disk);
    let damages: [(&str, Damage); 4] = [
        ("a leak", |disk| disk.write(0x2_0000 + 2 * 6, &[0, 2])),
        ("a refcount of zero", |disk| disk.write(0x2_0000 + 2 * 6, &[0, 0])),
        ("a missing flag", |disk| disk.write(0x4_0000, &[0])),
        ("no refcount block", |disk| disk.write(0x1_0000, &[0; 8])),
    ];
    for (what, harm) in damages {
        let dir = tempfile::tempdir().expect("a directory");
        let mut old = image(dir.path(), "compat=1.1", &["write -P 3 0 300k"]);
        let before = run(content(&old)).expect("can be read");
        harm(&mut old);
        let machine = Recorder::new(1);
        let disk = machine.add(old);
        let repair = |disk| async {
            let (graph, user) = add(disk, Perm::empty())?;
            let flags = NodeFlags { check: true, unmap: true, ..NodeFlags::default() };
            let image = open(&graph, flags).await?;
            let report = image.node().driver().check(Repair::all()).await?;
            image.close().await?;
            user.close().await?;
            Ok::<_, cairn_block::Error>(report)
        };
        let report = run(repair(disk)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{what}: {:?}", report.details);
        for state in machine.log().states(&PLAN) {
            let disk = state.disks[0].clone();
            let content_then = run(content(&disk)).expect("can be read");
            assert!(content_then == before, "{what} {}: data changed", state.id);
            let machine = Recorder::new(2);
            let again = machine.add(disk);
            run(repair(again)).unwrap_or_else(|error| panic!("{what} {}: {error}", state.id));
            let repaired = &machine.disks()[0];
            let found = run(damage(repaired)).expect("can be checked");
            assert_eq!(found, None, "{what} {}", state.id);
            let content_then = run(content(repaired)).expect("can be read");
            assert!(content_then == before, "{what} {}: data changed", state.id);
        }
        let path = dir.path().join("repaired");
        machine.disks()[0].store(&path).expect("stored");
        expect(dir.path(), &["qemu-img", "check", "repaired"]);
        fs::remove_file(path).expect("removed");
    }
}
