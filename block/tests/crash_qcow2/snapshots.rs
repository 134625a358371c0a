//! Snapshots that come and go.

use cairn_testkit::qcow2::Layout;
use cairn_testkit::{Value, seeded};

use crate::session::Session;
use crate::survey::{Demand, Image, KIB, on_io_thread};

/// Creates two snapshots, goes back to the first one, and deletes both, with writes in between.
fn come_and_go(layout: Layout, least: usize) {
    let seed = seeded(0x5a);
    on_io_thread(async {
        let image = Image::new(layout, seed, layout.blank().await.unwrap());
        let mut session = Session::begin(&image).await;
        let part = layout.size / 8 / 512 * 512;
        session.write(0, 3 * part, 1).await;
        session.create("one").await;
        session.write(part, part, 2).await;
        session.write(5 * part, part, 3).await;
        session.create("two").await;
        session.write(0, part, 4).await;
        let back = [(0, 2 * part, Value::Tag(1)), (5 * part, part, Value::Zero)];
        session.apply("one", &back).await;
        session.write(2 * part, part, 5).await;
        session.delete("one").await;
        session.write(4 * part, part, 6).await;
        session.delete("two").await;
        let has_dirty_bit = !layout.options.contains(&("compat", "0.10"));
        let demand = if has_dirty_bit { Demand::Recovered } else { Demand::Repairable };
        session.judge(demand, seed, least).await;
    });
}

#[test]
fn version_3() {
    come_and_go(Layout::new("snapshots", &[], 4 * KIB, 200), 500);
}

#[test]
fn version_2() {
    come_and_go(Layout::new("snapshots_v2", &[("compat", "0.10")], 4 * KIB, 200), 500);
}

#[test]
fn extended_l2() {
    come_and_go(Layout::new("snapshots_ext_l2", &[("extended_l2", "on")], 16 * KIB, 60), 500);
}

#[test]
fn lazy_refcounts() {
    come_and_go(Layout::new("snapshots_lazy", &[("lazy_refcounts", "on")], 64 * KIB, 24), 500);
}

#[test]
fn clusters_of_512_bytes() {
    come_and_go(Layout::new("snapshots_512", &[("refcount_bits", "64")], 512, 400), 500);
}

#[test]
fn encrypted() {
    let layout = Layout::new("snapshots_encrypted", &[], 16 * KIB, 60);
    come_and_go(Layout { encrypted: true, ..layout }, 500);
}
