//! What images show, whatever their form: checksums, verified copies and statistics of comparisons.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::compaction::exercise;
use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

fn digest(scratch: &Scratch, args: &[&str]) -> String {
    let all: Vec<&str> = ["checksum"].iter().chain(args).copied().collect();
    let line = scratch.ok(&all);
    line.split_whitespace().next().expect("a digest").to_owned()
}

#[test]
fn digests_depend_on_the_content_alone() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 40 * MIB, &[(0, 5000), (3 << 20, 2 << 20), (39 << 20, 100)]);
    let same: [&[&str]; 4] = [
        &["-O", "qcow2"],
        &["-c", "-O", "qcow2", "-o", "cluster_size=4k"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"],
        &["-S", "0", "-O", "raw"],
    ];
    for algorithm in ["blake3", "sha256", "sha512"] {
        let wanted = digest(&scratch, &["-a", algorithm, "-f", "raw", "a.raw"]);
        for (number, options) in same.iter().enumerate() {
            let name = format!("copy{number}");
            let mut args = vec!["convert", "-f", "raw"];
            args.extend(options.iter());
            args.extend(["a.raw", &name]);
            scratch.ok(&args);
            let format = if options.contains(&"raw") { "raw" } else { "qcow2" };
            let found = digest(&scratch, &["-a", algorithm, "-f", format, &name]);
            assert_eq!(found, wanted, "{algorithm} {options:?}");
        }
    }
    let before = digest(&scratch, &["-f", "qcow2", "copy0"]);
    scratch.ok(&["resize", "-f", "qcow2", "copy0", "+512"]);
    assert_ne!(digest(&scratch, &["-f", "qcow2", "copy0"]), before, "the size counts");
    scratch.sparse("b.raw", 40 * MIB, &[(0, 5000), (3 << 20, 2 << 20), (39 << 20, 101)]);
    assert_ne!(digest(&scratch, &["-f", "raw", "b.raw"]), before, "every byte counts");
}

/// The definition in docs/cairn-img.md, carried out by other tools.
#[test]
fn digests_are_what_the_manual_says() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 3 * MIB + 1000, &[(0, 5000), (2 << 20, 2000)]);
    let script = "\
import hashlib, struct
data = open('a.raw', 'rb').read()
data += bytes(-len(data) % 512)
row = [hashlib.sha256(data[i:i + (1 << 20)]).digest() for i in range(0, len(data), 1 << 20)]
while len(row) > 1:
    row = [hashlib.sha256(b''.join(row[i:i + 1024])).digest() for i in range(0, len(row), 1024)]
print(hashlib.sha256(b''.join(row) + struct.pack('<Q', len(data))).hexdigest())
";
    let mut python = Command::new("python3")
        .current_dir(scratch.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("piped").write_all(script.as_bytes()).expect("written");
    let output = python.wait_with_output().expect("it ends");
    let expected = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(digest(&scratch, &["-a", "sha256", "-f", "raw", "a.raw"]), expected.trim());
}

#[test]
fn whole_digests_are_those_of_other_tools() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 5 * MIB + 1024, &[(4096, 70_000)]);
    for algorithm in ["sha256", "sha512"] {
        let tool = Command::new(format!("{algorithm}sum"))
            .arg(scratch.path("a.raw"))
            .output()
            .expect("coreutils");
        let line = String::from_utf8(tool.stdout).expect("UTF-8");
        let expected = line.split_whitespace().next().expect("a digest");
        let found = digest(&scratch, &["--whole", "-a", algorithm, "-f", "raw", "a.raw"]);
        assert_eq!(found, expected);
    }
    let json = scratch.ok(&["checksum", "--output=json", "-f", "raw", "a.raw"]);
    for key in ["\"algorithm\": \"blake3\"", "\"block-size\": 1048576", "\"size\": 5243904"] {
        assert!(json.contains(key), "{json}");
    }
    assert!(scratch.fails(1, &["checksum", "-a", "md4", "a.raw"]).contains("blake3, sha256"));
}

#[test]
fn copies_are_verified() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 20 * MIB, &[(0, 3 << 20), (15 << 20, 5000)]);
    for options in [&["-O", "qcow2"][..], &["-c", "-O", "qcow2"], &["-O", "raw"]] {
        let mut args = vec!["convert", "--verify", "-f", "raw"];
        args.extend(options);
        args.extend(["a.raw", "a.raw", "b"]);
        scratch.ok(&args);
    }
    let error = scratch.fails(1, &["convert", "--verify", "--salvage", "a.raw", "b"]);
    assert!(error.contains("--salvage"), "{error}");
}

#[test]
fn a_copy_that_went_wrong_is_told_of() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 4 * MIB, &[(0, 4 << 20)]);
    scratch.ok(&["create", "-q", "-f", "raw", "b.raw", "4M"]);
    // The target drops what is written to it.
    let target = "driver=null-co,size=4M,read-zeroes=on";
    let error = scratch.fails(
        1,
        &["convert", "--verify", "-n", "-f", "raw", "--target-image-opts", "a.raw", target],
    );
    assert!(error.contains("offset 0"), "{error}");
}

#[test]
fn statistics_count_every_byte() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 8 * MIB, &[(0, 1 << 20), (2 << 20, 1 << 20), (4 << 20, 512)]);
    scratch.sparse("b.raw", 9 * MIB, &[(0, 1 << 20), (3 << 20, 1 << 20)]);
    scratch.ok(&["convert", "-f", "raw", "-O", "qcow2", "b.raw", "b.qcow2"]);
    for second in ["b.raw", "b.qcow2"] {
        let output = scratch.run(&["compare", "--stat", "--output=json", "a.raw", second]);
        assert_eq!(output.status.code(), Some(1));
        let json = String::from_utf8(output.stdout).expect("UTF-8");
        for line in [
            "\"same\": 1048576",
            "\"zero\": 6290944",
            "\"only-first\": 1049088",
            "\"only-second\": 1048576",
            "\"different\": 0",
            "\"identical\": false",
            "\"first-difference\": 2097152",
            "\"relation\": \"only-second\"",
        ] {
            assert!(json.contains(line), "{line}: {json}");
        }
    }
    let human = scratch.ok(&["compare", "--stat", "b.raw", "b.qcow2"]);
    assert!(human.ends_with("Images are identical.\n"), "{human}");
    let error = scratch.fails(1, &["compare", "--output=json", "a.raw", "b.raw"]);
    assert!(error.contains("--stat"), "{error}");
}

#[test]
fn capabilities_are_what_the_program_has() {
    let scratch = Scratch::new();
    let json = scratch.ok(&["--capabilities"]);
    let help = scratch.ok(&["--help"]);
    let commands = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        assert!(json.contains(&format!("\"name\": \"{command}\"")), "{command}");
    }
    for part in ["\"lazy_refcounts\"", "\"--untrusted\"", "\"blkdebug\"", "\"throttle-group\""] {
        assert!(json.contains(part), "{part}");
    }
    let script = "import json, sys; json.load(sys.stdin)";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("piped").write_all(json.as_bytes()).expect("written");
    assert!(python.wait().expect("it ends").success());
}

#[test]
fn limits_have_the_layout_of_the_reference() {
    let scratch = Scratch::new();
    scratch.ok(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    let human = scratch.ok(&["info", "--limits", "a.qcow2"]);
    for part in ["\nBlock limits:\n    ", "    request alignment: 1\n", "\n    Block limits:\n"] {
        assert!(human.contains(part), "{part}: {human}");
    }
    let json = scratch.ok(&["info", "--limits", "-t", "none", "--output=json", "a.qcow2"]);
    for key in ["request-alignment", "max-iov", "min-mem-alignment", "opt-mem-alignment"] {
        assert_eq!(json.matches(&format!("\"{key}\": ")).count(), 2, "{key}: {json}");
    }
    assert!(!scratch.ok(&["info", "--output=json", "a.qcow2"]).contains("limits"));
}

/// What the source does not hold reads as zeroes, though the data file does not once it is decrypted.
#[test]
fn conversions_to_an_encrypted_raw_data_file_are_complete() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 8 * MIB, &[(0, 5000), (3 << 20, 2 << 20)]);
    let secret = "secret,id=s,data=hush";
    let options = "data_file=d.raw,data_file_raw=on,encrypt.format=luks,encrypt.key-secret=s,\
                   encrypt.iter-time=10";
    let convert = ["convert", "--object", secret, "-f", "raw", "-O", "qcow2", "-o", options];
    scratch.ok(&convert.iter().chain(&["a.raw", "e.qcow2"]).copied().collect::<Vec<_>>());
    let raw = "driver=raw,file.filename=a.raw";
    let encrypted = "driver=qcow2,encrypt.key-secret=s,file.filename=e.qcow2";
    let compare = ["compare", "--object", secret, "--image-opts", raw, encrypted];
    scratch.same(&compare);
    assert!(scratch.ok(&compare).contains("identical"));
}

#[test]
fn strict_comparison_goes_by_allocation() {
    let scratch = Scratch::new();
    let data: &[(u64, usize)] = &[(0, 192 << 10)];
    scratch.sparse("full.raw", 192 << 10, data);
    scratch.sparse("hole.raw", 192 << 10, &[(0, 128 << 10)]);
    scratch.ok(&["convert", "-O", "qcow2", "full.raw", "full.qcow2"]);
    scratch.ok(&["convert", "-O", "qcow2", "hole.raw", "hole.qcow2"]);
    scratch.ok(&["convert", "-O", "qcow2", "-c", "full.raw", "packed.qcow2"]);
    scratch.ok(&[
        "convert",
        "-O",
        "qcow2",
        "-o",
        "preallocation=metadata",
        "full.raw",
        "pre.qcow2",
    ]);
    for (first, second) in [
        ("full.raw", "full.qcow2"),
        ("full.raw", "pre.qcow2"),
        ("full.raw", "packed.qcow2"),
        ("hole.raw", "hole.qcow2"),
        ("hole.qcow2", "hole.qcow2"),
    ] {
        scratch.same(&["compare", "-s", first, second]);
        scratch.same(&["compare", "-s", second, first]);
    }
    let line = scratch.run(&["compare", "-s", "full.raw", "hole.raw"]);
    assert_eq!(line.status.code(), Some(1));
    assert_eq!(line.stdout, b"Strict mode: Offset 131072 block status mismatch!\n");
    // Clusters in another order: the same content, and the same allocation. The reference, which counts
    // where runs end as part of it, sees a difference.
    scratch.ok(&["create", "-q", "-f", "qcow2", "order.qcow2", "192k"]);
    let pieces = ["write -P 7 128k 64k", "write -P 7 0 128k"];
    exercise(&scratch, "order.qcow2", &pieces);
    std::fs::write(scratch.path("sevens.raw"), vec![7; 192 << 10]).expect("writable");
    scratch.ok(&["compare", "-q", "-s", "-f", "raw", "sevens.raw", "order.qcow2"]);
}
