//! What users are told of damage, and what damaged images allow.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::stock::{dict, expect, read_only, run, tool, writable};
use cairn_block::driver::{Perm, Repair, WriteFlags};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::{Error, IoBuf, IoBufMut, Result};

/// Overwrites bytes of a file.
fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, offset).expect("written");
}

/// The byte of the header that holds the dirty and the corrupt bit.
fn features(path: &Path) -> u8 {
    fs::read(path).expect("a file")[79]
}

/// Opens an image in a graph whose findings are kept.
async fn open(
    path: &Path,
    options: &[(&'static str, &str)],
    flags: NodeFlags,
) -> Result<(Backend, Arc<Mutex<Vec<String>>>)> {
    let graph = Graph::new();
    let findings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&findings);
    graph.on_finding(move |line| heard.lock().expect("no panic").push(line.to_owned()));
    let mut what = OpenOptions::file(path.to_str().expect("plain path"), Some("qcow2"), flags);
    what.options.merge_defaults(dict(options));
    let node = graph.open(what).await?;
    let mut used = Perm::CONSISTENT_READ;
    used.set(Perm::WRITE, !flags.read_only);
    Ok((Backend::new(&graph, node, "test", used, Perm::all())?, findings))
}

fn create(dir: &Path, list: &str) {
    expect(dir, &["qemu-img", "create", "-q", "-f", "qcow2", "-o", list, "image", "64M"]);
}

#[test]
fn nothing_is_ever_put_where_the_header_is() {
    // The first refcount block counts the header and all else as free.
    for checks in ["none", "all", "constant", "cached"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        create(dir.path(), "compat=1.1");
        poke(&path, 0x20000, &[0; 8]);
        run(async {
            let options = [("overlap-check", checks)];
            let (image, findings) = open(&path, &options, writable()).await.expect("opens");
            let data = IoBuf::copy_of(&vec![1; 65536]);
            let error = image.write(65536, data.clone(), WriteFlags::empty()).await;
            assert_eq!(error.expect_err(checks).errno(), libc::EIO, "{checks}");
            let again = image.write(65536, data, WriteFlags::empty()).await;
            assert!(matches!(again, Err(Error::Corrupt { .. })), "{checks}: {again:?}");
            let findings = findings.lock().expect("no panic").clone();
            assert_eq!(
                findings,
                ["qcow2: Marking image as corrupt: Preventing invalid allocation of L2 table at \
                     offset 0; further corruption events will be suppressed"],
                "{checks}"
            );
            image.close().await.expect("closes");
        });
        assert_eq!(features(&path), 2, "{checks}: the corrupt bit");
        assert!(!tool(dir.path(), &["qemu-io", "-c", "write 0 1", "image"]).status.success());
        expect(dir.path(), &["qemu-img", "check", "-q", "-r", "all", "image"]);
        assert_eq!(features(&path), 0);
    }
}

#[test]
fn every_kind_of_metadata_can_be_checked_or_not() {
    // The cluster in which each of them is. The header cannot be named by an entry.
    let names =
        [("refcount-table", 1u64), ("refcount-block", 2), ("active-l1", 3), ("active-l2", 4)];
    for (name, cluster) in names {
        for (template, switch, refused) in [
            ("none", "on", true),
            ("all", "off", false),
            ("none", "off", false),
            ("cached", "on", true),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("image");
            create(dir.path(), "compat=1.1");
            expect(dir.path(), &["qemu-io", "-c", "write 0 64k", "image"]);
            // The entry of the first cluster leads to metadata, and lets it be written in place.
            poke(&path, 0x40000, &(cluster << 16 | 1 << 63).to_be_bytes());
            run(async {
                let switch_name: &'static str = Box::leak(format!("overlap-check.{name}").into());
                let options = [("overlap-check.template", template), (switch_name, switch)];
                let (image, findings) = open(&path, &options, writable()).await.expect("opens");
                let data = IoBuf::copy_of(&[1; 512]);
                let written = image.write(0, data, WriteFlags::empty()).await;
                let what = format!("{name}={switch} over {template}: {written:?}");
                assert_eq!(written.is_err(), refused, "{what}");
                let findings = findings.lock().expect("no panic").clone();
                let metadata = name.replace("active-l", "active L").replace('-', " ");
                let line =
                    format!("Preventing invalid write on metadata (overlaps with {metadata}");
                assert_eq!(findings.iter().any(|found| found.contains(&line)), refused, "{what}");
                // What was overwritten is of no concern here.
                let _ = image.close().await;
            });
        }
    }
}

#[test]
fn damage_in_a_read_only_image_is_told_once_and_marks_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    create(dir.path(), "compat=1.1");
    expect(dir.path(), &["qemu-io", "-c", "write 0 64k", "image"]);
    poke(&path, 0x30000, &(0x42a00u64 | 1 << 63).to_be_bytes());
    let before = fs::read(&path).expect("a file");
    run(async {
        let (image, findings) = open(&path, &[], read_only()).await.expect("opens");
        for _ in 0..2 {
            let read = image.read(0, IoBufMut::new(512)).await;
            assert_eq!(read.expect_err("no table there").errno(), libc::EIO);
        }
        assert_eq!(
            *findings.lock().expect("no panic"),
            ["qcow2: Image is corrupt: L2 table offset 0x42a00 unaligned (L1 index: 0); further \
                 non-fatal corruption events will be suppressed"]
        );
        image.close().await.expect("closes");
    });
    assert!(fs::read(&path).expect("a file") == before);
}

#[test]
fn repairs_on_opening_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    create(dir.path(), "lazy_refcounts=on");
    let kill = ["qemu-io", "-c", "write 0 64k", "-c", "sigraise 9", "image"];
    assert!(!tool(dir.path(), &kill).status.success());
    assert_eq!(features(&path), 1, "the reference leaves the image dirty");
    run(async {
        let (image, findings) = open(&path, &[], writable()).await.expect("is repaired");
        let findings = findings.lock().expect("no panic").clone();
        assert!(
            findings.iter().any(|line| line.contains("refcount=0 reference=1")),
            "{findings:?}"
        );
        assert!(findings.iter().any(|line| line.starts_with("Repairing ")), "{findings:?}");
        image.close().await.expect("closes");
    });
    assert_eq!(features(&path), 0);
    expect(dir.path(), &["qemu-img", "check", "image"]);
}

#[test]
fn a_crash_with_lazy_refcounts_spares_the_tables() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    create(dir.path(), "lazy_refcounts=on");
    run(async {
        let (image, _) = open(&path, &[], writable()).await.expect("opens");
        let data = IoBuf::copy_of(&vec![1; 65536]);
        image.write(0, data, WriteFlags::FUA).await.expect("written");
        fs::copy(&path, dir.path().join("copy")).expect("copied");
        image.close().await.expect("closes");
    });
    let copy = dir.path().join("copy");
    assert_eq!(features(&copy), 1);
    let block = &fs::read(&copy).expect("a file")[0x20000..0x2000c];
    // The L2 table in cluster 4 is counted, the data in cluster 5 is not yet.
    assert_eq!(block, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]);
}

#[test]
fn unknown_autoclear_bits_go_when_an_image_is_opened_to_be_repaired() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    create(dir.path(), "compat=1.1");
    poke(&path, 88, &[0x80]);
    for (repair, left) in [(Repair::empty(), 0x80), (Repair::LEAKS, 0)] {
        run(async {
            let read_only = repair.is_empty();
            let flags = NodeFlags { check: true, read_only, ..writable() };
            let (image, _) = open(&path, &[], flags).await.expect("opens");
            image.node().driver().check(repair).await.expect("sound");
            image.close().await.expect("closes");
        });
        assert_eq!(fs::read(&path).expect("a file")[88], left, "{repair:?}");
    }
}

/// An image with two snapshots, and the place of its snapshot table.
fn with_snapshots(dir: &Path, list: &str) -> usize {
    create(dir, list);
    for name in ["one", "two"] {
        expect(dir, &["qemu-io", "-c", "write 0 100k", "image"]);
        expect(dir, &["qemu-img", "snapshot", "-c", name, "image"]);
    }
    let header = fs::read(dir.join("image")).expect("a file");
    let place: [u8; 8] = header[64..72].try_into().expect("8 bytes");
    usize::try_from(u64::from_be_bytes(place)).expect("small")
}

/// Repairs an image; returns the corruptions that were found, and the first findings.
fn repair(path: &Path) -> (u64, Vec<String>) {
    run(async {
        let flags = NodeFlags { check: true, ..writable() };
        let (image, _) = open(path, &[], flags).await.expect("opens");
        let report = image.node().driver().check(Repair::all()).await.expect("can be repaired");
        assert_eq!((report.corruptions, report.leaks), (0, 0), "{:?}", report.details);
        image.close().await.expect("closes");
        (report.corruptions_fixed, report.details)
    })
}

#[test]
fn too_much_data_in_snapshot_entries_is_refused_until_it_is_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    let table = with_snapshots(dir.path(), "compat=1.1");
    // The second entry: fixed part, 24 bytes of extra data, ID and name of the first.
    let second = table + (40usize + 24 + 1 + 3).next_multiple_of(8);
    poke(&path, second as u64 + 36, &2000u32.to_be_bytes());
    let listed = run(async {
        let (image, _) = open(&path, &[], read_only()).await.expect("opens");
        image.node().driver().format_info().await.map(|_| ())
    });
    let error = listed.expect_err("too much");
    assert_eq!((error.errno(), error.excess()), (libc::EFBIG, Some("this extra metadata")));
    let (fixed, details) = repair(&path);
    assert_eq!(fixed, 1, "{details:?}");
    let line = "Discarding too much extra metadata in snapshot table entry 1 (2000 > 1024)";
    assert_eq!(details.first().map(String::as_str), Some(line));
    expect(dir.path(), &["qemu-img", "check", "image"]);
    assert_eq!(expect(dir.path(), &["qemu-img", "snapshot", "-l", "image"]).lines().count(), 4);
    expect(dir.path(), &["qemu-img", "snapshot", "-a", "one", "image"]);
}

#[test]
fn incomplete_snapshot_entries_are_completed_where_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    let table = with_snapshots(dir.path(), "compat=1.1");
    // Taken for part of the ID, the extra data is gone.
    poke(&path, table as u64 + 36, &0u32.to_be_bytes());
    poke(&path, table as u64 + 12, &25u16.to_be_bytes());
    let (fixed, details) = repair(&path);
    assert_eq!((fixed, details.len()), (1, 1), "{details:?}");
    assert_eq!(details[0], "Repairing snapshot table entry 0 is incomplete");
    expect(dir.path(), &["qemu-img", "check", "image"]);
    expect(dir.path(), &["qemu-img", "snapshot", "-d", "two", "image"]);
    expect(dir.path(), &["qemu-img", "check", "image"]);
}

#[test]
fn snapshots_beyond_the_limit_are_given_up_only_by_a_repair() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    create(dir.path(), "compat=0.10");
    // Entries of zeroes are valid in version 2.
    poke(&path, 64, &0x10_0000u64.to_be_bytes());
    poke(&path, 60, &65_546u32.to_be_bytes());
    let file = fs::OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(0x10_0000 + 40 * 65_546).expect("longer");
    run(async {
        assert!(open(&path, &[], read_only()).await.is_err(), "too many to be opened");
        let flags = NodeFlags { check: true, ..read_only() };
        let (image, _) = open(&path, &[], flags).await.expect("opens to be checked");
        let checked = image.node().driver().check(Repair::empty()).await;
        let error = checked.expect_err("too many");
        assert_eq!(error.excess(), Some("all 10 overhanging snapshots"));
    });
    let (fixed, details) = repair(&path);
    assert_eq!(details[0], "Discarding 10 overhanging snapshots");
    assert!(fixed >= 10, "{fixed}");
    expect(dir.path(), &["qemu-img", "check", "image"]);
    assert_eq!(fs::read(&path).expect("a file")[60..64], 65_536u32.to_be_bytes());
}
