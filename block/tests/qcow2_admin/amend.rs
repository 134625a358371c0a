//! Amending images: what they show stays, and they can be used at once.

use std::path::Path;

use super::stock::{dict, expect, open, run, tool, writable};
use cairn_block::driver::{Amendment, WriteFlags};
use cairn_block::graph::Backend;
use cairn_block::{IoBuf, Result};

async fn amend(image: &Backend, options: &[(&'static str, &str)]) -> Result<()> {
    let (graph, node) = (image.graph(), image.node());
    node.driver().amend(graph, Amendment::new(dict(options))).await
}

async fn write(image: &Backend, offset: u64, len: usize, byte: u8) -> Result<()> {
    image.write(offset, IoBuf::copy_of(&vec![byte; len]), WriteFlags::empty()).await
}

fn qemu_io(dir: &Path, image: &str, commands: &[&str]) {
    let mut words = vec!["qemu-io", image];
    words.extend(commands.iter().flat_map(|command| ["-c", command]));
    expect(dir, &words);
}

/// What an image and its snapshots show, by the reference's word.
fn contents(dir: &Path, image: &str, snapshots: &[&str]) -> Vec<Vec<u8>> {
    let convert = |words: &[&str]| {
        expect(dir, &[&["qemu-img", "convert", "-O", "raw"], words, &[image, "raw"]].concat());
        std::fs::read(dir.join("raw")).expect("a file")
    };
    let snapshots = snapshots.iter().map(|snapshot| convert(&["-l", snapshot]));
    std::iter::once(convert(&[])).chain(snapshots).collect()
}

#[test]
fn version_2_shows_what_version_3_had_zero_clusters_for() {
    let recipes: &[(&str, &[&[&str]])] = &[
        // In the snapshot only, in both by one table, and with storage.
        ("", &[&["write -z 0 128k"], &["write -P 42 0 128k"]]),
        ("", &[&["write -z 0 128k"], &[]]),
        ("", &[&["write -P 1 0 1M", "write -z 64k 128k"], &["write -z 512k 64k", "discard 0 64k"]]),
        // The same with a backing file that would show.
        ("base", &[&["write -z 0 64k"], &["write -P 66 0 128k"]]),
        ("base", &[&["write -z 0 128k"], &[]]),
        ("base", &[&["write -P 1 0 1M", "write -z -u 64k 128k"], &["write -z 0 2M"]]),
        ("base", &[&["write -z 0 4M"], &["write -z 1M 64k"], &["write -P 3 1M 64k"], &[]]),
    ];
    for (number, (base, rounds)) in recipes.iter().enumerate() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let mut words = vec!["qemu-img", "create", "-q", "-f", "qcow2"];
        if base.is_empty() {
            words.extend(["image", "4M"]);
        } else {
            expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "base", "3M"]);
            qemu_io(dir, "base", &["write -P 7 0 3M"]);
            words.extend(["-b", "base", "-F", "qcow2", "image", "4M"]);
        }
        expect(dir, &words);
        let mut names = Vec::new();
        for (round, commands) in rounds.iter().enumerate() {
            if round > 0 {
                let name = format!("s{round}");
                expect(dir, &["qemu-img", "snapshot", "-c", &name, "image"]);
                names.push(name);
            }
            if !commands.is_empty() {
                qemu_io(dir, "image", commands);
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let before = contents(dir, "image", &names);
        run(async {
            let image = open(&dir.join("image"), writable()).await.expect("opens");
            let steps = std::cell::RefCell::new(Vec::new());
            let progress = |done, total| steps.borrow_mut().push((done, total));
            let options = dict(&[("compat", "0.10")]);
            let change = Amendment { options, force: false, progress: &progress };
            let (graph, node) = (image.graph(), image.node());
            node.driver().amend(graph, change).await.expect("possible");
            drop(node);
            let total = names.len() as u64 + 1;
            let expected: Vec<_> = (1..=total).map(|done| (done, total)).collect();
            assert_eq!(*steps.borrow(), expected, "one step for each L1 entry");
            image.close().await.expect("closes");
        });
        expect(dir, &["qemu-img", "check", "image"]);
        assert!(expect(dir, &["qemu-img", "info", "image"]).contains("compat: 0.10"));
        assert!(contents(dir, "image", &names) == before, "recipe {number}");
        for name in names.iter().rev() {
            expect(dir, &["qemu-img", "snapshot", "-d", name, "image"]);
        }
        expect(dir, &["qemu-img", "check", "image"]);
    }
}

#[test]
fn an_amended_image_is_written_to_without_being_opened_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "image", "8M"]);
    run(async {
        let image = open(&dir.join("image"), writable()).await.expect("opens");
        write(&image, 0, 100_000, 1).await.expect("written");
        image.write_zeroes(1 << 20, 1 << 20, WriteFlags::empty()).await.expect("zeroed");
        let changes: [&[(&str, &str)]; 5] = [
            &[("refcount_bits", "64")],
            &[("refcount_bits", "16"), ("compat", "0.10")],
            &[("compat", "1.1"), ("lazy_refcounts", "on")],
            &[("refcount_bits", "1")],
            &[("lazy_refcounts", "off"), ("refcount_bits", "8"), ("size", "16M")],
        ];
        for (round, options) in (1u8..).zip(changes) {
            amend(&image, options).await.unwrap_or_else(|e| panic!("{options:?}: {e}"));
            let at = u64::from(round) << 20;
            write(&image, at + 70_000, 200_000, round + 1).await.expect("still writable");
            image.write_zeroes(at + 131_072, 65_536, WriteFlags::empty()).await.expect("zeroed");
            image.flush().await.expect("flushed");
            if !(2..=4).contains(&round) {
                // Meanwhile refcounts may lag behind, also of what zeroes freed in version 2.
                expect(dir, &["qemu-img", "check", "-U", "image"]);
            }
        }
        image.close().await.expect("closes");
    });
    expect(dir, &["qemu-img", "check", "image"]);
    let mut checks = vec!["read -P 1 0 100000".to_owned()];
    for round in 1..=5 {
        let at = round << 20;
        checks.push(format!("read -P {} {} 61072", round + 1, at + 70_000));
        checks.push(format!("read -P 0 {} 65536", at + 131_072));
        checks.push(format!("read -P {} {} 73392", round + 1, at + 196_608));
    }
    let checks: Vec<&str> = checks.iter().map(String::as_str).collect();
    qemu_io(dir, "image", &checks);
}

#[test]
fn a_damaged_snapshot_prevents_an_old_version_before_anything_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "image", "8M"]);
    qemu_io(dir, "image", &["write 0 64k"]);
    expect(dir, &["qemu-img", "snapshot", "-c", "one", "image"]);
    let header = std::fs::read(dir.join("image")).expect("a file");
    let table = u64::from_be_bytes(header[64..72].try_into().expect("8 bytes"));
    let file = std::fs::OpenOptions::new().write(true).open(dir.join("image")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, &0x40_0200u64.to_be_bytes(), table)
        .expect("written");
    run(async {
        let image = open(&dir.join("image"), writable()).await.expect("opens");
        amend(&image, &[("compat", "0.10")]).await.expect_err("no L1 table there");
        image.close().await.expect("closes");
    });
    let after = std::fs::read(dir.join("image")).expect("a file");
    assert_eq!(after[72..80], [0; 8], "neither dirty nor marked as damaged");
    assert!(tool(dir, &["qemu-io", "-c", "read 0 64k", "image"]).status.success());
}
