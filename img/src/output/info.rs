//! What `info` prints.

use std::fmt::Write as _;

use cairn_block::driver::{Limits, SnapshotInfo};
use cairn_block::options::{Dict, Value, format_size};

use super::{json_document, snapshot};
use crate::ops::info::ImageInfo;
use crate::ops::limits::MAX_SEGMENTS;
use crate::ops::safety::Safety;

/// Spaces for each level.
const INDENT: usize = 4;

/// The images for people, with an empty line in between.
pub fn human(images: &[ImageInfo]) -> String {
    let texts: Vec<String> = images
        .iter()
        .map(|image| {
            let mut text = String::new();
            node(&mut text, image, 0, "", false);
            text
        })
        .collect();
    texts.join("\n")
}

/// One node and its children. `path` has the names of the edges that lead to it.
fn node(text: &mut String, info: &ImageInfo, level: usize, path: &str, is_child: bool) {
    let pad = " ".repeat(level * INDENT);
    // A protocol on its own, with no format above, is an image like any other.
    let [name, format, size] = if is_child && info.is_protocol {
        ["filename", "protocol type", "file length"]
    } else {
        ["image", "file format", "virtual size"]
    };
    let disk = info.allocated_size.map_or("unavailable".to_owned(), format_size);
    let _ = write!(
        text,
        "{pad}{name}: {}\n{pad}{format}: {}\n{pad}{size}: {} ({} bytes)\n{pad}disk size: {disk}\n",
        info.filename,
        info.format,
        format_size(info.size),
        info.size,
    );
    let facts = &info.format_info;
    if facts.encrypted {
        let _ = writeln!(text, "{pad}encrypted: yes");
    }
    if let Some(size) = facts.cluster_size {
        let _ = writeln!(text, "{pad}cluster_size: {size}");
    }
    if facts.dirty == Some(true) {
        let _ = writeln!(text, "{pad}cleanly shut down: no");
    }
    if let Some(file) = &facts.backing_file {
        let _ = write!(text, "{pad}backing file: {file}");
        match &info.full_backing_file {
            None => text.push_str(" (cannot determine actual path)"),
            Some(full) if full != file => {
                let _ = write!(text, " (actual path: {full})");
            }
            Some(_) => {}
        }
        text.push('\n');
        if let Some(format) = &facts.backing_format {
            let _ = writeln!(text, "{pad}backing file format: {format}");
        }
    }
    if let Some(limits) = &info.limits {
        let _ = writeln!(text, "{pad}Block limits:");
        dict_lines(text, &limits_json(limits), level + 1);
    }
    text.push_str(&snapshot::table(&facts.snapshots, &pad));
    if let Some(specific) = facts.specific.as_ref().filter(|dict| !dict.is_empty()) {
        specific_lines(text, specific, level);
    }
    if let Some(safety) = &info.safety {
        let _ = writeln!(text, "{pad}safety: {}", safety.verdict());
        for reason in &safety.reasons {
            let _ = writeln!(text, "{pad}    {}: {}", reason.check, reason.detail);
        }
    }
    for (name, child) in &info.children {
        let path = format!("{path}/{name}");
        let _ = writeln!(text, "{pad}Child node '{path}':");
        node(text, child, level + 1, &path, true);
    }
}

/// The format's own facts, below a heading at `level`.
pub fn specific_lines(text: &mut String, specific: &Dict, level: usize) {
    let _ = writeln!(text, "{:1$}Format specific information:", "", level * INDENT);
    dict_lines(text, specific, level + 1);
}

fn dict_lines(text: &mut String, dict: &Dict, level: usize) {
    for (key, value) in dict.reference_order() {
        value_lines(text, &key.replace('-', " "), value, level);
    }
}

/// `label: value`, or the label and below it the parts of a list or map.
fn value_lines(text: &mut String, label: &str, value: &Value, level: usize) {
    let _ = write!(text, "{:1$}{label}:", "", level * INDENT);
    match value {
        Value::Null => text.push_str(" (null)\n"),
        Value::Bool(value) => {
            let _ = writeln!(text, " {value}");
        }
        Value::Int(value) => {
            let _ = writeln!(text, " {value}");
        }
        Value::Uint(value) => {
            let _ = writeln!(text, " {value}");
        }
        Value::Float(value) => {
            let _ = writeln!(text, " {value}");
        }
        Value::Str(value) => {
            let _ = writeln!(text, " {value}");
        }
        Value::List(items) => {
            text.push('\n');
            for (index, item) in items.iter().enumerate() {
                value_lines(text, &format!("[{index}]"), item, level + 1);
            }
        }
        Value::Dict(dict) => {
            text.push('\n');
            dict_lines(text, dict, level + 1);
        }
    }
}

/// The image for programs; with `chain` the list of all of them.
pub fn json(images: &[ImageInfo], chain: bool) -> String {
    let mut documents: Vec<Dict> = images.iter().map(node_json).collect();
    if chain {
        json_document(documents)
    } else {
        json_document(documents.pop().unwrap_or_default())
    }
}

/// Keys are inserted in the order of the reference's schema, on which the printed order depends where
/// hashes collide.
fn node_json(info: &ImageInfo) -> Dict {
    let facts = &info.format_info;
    let mut dict = Dict::new();
    dict.insert("filename", info.filename.as_str());
    dict.insert("format", info.format.as_str());
    if let Some(dirty) = facts.dirty {
        dict.insert("dirty-flag", dirty);
    }
    if let Some(size) = info.allocated_size {
        dict.insert("actual-size", size);
    }
    dict.insert("virtual-size", info.size);
    if let Some(size) = facts.cluster_size {
        dict.insert("cluster-size", size);
    }
    if facts.encrypted {
        dict.insert("encrypted", true);
    }
    if facts.compressed {
        dict.insert("compressed", true);
    }
    if let Some(file) = &facts.backing_file {
        dict.insert("backing-filename", file.as_str());
    }
    if let Some(file) = &info.full_backing_file {
        dict.insert("full-backing-filename", file.as_str());
    }
    if let Some(format) = &facts.backing_format {
        dict.insert("backing-filename-format", format.as_str());
    }
    if !facts.snapshots.is_empty() {
        let snapshots: Vec<Dict> = facts.snapshots.iter().map(snapshot_json).collect();
        dict.insert("snapshots", snapshots);
    }
    if let Some(limits) = &info.limits {
        dict.insert("limits", limits_json(limits));
    }
    if let Some(data) = &facts.specific {
        let mut specific = Dict::new();
        specific.insert("type", info.format.as_str());
        specific.insert("data", data.clone());
        dict.insert("format-specific", specific);
    }
    if let Some(safety) = &info.safety {
        dict.insert("safety", safety_json(safety));
    }
    let children: Vec<Dict> = info
        .children
        .iter()
        .map(|(name, child)| {
            let mut entry = Dict::new();
            entry.insert("name", name.as_str());
            entry.insert("info", node_json(child));
            entry
        })
        .collect();
    dict.insert("children", children);
    dict
}

/// A limit of 0 is none and left out.
fn limits_json(limits: &Limits) -> Dict {
    let mut dict = Dict::new();
    dict.insert("request-alignment", limits.request_alignment);
    let optional = [
        ("max-discard", limits.max_discard),
        ("discard-alignment", limits.discard_alignment.into()),
        ("max-write-zeroes", limits.max_write_zeroes),
        ("write-zeroes-alignment", limits.write_zeroes_alignment.into()),
        ("opt-transfer", limits.opt_transfer),
        ("max-transfer", limits.max_transfer),
    ];
    for (key, value) in optional.into_iter().filter(|(_, value)| *value > 0) {
        dict.insert(key, value);
    }
    dict.insert("max-iov", MAX_SEGMENTS);
    dict.insert("min-mem-alignment", limits.min_mem_alignment);
    dict.insert("opt-mem-alignment", limits.opt_mem_alignment);
    dict
}

fn safety_json(safety: &Safety) -> Dict {
    let reasons = safety
        .reasons
        .iter()
        .map(|reason| Dict::from([("check", reason.check), ("detail", reason.detail.as_str())]));
    let mut dict = Dict::new();
    dict.insert("verdict", safety.verdict());
    dict.insert("reasons", reasons.collect::<Vec<Dict>>());
    dict
}

fn snapshot_json(snapshot: &SnapshotInfo) -> Dict {
    const NANOS: u64 = 1_000_000_000;
    let mut dict = Dict::new();
    dict.insert("id", snapshot.id.as_str());
    dict.insert("name", snapshot.name.as_str());
    dict.insert("vm-state-size", snapshot.vm_state_size);
    dict.insert("date-sec", snapshot.date_sec);
    dict.insert("date-nsec", snapshot.date_nsec);
    dict.insert("vm-clock-sec", snapshot.vm_clock_nsec / NANOS);
    dict.insert("vm-clock-nsec", snapshot.vm_clock_nsec % NANOS);
    if let Some(icount) = snapshot.icount {
        dict.insert("icount", icount);
    }
    dict
}

#[cfg(test)]
mod tests {
    use cairn_block::driver::FormatInfo;

    use super::*;

    fn overlay() -> ImageInfo {
        let file = ImageInfo {
            filename: "sub/x.qcow2".into(),
            format: "file".into(),
            is_protocol: true,
            size: 197_120,
            allocated_size: Some(200_704),
            format_info: FormatInfo { specific: Some(Dict::new()), ..FormatInfo::default() },
            ..ImageInfo::default()
        };
        let specific = Dict::from([
            ("compat", Value::from("1.1")),
            ("compression-type", "zlib".into()),
            ("lazy-refcounts", false.into()),
            ("refcount-bits", 16.into()),
            ("corrupt", false.into()),
            ("extended-l2", false.into()),
            (
                "bitmaps",
                vec![
                    Dict::from([
                        ("flags", Value::from(vec!["auto"])),
                        ("name", "bm0".into()),
                        ("granularity", 65536.into()),
                    ]),
                    Dict::from([
                        ("flags", Value::List(Vec::new())),
                        ("name", "bm1".into()),
                        ("granularity", 65536.into()),
                    ]),
                ]
                .into(),
            ),
        ]);
        ImageInfo {
            filename: "sub/x.qcow2".into(),
            format: "qcow2".into(),
            size: 1 << 20,
            allocated_size: Some(200_704),
            full_backing_file: Some("sub/a.qcow2".into()),
            format_info: FormatInfo {
                cluster_size: Some(65536),
                dirty: Some(false),
                backing_file: Some("a.qcow2".into()),
                backing_format: Some("qcow2".into()),
                specific: Some(specific),
                ..FormatInfo::default()
            },
            children: vec![("file".into(), file)],
            ..ImageInfo::default()
        }
    }

    #[test]
    fn human_layout() {
        assert_eq!(
            human(&[overlay()]),
            "\
image: sub/x.qcow2
file format: qcow2
virtual size: 1 MiB (1048576 bytes)
disk size: 196 KiB
cluster_size: 65536
backing file: a.qcow2 (actual path: sub/a.qcow2)
backing file format: qcow2
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    bitmaps:
        [0]:
            flags:
                [0]: auto
            name: bm0
            granularity: 65536
        [1]:
            flags:
            name: bm1
            granularity: 65536
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: sub/x.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: 196 KiB
"
        );
    }

    #[test]
    fn json_layout() {
        let mut image = overlay();
        image.format_info.specific = Some(Dict::from([("compat", "1.1")]));
        assert_eq!(
            json(&[image], false),
            r#"{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 197120,
                "filename": "sub/x.qcow2",
                "format": "file",
                "actual-size": 200704,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "backing-filename-format": "qcow2",
    "virtual-size": 1048576,
    "filename": "sub/x.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 200704,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1"
        }
    },
    "full-backing-filename": "sub/a.qcow2",
    "backing-filename": "a.qcow2",
    "dirty-flag": false
}
"#
        );
    }
}
