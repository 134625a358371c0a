//! Persistent bitmaps, and amendments of the format's version and refcounts.

use std::sync::Arc;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_testkit::qcow2::Layout;
use cairn_testkit::seeded;

use crate::session::Session;
use crate::survey::{Demand, Image, KIB, on_io_thread};

/// Adds two bitmaps, merges them and removes one, with writes in between.
fn record(layout: Layout, least: usize) {
    let seed = seeded(0xb1);
    on_io_thread(async {
        let image = Image::new(layout, seed, layout.blank().await.unwrap());
        let mut session = Session::begin(&image).await;
        let part = layout.size / 8 / 512 * 512;
        let add = || BitmapChange::Add { granularity_bits: Some(9), enabled: true };
        session.write(0, 3 * part, 1).await;
        session.record().await;
        session.write(part, part / 2, 2).await;
        session = session.reopen().await;
        session.write(5 * part, 700, 3).await;
        session.bitmap("other", add()).await;
        let other = session.open.graph().load_bitmap(&session.open.node(), "record").await;
        session.bitmap("other", BitmapChange::Merge(Arc::new(other.unwrap()))).await;
        session.write(7 * part, 512, 4).await;
        session.bitmap("other", BitmapChange::Remove).await;
        session = session.reopen().await;
        session.write(6 * part, part, 5).await;
        session.judge(Demand::Clean, seed, least).await;
    });
}

#[test]
fn bitmaps() {
    record(Layout::new("bitmaps", &[], 4 * KIB, 200), 500);
}

#[test]
fn bitmaps_in_clusters_of_512_bytes() {
    record(Layout::new("bitmaps_512", &[("refcount_bits", "64")], 512, 400), 500);
}

#[test]
fn bitmaps_beside_a_data_file() {
    let layout = Layout::new("bitmaps_data_file", &[], 64 * KIB, 24);
    record(Layout { data_file: true, ..layout }, 300);
}

#[test]
fn bitmaps_of_an_encrypted_image() {
    let layout = Layout::new("bitmaps_encrypted", &[], 16 * KIB, 60);
    record(Layout { encrypted: true, ..layout }, 300);
}

#[test]
fn amendments() {
    let seed = seeded(0xa3);
    let layout = Layout::new("amend", &[("compat", "0.10")], 4 * KIB, 200);
    on_io_thread(async {
        let image = Image::new(layout, seed, layout.blank().await.unwrap());
        let mut session = Session::begin(&image).await;
        session.write(0, 100 * KIB, 1).await;
        session.amend(&[("compat", "1.1"), ("refcount_bits", "64")]).await;
        session = session.reopen().await;
        session.write(50 * KIB, 100 * KIB, 2).await;
        session.amend(&[("refcount_bits", "1"), ("lazy_refcounts", "on")]).await;
        session = session.reopen().await;
        session.write(300 * KIB, 100 * KIB, 3).await;
        session
            .amend(&[("compat", "0.10"), ("refcount_bits", "16"), ("lazy_refcounts", "off")])
            .await;
        session = session.reopen().await;
        session.write(20 * KIB, 100 * KIB, 4).await;
        session.judge(Demand::Recovered, seed, 500).await;
    });
}
