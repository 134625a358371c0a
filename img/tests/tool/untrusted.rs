//! Images of strangers: what they may not do, and how one is told.

use std::process::Command;

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// The bomb below a filter.
const FILTERED: &str = "driver=raw,file.driver=qcow2,file.file.filename=bomb.qcow2";

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn place(offset: u64) -> usize {
    usize::try_from(offset & 0x00ff_ffff_ffff_fe00).expect("small")
}

/// A qcow2 image of 512 MiB, all clusters of which are the same compressed data.
fn bomb(scratch: &Scratch, name: &str) {
    scratch.sparse("seed.raw", 512 * MIB, &[(0, 64 << 10)]);
    scratch.ok(&["convert", "-c", "-f", "raw", "-O", "qcow2", "seed.raw", name]);
    let mut bytes = scratch.content(name);
    let l2 = place(word(&bytes, place(word(&bytes, 40))));
    let entry = word(&bytes, l2).to_be_bytes();
    for slot in bytes[l2..l2 + 64 * 1024].chunks_mut(8) {
        slot.copy_from_slice(&entry);
    }
    std::fs::write(scratch.path(name), bytes).expect("writable");
}

#[test]
fn references_need_leave() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("sub")).expect("a directory");
    scratch.sparse("base.raw", MIB, &[(0, 4096)]);
    scratch.sparse("sub/far.raw", MIB, &[(0, 4096)]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "near.qcow2"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "sub/far.raw", "-F", "raw", "far.qcow2"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "data.qcow2", "1M"]);
    for args in [
        &["map", "-f", "qcow2", "near.qcow2"][..],
        &["check", "-f", "qcow2", "near.qcow2"],
        &["compare", "-f", "qcow2", "-F", "qcow2", "near.qcow2", "near.qcow2"],
        &["convert", "-f", "qcow2", "-O", "raw", "near.qcow2", "out.raw"],
        &["dd", "-f", "qcow2", "-O", "raw", "if=near.qcow2", "of=out.raw"],
        &["measure", "-f", "qcow2", "-O", "raw", "near.qcow2"],
        &["checksum", "-f", "qcow2", "near.qcow2"],
        &["resize", "-f", "qcow2", "near.qcow2", "2M"],
        &["commit", "-f", "qcow2", "near.qcow2"],
        &["rebase", "-f", "qcow2", "-b", "", "near.qcow2"],
        &["compact", "-f", "qcow2", "near.qcow2"],
        &["snapshot", "-f", "qcow2", "-c", "s", "near.qcow2"],
        &["bench", "-c", "1", "-f", "qcow2", "near.qcow2"],
        &["info", "--backing-chain", "-f", "qcow2", "near.qcow2"],
        &["map", "-f", "qcow2", "data.qcow2"],
        &["map", "-f", "qcow2", "--allow-refs=none", "near.qcow2"],
        &["map", "-f", "qcow2", "--allow-refs=same-dir", "far.qcow2"],
    ] {
        let untrusted: Vec<&str> = args.iter().copied().chain(["--untrusted"]).collect();
        let output = scratch.run(&untrusted);
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success(), "{args:?}");
        assert!(error.contains("refused") && error.contains("--allow-refs"), "{args:?}: {error}");
    }
    assert!(!scratch.names().contains(&"out.raw".to_owned()));
    let map = |args: &[&str]| {
        let all: Vec<&str> = ["map", "-f", "qcow2"].iter().chain(args).copied().collect();
        scratch.run(&all).status.success()
    };
    assert!(map(&["--untrusted", "--allow-refs", "same-dir", "near.qcow2"]));
    assert!(map(&["--untrusted", "--allow-refs", "sub", "far.qcow2"]));
    assert!(map(&["--untrusted", "--allow-refs", "any", "far.qcow2"]));
    assert!(map(&["far.qcow2"]) && map(&["data.qcow2"]), "images are trusted by default");
    // What the user names is the user's word.
    assert!(map(&["--untrusted", "--allow-refs=same-dir", "sub/../near.qcow2"]));
    let overlay = "driver=qcow2,file.filename=far.qcow2,backing.driver=raw,\
                   backing.file.filename=sub/far.raw";
    scratch.ok(&["checksum", "--untrusted", "--image-opts", overlay]);
    let base = ["-B", "base.raw", "-F", "raw", "base.raw", "new.qcow2"];
    let convert = ["convert", "--untrusted", "--verify", "-f", "raw", "-O", "qcow2"];
    scratch.ok(&convert.iter().chain(&base).copied().collect::<Vec<_>>());
}

#[test]
fn names_with_protocols_are_never_plain_files() {
    let scratch = Scratch::new();
    scratch.ok(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    for name in ["json:{\"driver\":\"null-co\"}", "null-co://", "nbd://localhost/x"] {
        scratch.ok(&["rebase", "-u", "-f", "qcow2", "-b", name, "-F", "raw", "a.qcow2"]);
        let line = scratch.fails(1, &["map", "-f", "qcow2", "--allow-refs=same-dir", "a.qcow2"]);
        assert!(line.contains("refused"), "{line}");
    }
}

#[test]
fn formats_are_not_guessed() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", MIB, &[(0, 4096)]);
    let line = scratch.fails(1, &["convert", "--untrusted", "a.raw", "b.raw"]);
    assert!(line.contains("--format"), "{line}");
    let output = scratch
        .command(&["convert", "a.raw", "b.raw"])
        .env("CAIRN_UNTRUSTED", "1")
        .output()
        .expect("the tool runs");
    assert!(!output.status.success(), "the environment is heard");
    scratch.ok(&["convert", "--untrusted", "-f", "raw", "a.raw", "b.raw"]);
    // A description costs nothing and is what one asks for to learn the format.
    scratch.ok(&["info", "--untrusted", "a.raw"]);
}

#[test]
fn costs_are_bounded_before_they_arise() {
    let scratch = Scratch::new();
    scratch.ok(&["create", "-q", "-f", "qcow2", "huge.qcow2", "9T"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "s.qcow2", "1M"]);
    for name in ["one", "two"] {
        scratch.ok(&["snapshot", "-c", name, "s.qcow2"]);
    }
    scratch.ok(&["create", "-q", "-f", "qcow2", "c0", "1M"]);
    for n in 1..4 {
        let (base, name) = (format!("c{}", n - 1), format!("c{n}"));
        scratch.ok(&["create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &name]);
    }
    let secret = "secret,id=s,data=hush";
    let luks = ["create", "-q", "-f", "luks", "--object", secret];
    let rest = ["-o", "key-secret=s,iter-time=10", "l.luks", "1M"];
    scratch.ok(&luks.iter().chain(&rest).copied().collect::<Vec<_>>());
    let opened = "driver=luks,key-secret=s,file.filename=l.luks";
    bomb(&scratch, "bomb.qcow2");
    for (option, args) in [
        ("--max-virtual-size=8T", &["map", "-f", "qcow2", "huge.qcow2"][..]),
        ("--max-snapshots=1", &["snapshot", "-l", "-f", "qcow2", "s.qcow2"]),
        ("--max-snapshots=1", &["check", "-f", "qcow2", "s.qcow2"]),
        ("--max-chain-depth=3", &["map", "-f", "qcow2", "c3"]),
        ("--max-chain-depth=3", &["info", "--backing-chain", "-f", "qcow2", "c3"]),
        ("--max-expansion=1100", &["convert", "-f", "qcow2", "-O", "raw", "bomb.qcow2", "out"]),
        ("--max-expansion=1100", &["check", "-f", "qcow2", "bomb.qcow2"]),
        ("--max-expansion=1100", &["checksum", "--image-opts", FILTERED]),
        ("--max-luks-iterations=10", &["checksum", "--object", secret, "--image-opts", opened]),
    ] {
        let name = option.split('=').next().expect("a name");
        let bounded: Vec<&str> = args.iter().copied().chain([option]).collect();
        let line = scratch.fails(1, &bounded);
        assert!(line.contains(name), "{args:?}: {line}");
        if !args.contains(&"convert") {
            let output = scratch.run(args);
            let is_bomb = args.contains(&"bomb.qcow2");
            assert!(output.status.success() || is_bomb, "{args:?}");
        }
    }
    for args in [
        &["map", "-f", "qcow2", "--untrusted", "huge.qcow2"][..],
        &["convert", "-f", "qcow2", "-O", "raw", "--untrusted", "bomb.qcow2", "out"],
    ] {
        assert!(scratch.fails(1, args).contains("refused"), "{args:?}");
    }
    assert!(!scratch.names().contains(&"out".to_owned()));
    scratch.ok(&["map", "-f", "qcow2", "--untrusted", "--max-virtual-size=16T", "huge.qcow2"]);
}

#[test]
fn the_exerciser_keeps_the_same_rules() {
    let scratch = Scratch::new();
    scratch.sparse("base.raw", MIB, &[(0, 4096)]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "huge.qcow2", "9T"]);
    let run = |variable: &str, args: &[&str]| {
        let mut tool = Command::new(scratch.exerciser());
        tool.args(args).current_dir(scratch.path("")).env("CAIRN_UNTRUSTED", variable);
        let output = tool.output().expect("it runs");
        let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned());
        (output.status.success(), said.concat())
    };
    let read = ["-r", "-c", "read -q 0 512"];
    for (args, option) in [
        (&["-f", "qcow2", "--untrusted", "top.qcow2"][..], "--allow-refs"),
        (&["-f", "qcow2", "--allow-refs=none", "top.qcow2"], "--allow-refs"),
        (&["--untrusted", "base.raw"], "--format"),
        (&["-f", "qcow2", "--untrusted", "huge.qcow2"], "--max-virtual-size"),
        (&["-f", "qcow2", "--max-virtual-size=8T", "huge.qcow2"], "--max-virtual-size"),
    ] {
        let (done, said) = run("", &[&read, args].concat());
        assert!(!done && said.contains("refused") && said.contains(option), "{args:?}: {said}");
    }
    let (done, said) = run("1", &[&read[..], &["-f", "qcow2", "top.qcow2"]].concat());
    assert!(!done && said.contains("--allow-refs"), "the environment is heard: {said}");
    // What a command opens is held to the rules as well.
    let open = "open -r -o driver=qcow2 top.qcow2";
    let (done, said) = run("", &["--untrusted", "-c", open]);
    assert!(!done && said.contains("--allow-refs"), "{said}");
    for args in [
        &["-f", "qcow2", "top.qcow2"][..],
        &["-f", "qcow2", "--untrusted", "--allow-refs=same-dir", "top.qcow2"],
        &["-f", "raw", "--untrusted", "base.raw"],
        &["-f", "qcow2", "--untrusted", "--max-virtual-size=16T", "huge.qcow2"],
    ] {
        let (done, said) = run("0", &[&read, args].concat());
        assert!(done, "{args:?}: {said}");
    }
}

#[test]
fn the_verdict_names_all_that_speaks_against_an_image() {
    let scratch = Scratch::new();
    scratch.sparse("plain.raw", MIB, &[(0, 4096)]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "good.qcow2", "1G"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "plain.raw", "-F", "raw", "overlay.qcow2"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "data.qcow2", "1M"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "huge.qcow2", "9T"]);
    bomb(&scratch, "bomb.qcow2");
    std::fs::write(scratch.path("mask.raw"), [b"KDMV".to_vec(), vec![0; 65532]].concat())
        .expect("file");
    for (args, reasons) in [
        (&["plain.raw"][..], &[][..]),
        (&["good.qcow2"], &[]),
        (&["overlay.qcow2"], &["backing-file"]),
        (&["data.qcow2"], &["data-file"]),
        (&["huge.qcow2"], &["virtual-size"]),
        (&["bomb.qcow2"], &["expansion"]),
        (&["-f", "raw", "good.qcow2"], &["format"]),
        (&["mask.raw"], &["format"]),
        (&["--allow-refs=same-dir", "overlay.qcow2"], &[]),
        (&["--max-virtual-size=1M", "good.qcow2"], &["virtual-size"]),
    ] {
        let all: Vec<&str> = ["info", "--untrusted"].iter().chain(args).copied().collect();
        let human = scratch.ok(&all);
        let verdict = if reasons.is_empty() { "safety: safe\n" } else { "safety: unsafe\n" };
        assert!(human.contains(verdict), "{args:?}: {human}");
        let all: Vec<&str> =
            ["info", "--safety", "--output=json"].iter().chain(args).copied().collect();
        let json = scratch.ok(&all);
        let found: Vec<&str> = json
            .lines()
            .filter_map(|line| line.trim().strip_prefix("\"check\": \""))
            .map(|rest| rest.trim_end_matches(',').trim_end_matches('"'))
            .collect();
        assert_eq!(found, reasons, "{args:?}: {json}");
    }
    assert!(!scratch.ok(&["info", "--output=json", "good.qcow2"]).contains("safety"));
}
