//! Writes, zero writes, discards, flushes and resizes, on images of every layout.

use cairn_testkit::qcow2::Layout;
use cairn_testkit::{Profile, Workload, run, seeded};

use crate::survey::{Demand, Image, KIB, Survey, on_io_thread};

/// Runs a workload on an image and looks at all states; at least `least` of them.
pub(crate) fn survey(layout: Layout, profile: &Profile, seed: u64, least: usize) {
    let seed = seeded(seed);
    on_io_thread(async {
        let disks = layout.blank().await.unwrap();
        let image = Image::new(layout, seed, disks);
        let workload = Workload::generate(seed, profile);
        let run = match run(&image, &workload, layout.model()).await {
            Ok(run) => run,
            Err(failure) => panic!("{} (seed {seed:#x}): {failure}", layout.name),
        };
        let survey = Survey {
            name: layout.name,
            layout,
            log: image.machine.log(),
            model: &run.model,
            known: &|position| run.known(position),
            demand: &|_| Demand::Clean,
            snapshots: &[],
            recorded: None,
        };
        survey.judge(seed, least).await;
    });
}

#[test]
fn version_3() {
    let layout = Layout::new("v3", &[], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x31, 1000);
}

#[test]
fn version_2() {
    let layout = Layout::new("v2", &[("compat", "0.10")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x21, 1000);
}

#[test]
fn lazy_refcounts() {
    let layout = Layout::new("lazy", &[("lazy_refcounts", "on")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x1a, 500);
}

#[test]
fn extended_l2() {
    let layout = Layout::new("ext_l2", &[("extended_l2", "on")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0xe2, 1000);
}

#[test]
fn compressed_zstd() {
    let layout = Layout::new("zstd", &[("compression_type", "zstd")], 64 * KIB, 64);
    survey(layout, &Profile { compressed: 40, ..layout.profile(60) }, 0x25, 1000);
}

#[test]
fn compressed_zlib_in_small_clusters() {
    let layout = Layout::new("zlib", &[], 4 * KIB, 256);
    survey(layout, &Profile { compressed: 40, ..layout.profile(120) }, 0x2b, 1000);
}

#[test]
fn refcounts_of_1_bit() {
    let layout = Layout::new("refcount1", &[("refcount_bits", "1")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x11, 1000);
}

#[test]
fn refcounts_of_64_bits() {
    // 512 refcounts a block: some blocks are allocated on the way.
    let layout = Layout::new("refcount64", &[("refcount_bits", "64")], 4 * KIB, 700);
    survey(layout, &Profile { max_clusters: 60, ..layout.profile(60) }, 0x64, 1000);
}

#[test]
fn data_file() {
    let layout = Layout { data_file: true, ..Layout::new("data_file", &[], 64 * KIB, 24) };
    survey(layout, &layout.profile(60), 0xdf, 1000);
}

#[test]
fn clusters_of_512_bytes() {
    // Each L2 table and refcount block covers little: both are allocated all the time.
    let layout = Layout::new("cluster512", &[], 512, 1024);
    survey(layout, &Profile { max_clusters: 100, ..layout.profile(60) }, 0x51, 1000);
}

#[test]
fn overlay() {
    let layout = Layout { backing: Some(1_200_000), ..Layout::new("overlay", &[], 64 * KIB, 24) };
    survey(layout, &Profile { align: 1, ..layout.profile(60) }, 0x0e, 1000);
}

#[test]
fn resize() {
    let layout = Layout::new("resize", &[], 4 * KIB, 200);
    let profile = Profile { resizes: 20, max_clusters: 20, ..layout.profile(60) };
    survey(layout, &profile, 0x4e, 1000);
}

#[test]
fn resize_of_an_overlay() {
    let layout = Layout { backing: Some(150_000), ..Layout::new("resize_overlay", &[], 512, 200) };
    let profile = Profile { resizes: 20, max_clusters: 20, ..layout.profile(60) };
    survey(layout, &profile, 0x4f, 1000);
}
