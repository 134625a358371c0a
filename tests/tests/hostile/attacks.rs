//! qcow2 images whose numbers lie.

use std::fs;
use std::io::Write;
use std::path::Path;

use cairn_tests::qcow2::{Builder, CLUSTER, COPIED, EXT_BACKING_FORMAT, L2_COMPRESSED, place};
use cairn_tests::tool::Tool;
use flate2::write::DeflateEncoder;

use crate::limits::{refuses, survives};

/// What is run on every attack image; each works on a copy of its own.
const COMMANDS: [&str; 9] = [
    "info --output=json disk",
    "check disk",
    "map --output=json disk",
    "convert -O raw disk output",
    "measure -O qcow2 disk",
    "compare disk disk",
    "resize -f qcow2 disk +1M",
    "check -r leaks disk",
    "check -r all disk",
];

/// The same for images that stand for an immense disk, on which some work is honestly long: of the content
/// only a part is asked for.
const COMMANDS_ON_IMMENSE: [&str; 8] = [
    "info --output=json disk",
    "check disk",
    "map --output=json --max-length 1G disk",
    "convert -O raw disk output",
    "measure -O qcow2 disk",
    "resize -f qcow2 disk +1M",
    "check -r leaks disk",
    "check -r all disk",
];

/// Runs every command on `image`.
#[track_caller]
fn attack(image: &Builder) {
    attack_with(&COMMANDS, image);
}

#[track_caller]
fn attack_with(commands: &[&str], image: &Builder) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for command in commands {
        write(dir.path(), image);
        survives(dir.path(), command);
    }
}

/// Runs every command on an image that cannot be opened at all.
#[track_caller]
fn refused(image: &Builder) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for command in COMMANDS {
        write(dir.path(), image);
        refuses(dir.path(), command);
        let after = fs::read(dir.path().join("disk")).expect("the image");
        assert!(after == image.bytes(), "{command} changed an image that it refused");
    }
}

fn write(dir: &Path, image: &Builder) {
    fs::write(dir.join("disk"), image.bytes()).expect("an image");
    let _ = fs::remove_file(dir.join("output"));
}

/// The disk with its first cluster mapped by the L2 table at [`place::FREE`].
fn mapped(entry: u64) -> Builder {
    let mut image = Builder::new();
    image
        .u64(place::L1_TABLE, place::FREE as u64 | COPIED)
        .u64(place::FREE, entry)
        .refcounts(4..6, 1);
    image
}

#[test]
fn the_untouched_image_is_fine() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    write(dir.path(), &Builder::new());
    for tool in [Tool::stock(), Tool::ours()] {
        tool.ok(dir.path(), "check disk");
    }
    write(dir.path(), &mapped(0x5_0000 | COPIED));
    for tool in [Tool::stock(), Tool::ours()] {
        tool.ok(dir.path(), "check disk");
    }
}

#[test]
fn an_l1_table_of_32_mib() {
    let entries = 4 << 20;
    attack(Builder::new().size(u64::from(entries) << 29).l1(entries, place::L1_TABLE as u64));
}

#[test]
fn an_l1_table_beyond_every_limit() {
    for entries in [(4 << 20) + 1, u32::MAX] {
        refused(Builder::new().l1(entries, place::L1_TABLE as u64));
    }
}

#[test]
fn an_l1_table_too_small_for_the_disk() {
    refused(Builder::new().l1(0, place::L1_TABLE as u64));
    refused(Builder::new().size(1 << 40));
}

#[test]
fn an_l1_table_at_impossible_places() {
    for offset in
        [1, 0x3_0001, 0x3_0200, 1 << 63, u64::MAX, u64::MAX - 0xffff, 0x00ff_ffff_ffff_0000]
    {
        attack(Builder::new().l1(1, offset));
    }
}

#[test]
fn an_l1_table_over_other_structures() {
    for offset in [0, place::REFCOUNT_TABLE, place::REFCOUNT_BLOCK] {
        attack(Builder::new().l1(1, offset as u64));
    }
}

#[test]
fn virtual_sizes_at_the_limits() {
    for size in [u64::MAX, 1 << 63, (1 << 63) - 1, (1 << 62) + 511] {
        refused(Builder::new().size(size));
    }
    attack(Builder::new().size(0));
    attack(Builder::new().size(1));
    attack(Builder::new().size((512 << 20) - 1));
}

#[test]
fn cluster_sizes_out_of_range() {
    for bits in [0, 1, 8, 22, 31, 32, 63, 64, u32::MAX] {
        refused(Builder::new().u32(20, bits));
    }
    for bits in [9, 10, 21] {
        attack(Builder::new().u32(20, bits));
    }
}

#[test]
fn refcount_widths_out_of_range() {
    for order in [7, 31, 32, 63, 64, u32::MAX] {
        refused(Builder::new().u32(96, order));
    }
    for order in [0, 1, 2, 3, 5, 6] {
        attack(Builder::new().u32(96, order));
    }
}

#[test]
fn versions_that_do_not_exist() {
    for version in [4, 0x7fff_ffff] {
        refused(Builder::new().u32(4, version));
    }
    // Version 1 is another format, version 0 none at all, and version 2 has a shorter header.
    for version in [0, 1, 2] {
        attack(Builder::new().u32(4, version));
    }
}

#[test]
fn header_lengths_that_lie() {
    for length in [0, 71, 103, 0x1_0001, u32::MAX] {
        refused(Builder::new().u32(100, length));
    }
    for length in [105, 120, 0x1_0000] {
        attack(Builder::new().u32(100, length));
    }
}

#[test]
fn refcount_tables_that_lie() {
    for clusters in [0, 129, 1 << 20, u32::MAX] {
        attack(Builder::new().u32(56, clusters));
    }
    for offset in [0, 1, 0x1_0200, place::L1_TABLE as u64, 1 << 40, 1 << 56, u64::MAX - 0xffff] {
        attack(Builder::new().u64(48, offset));
    }
    for block in [1, 0x2_0200, place::REFCOUNT_TABLE as u64, 1 << 40, 1 << 56, u64::MAX] {
        attack(Builder::new().u64(place::REFCOUNT_TABLE, block));
    }
}

#[test]
fn every_refcount_block_is_the_same() {
    let mut image = Builder::new();
    for entry in 0..CLUSTER / 8 {
        image.u64(place::REFCOUNT_TABLE + 8 * entry, place::REFCOUNT_BLOCK as u64);
    }
    attack(&image);
}

#[test]
fn l1_entries_that_lie() {
    let places = [
        0,
        1,
        0x1ff,
        place::REFCOUNT_TABLE as u64,
        place::REFCOUNT_BLOCK as u64,
        place::L1_TABLE as u64,
        0x4_0200,
        1 << 40,
        0x00ff_ffff_ffff_0000,
        u64::MAX,
    ];
    for entry in places {
        attack(Builder::new().u64(place::L1_TABLE, entry | COPIED));
    }
}

#[test]
fn l2_entries_that_lie() {
    let entries = [
        0x200,
        0x5_0200,
        1 << 40,
        0x00ff_ffff_ffff_0000,
        u64::MAX,
        COPIED,
        COPIED | place::FREE as u64,
        COPIED | place::L1_TABLE as u64,
        COPIED | place::REFCOUNT_TABLE as u64,
        L2_COMPRESSED,
        L2_COMPRESSED | u64::MAX >> 2,
        L2_COMPRESSED | 0x5_0000,
        L2_COMPRESSED | 0xf_fe00,
        L2_COMPRESSED | 0x3fff_0000_0000_0000,
        L2_COMPRESSED | COPIED | 0x5_0000,
    ];
    for entry in entries {
        attack(&mapped(entry));
    }
}

#[test]
fn extended_l2_entries_that_lie() {
    for bitmap in [u64::MAX, 1 | 1 << 32, 0xffff_ffff_0000_0000, 0x0000_0000_ffff_ffff] {
        for entry in [0, 0x5_0000 | COPIED, L2_COMPRESSED | 0x5_0000] {
            let mut image = mapped(entry);
            image.incompatible(1 << 4).u64(place::FREE + 8, bitmap);
            attack(&image);
        }
    }
}

#[test]
fn compressed_clusters_that_are_rubbish() {
    for kind in [0, 1] {
        let mut image = mapped(L2_COMPRESSED | 0x5_0000 | 0x7f << 54);
        image.put(0x5_0000, &[0xff; 4096]);
        if kind == 1 {
            image.incompatible(1 << 3).put(104, &[1]).put(0x5_0000, &[0x28, 0xb5, 0x2f, 0xfd]);
        }
        attack(&image);
    }
    let mut unknown = Builder::new();
    refused(unknown.incompatible(1 << 3).put(104, &[200]));
}

/// 4,096 tables of 8,192 clusters, all the same 79 bytes: two TiB in one MiB.
#[test]
fn a_compression_bomb() {
    let mut packed = DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![0; CLUSTER]).expect("deflate to memory");
    let packed = packed.finish().expect("deflate to memory");
    let mut image = Builder::new();
    let (l1, l2, data) = (0x8_0000, place::FREE, 0x5_0000);
    image.size(2 << 40).l1(4096, l1 as u64).put(data, &packed).refcounts(4..6, u16::MAX);
    image.refcounts(8..9, 1);
    for entry in 0..4096 {
        image.u64(l1 + 8 * entry, l2 as u64);
    }
    for entry in 0..CLUSTER / 8 {
        image.u64(l2 + 8 * entry, L2_COMPRESSED | data as u64);
    }
    attack_with(&COMMANDS_ON_IMMENSE, &image);
    attack_with(&["map --output=json disk"], &image);
}

/// The same with plain clusters: every guest cluster is the same host cluster. A map of all of it would
/// have as many lines.
#[test]
fn one_table_for_everything() {
    let (l1, l2, data) = (0x8_0000, place::FREE, 0x5_0000);
    let mut image = Builder::new();
    image.size(2 << 40).l1(4096, l1 as u64).refcounts(4..6, u16::MAX).refcounts(8..9, 1);
    for entry in 0..4096 {
        image.u64(l1 + 8 * entry, l2 as u64);
    }
    for entry in 0..CLUSTER / 8 {
        image.u64(l2 + 8 * entry, data);
    }
    attack_with(&COMMANDS_ON_IMMENSE, &image);
}

#[test]
fn as_many_snapshots_as_there_may_be() {
    attack(Builder::new().snapshots(65_536, 0x4_0000));
}

#[test]
fn snapshot_tables_that_lie() {
    attack(Builder::new().snapshots(65_537, 0x4_0000));
    attack(Builder::new().snapshots(u32::MAX, 0x4_0000));
    for offset in [1, 1 << 40, u64::MAX - 0xffff] {
        attack(Builder::new().snapshots(1, offset));
    }
    // An L1 table, an identifier, a name and extra data of every size that the fields can hold.
    for (field, width) in [(8, 4), (12, 2), (14, 2), (36, 4)] {
        for value in [u32::MAX, 0x7fff_ffff, 0x1_0000, 1025] {
            let mut image = Builder::new();
            let bytes = value.to_be_bytes();
            image
                .snapshots(1, 0x4_0000)
                .u64(0x4_0000, place::L1_TABLE as u64)
                .put(0x4_0000 + field, &bytes[4 - width..]);
            attack(&image);
        }
    }
}

#[test]
fn header_extensions_that_lie() {
    for length in [u32::MAX, 0x7fff_ffff, 0x1_0000, 0xff90] {
        for kind in
            [EXT_BACKING_FORMAT, 0x6803_f857, 0x2385_2875, 0x0537_be77, 0x4441_5441, 0x1234_5678]
        {
            attack(Builder::new().u32(112, kind).u32(116, length));
        }
    }
}

#[test]
fn bitmap_extensions_that_lie() {
    for (count, size, offset) in [
        (u32::MAX, u64::MAX, u64::MAX),
        (65_535, 24 << 20, 0x4_0000),
        (1, 24, 0x4_0000),
        (1, u64::MAX, 0x4_0000),
        (0, 0, 0),
    ] {
        let mut data = [0; 24];
        data[0..4].copy_from_slice(&count.to_be_bytes());
        data[8..16].copy_from_slice(&size.to_be_bytes());
        data[16..24].copy_from_slice(&offset.to_be_bytes());
        let mut image = Builder::new();
        attack(image.u64(88, 1).extension(0x2385_2875, &data));
    }
}

#[test]
fn backing_names_that_lie() {
    for (offset, length) in
        [(112, u32::MAX), (u64::MAX, 10), (0xf_fff0, 1023), (112, 1024), (0, 10), (1 << 40, 4)]
    {
        attack(Builder::new().u64(8, offset).u32(16, length));
    }
    let mut image = Builder::new();
    attack(
        image
            .extension(EXT_BACKING_FORMAT, b"\xff\xfe\0")
            .u64(8, 512)
            .u32(16, 4)
            .put(512, b"\xff\0/\n"),
    );
}

#[test]
fn unknown_features_with_rubbish_names() {
    let mut names = [0xff; 48];
    names[0] = 0;
    names[1] = 63;
    let mut image = Builder::new();
    refused(image.incompatible(1 << 63).extension(0x6803_f857, &names));
}

#[test]
fn files_that_end_early() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let image = mapped(0x5_0000 | COPIED);
    for len in [
        0, 1, 3, 4, 8, 71, 72, 103, 104, 111, 112, 511, 512, 0x1_0000, 0x2_0001, 0x3_0007, 0x4_0001,
    ] {
        for command in COMMANDS {
            fs::write(dir.path().join("disk"), &image.bytes()[..len]).expect("an image");
            let _ = fs::remove_file(dir.path().join("output"));
            survives(dir.path(), command);
        }
    }
}
