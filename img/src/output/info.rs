//! What `info` prints.

use std::fmt::{self, Write};

use cairn_block::driver::{Limits, SnapshotInfo};
use cairn_block::options::json::Document;
use cairn_block::options::{Dict, Value, format_size};

use super::{snapshot, write_json};
use crate::ops::info::ImageInfo;
use crate::ops::limits::MAX_SEGMENTS;
use crate::ops::safety::Safety;

/// Spaces for each level.
const INDENT: usize = 4;

/// Writes the images for people, with an empty line in between.
pub fn human(images: &[ImageInfo], out: &mut dyn Write) -> fmt::Result {
    for (index, image) in images.iter().enumerate() {
        if index > 0 {
            out.write_char('\n')?;
        }
        node(out, image, 0, "", false)?;
    }
    Ok(())
}

/// One node and its children. `path` has the names of the edges that lead to it.
fn node(
    out: &mut dyn Write,
    info: &ImageInfo,
    level: usize,
    path: &str,
    is_child: bool,
) -> fmt::Result {
    let pad = " ".repeat(level * INDENT);
    // A protocol on its own, with no format above, is an image like any other.
    let [name, format, size] = if is_child && info.is_protocol {
        ["filename", "protocol type", "file length"]
    } else {
        ["image", "file format", "virtual size"]
    };
    let disk = info.allocated_size.map_or("unavailable".to_owned(), format_size);
    write!(
        out,
        "{pad}{name}: {}\n{pad}{format}: {}\n{pad}{size}: {} ({} bytes)\n{pad}disk size: {disk}\n",
        info.filename,
        info.format,
        format_size(info.size),
        info.size,
    )?;
    let facts = &info.format_info;
    if facts.encrypted {
        writeln!(out, "{pad}encrypted: yes")?;
    }
    if let Some(size) = facts.cluster_size {
        writeln!(out, "{pad}cluster_size: {size}")?;
    }
    if facts.dirty == Some(true) {
        writeln!(out, "{pad}cleanly shut down: no")?;
    }
    if let Some(file) = &facts.backing_file {
        write!(out, "{pad}backing file: {file}")?;
        match &info.full_backing_file {
            None => out.write_str(" (cannot determine actual path)")?,
            Some(full) if full != file => write!(out, " (actual path: {full})")?,
            Some(_) => {}
        }
        out.write_char('\n')?;
        if let Some(format) = &facts.backing_format {
            writeln!(out, "{pad}backing file format: {format}")?;
        }
    }
    if let Some(limits) = &info.limits {
        writeln!(out, "{pad}Block limits:")?;
        dict_lines(out, &limits_json(limits), level + 1)?;
    }
    snapshot::table(&facts.snapshots, &pad, out)?;
    if let Some(specific) = facts.specific.as_ref().filter(|dict| !dict.is_empty()) {
        specific_lines(out, specific, level)?;
    }
    if let Some(safety) = &info.safety {
        writeln!(out, "{pad}safety: {}", safety.verdict())?;
        for reason in &safety.reasons {
            writeln!(out, "{pad}    {}: {}", reason.check, reason.detail)?;
        }
    }
    for (name, child) in &info.children {
        let path = format!("{path}/{name}");
        writeln!(out, "{pad}Child node '{path}':")?;
        node(out, child, level + 1, &path, true)?;
    }
    Ok(())
}

/// Writes the format's own facts, below a heading at `level`.
pub fn specific_lines(out: &mut dyn Write, specific: &Dict, level: usize) -> fmt::Result {
    writeln!(out, "{:1$}Format specific information:", "", level * INDENT)?;
    dict_lines(out, specific, level + 1)
}

fn dict_lines(out: &mut dyn Write, dict: &Dict, level: usize) -> fmt::Result {
    dict.reference_order()
        .into_iter()
        .try_for_each(|(key, value)| value_lines(out, &key.replace('-', " "), value, level))
}

/// `label: value`, or the label and below it the parts of a list or map.
fn value_lines(out: &mut dyn Write, label: &str, value: &Value, level: usize) -> fmt::Result {
    write!(out, "{:1$}{label}:", "", level * INDENT)?;
    match value {
        Value::Null => out.write_str(" (null)\n"),
        Value::Bool(value) => writeln!(out, " {value}"),
        Value::Int(value) => writeln!(out, " {value}"),
        Value::Uint(value) => writeln!(out, " {value}"),
        Value::Float(value) => writeln!(out, " {value}"),
        Value::Str(value) => writeln!(out, " {value}"),
        Value::List(items) => {
            out.write_char('\n')?;
            items.iter().enumerate().try_for_each(|(index, item)| {
                value_lines(out, &format!("[{index}]"), item, level + 1)
            })
        }
        Value::Dict(dict) => {
            out.write_char('\n')?;
            dict_lines(out, dict, level + 1)
        }
    }
}

/// Writes the image for programs; with `chain` the list of all of them.
pub fn json(images: &[ImageInfo], chain: bool, out: &mut dyn Write) -> fmt::Result {
    let document = match images.last() {
        Some(image) if !chain => node_json(image),
        _ => Document::List(Box::new(images.iter().map(node_json))),
    };
    write_json(document, out)
}

/// Members are in the order of the reference's schema, on which the printed order depends where hashes
/// collide.
fn node_json(info: &ImageInfo) -> Document<'_> {
    let facts = &info.format_info;
    let mut members: Vec<(&str, Document<'_>)> =
        vec![("filename", info.filename.as_str().into()), ("format", info.format.as_str().into())];
    if let Some(dirty) = facts.dirty {
        members.push(("dirty-flag", dirty.into()));
    }
    if let Some(size) = info.allocated_size {
        members.push(("actual-size", size.into()));
    }
    members.push(("virtual-size", info.size.into()));
    if let Some(size) = facts.cluster_size {
        members.push(("cluster-size", size.into()));
    }
    if facts.encrypted {
        members.push(("encrypted", true.into()));
    }
    if facts.compressed {
        members.push(("compressed", true.into()));
    }
    if let Some(file) = &facts.backing_file {
        members.push(("backing-filename", file.as_str().into()));
    }
    if let Some(file) = &info.full_backing_file {
        members.push(("full-backing-filename", file.as_str().into()));
    }
    if let Some(format) = &facts.backing_format {
        members.push(("backing-filename-format", format.as_str().into()));
    }
    if !facts.snapshots.is_empty() {
        // There may be very many of them.
        let snapshots = facts.snapshots.iter().map(|snapshot| snapshot_json(snapshot).into());
        members.push(("snapshots", Document::List(Box::new(snapshots))));
    }
    if let Some(limits) = &info.limits {
        members.push(("limits", limits_json(limits).into()));
    }
    if let Some(data) = &facts.specific {
        let specific = Dict::from([
            ("type", info.format.as_str().into()),
            ("data", Value::from(data.clone())),
        ]);
        members.push(("format-specific", specific.into()));
    }
    if let Some(safety) = &info.safety {
        members.push(("safety", safety_json(safety).into()));
    }
    let children = info.children.iter().map(|(name, child)| {
        Document::Dict(vec![("name", name.as_str().into()), ("info", node_json(child))])
    });
    members.push(("children", Document::List(Box::new(children))));
    Document::Dict(members)
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
            format_info: FormatInfo {
                dirty: Some(false),
                specific: Some(Dict::new()),
                ..FormatInfo::default()
            },
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
        let mut text = String::new();
        human(&[overlay()], &mut text).expect("memory");
        assert_eq!(
            text,
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
        let mut text = String::new();
        json(&[image], false, &mut text).expect("memory");
        assert_eq!(
            text,
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
