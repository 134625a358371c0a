//! Where refcount structures lie: behind the data that needs them, as the reference has them, so that
//! both tools make files of the same length.

use std::path::Path;

use cairn_block::IoBuf;
use cairn_block::driver::WriteFlags;
use cairn_block::options::Value;

use super::stock::{expect, json, open, run, writable};

const MIB: u64 = 1 << 20;

/// Creation options, size of the disk, and writes: offset and length.
type Case = (&'static str, u64, &'static [(u64, u64)]);

const CASES: &[Case] = &[
    ("cluster_size=64k", 64 * MIB, &[(0, 10 * MIB), (30 * MIB, 4096)]),
    ("cluster_size=4k,refcount_bits=64", 16 * MIB, &[(0, 8_347_648)]),
    ("cluster_size=4k,refcount_bits=64", 16 * MIB, &[(0, 4096), (8 * MIB, 5 * MIB), (MIB, MIB)]),
    ("cluster_size=1k,refcount_bits=16", 16 * MIB, &[(0, 16 * MIB)]),
];

/// The table of the refcounts grows again and again, and leaves holes behind, of which the reference
/// uses only those that whole requests fit into.
const GROWING: &[Case] = &[
    ("cluster_size=512", 64 * MIB, &[(0, 9 * MIB)]),
    ("cluster_size=512,refcount_bits=64", 64 * MIB, &[(0, MIB), (2 * MIB, 6 * MIB)]),
];

async fn write(path: &Path, writes: &[(u64, u64)]) -> cairn_block::Result<()> {
    let image = open(path, writable()).await?;
    for &(offset, len) in writes {
        let data = IoBuf::copy_of(&vec![0xcd; usize::try_from(len).expect("fits")]);
        image.write(offset, data, WriteFlags::empty()).await?;
    }
    image.close().await
}

fn end_of_image(dir: &Path) -> i64 {
    let report = json(dir, &["qemu-img", "check", "--output=json", "image"]);
    let report = report.as_dict().expect("a report");
    assert!(!report.contains("corruptions") && !report.contains("leaks"), "{report:?}");
    match report.get("image-end-offset") {
        Some(Value::Int(end)) => *end,
        other => panic!("the image ends at {other:?}"),
    }
}

/// Where the images end that ours and the reference make.
fn ends((list, size, writes): &Case) -> [i64; 2] {
    [true, false].map(|ours| {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path();
        let size = size.to_string();
        expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "-o", list, "image", &size]);
        if ours {
            run(write(&dir.join("image"), writes)).expect("can be written");
        } else {
            let commands: Vec<String> =
                writes.iter().map(|(offset, len)| format!("write {offset} {len}")).collect();
            let mut words = vec!["qemu-io", "-f", "qcow2"];
            words.extend(commands.iter().flat_map(|command| ["-c", command.as_str()]));
            words.push("image");
            expect(dir, &words);
        }
        end_of_image(dir)
    })
}

#[test]
fn images_end_where_those_of_the_reference_do() {
    for case in CASES {
        let [ours, theirs] = ends(case);
        assert_eq!(ours, theirs, "{case:?}");
    }
}

#[test]
fn growing_refcount_tables_leave_no_more_behind_than_those_of_the_reference() {
    for case in GROWING {
        let [ours, theirs] = ends(case);
        assert!(ours <= theirs, "{case:?}: {ours}, not {theirs}");
    }
}
