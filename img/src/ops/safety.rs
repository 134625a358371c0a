//! Whether an image of a stranger may be used: one verdict, and the reasons for it.
//!
//! The image is judged by a [`Policy`], from its metadata alone. What the policy would refuse becomes
//! a reason, and so does content that looks like another format than the one it is opened as, since
//! the next program may take it for that.

use std::sync::Arc;

use cairn_block::IoBufMut;
use cairn_block::driver::FormatInfo;
use cairn_block::graph::{Node, Policy, data_bytes, probe, stored_length};
use cairn_block::num::AsUsize as _;
use cairn_block::options::{Dict, Value};

/// Bytes at the beginning of a file that tell formats.
const HEAD: u64 = 512;
/// Bytes at the end of a file that tell formats.
const TAIL: u64 = 512;

/// How other formats than ours begin: name, offset, bytes.
const SIGNATURES: [(&str, usize, &[u8]); 12] = [
    ("bochs", 0, b"Bochs Virtual HD Image"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("qcow", 0, b"QFI\xfb\0\0\0\x01"),
    ("qed", 0, b"QED\0"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vhdx", 0, b"vhdxfile"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"KDMV"),
    ("vpc", 0, b"conectix"),
];
/// How files of formats begin that have their header at the end.
const TAIL_SIGNATURES: [(&str, &[u8]); 2] = [("dmg", b"koly"), ("vpc", b"conectix")];

/// Why an image should not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What was checked.
    pub check: &'static str,
    /// What was found.
    pub detail: String,
}

/// The verdict on an image: it is safe if there is no reason against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Safety {
    /// What speaks against it.
    pub reasons: Vec<Reason>,
}

impl Safety {
    /// The verdict in one word.
    pub fn verdict(&self) -> &'static str {
        if self.reasons.is_empty() { "safe" } else { "unsafe" }
    }

    fn add(&mut self, check: &'static str, detail: impl Into<String>) {
        self.reasons.push(Reason { check, detail: detail.into() });
    }

    fn above(&mut self, check: &'static str, what: &str, found: u64, bound: Option<u64>) {
        if let Some(bound) = bound.filter(|&bound| found > bound) {
            self.add(check, format!("{found} {what}, of which at most {bound} are allowed"));
        }
    }
}

/// An image and what is known of it.
pub(super) struct Subject<'i> {
    pub(super) node: &'i Arc<Node>,
    pub(super) format_info: &'i FormatInfo,
    /// Backing file with the overlay's directory applied.
    pub(super) backing_file: Option<&'i str>,
}

/// Judges an image by `policy`.
pub(super) async fn judge(subject: &Subject<'_>, policy: &Policy) -> Safety {
    let mut safety = Safety::default();
    let Subject { node, format_info, backing_file } = *subject;
    let base = node.base_filename().unwrap_or_default();
    let specific = format_info.specific.clone().unwrap_or_default();
    let stored = format_info.backing_file.as_deref();
    let data_file = specific.get("data-file").and_then(Value::as_str);
    for (check, what, file) in [
        ("backing-file", "backing file", backing_file.or(stored)),
        ("data-file", "data file", data_file),
    ] {
        if let Some(file) = file
            && policy.check_reference(&base, what, file).is_err()
        {
            safety.add(check, format!("it refers to '{file}'"));
        }
    }
    let bounds = policy.bounds;
    safety.above("virtual-size", "bytes of virtual disk", node.size(), bounds.virtual_size);
    let snapshots = format_info.snapshots.len() as u64;
    safety.above("snapshots", "internal snapshots", snapshots, bounds.snapshots);
    let iterations = luks_iterations(&specific);
    safety.above(
        "luks-iterations",
        "key derivation iterations",
        iterations,
        bounds.luks_iterations,
    );
    if let Some(factor) = bounds.expansion
        && data_file.is_none()
    {
        let stored = stored_length(node);
        let most = stored.saturating_mul(factor);
        match data_bytes(node, most).await {
            Ok(data) if data > most => {
                let detail = format!("{stored} bytes yield more than {factor} times as much data");
                safety.add("expansion", detail);
            }
            Ok(_) => {}
            Err(error) => safety.add("metadata", error.to_string()),
        }
    }
    match other_format(node).await {
        Ok(Some(other)) => {
            let format = node.format();
            safety.add("format", format!("opened as '{format}' it also looks like '{other}'"));
        }
        Ok(None) => {}
        Err(error) => safety.add("format", error.to_string()),
    }
    safety
}

/// The largest number of iterations in the description of a LUKS header, that of an image or that of
/// the encryption of one.
fn luks_iterations(specific: &Dict) -> u64 {
    let facts = specific.get("encrypt").and_then(Value::as_dict).unwrap_or(specific);
    let slots = facts.get("slots").and_then(Value::as_list).unwrap_or_default();
    let slots = slots.iter().filter_map(Value::as_dict).map(|slot| slot.get("iters"));
    let all = slots.chain([facts.get("master-key-iters")]).flatten();
    all.filter_map(|value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Uint(number) => Some(*number),
        _ => None,
    })
    .max()
    .unwrap_or(0)
}

/// Another format that the file below `node` can be taken for.
async fn other_format(node: &Arc<Node>) -> cairn_block::Result<Option<&'static str>> {
    let format = node.format();
    let Some(file) = node.primary().map(|edge| edge.node()) else { return Ok(None) };
    let size = file.size();
    let head = file.read(0, IoBufMut::new(HEAD.min(size).as_usize())).await?;
    let probed = probe(&head, &file.filename()).map(|driver| driver.name);
    let starts = |bytes: &[u8], at: usize, with: &[u8]| {
        bytes.get(at..).is_some_and(|bytes| bytes.starts_with(with))
    };
    let foreign = SIGNATURES.iter().find(|(_, at, with)| starts(&head, *at, with));
    let tail_at = size.saturating_sub(TAIL);
    let tail = file.read(tail_at, IoBufMut::new((size - tail_at).as_usize())).await?;
    let foreign_tail = TAIL_SIGNATURES.iter().find(|(_, with)| starts(&tail, 0, with));
    Ok(probed
        .filter(|&probed| probed != format && probed != "raw")
        .or(foreign.map(|(name, _, _)| *name))
        .or(foreign_tail.map(|(name, _)| *name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_found_in_images_and_in_their_encryption() {
        let slot = Dict::from([("active", Value::from(true)), ("iters", 500u64.into())]);
        let luks = Dict::from([
            ("master-key-iters", Value::from(7u64)),
            ("slots", vec![slot, Dict::from([("active", false)])].into()),
        ]);
        assert_eq!(luks_iterations(&luks), 500);
        let qcow2 = Dict::from([("encrypt", luks)]);
        assert_eq!(luks_iterations(&qcow2), 500);
        assert_eq!(luks_iterations(&Dict::new()), 0);
    }

    #[test]
    fn one_reason_makes_an_image_unsafe() {
        let mut safety = Safety::default();
        safety.above("x", "things", 5, None);
        safety.above("x", "things", 5, Some(5));
        assert_eq!(safety.verdict(), "safe");
        safety.above("x", "things", 6, Some(5));
        assert_eq!(safety.verdict(), "unsafe");
        assert_eq!(safety.reasons[0].detail, "6 things, of which at most 5 are allowed");
    }
}
