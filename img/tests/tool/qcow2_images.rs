//! What the commands do to qcow2 images, side by side with the reference where it is installed.

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// A raw image with data, holes and zeroes, and qcow2 images made from it: plain, compressed, and an
/// overlay whose base holds part of the data.
fn images() -> Scratch {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 20 * MIB, &[(0, 4096), (3 * MIB + 512, 1 << 20), (19 * MIB, 70_000)]);
    scratch.sparse("base.raw", 16 * MIB, &[(0, 4096), (3 * MIB + 512, 1 << 20)]);
    scratch.ok(&["convert", "-O", "qcow2", "a.raw", "plain.qcow2"]);
    scratch.ok(&["convert", "-c", "-O", "qcow2", "a.raw", "small.qcow2"]);
    scratch.ok(&["convert", "-O", "qcow2", "base.raw", "base.qcow2"]);
    scratch.ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        "base.qcow2",
        "-F",
        "qcow2",
        "over.qcow2",
        "20M",
    ]);
    scratch
}

#[test]
fn reports_are_those_of_the_reference() {
    let scratch = images();
    for args in [
        &["info", "plain.qcow2"][..],
        &["info", "--output=json", "plain.qcow2"],
        &["info", "--output=json", "small.qcow2"],
        &["info", "--backing-chain", "over.qcow2"],
        &["info", "--backing-chain", "--output=json", "over.qcow2"],
        &["map", "plain.qcow2"],
        &["map", "--output=json", "plain.qcow2"],
        &["map", "--output=json", "small.qcow2"],
        &["map", "--output=json", "over.qcow2"],
        &["check", "plain.qcow2"],
        &["check", "--output=json", "small.qcow2"],
        &["check", "-q", "over.qcow2"],
        &["measure", "-O", "qcow2", "a.raw"],
        &["measure", "-O", "qcow2", "--output=json", "over.qcow2"],
        &["measure", "-O", "qcow2", "--size", "100G", "-o", "cluster_size=4k"],
        &["measure", "-O", "raw", "plain.qcow2"],
        &["compare", "a.raw", "plain.qcow2"],
        &["compare", "plain.qcow2", "small.qcow2"],
        &["compare", "-s", "plain.qcow2", "small.qcow2"],
        &["compare", "plain.qcow2", "over.qcow2"],
    ] {
        scratch.same(args);
    }
}

#[test]
fn content_survives_every_way() {
    let scratch = images();
    let content = scratch.content("a.raw");
    for options in [
        &[][..],
        &["-c"],
        &["-c", "-W", "-o", "compression_type=zstd"],
        &["-c", "-o", "cluster_size=2M"],
        &["-S", "0"],
        &["-m", "16", "-W", "-o", "cluster_size=512"],
        &["-o", "extended_l2=on", "-o", "cluster_size=16k"],
        &["-o", "compat=0.10"],
        &["-t", "writethrough", "-T", "none"],
    ] {
        let there = [&["convert", "-O", "qcow2"][..], options, &["a.raw", "x.qcow2"]].concat();
        assert_eq!(scratch.ok(&there), "", "{options:?}");
        scratch.ok(&["check", "-q", "x.qcow2"]);
        assert_eq!(scratch.ok(&["compare", "a.raw", "x.qcow2"]), "Images are identical.\n");
        scratch.ok(&["convert", "-f", "qcow2", "x.qcow2", "back.raw"]);
        assert!(scratch.content("back.raw") == content, "{options:?}");
        assert!(scratch.allocated("back.raw") < 2 * MIB, "{options:?}");
    }
}

#[test]
fn compression_saves_space() {
    let scratch = images();
    assert!(scratch.allocated("small.qcow2") * 2 < scratch.allocated("plain.qcow2"));
}

#[test]
fn a_copy_over_a_backing_file_stores_only_the_top() {
    let scratch = images();
    scratch.sparse("change.raw", 20 * MIB, &[(5 * MIB, 65_536)]);
    scratch.ok(&[
        "convert",
        "-O",
        "qcow2",
        "-B",
        "base.qcow2",
        "-F",
        "qcow2",
        "over.qcow2",
        "o.qcow2",
    ]);
    assert_eq!(scratch.ok(&["compare", "over.qcow2", "o.qcow2"]), "Images are identical.\n");
    assert!(scratch.allocated("o.qcow2") < MIB);
    let info = scratch.ok(&["info", "o.qcow2"]);
    assert!(info.contains("backing file: base.qcow2\nbacking file format: qcow2\n"), "{info}");
    // Without one the data of the whole chain is copied.
    scratch.ok(&["convert", "-O", "qcow2", "over.qcow2", "flat.qcow2"]);
    assert_eq!(scratch.ok(&["compare", "over.qcow2", "flat.qcow2"]), "Images are identical.\n");
    assert!(scratch.allocated("flat.qcow2") > MIB);
}

#[test]
fn zeroes_hide_the_backing_file() {
    let scratch = images();
    // Everything that the base has is zero in the source.
    scratch.sparse("zero.raw", 20 * MIB, &[(10 * MIB, 4096)]);
    scratch.ok(&[
        "convert",
        "-O",
        "qcow2",
        "-B",
        "base.qcow2",
        "-F",
        "qcow2",
        "zero.raw",
        "z.qcow2",
    ]);
    assert_eq!(scratch.ok(&["compare", "zero.raw", "z.qcow2"]), "Images are identical.\n");
}

#[test]
fn creation_mistakes_are_explained() {
    let scratch = images();
    for (args, words) in [
        (&["-b", "base.qcow2", "x.qcow2"][..], "add -F qcow2"),
        (&["-b", "none.qcow2", "-F", "qcow2", "x.qcow2", "1M"], "'none.qcow2': No such file"),
        (&["-b", "x.qcow2", "-F", "qcow2", "x.qcow2", "1M"], "own backing file"),
        (&["-F", "qcow2", "x.qcow2", "1M"], "no backing file"),
        (&["-u", "-b", "none.qcow2", "-F", "qcow2", "x.qcow2"], "size"),
        (&["-o", "cluster_size=3k", "x.qcow2", "1M"], "cluster_size"),
        (&["x.qcow2", "1000P"], "size"),
    ] {
        let line = scratch.fails(1, &[&["create", "-f", "qcow2"][..], args].concat());
        assert!(line.contains(words), "{args:?}: {line}");
    }
    assert!(!scratch.names().iter().any(|name| name.contains("x.qcow2")));
}

#[test]
fn a_chain_without_an_end_is_refused() {
    let scratch = Scratch::new();
    for (name, backing) in [("a.qcow2", "b.qcow2"), ("b.qcow2", "a.qcow2")] {
        let args = ["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", name, "1M"];
        scratch.ok(&args);
    }
    let line = scratch.fails(1, &["info", "--backing-chain", "a.qcow2"]);
    assert!(line.contains("leads back"), "{line}");
    scratch.fails(1, &["convert", "a.qcow2", "x.raw"]);
    assert_eq!(scratch.names(), ["a.qcow2", "b.qcow2"]);
}

#[test]
fn a_refcount_table_may_move_twice_before_it_is_stored() {
    let scratch = Scratch::new();
    let options = "cluster_size=512,refcount_bits=64";
    scratch.ok(&["create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "33M"]);
    let written = std::process::Command::new(scratch.exerciser())
        .current_dir(scratch.path(""))
        .args(["-f", "qcow2", "-c", "write -P 234 8M 6920192", "-c", "write -P 153 0 512"])
        .args(["-c", "read -P 153 0 512", "a.qcow2"])
        .output()
        .expect("it runs");
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"));
    scratch.same(&["check", "a.qcow2"]);
}
