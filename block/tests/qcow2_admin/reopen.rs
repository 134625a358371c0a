//! Options that change while an image is open.

use std::path::Path;
use std::sync::Arc;

use super::stock::{dict, expect, json, open, read_only, run, tool, writable};
use cairn_block::driver::{Perm, WriteFlags};
use cairn_block::graph::{Backend, Graph, OpenOptions};
use cairn_block::options::{expand, json};
use cairn_block::{Error, IoBuf, IoBufMut, Result};
use cairn_testkit::{Disk, Memory};

async fn reopen(image: &Backend, options: &[(&'static str, &str)]) -> Result<()> {
    let node = image.node();
    let options = expand(dict(options)).expect("valid");
    image.graph().reopen_with(&node, node.flags(), options).await
}

async fn write(image: &Backend, offset: u64, len: usize, byte: u8) -> Result<()> {
    image.write(offset, IoBuf::copy_of(&vec![byte; len]), WriteFlags::empty()).await
}

fn create(dir: &Path) {
    let list = "cluster_size=4k,lazy_refcounts=on";
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "-o", list, "image", "64M"]);
}

#[test]
fn every_option_can_change_between_requests() {
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path());
    let steps: &[&[(&str, &str)]] = &[
        &[("l2-cache-entry-size", "512")],
        &[("cache-size", "1M")],
        &[("l2-cache-size", "64k"), ("l2-cache-entry-size", "4k")],
        &[("refcount-cache-size", "128k")],
        &[("overlap-check", "all"), ("cache-clean-interval", "1")],
        &[("overlap-check.template", "none"), ("overlap-check.active-l2", "on")],
        &[("lazy-refcounts", "off"), ("pass-discard-other", "on")],
        &[("lazy-refcounts", "on"), ("pass-discard-request", "off")],
        &[],
    ];
    run(async {
        let image = open(&dir.path().join("image"), writable()).await.expect("opens");
        for (step, options) in steps.iter().enumerate() {
            let byte = u8::try_from(step + 1).expect("few");
            // Over what was there, and where nothing was.
            write(&image, step as u64 * 3_000_000, 5_000_000, byte).await.expect("written");
            reopen(&image, options).await.unwrap_or_else(|e| panic!("{options:?}: {e}"));
            for (offset, expected) in [(step as u64 * 3_000_000, byte), (0, 1)] {
                let read = image.read(offset, IoBufMut::new(4096)).await.expect("read");
                assert!(read.iter().all(|&b| b == expected), "{options:?} at {offset}");
            }
        }
        image.close().await.expect("closes");
    });
    expect(dir.path(), &["qemu-img", "check", "image"]);
    for step in 0..steps.len() {
        let pattern = format!("read -P {} {} 3000000", step + 1, step * 3_000_000);
        expect(dir.path(), &["qemu-io", "-c", &pattern, "image"]);
    }
}

#[test]
fn what_cannot_be_leaves_everything_as_it_was() {
    let refused: &[&[(&str, &str)]] = &[
        &[("lazy-refcounts", "42")],
        &[("cache-size", "1M"), ("l2-cache-size", "64k"), ("refcount-cache-size", "64k")],
        &[("cache-size", "1M"), ("l2-cache-size", "2M")],
        &[("cache-size", "1M"), ("refcount-cache-size", "2M")],
        &[("l2-cache-entry-size", "33k")],
        &[("l2-cache-entry-size", "128k")],
        &[("refcount-cache-size", "256T")],
        &[("overlap-check.template", "blubb")],
        &[("cache-clean-interval", "4294967296")],
        &[("encrypt.key-secret", "other")],
        &[("colour", "red"), ("discard-no-unref", "on")],
    ];
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path());
    run(async {
        let image = open(&dir.path().join("image"), writable()).await.expect("opens");
        write(&image, 0, 1 << 20, 1).await.expect("written");
        for options in refused {
            let error = reopen(&image, options).await.expect_err("no such value");
            assert_eq!(error.errno(), libc::EINVAL, "{options:?}: {error}");
        }
        // Discards still give clusters up.
        image.discard(0, 1 << 20).await.expect("discarded");
        image.close().await.expect("closes");
    });
    let map = json(dir.path(), &["qemu-img", "map", "--output=json", "image"]);
    assert!(!json::compact(&map).contains("offset"), "{}", json::compact(&map));
    expect(dir.path(), &["qemu-img", "check", "image"]);
}

#[test]
fn discarded_clusters_stay_from_when_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path());
    run(async {
        let image = Arc::new(open(&dir.path().join("image"), writable()).await.expect("opens"));
        write(&image, 0, 2 << 20, 1).await.expect("written");
        image.discard(0, 1 << 20).await.expect("discarded");
        reopen(&image, &[("discard-no-unref", "on")]).await.expect("possible");
        image.discard(1 << 20, 1 << 20).await.expect("discarded");
        let read = image.read(0, IoBufMut::new(2 << 20)).await.expect("read");
        assert!(read.iter().all(|&byte| byte == 0));
        let image = Arc::into_inner(image).expect("one user");
        image.close().await.expect("closes");
    });
    let check = json(dir.path(), &["qemu-img", "check", "--output=json", "image"]);
    let allocated = check.as_dict().and_then(|facts| facts.get("allocated-clusters")).cloned();
    assert_eq!(allocated, Some(256u64.into()), "the second half keeps its clusters");
}

#[test]
fn a_mode_that_others_do_not_allow_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path());
    let disk = Disk::load(&dir.path().join("image")).expect("readable");
    run(async {
        let graph = Graph::new();
        let file = graph.add_driver("file", writable(), Box::new(Memory::new(disk)))?;
        let options = dict(&[("driver", "qcow2"), ("file", "file")]);
        let what = OpenOptions { filename: None, options, flags: read_only() };
        let node = graph.open(what).await?;
        let used = Perm::CONSISTENT_READ;
        let image = Backend::new(&graph, Arc::clone(&node), "reader", used, Perm::all())?;
        let guard = Backend::new(&graph, file, "guard", used, used)?;
        let error = graph.reopen(&node, writable()).await.expect_err("the guard forbids it");
        assert!(matches!(error, Error::Permission { .. }), "{error}");
        assert!(node.is_read_only());
        image.read(0, IoBufMut::new(4096)).await?;
        let denied = image.set_permissions(used | Perm::WRITE, Perm::all());
        assert!(matches!(denied, Err(Error::ReadOnly { .. })), "{denied:?}");
        guard.close().await?;
        graph.reopen(&node, writable()).await?;
        image.set_permissions(used | Perm::WRITE, Perm::all())?;
        write(&image, 0, 4096, 1).await?;
        image.close().await
    })
    .expect("the graph works");
}

#[test]
fn a_file_that_others_write_to_stays_writable() {
    run(async {
        let graph = Graph::new();
        let memory = Memory::new(Disk::new(1 << 20));
        let file = graph.add_driver("file", writable(), Box::new(memory))?;
        let writer = Backend::new(&graph, file, "writer", Perm::WRITE, Perm::all())?;
        let options = dict(&[("driver", "zeroinit"), ("file", "file")]);
        let node = graph.open(OpenOptions { filename: None, options, flags: writable() }).await?;
        let used = Perm::CONSISTENT_READ;
        let reader = Backend::new(&graph, Arc::clone(&node), "reader", used, Perm::all())?;
        graph.reopen(&node, read_only()).await?;
        write(&writer, 0, 4096, 1).await?;
        assert!(node.is_read_only() && reader.read(0, IoBufMut::new(4096)).await?[0] == 1);
        reader.close().await?;
        writer.close().await
    })
    .expect("the graph works");
}

#[test]
fn an_image_that_was_not_closed_is_repaired_before_it_is_written_to() {
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path());
    let path = dir.path().join("image");
    // Its refcounts, which are lazy, were not written.
    tool(dir.path(), &["qemu-io", "-c", "write -P 5 0 1M", "-c", "flush", "-c", "abort", "image"]);
    assert_eq!(std::fs::read(&path).expect("readable")[79] & 1, 1, "it is dirty");
    run(async {
        let image = open(&path, read_only()).await?;
        let node = image.node();
        let error = image.graph().reopen(&node, writable()).await.expect_err("must be repaired");
        assert!(error.to_string().contains("not closed cleanly"), "{error}");
        let read = image.read(0, IoBufMut::new(1 << 20)).await?;
        assert!(read.iter().all(|&byte| byte == 5));
        drop(node);
        image.close().await?;
        let image = open(&path, writable()).await?;
        write(&image, 1 << 20, 1 << 20, 6).await?;
        image.close().await
    })
    .expect("the image works");
    expect(dir.path(), &["qemu-img", "check", "image"]);
    expect(dir.path(), &["qemu-io", "-c", "read -P 5 0 1M", "-c", "read -P 6 1M 1M", "image"]);
}
