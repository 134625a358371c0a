//! Images that are compacted, completely or in part.

use std::cell::Cell;

use cairn_block::driver::CompactWatch;
use cairn_testkit::qcow2::Layout;
use cairn_testkit::{Reopen, seeded};

use crate::session::Session;
use crate::survey::{Demand, Image, KIB, on_io_thread};

/// Ends a compaction when it has moved so many bytes.
struct MoveUpTo {
    most: u64,
    moved: Cell<u64>,
}

impl CompactWatch for MoveUpTo {
    fn total(&self, _bytes: u64) {}

    fn moved(&self, bytes: u64) {
        self.moved.set(self.moved.get() + bytes);
    }

    fn should_stop(&self) -> bool {
        self.moved.get() >= self.most
    }
}

/// Makes holes in an image with a snapshot and a bitmap, and closes them.
fn compact(layout: Layout) {
    let seed = seeded(0xc0);
    for most in [u64::MAX, 3 * layout.cluster] {
        on_io_thread(async {
            let image = Image::new(layout, seed, layout.blank().await.unwrap());
            let mut session = Session::begin(&image).await;
            let is_v2 = layout.options.contains(&("compat", "0.10"));
            let part = layout.size / 8 / layout.cluster * layout.cluster;
            session.write(0, 3 * part, 1).await;
            session.create("one").await;
            session.write(part, part, 2).await;
            session.create("two").await;
            session.write(5 * part, part, 3).await;
            if !is_v2 {
                session.record().await;
            }
            session.delete("one").await;
            session.drop_data(0, part / 2 / layout.cluster * layout.cluster).await;
            session.write(6 * part, part / 2, 4).await;
            let start = image.position();
            let watch = MoveUpTo { most, moved: Cell::new(0) };
            assert!(session.compact(&watch).await > 0, "{}", layout.name);
            let end = image.position();
            session.write(2 * part, part, 5).await;
            let before = if is_v2 { Demand::Repairable } else { Demand::Recovered };
            let demand = |position| match position {
                _ if layout.is_lazy() => before,
                position if (start..=end).contains(&position) => Demand::Clean,
                _ => before,
            };
            session.judge_by(&demand, seed, 500).await;
        });
    }
}

#[test]
fn version_3() {
    compact(Layout::new("compact", &[], 4 * KIB, 200));
}

#[test]
fn version_2() {
    compact(Layout::new("compact_v2", &[("compat", "0.10")], 4 * KIB, 200));
}

#[test]
fn extended_l2() {
    compact(Layout::new("compact_ext_l2", &[("extended_l2", "on")], 16 * KIB, 60));
}

#[test]
fn lazy_refcounts() {
    compact(Layout::new("compact_lazy", &[("lazy_refcounts", "on")], 4 * KIB, 200));
}

#[test]
fn clusters_of_512_bytes() {
    compact(Layout::new("compact_512", &[("refcount_bits", "64")], 512, 400));
}
