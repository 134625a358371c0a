//! `dd`: parts of images, existing targets, and the standard streams.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::thread;

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;
/// The same as an index.
const MIB_INDEX: usize = 1 << 20;

/// Runs the tool with `input` as standard input.
fn fed(scratch: &Scratch, input: &[u8], args: &[&str]) -> Output {
    let mut command = scratch.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool runs");
    let mut stdin = child.stdin.take().expect("piped");
    thread::scope(|scope| {
        // The tool need not read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("the tool ends")
    })
}

/// Like [`fed`] for what must succeed in silence.
fn fed_ok(scratch: &Scratch, input: &[u8], args: &[&str]) {
    let output = fed(scratch, input, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{args:?}: {errors}");
}

#[test]
fn an_existing_target_keeps_what_is_not_written() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 4 * MIB, &[(0, 4 * MIB_INDEX)]);
    let source = scratch.content("a.raw");
    for (name, option) in [("b.raw", "-n"), ("c.raw", "conv=notrunc"), ("d.raw", "conv=nocreat")] {
        std::fs::write(scratch.path(name), vec![0xee; 6 * MIB_INDEX]).expect("write");
        let of = format!("of={name}");
        scratch.ok(&["dd", "if=a.raw", &of, "bs=1M", "skip=1", "count=3", "seek=2", option]);
        let mut expected = vec![0xee; 6 * MIB_INDEX];
        expected[2 * MIB_INDEX..4 * MIB_INDEX].copy_from_slice(&source[MIB_INDEX..3 * MIB_INDEX]);
        assert!(scratch.content(name) == expected, "{option}");
    }
    let error = scratch.fails(1, &["dd", "-n", "if=a.raw", "of=b.raw", "bs=1M", "seek=3"]);
    assert!(error.contains("too small"), "{error}");
    for option in ["-n", "conv=nocreat"] {
        scratch.fails(1, &["dd", option, "if=a.raw", "of=new.raw"]);
        assert!(!scratch.path("new.raw").exists(), "{option}");
    }
    scratch.ok(&["dd", "conv=notrunc", "if=a.raw", "of=new.raw"]);
    assert!(scratch.content("new.raw") == source);
}

#[test]
fn a_new_target_has_the_size_asked_for() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 2 * MIB, &[(0, MIB_INDEX)]);
    let source = scratch.content("a.raw");
    scratch.ok(&["dd", "if=a.raw", "of=large.raw", "osize=5M"]);
    let large = scratch.content("large.raw");
    assert!(large.len() == 5 * MIB_INDEX && large[..2 * MIB_INDEX] == source);
    assert!(large[2 * MIB_INDEX..].iter().all(|byte| *byte == 0));
    scratch.ok(&["dd", "if=a.raw", "of=small.raw", "osize=512k", "isize=2M"]);
    assert!(scratch.content("small.raw") == source[..MIB_INDEX / 2]);
    scratch.ok(&["dd", "if=a.raw", "of=moved.raw", "bs=1M", "seek=1"]);
    let moved = scratch.content("moved.raw");
    assert!(moved.len() == 3 * MIB_INDEX && moved[MIB_INDEX..] == source);
    let error = scratch.fails(1, &["dd", "if=a.raw", "of=none.raw", "isize=3M"]);
    assert!(error.contains("isize") && !scratch.path("none.raw").exists(), "{error}");
    // Zeroes are stored, unless they are not to be.
    scratch.ok(&["dd", "if=a.raw", "of=full.raw", "bs=64k", "conv=fsync"]);
    scratch.ok(&["dd", "if=a.raw", "of=sparse.raw", "bs=64k", "conv=sparse", "status=none"]);
    assert!(scratch.content("full.raw") == source && scratch.content("sparse.raw") == source);
    assert!(scratch.allocated("full.raw") >= 2 * MIB && scratch.allocated("sparse.raw") < 2 * MIB);
}

#[test]
fn snapshots_are_copied_by_name() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", MIB, &[(0, 65_536)]);
    scratch.ok(&["convert", "-O", "qcow2", "a.raw", "a.qcow2"]);
    scratch.ok(&["snapshot", "-c", "before", "a.qcow2"]);
    std::fs::write(scratch.path("zero.raw"), vec![0; MIB_INDEX]).expect("write");
    scratch.ok(&["dd", "-n", "-O", "qcow2", "if=zero.raw", "of=a.qcow2", "bs=1M"]);
    scratch.ok(&["dd", "-f", "qcow2", "if=a.qcow2", "of=now.raw"]);
    scratch.ok(&["dd", "-f", "qcow2", "-l", "before", "if=a.qcow2", "of=then.raw"]);
    assert!(scratch.content("now.raw") == vec![0; MIB_INDEX]);
    assert!(scratch.content("then.raw") == scratch.content("a.raw"));
    scratch.fails(1, &["dd", "-l", "missing", "if=a.qcow2", "of=x.raw"]);
}

#[test]
fn standard_input_becomes_an_image() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 3 * MIB, &[(MIB / 2, MIB_INDEX + 77)]);
    let data = scratch.content("a.raw");
    let data = &data[..2 * MIB_INDEX + 1000];
    fed_ok(&scratch, data, &["dd", "of=b.raw", "osize=4M"]);
    let image = scratch.content("b.raw");
    assert!(image.len() == 4 * MIB_INDEX && &image[..data.len()] == data);
    assert!(image[data.len()..].iter().all(|byte| *byte == 0));
    fed_ok(&scratch, data, &["dd", "-O", "qcow2", "of=c.qcow2", "bs=1000", "skip=3", "isize=1M"]);
    scratch.ok(&["dd", "-f", "qcow2", "if=c.qcow2", "of=c.raw"]);
    let image = scratch.content("c.raw");
    let expected = &data[3000..MIB_INDEX];
    // A disk has whole sectors.
    assert!(image.len() == expected.len().next_multiple_of(512));
    assert!(&image[..expected.len()] == expected);
    // An existing image takes what it has room for, and no byte of the rest of it changes.
    std::fs::write(scratch.path("d.raw"), vec![0xee; 3 * MIB_INDEX]).expect("write");
    fed_ok(&scratch, data, &["dd", "-n", "of=d.raw", "bs=1", "seek=5"]);
    let image = scratch.content("d.raw");
    assert!(image[..5] == [0xee; 5] && &image[5..data.len() + 5] == data);
    assert!(image[data.len() + 5..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn wrong_amounts_of_standard_input_are_errors() {
    let scratch = Scratch::new();
    let error = |args: &[&str]| {
        let output = fed(&scratch, &[1; 5000], args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    assert!(error(&["dd", "of=x.raw"]).contains("osize"));
    assert!(error(&["dd", "of=x.raw", "isize=6000"]).contains("after 5000 of 6000"));
    assert!(error(&["dd", "count=1"]).contains("if="));
    assert!(error(&["dd", "of=x.raw", "-l", "s", "osize=1M"]).contains("snapshot"));
    assert!(!scratch.path("x.raw").exists());
    std::fs::write(scratch.path("y.raw"), [0; 4096]).expect("write");
    assert!(error(&["dd", "-n", "of=y.raw"]).contains("longer than the 4096 bytes"));
}

#[test]
fn images_go_to_standard_output() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 3 * MIB, &[(100, MIB_INDEX), (2 * MIB, 5000)]);
    scratch.ok(&["convert", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let content = scratch.content("a.raw");
    let run = |args: &[&str]| {
        let output = scratch.run(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
        output.stdout
    };
    assert!(run(&["dd", "-f", "qcow2", "if=a.qcow2"]) == content);
    assert!(
        run(&["dd", "if=a.raw", "bs=1000", "skip=1", "count=2100"]) == content[1000..2_100_000]
    );
    let error = scratch.fails(1, &["dd", "-O", "qcow2", "if=a.raw"]);
    assert!(error.contains("of="), "{error}");
}
