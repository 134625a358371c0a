//! Measuring qcow2 images: the numbers are those of the reference.

use std::path::Path;

use super::stock::{expect, json, options, qcow2, read_only, run, tool};
use cairn_block::driver::Measure;
use cairn_block::options::Value;

/// What the reference measures; `None` if it says that the size is not possible.
fn theirs(dir: &Path, list: &str, source: &[&str]) -> Option<Measure> {
    let mut words = vec!["qemu-img", "measure", "--output=json", "-O", "qcow2"];
    if !list.is_empty() {
        words.extend(["-o", list]);
    }
    words.extend(source);
    if !tool(dir, &words).status.success() {
        return None;
    }
    let Value::Dict(facts) = json(dir, &words) else { panic!("{words:?} printed no object") };
    let number = |key: &str| match facts.get(key) {
        Some(&Value::Int(n)) => u64::try_from(n).ok(),
        _ => None,
    };
    Some(Measure {
        required: number("required").expect("a number"),
        fully_allocated: number("fully-allocated").expect("a number"),
        bitmaps: number("bitmaps"),
    })
}

const FORMATS: [&str; 14] = [
    "",
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=64,cluster_size=1k",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "compat=0.10",
    "preallocation=metadata",
    "preallocation=falloc",
    "preallocation=full,cluster_size=4k",
    "data_file=data",
    "data_file=data,data_file_raw=on,lazy_refcounts=on,compression_type=zstd",
];

#[test]
fn sizes_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let measure = qcow2().measure.expect("can measure");
    for size in ["0", "1", "65537", "10M", "1G", "1026G"] {
        for list in FORMATS {
            let mut given = options(list);
            given.insert("size", size);
            let ours = run(measure(given, None)).ok();
            assert_eq!(ours, theirs(dir.path(), list, &["--size", size]), "{size} {list}");
        }
    }
}

#[test]
fn sources_count_what_they_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let make = |words: &[&str]| expect(dir, words);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "base", "80M"]);
    make(&["qemu-io", "-c", "write 3M 70k", "-c", "write 70M 1M", "base"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "100M"]);
    let writes = ["-c", "write 100k 3M", "-c", "write -z 10M 1M", "-c", "write 20500k 513"];
    make(&[&["qemu-io"], &writes[..], &["top"]].concat());
    make(&["qemu-img", "bitmap", "--add", "top", "one"]);
    make(&["qemu-img", "bitmap", "--add", "-g", "4096", "top", "another"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old", "7M"]);
    make(&["qemu-img", "create", "-q", "-f", "qcow2", "odd", "1000001"]);
    let measure = qcow2().measure.expect("can measure");
    for source in ["base", "top", "old", "odd"] {
        for list in FORMATS.iter().chain(&["backing_file=x,backing_fmt=raw", "size=1G"]) {
            let ours = run(async {
                let backend = super::stock::open(&dir.join(source), read_only()).await?;
                let ours = measure(options(list), Some(&backend)).await;
                backend.close().await?;
                ours
            });
            let ours = ours.unwrap_or_else(|error| panic!("{source} {list}: {error}"));
            assert_eq!(Some(ours), theirs(dir, list, &["-f", "qcow2", source]), "{source} {list}");
        }
    }
}
