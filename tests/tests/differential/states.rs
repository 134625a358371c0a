//! qcow2 images after a life: written, zeroed, discarded, resized, damaged, or with what later versions add.

use cairn_tests::qcow2::{COPIED, field, place};

use crate::images;

images! {
    zero_clusters: "qcow2", |m| m.convert("").io("write -z 128k 256k").io("write -z 1M 4k");
    zero_clusters_unmapped: "qcow2", |m| m.convert("").io("write -z -u 128k 256k");
    zero_clusters_version_2: "qcow2", |m| m.convert("-o compat=0.10").io("write -z 128k 256k");
    zero_subclusters: "qcow2", |m| m.convert("-o extended_l2=on")
        .io("write -z 130k 20k").io("write -z -u 512k 10k");
    subclusters_half_written: "qcow2", |m| m.create("-o extended_l2=on", "3M")
        .io("write -P 1 2k 2k").io("write -P 2 70k 1k").io("write -z 200k 6k");
    discarded: "qcow2", |m| m.convert("").io("discard 128k 512k");
    discarded_version_2: "qcow2", |m| m.convert("-o compat=0.10").io("discard 128k 512k");
    compressed_and_overwritten: "qcow2", |m| m.convert("-c").io("write -P 8 200k 300k");
    compressed_writes: "qcow2", |m| m.create("", "3M").io("write -c -P 8 128k 64k")
        .io("write -c -P 9 1M 64k");
    data_file_discarded: "qcow2", |m| m.convert("-o data_file=disk.data").io("discard 128k 512k");

    grown: "qcow2", |m| m.convert("").img("resize -q -f qcow2 disk +5M");
    grown_beyond_one_l1_entry: "qcow2", |m| m.convert("-o cluster_size=4k")
        .img("resize -q -f qcow2 disk 40M").io("write -P 6 38M 64k");
    grown_l1_moved: "qcow2", |m| m.convert("-o cluster_size=512")
        .img("resize -q -f qcow2 disk 20M").io("write -P 6 19M 64k");
    grown_metadata: "qcow2", |m| m.convert("")
        .img("resize -q -f qcow2 --preallocation=metadata disk +2M");
    grown_falloc: "qcow2", |m| m.convert("")
        .img("resize -q -f qcow2 --preallocation=falloc disk +2M");
    grown_full: "qcow2", |m| m.convert("")
        .img("resize -q -f qcow2 --preallocation=full disk +2M");
    grown_overlay: "qcow2", |m| m.source("base", 1 << 20).create("-b base -F raw", "512k")
        .img("resize -q -f qcow2 disk 2M");
    grown_data_file: "qcow2", |m| m.convert("-o data_file=disk.data,data_file_raw=on")
        .img("resize -q -f qcow2 disk +2M");
    shrunk: "qcow2", |m| m.convert("").img("resize -q -f qcow2 --shrink disk 1M");
    shrunk_to_a_sector: "qcow2", |m| m.convert("").img("resize -q -f qcow2 --shrink disk 512");
    shrunk_and_grown: "qcow2", |m| m.convert("").img("resize -q -f qcow2 --shrink disk 1M")
        .img("resize -q -f qcow2 disk 3M");

    leaked_clusters: "qcow2", |m| m.convert("").edit(|bytes| {
        let end = bytes.len().next_multiple_of(1 << 16);
        bytes.resize(end + (1 << 16), 0);
        let block = first_refcount_block(bytes);
        let cluster = end >> 16;
        bytes[block + 2 * cluster + 1] = 1;
    });
    leaks_repaired: "qcow2", |m| {
        m.convert("").edit(|bytes| {
            let end = bytes.len().next_multiple_of(1 << 16);
            bytes.resize(end + (1 << 16), 0);
            let block = first_refcount_block(bytes);
            bytes[block + 2 * (end >> 16) + 1] = 1;
        }).img("check -q -f qcow2 -r leaks disk")
    };
    refcount_too_low: "qcow2", |m| m.convert("").edit(|bytes| {
        let block = first_refcount_block(bytes);
        let cluster = first_data_cluster(bytes);
        bytes[block + 2 * cluster..block + 2 * cluster + 2].fill(0);
    });
    refcounts_repaired: "qcow2", |m| m.convert("").edit(|bytes| {
        let block = first_refcount_block(bytes);
        let cluster = first_data_cluster(bytes);
        bytes[block + 2 * cluster..block + 2 * cluster + 2].fill(0);
    }).img("check -q -f qcow2 -r all disk");
    copied_flag_wrong: "qcow2", |m| m.convert("").edit(|bytes| {
        let entry = first_l2_entry(bytes);
        let cleared = field::<u64>(bytes, entry) & !COPIED;
        bytes[entry..entry + 8].copy_from_slice(&cleared.to_be_bytes());
    });
    dirty: "qcow2", |m| m.convert("-o lazy_refcounts=on").edit(|bytes| bytes[79] |= 1);
    dirty_repaired: "qcow2", |m| m.convert("-o lazy_refcounts=on")
        .edit(|bytes| bytes[79] |= 1).img("check -q -f qcow2 -r all disk");
    corrupt_bit: "qcow2", |m| m.convert("").edit(|bytes| bytes[79] |= 2);
    unknown_header_extension: "qcow2", |m| m.create("", "2M").edit(|bytes| {
        let feature_names = 112;
        bytes[feature_names..feature_names + 4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    });

    internal_snapshots: "qcow2", |m| m.convert("").stock("snapshot -c first disk")
        .io("write -P 4 64k 128k").stock("snapshot -c second disk");
    persistent_bitmaps: "qcow2", |m| m.convert("").stock("bitmap --add disk backup")
        .stock("bitmap --add --disable -g 4k disk other");
}

/// Offset of the first refcount block of an image with 64 KiB clusters.
fn first_refcount_block(bytes: &[u8]) -> usize {
    assert_eq!(
        field::<u64>(bytes, 48),
        place::REFCOUNT_TABLE as u64,
        "the refcount table comes first"
    );
    offset(field::<u64>(bytes, place::REFCOUNT_TABLE))
}

/// Offset of the first L2 entry that maps a cluster.
fn first_l2_entry(bytes: &[u8]) -> usize {
    let l2 = offset(field::<u64>(bytes, offset(field::<u64>(bytes, 40))));
    (l2..l2 + (1 << 16))
        .step_by(8)
        .find(|entry| field::<u64>(bytes, *entry) != 0)
        .expect("a mapping")
}

/// Number of the first mapped data cluster.
fn first_data_cluster(bytes: &[u8]) -> usize {
    offset(field::<u64>(bytes, first_l2_entry(bytes))) >> 16
}

/// The offset in a table entry, without flags.
fn offset(entry: u64) -> usize {
    usize::try_from(entry & 0x00ff_ffff_ffff_fe00).expect("a small image")
}
