//! Resizing qcow2 images: the reference sees in them what it sees after its own resizing, except that
//! data that was cut off never comes back.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::stock::{expect, json, run, writable};
use cairn_block::driver::{Prealloc, Resize, WriteFlags};
use cairn_block::options::Value;
use cairn_block::{IoBuf, IoBufMut, Result};

async fn resize(path: &Path, size: u64, prealloc: Prealloc) -> Result<()> {
    let image = super::stock::open(path, writable()).await?;
    let how = Resize { exact: true, prealloc, zero_new: false };
    let result = image.resize(size, how).await;
    result.and(image.close().await)
}

fn prealloc(word: &str) -> Prealloc {
    match word {
        "metadata" => Prealloc::Metadata,
        "falloc" => Prealloc::Falloc,
        "full" => Prealloc::Full,
        _ => Prealloc::Off,
    }
}

/// Creation options, commands for qemu-io, and steps of resizing: size and preallocation.
type Case = (&'static str, &'static [&'static str], &'static [(u64, &'static str)]);

const M: u64 = 1 << 20;

const CASES: &[Case] = &[
    ("", &["write 0 1M"], &[(20 * M, "off")]),
    ("", &["write 0 1M"], &[(10_000 * M, "off"), (10 * M, "off")]),
    ("", &["write 1M 7M"], &[(3 * M, "off"), (8 * M, "off")]),
    ("", &[], &[(20 * M, "metadata")]),
    ("", &["write 7M 1M"], &[(20 * M, "falloc"), (30 * M, "full")]),
    ("cluster_size=512", &["write 0 1M"], &[(40 * M, "off"), (2 * M, "off")]),
    ("cluster_size=4k", &["write 0 8M"], &[(40 * M, "metadata"), (2 * M, "off")]),
    ("compat=0.10", &["write 0 1M"], &[(20 * M, "off"), (30 * M, "metadata"), (M, "off")]),
    ("extended_l2=on", &["write 10k 20k"], &[(20 * M, "metadata"), (4 * M, "off")]),
    ("lazy_refcounts=on", &["write 0 1M"], &[(20 * M, "off"), (M / 2, "off")]),
    ("data_file=data", &["write 0 1M"], &[(20 * M, "off"), (4 * M, "off")]),
    ("data_file=data", &["write 0 1M"], &[(20 * M, "metadata"), (30 * M, "falloc")]),
    ("data_file=data,data_file_raw=on", &["write 0 1M"], &[(20 * M, "off"), (4 * M, "off")]),
    ("backing_file=base,backing_fmt=raw", &["write 0 1M"], &[(20 * M, "off")]),
    ("backing_file=base,backing_fmt=raw", &["write 0 1M"], &[(40 * M, "off"), (10 * M, "off")]),
    ("extended_l2=on,backing_file=base,backing_fmt=raw", &["write 0 1M"], &[(20 * M, "metadata")]),
    // The old end is inside a cluster.
    ("", &["write 0 1M"], &[(20 * M + 512, "off"), (30 * M, "metadata")]),
    ("", &["truncate 8389120", "write -z 8M 512"], &[(20 * M, "metadata")]),
    ("", &["truncate 8389120", "write 8M 512"], &[(20 * M, "falloc")]),
    ("compat=0.10", &["truncate 8389120"], &[(8 * M + 1024, "metadata")]),
    ("extended_l2=on", &["truncate 8389120"], &[(20 * M, "metadata")]),
    ("backing_file=base,backing_fmt=raw", &["truncate 8389120"], &[(20 * M, "metadata")]),
    ("compression_type=zstd", &["write -c 0 64k", "write -c 7M 1M"], &[(4 * M, "off")]),
];

/// The ranges of the disk that a map says have storage.
fn allocated(map: &Value) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for extent in map.as_list().expect("a list") {
        let member = |name| extent.as_dict().expect("a map").get(name);
        let number = |name| match member(name) {
            Some(Value::Int(number)) => u64::try_from(*number).expect("a number"),
            other => panic!("{name} is {other:?}"),
        };
        let (start, end) = (number("start"), number("start") + number("length"));
        if member("data") != Some(&Value::Bool(true)) || number("depth") != 0 {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[test]
fn resized_images_are_those_of_the_reference() {
    let mut differences = Vec::new();
    for (list, writes, steps) in CASES {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("dir");
        let mut seen = Vec::new();
        for ours in [true, false] {
            fs::create_dir(&dir).expect("a directory");
            fs::write(dir.join("base"), vec![7; 30 << 20]).expect("a file");
            let place = dir.to_str().expect("plain path");
            let list = list.replace("_file=data", &format!("_file={place}/data"));
            let mut words = vec!["qemu-img", "create", "-q", "-f", "qcow2", "image", "8M"];
            if !list.is_empty() {
                words.extend(["-o", &list]);
            }
            expect(&dir, &words);
            for command in *writes {
                expect(&dir, &["qemu-io", "-c", command, "image"]);
            }
            for (size, mode) in *steps {
                if ours {
                    let image = dir.join("image");
                    run(resize(&image, *size, prealloc(mode)))
                        .unwrap_or_else(|error| panic!("{list} to {size} {mode}: {error}"));
                } else {
                    let bytes = size.to_string();
                    let mode = format!("--preallocation={mode}");
                    let grows = mode != "--preallocation=off";
                    let mut words = vec!["qemu-img", "resize", "-q", "-f", "qcow2", "--shrink"];
                    if grows {
                        words.push(&mode);
                    }
                    words.extend(["image", &bytes]);
                    expect(&dir, &words);
                }
            }
            let check = json(&dir, &["qemu-img", "check", "--output=json", "image"]);
            let map = json(&dir, &["qemu-img", "map", "--output=json", "image"]);
            let lengths = ["image", "data"]
                .map(|name| fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.len()));
            expect(&dir, &["qemu-img", "check", "image"]);
            expect(&dir, &["qemu-img", "convert", "-O", "raw", "image", "raw"]);
            let content = fs::read(dir.join("raw")).expect("a file");
            seen.push((check, map, lengths, content));
            fs::remove_dir_all(&dir).expect("removed");
        }
        let (theirs, ours) = (seen.pop().expect("two"), seen.pop().expect("two"));
        assert!(ours.3 == theirs.3, "content of {list} {steps:?}");
        if !list.contains("data_file") && steps.iter().any(|(_, mode)| *mode != "off") {
            // The new data may lie elsewhere: the reference reuses the old L1 table at once, and
            // leaves gaps.
            let limit = theirs.2[0] + theirs.2[0] / 8 + (1 << 18);
            assert!(ours.2[0] <= limit, "{list} {steps:?}: {} bytes, not {limit}", ours.2[0]);
            let (ours, theirs) = (allocated(&ours.1), allocated(&theirs.1));
            if ours != theirs {
                differences.push(format!("map of {list} {steps:?}: {ours:?}\n{theirs:?}"));
            }
            continue;
        }
        if ours.0 != theirs.0 {
            differences.push(format!("check of {list} {steps:?}: {:?}\n{:?}", ours.0, theirs.0));
        }
        if ours.1 != theirs.1 {
            differences.push(format!("map of {list} {steps:?}: {:?}\n{:?}", ours.1, theirs.1));
        }
        if ours.2 != theirs.2 {
            differences.push(format!("lengths of {list} {steps:?}: {:?} {:?}", ours.2, theirs.2));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    for list in ["compat=1.1", "compat=0.10", "extended_l2=on", "data_file=data"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        let list = list.replace("=data", &format!("={}/data", dir.path().display()));
        let words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", &list, "image", "4M"];
        expect(dir.path(), &words);
        run(async {
            let image = super::stock::open(&path, writable()).await?;
            let data = IoBuf::copy_of(&vec![5; 4 << 20]);
            image.write(0, data, WriteFlags::empty()).await?;
            for (size, how) in [(1_000_448, Resize::default()), (3 << 20, Resize::default())] {
                image.resize(size, how).await?;
            }
            let bytes = image.read(0, IoBufMut::new(3 << 20)).await?;
            assert!(bytes[..1_000_448].iter().all(|&byte| byte == 5), "{list}");
            assert!(bytes[1_000_448..].iter().all(|&byte| byte == 0), "{list}");
            image.close().await
        })
        .unwrap_or_else(|error| panic!("{list}: {error}"));
        expect(dir.path(), &["qemu-img", "check", "image"]);
    }
}

#[test]
fn what_cannot_be_resized_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let make = |words: &[&str]| expect(dir.path(), words);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old", "4M"]);
    make(&["qemu-img", "snapshot", "-c", "one", "old"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "marked", "4M"]);
    make(&["qemu-img", "bitmap", "--add", "-g", "512", "marked", "one"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "plain", "4M"]);
    let cases = [
        ("old", 8 << 20, "snapshots"),
        ("marked", 4 << 40, "bitmap 'one' would exceed 512 MiB"),
        ("plain", 1000, "multiple of 512"),
        ("plain", 1 << 62, "too large"),
    ];
    for (name, size, reason) in cases {
        let error = run(resize(&dir.path().join(name), size, Prealloc::Off)).expect_err(name);
        assert!(error.to_string().contains(reason), "{name}: {error}");
        make(&["qemu-img", "check", name]);
    }
}
