//! Options that change while an image is open.

use std::path::Path;
use std::sync::Arc;

use super::stock::{dict, expect, json, open, run, writable};
use cairn_block::driver::WriteFlags;
use cairn_block::graph::Backend;
use cairn_block::options::{expand, json};
use cairn_block::{IoBuf, IoBufMut, Result};

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
