//! Checking and repairing qcow2 images: findings and repairs stand up to the reference.

use std::fs;
use std::path::{Path, PathBuf};

use super::stock::{expect, json, run, tool};
use cairn_block::driver::{CheckReport, Repair};
use cairn_block::graph::NodeFlags;
use cairn_block::options::{Dict, Value};

/// Checks `dir/name` with the driver under test.
fn check(dir: &Path, name: &str, repair: Repair) -> cairn_block::Result<CheckReport> {
    run(async {
        let flags = NodeFlags {
            read_only: repair.is_empty(),
            check: true,
            no_backing: true,
            unmap: true,
            ..NodeFlags::default()
        };
        let image = super::stock::open(&dir.join(name), flags).await?;
        let report = image.node().driver().check(repair).await;
        image.close().await?;
        report
    })
}

fn opened(dir: &Path, name: &str, no_io: bool) -> cairn_block::Result<CheckReport> {
    run(async {
        let flags = NodeFlags { read_only: true, check: true, no_io, ..NodeFlags::default() };
        let image = super::stock::open(&dir.join(name), flags).await?;
        let report = image.node().driver().check(Repair::empty()).await;
        image.close().await?;
        report
    })
}

/// The report as `check` prints it.
fn printed(name: &str, report: &CheckReport) -> Value {
    let mut facts = Dict::default();
    facts.insert("filename", name);
    facts.insert("format", "qcow2");
    facts.insert("check-errors", report.check_errors);
    for (key, value) in [
        ("image-end-offset", report.image_end_offset),
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("corruptions-fixed", report.corruptions_fixed),
        ("leaks-fixed", report.leaks_fixed),
        ("total-clusters", report.total_clusters),
        ("allocated-clusters", report.allocated_clusters),
        ("fragmented-clusters", report.fragmented_clusters),
        ("compressed-clusters", report.compressed_clusters),
    ] {
        if value != 0 {
            facts.insert(key, value);
        }
    }
    Value::Dict(facts)
}

fn theirs(dir: &Path, name: &str) -> Value {
    json(dir, &["qemu-img", "check", "-f", "qcow2", "--output=json", name])
}

/// Makes images of many kinds, and returns their names.
fn images(dir: &Path) -> Vec<String> {
    let recipes: &[(&str, &[&str])] = &[
        ("compat=1.1", &[]),
        ("compat=0.10", &["write 0 1M", "write 5M 100k", "write 3M 1M"]),
        ("cluster_size=512", &["write 100k 700k", "write -z 200k 10k", "discard 300k 5k"]),
        ("cluster_size=4k,refcount_bits=1", &["write 1M 3M", "write 0 10k"]),
        ("refcount_bits=64", &["write 7M 64k", "write 6M 64k", "write 5M 64k"]),
        ("extended_l2=on", &["write 10k 2k", "write 1M 1M", "write -z 100k 300k"]),
        ("compression_type=zstd", &["write -c 0 64k", "write -c 64k 64k", "write 256k 64k"]),
        ("cluster_size=4k", &["write -c -P 3 0 4k", "write -c -P 4 4k 4k", "write -c 16k 4k"]),
        ("preallocation=metadata", &["write 10k 1M"]),
        ("data_file=@data", &["write 10k 1M", "write 3M 64k", "write 2M 64k"]),
        ("data_file=@raw,data_file_raw=on", &["write 10k 1M"]),
    ];
    let mut names = Vec::new();
    for (number, (list, commands)) in recipes.iter().enumerate() {
        let name = format!("image{number}");
        let list = list.replace('@', &format!("{}/", dir.display()));
        let words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", &list, &name, "8M"];
        expect(dir, &words);
        for command in *commands {
            expect(dir, &["qemu-io", "-c", command, &name]);
        }
        names.push(name);
    }
    let make = |words: &[&str]| expect(dir, words);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "snapshots", "8M"]);
    for name in ["one", "two", "three"] {
        make(&["qemu-io", "-c", "write 1M 1M", "-c", "write 5M 100k", "snapshots"]);
        make(&["qemu-img", "snapshot", "-c", name, "snapshots"]);
    }
    make(&["qemu-io", "-c", "write 1500k 1M", "snapshots"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "bitmaps", "80M"]);
    make(&["qemu-img", "bitmap", "--add", "-g", "512", "bitmaps", "fine"]);
    make(&["qemu-img", "bitmap", "--add", "bitmaps", "coarse"]);
    make(&["qemu-io", "-c", "write 1M 30M", "bitmaps"]);
    names.extend(["snapshots".to_owned(), "bitmaps".to_owned()]);
    names
}

#[test]
fn sound_images_have_the_reference_statistics() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in images(dir.path()) {
        let report = check(dir.path(), &name, Repair::empty()).expect("can be checked");
        assert_eq!(printed(&name, &report), theirs(dir.path(), &name), "{:?}", report.details);
        let before = fs::read(dir.path().join(&name)).expect("a file");
        let report = check(dir.path(), &name, Repair::all()).expect("can be repaired");
        assert_eq!(printed(&name, &report), theirs(dir.path(), &name), "{:?}", report.details);
        // Snapshots, bitmaps and all else are left alone.
        assert!(fs::read(dir.path().join(&name)).expect("a file") == before, "{name} was changed");
    }
}

#[test]
fn encryption_headers_are_counted_without_a_key() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("key"), "secret").expect("a file");
    let list = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let words = ["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,file=key"];
    expect(dir.path(), &[&words[..], &["-o", list, "luks", "1M"]].concat());
    let report = opened(dir.path(), "luks", true).expect("metadata needs no key");
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.details);
    assert_eq!(report.image_end_offset, 0x28_0000.min(report.image_end_offset));
    opened(dir.path(), "luks", false).expect("a check reads no guest data");
}

#[test]
fn snapshots_get_what_their_entries_lack() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "image", "4M"]);
    expect(dir, &["qemu-io", "-c", "write -P 9 0 320k", "image"]);
    expect(dir, &["qemu-img", "snapshot", "-c", "first", "image"]);
    expect(dir, &["qemu-io", "-c", "write -P 5 0 320k", "image"]);
    let path = dir.join("image");
    let mut image = fs::read(&path).expect("a file");
    // The entry as version 2 had it: without extra data.
    let table = index(be64(&image, 64));
    let extra = usize::from(image[table + 39]);
    image[table + 39] = 0;
    image.copy_within(table + 40 + extra..table + 40 + extra + 16, table + 40);
    fs::write(&path, &image).expect("written");
    let report = check(dir, "image", Repair::empty()).expect("can be checked");
    assert_eq!((report.corruptions, report.leaks), (1, 0), "{:?}", report.details);
    let report = check(dir, "image", Repair::all()).expect("can be repaired");
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 1), "{:?}", report.details);
    let report = check(dir, "image", Repair::empty()).expect("can be checked");
    assert_eq!(printed("image", &report), theirs(dir, "image"), "{:?}", report.details);
    expect(dir, &["qemu-img", "check", "image"]);
    expect(dir, &["qemu-io", "-c", "read -P 5 0 320k", "image"]);
    expect(dir, &["qemu-img", "snapshot", "-a", "first", "image"]);
    expect(dir, &["qemu-io", "-c", "read -P 9 0 320k", "image"]);
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("small")
}

/// Places of the tables of an image.
struct Places {
    l1: usize,
    l2: usize,
    reftable: usize,
    refblock: usize,
}

fn places(image: &[u8]) -> Places {
    let (l1, reftable) = (index(be64(image, 40)), index(be64(image, 48)));
    let l2 = index(be64(image, l1) & 0x00ff_ffff_ffff_fe00);
    Places { l1, l2, reftable, refblock: index(be64(image, reftable)) }
}

type Damage = fn(&mut Vec<u8>, &Places);

const DAMAGES: &[(&str, Damage)] = &[
    ("a leak", |image, at| image[at.refblock + 2 * 20 + 1] = 1),
    ("a refcount too high", |image, at| image[at.refblock + 2 * 5 + 1] = 2),
    ("a refcount of zero", |image, at| image[at.refblock + 2 * 5 + 1] = 0),
    ("no refcount block", |image, at| image[at.reftable..at.reftable + 8].fill(0)),
    ("a refcount block beyond the end", |image, at| image[at.reftable + 3] = 1),
    ("a refcount block that is not aligned", |image, at| image[at.reftable + 6] = 2),
    ("an L1 entry without its flag", |image, at| image[at.l1] &= 0x7f),
    ("an L2 entry without its flag", |image, at| image[at.l2 + 8 * 2] &= 0x7f),
    ("two entries for one cluster", |image, at| {
        image.copy_within(at.l2 + 8..at.l2 + 16, at.l2 + 16);
    }),
    ("the dirty and the corrupt bit", |image, _| image[79] |= 3),
    ("preallocation off its cluster", |image, at| {
        image[at.l2 + 8 + 6] |= 2;
        image[at.l2 + 8 + 7] |= 1;
    }),
];

#[test]
fn damage_is_found_and_repaired() {
    for (what, damage) in DAMAGES {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "image", "4M"]);
        expect(dir, &["qemu-io", "-c", "write -P 9 0 320k", "image"]);
        let path = dir.join("image");
        let mut image = fs::read(&path).expect("a file");
        image.resize(image.len().next_multiple_of(65_536), 0);
        let places = places(&image);
        damage(&mut image, &places);
        fs::write(&path, &image).expect("written");

        let report = check(dir, "image", Repair::empty()).expect("can be checked");
        let ours = printed("image", &report);
        let Value::Dict(theirs) = theirs(dir, "image") else { panic!("no object") };
        for key in ["corruptions", "leaks", "check-errors"] {
            let Value::Dict(ours) = &ours else { panic!("no object") };
            if what.ends_with("not aligned") {
                // The reference cannot compare any refcounts then; we find all of them wrong.
                continue;
            }
            assert_eq!(ours.get(key), theirs.get(key), "{what}: {key}: {:?}", report.details);
        }
        assert!(fs::read(&path).expect("a file") == image, "{what}: a check changed the image");

        let report = check(dir, "image", Repair::all()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{what}: {:?}", report.details);
        let output = tool(dir, &["qemu-img", "check", "-f", "qcow2", "image"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {text}");
        let image = fs::read(&path).expect("a file");
        assert_eq!(image[79] & 3, 0, "{what}: the image is not marked as sound");
        expect(dir, &["qemu-io", "-c", "read -P 9 128k 192k", "image"]);
    }
}

/// An image `dir/image` with data in clusters 5 to 9: its path, its bytes, and the places in it.
fn used(dir: &Path) -> (PathBuf, Vec<u8>, Places) {
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "image", "4M"]);
    expect(dir, &["qemu-io", "-c", "write 0 320k", "image"]);
    let path = dir.join("image");
    let sound = fs::read(&path).expect("a file");
    let places = places(&sound);
    (path, sound, places)
}

#[test]
fn leaks_alone_can_be_repaired() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let (path, sound, places) = used(dir);
    let mut leaky = sound.clone();
    leaky[places.refblock + 2 * 6 + 1] = 2;
    fs::write(&path, &leaky).expect("written");
    let report = check(dir, "image", Repair::LEAKS).expect("can be repaired");
    assert_eq!((report.leaks, report.leaks_fixed, report.corruptions), (0, 1, 0));
    assert!(fs::read(&path).expect("a file") == sound);
    let mut broken = sound;
    broken[places.refblock + 2 * 6 + 1] = 0;
    fs::write(&path, &broken).expect("written");
    let error = check(dir, "image", Repair::LEAKS).expect_err("needs a new refcount structure");
    assert!(error.to_string().contains("rebuilt"), "{error}");
    assert!(fs::read(&path).expect("a file") == broken, "nothing was changed");
}

#[test]
fn the_last_reference_to_a_cluster_that_was_leaked_in_part_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let (path, sound, places) = used(dir);
    // The L2 table and two data clusters have a reference that nothing makes any more.
    let mut leaky = sound.clone();
    leaky[places.l1] &= 0x7f;
    leaky[places.refblock + 2 * 4 + 1] = 2;
    for cluster in [6, 7] {
        leaky[places.l2 + 8 * (cluster - 5)] &= 0x7f;
        leaky[places.refblock + 2 * cluster + 1] = 2;
    }
    fs::write(&path, &leaky).expect("written");
    fs::write(dir.join("theirs"), &leaky).expect("written");
    expect(dir, &["qemu-img", "check", "-q", "-r", "leaks", "theirs"]);
    let report = check(dir, "image", Repair::LEAKS).expect("can be repaired");
    assert_eq!((report.leaks, report.leaks_fixed), (0, 3));
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 3));
    assert!(fs::read(&path).expect("a file") == sound);
    assert!(fs::read(dir.join("theirs")).expect("a file") == sound);
    // While something else is wrong, the flags stay: here two entries share a cluster that counts one.
    leaky.copy_within(places.l2 + 8 * 3..places.l2 + 8 * 4, places.l2 + 8 * 4);
    fs::write(&path, &leaky).expect("written");
    let report = check(dir, "image", Repair::LEAKS).expect("can be repaired in part");
    assert!(report.corruptions > 0 && report.corruptions_fixed == 0, "{report:?}");
    let left = fs::read(&path).expect("a file");
    let tables = places.l2..places.l2 + 8 * 5;
    assert!(left[places.l1] == leaky[places.l1] && left[tables.clone()] == leaky[tables]);
}

/// A header of version 3 with 64 KiB clusters.
fn header(size: u64, l1: (u32, u64), snapshots: (u32, u64)) -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &l1.0.to_be_bytes());
    put(40, &l1.1.to_be_bytes());
    put(48, &0x1_0000u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(60, &snapshots.0.to_be_bytes());
    put(64, &snapshots.1.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(0x1_0000, &0x2_0000u64.to_be_bytes());
    image
}

#[test]
fn hostile_images_cost_little() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    // An L1 table of 32 MiB that goes on behind the end of the file.
    fs::write(&path, header(1 << 30, (4 << 20, 0x3_0000), (0, 0))).expect("written");
    let report = check(dir.path(), "image", Repair::empty()).expect("can be checked");
    assert!(report.corruptions > 0);
    // As many snapshots as possible, all of the same tables.
    let mut image = header(1 << 30, (2, 0x3_0000), (65_536, 0x4_0000));
    for entry in image[0x4_0000..].chunks_exact_mut(40) {
        entry[..8].copy_from_slice(&0x5_0000u64.to_be_bytes());
        entry[8..12].copy_from_slice(&(4u32 << 20).to_be_bytes());
    }
    fs::write(&path, image).expect("written");
    let report = check(dir.path(), "image", Repair::empty()).expect("can be checked");
    assert!(report.corruptions > 65_536);
    assert!(report.details.len() <= 10_001);
    // Thousands of references to one L2 table full of compressed clusters.
    let mut image = header(2 << 40, (4096, 0x3_0000), (0, 0));
    for entry in image[0x3_0000..0x3_8000].chunks_exact_mut(8) {
        entry.copy_from_slice(&0x4_0000u64.to_be_bytes());
    }
    for entry in image[0x4_0000..0x5_0000].chunks_exact_mut(8) {
        entry.copy_from_slice(&(1u64 << 62 | 0x5_0000).to_be_bytes());
    }
    fs::write(&path, image).expect("written");
    let report = check(dir.path(), "image", Repair::empty()).expect("can be checked");
    assert_eq!(report.compressed_clusters, 4096 * 8192);
}
