//! What the commands do to raw images, side by side with the reference where it is installed.

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;
/// The same as an index.
const MIB_INDEX: usize = 1 << 20;

#[test]
fn reports_are_those_of_the_reference() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 10 * MIB, &[(0, 4096), (MIB, 1 << 20), (9 * MIB, 12_288)]);
    scratch.sparse("b.raw", 12 * MIB, &[(0, 4096), (MIB, 1 << 20), (9 * MIB, 12_288)]);
    scratch.sparse("c.raw", 10 * MIB, &[(0, 4096), (MIB, 1 << 20), (9 * MIB, 8192)]);
    scratch.sparse("u.raw", MIB - 1, &[(MIB - 65_536, 65_535)]);
    for args in [
        &["info", "a.raw"][..],
        &["info", "--output=json", "a.raw"],
        &["info", "--output=json", "--backing-chain", "a.raw"],
        &["info", "-f", "file", "a.raw"],
        &["info", "--image-opts", "driver=raw,file.filename=a.raw"],
        &["map", "a.raw"],
        &["map", "--output=json", "a.raw"],
        &["map", "--output=json", "-f", "file", "a.raw"],
        &["map", "--output=json", "--start-offset", "512k", "--max-length", "600k", "a.raw"],
        &["map", "--output=json", "--start-offset", "1T", "a.raw"],
        &["map", "--output=json", "u.raw"],
        &["map", "--output=json", "--image-opts", "driver=raw,file.filename=u.raw,cache.direct=on"],
        &["measure", "a.raw"],
        &["measure", "--size", "12345", "--output=json"],
        &["check", "a.raw"],
        &["compare", "a.raw", "a.raw"],
        &["compare", "-p", "a.raw", "b.raw"],
        &["compare", "-q", "a.raw", "b.raw"],
        &["compare", "-s", "a.raw", "b.raw"],
        &["compare", "a.raw", "c.raw"],
        &["compare", "-p", "-f", "raw", "-F", "raw", "c.raw", "b.raw"],
        &["compare", "a.raw", "missing.raw"],
        &["create", "n.raw", "5000"],
        &["map", "--output=json", "n.raw"],
        &["create", "-f", "raw", "n.raw", "5M", "-o", "preallocation=falloc"],
        &["resize", "-f", "raw", "n.raw", "+1M"],
        &["dd", "if=a.raw", "of=d.raw", "bs=1000", "count=2000", "skip=3"],
        &["dd", "if=a.raw", "of=d.raw", "bs=1M", "skip=100"],
    ] {
        scratch.same(args);
    }
}

#[test]
fn a_copy_is_equal_and_as_sparse() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 20 * MIB, &[(0, 4096), (3 * MIB + 512, 1 << 20), (19 * MIB, 8192)]);
    // Zeroes that are stored as data are found, too.
    scratch.ok(&["convert", "-S", "0", "a.raw", "full.raw"]);
    assert!(scratch.allocated("full.raw") >= 20 * MIB);
    for options in
        [&[][..], &["-W"], &["-m", "1"], &["-m", "16", "-S", "64k"], &["-T", "none", "-t", "none"]]
    {
        for source in ["a.raw", "full.raw"] {
            let args = [&["convert"][..], options, &["-f", "raw", source, "b.raw"]].concat();
            assert_eq!(scratch.ok(&args), "");
            assert!(scratch.content("a.raw") == scratch.content("b.raw"), "{args:?}");
            assert!(scratch.allocated("b.raw") < 2 * MIB, "{args:?}");
        }
    }
    // Data is stored in whole units of what is left out.
    scratch.sparse("few.raw", MIB, &[(300 << 10, 1000)]);
    scratch.ok(&["convert", "-S", "0", "few.raw", "dense.raw"]);
    scratch.ok(&["convert", "-S", "70k", "dense.raw", "coarse.raw"]);
    assert!((64 << 10..100 << 10).contains(&scratch.allocated("coarse.raw")));
    scratch.ok(&["convert", "-C", "a.raw", "c.raw"]);
    assert!(scratch.content("a.raw") == scratch.content("c.raw"));
}

#[test]
fn sources_are_joined_by_sectors() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", MIB + 1000, &[(MIB, 1000)]);
    scratch.sparse("b.raw", MIB, &[(0, 4096), (MIB - 512, 512)]);
    scratch.ok(&["convert", "a.raw", "b.raw", "a.raw", "x.raw"]);
    let mut a = scratch.content("a.raw");
    a.resize(1024 * 1024 + 1024, 0);
    let expected = [&a[..], &scratch.content("b.raw"), &a].concat();
    assert!(scratch.content("x.raw") == expected);
}

#[test]
fn an_existing_target_is_written_and_kept() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 2 * MIB, &[(0, 4096)]);
    scratch.sparse("t.raw", 3 * MIB, &[(MIB, 4096), (2 * MIB + 4096, 4096)]);
    let tail = scratch.content("t.raw")[2 * MIB_INDEX..].to_vec();
    scratch.ok(&["convert", "-n", "a.raw", "t.raw"]);
    assert!(scratch.content("t.raw") == [scratch.content("a.raw"), tail].concat());
    // What reads as zeroes already is left alone.
    scratch.sparse("z.raw", 2 * MIB, &[(MIB, 4096)]);
    scratch.ok(&["convert", "-n", "--target-is-zero", "a.raw", "z.raw"]);
    assert_ne!(scratch.content("z.raw")[MIB_INDEX], 0);
    let line = scratch.fails(1, &["convert", "-n", "t.raw", "a.raw"]);
    assert!(line.contains("too small"), "{line}");
}

#[test]
fn a_part_is_copied_with_dd() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 2 * MIB, &[(0, 1 << 20), (MIB + 4096, 4096)]);
    let whole = scratch.content("a.raw");
    for (operands, from, to) in [
        (&["bs=64k", "count=3", "skip=1"][..], 65_536, 196_608),
        (&["bs=1000", "skip=3"], 3000, 2 * MIB_INDEX),
        (&["count=4"], 0, 2048),
        (&[], 0, 2 * MIB_INDEX),
    ] {
        let args = [&["dd", "if=a.raw", "of=x.raw"][..], operands].concat();
        assert_eq!(scratch.ok(&args), "");
        let mut expected = whole[from..to].to_vec();
        expected.resize(expected.len().next_multiple_of(512), 0);
        assert!(scratch.content("x.raw") == expected, "{operands:?}");
    }
}

#[test]
fn a_benchmark_reads_and_writes() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", MIB, &[(0, 4096)]);
    let text = scratch.ok(&["bench", "-f", "raw", "-c", "50", "-d", "4", "-S", "12k", "a.raw"]);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(
            "Sending 50 read requests, 4096 bytes each, 4 in parallel (starting at offset 0, step \
             size 12288)"
        )
    );
    assert!(lines.next().is_some_and(|line| line.starts_with("Run completed in ")));
    let write = ["bench", "-f", "raw", "-w", "--pattern", "0x5a", "-c", "255", "-d", "8", "a.raw"];
    for options in [&[][..], &["--flush-interval", "16"], &["--flush-interval", "16", "--no-drain"]]
    {
        scratch.ok(&[&write[..], options].concat());
    }
    assert!(scratch.content("a.raw")[..255 * 4096].iter().all(|&byte| byte == 0x5a));
}

#[test]
fn zeroinit_leaves_the_holes_of_a_fresh_volume_alone() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 4 * MIB, &[(MIB, 4096), (2 * MIB, 4096)]);
    let source = scratch.content("a.raw");
    // What the filter is told to take for zeroes is something else here, so that it shows.
    std::fs::write(scratch.path("volume"), vec![0xee; 4 * MIB_INDEX]).expect("write");
    let convert = ["convert", "-n", "-W", "-m", "1", "-f", "raw", "-O", "raw", "a.raw"];
    scratch.ok(&[&convert[..], &["zeroinit:volume"]].concat());
    let found = scratch.content("volume");
    for at in [MIB_INDEX, 2 * MIB_INDEX] {
        assert!(found[at..at + 4096] == source[at..at + 4096]);
    }
    assert!(found[..MIB_INDEX].iter().all(|byte| *byte == 0xee));
    assert!(found[3 * MIB_INDEX..].iter().all(|byte| *byte == 0xee));
    scratch.ok(&[&convert[..], &["volume"]].concat());
    assert!(scratch.content("volume") == source);
}
