//! Creating qcow2 images: the reference sees in them what it sees in its own.

use std::fs;
use std::path::Path;

use super::stock::{expect, json, options, qcow2, run};
use cairn_block::graph::Graph;
use cairn_block::options::Value;

/// What `info` says, without what differs from file to file.
fn info(dir: &Path) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Dict(dict) => {
                dict.remove("actual-size");
                let keys: Vec<_> = dict.iter().map(|(key, _)| key.to_owned()).collect();
                for key in keys {
                    dict.get_mut(&key).into_iter().for_each(strip);
                }
            }
            Value::List(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut info = json(dir, &["qemu-img", "info", "--output=json", "image"]);
    strip(&mut info);
    info
}

async fn create(dir: &Path, list: &str) -> cairn_block::Result<()> {
    let mut options = options(list);
    for name in ["backing_file", "data_file"] {
        // Names in images are relative to different places; ours lie in the same directory.
        if let Some(Value::Str(file)) = options.get(name).cloned() {
            options.insert(name, dir.join(file).to_str().expect("plain path"));
        }
    }
    let graph = Graph::new();
    let image = dir.join("image");
    let create = qcow2().create.expect("can create");
    create(&graph, image.to_str().expect("plain path"), options).await
}

#[test]
fn new_images_are_those_of_the_reference() {
    let cases = [
        "size=1M",
        "size=0",
        "size=513",
        "size=1G",
        "size=100G",
        "size=4T,cluster_size=2M",
        "size=1G,cluster_size=512",
        "size=10G,cluster_size=4k,refcount_bits=64",
        "size=64M,cluster_size=4k",
        "size=1G,compat=0.10",
        "size=1G,compat=v3,lazy_refcounts=on",
        "size=1G,refcount_bits=1",
        "size=1G,refcount_bits=64",
        "size=1G,compression_type=zstd",
        "size=1G,extended_l2=on",
        "size=1G,extended_l2=on,cluster_size=128k",
        "size=5G,preallocation=off",
        "size=10M,preallocation=metadata",
        "size=10000000",
        "size=1500M,preallocation=metadata",
        "size=64M,preallocation=metadata,cluster_size=4096",
        "size=10M,preallocation=metadata,extended_l2=on",
        "size=10M,preallocation=metadata,compat=0.10",
        "size=10M,preallocation=metadata,lazy_refcounts=on",
        "size=10M,preallocation=falloc",
        "size=10M,preallocation=full",
        "size=3M,preallocation=full,cluster_size=1M",
        "size=64M,data_file=data",
        "size=64M,data_file=data,data_file_raw=on",
        "size=64M,data_file=data,preallocation=metadata",
        "size=64M,data_file=data,preallocation=falloc",
        "size=64M,backing_file=base,backing_fmt=raw",
        "size=64M,backing_file=base,backing_fmt=raw,compat=0.10",
        "size=64M,backing_file=base,backing_fmt=raw,preallocation=metadata,extended_l2=on",
        "size=64M,nocow=on",
    ];
    for case in cases {
        let root = tempfile::tempdir().expect("a directory");
        // Both directories have the same name, one after the other, since names are stored.
        let dir = root.path().join("dir");
        let mut seen = Vec::new();
        for ours in [true, false] {
            fs::create_dir(&dir).expect("a directory");
            if case.contains("backing_file") {
                fs::write(dir.join("base"), vec![7; 1 << 20]).expect("a file");
            }
            if ours {
                run(create(&dir, case)).unwrap_or_else(|error| panic!("{case}: {error}"));
            } else {
                let dir_name = dir.to_str().expect("plain path");
                let list = case
                    .replace("_file=data", &format!("_file={dir_name}/data"))
                    .replace("_file=base", &format!("_file={dir_name}/base"));
                expect(&dir, &["qemu-img", "create", "-q", "-f", "qcow2", "-o", &list, "image"]);
            }
            let metadata = fs::metadata(dir.join("image")).expect("an image");
            let lengths = ["image", "data"]
                .map(|name| fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.len()));
            let check = json(&dir, &["qemu-img", "check", "--output=json", "image"]);
            let map = json(&dir, &["qemu-img", "map", "--output=json", "image"]);
            seen.push((info(&dir), check, map, lengths, metadata));
            fs::remove_dir_all(&dir).expect("removed");
        }
        let (theirs, ours) = (seen.pop().expect("two"), seen.pop().expect("two"));
        assert_eq!(ours.0, theirs.0, "info of {case}");
        assert_eq!(ours.1, theirs.1, "check of {case}");
        assert_eq!(ours.2, theirs.2, "map of {case}");
        assert_eq!(ours.3, theirs.3, "lengths of {case}");
        use std::os::unix::fs::MetadataExt;
        let (ours, theirs) = (ours.4.blocks() * 512, theirs.4.blocks() * 512);
        let slack = theirs / 8 + (256 << 10);
        assert!(ours.abs_diff(theirs) <= slack, "storage of {case}: {ours}, not {theirs}");
    }
}

#[test]
fn failures_leave_nothing_behind() {
    let cases = [
        "size=1M,cluster_size=100",
        "size=1M,encryption=on",
        "size=1M,encrypt.format=luks,encrypt.key-secret=sec0",
        "size=8E,cluster_size=512",
        "size=1M,nonsense=on",
        "size=1M,data_file=missing/data",
        "cluster_size=64k",
    ];
    for case in cases {
        let dir = tempfile::tempdir().expect("a directory");
        run(create(dir.path(), case)).expect_err(case);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{case}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let error = run(create(dir.path(), "size=1M,encrypt.format=luks")).expect_err("refused");
    assert!(error.to_string().contains("encrypt.key-secret"), "{error}");
}
