//! `--dry-run`: everything is looked at, nothing changes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// Content and time of change of every file.
fn state(scratch: &Scratch) -> BTreeMap<String, (Vec<u8>, i64, i64)> {
    let names = scratch.names().into_iter();
    names
        .map(|name| {
            let meta = std::fs::metadata(scratch.path(&name)).expect("there");
            let content = scratch.content(&name);
            (name, (content, meta.mtime(), meta.mtime_nsec()))
        })
        .collect()
}

fn images() -> Scratch {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 4 * MIB, &[(0, 1 << 20)]);
    scratch.ok(&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "base.qcow2"]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"]);
    scratch.ok(&["snapshot", "-c", "kept", "base.qcow2"]);
    scratch.ok(&["bitmap", "--add", "top.qcow2", "b0"]);
    scratch
}

/// The commands, and a part of what they say they would do.
const COMMANDS: [(&[&str], &str); 17] = [
    (&["create", "-f", "qcow2", "new.qcow2", "1G"], "Would create 'new.qcow2'"),
    (&["create", "-f", "raw", "a.raw", "1M"], "in place of"),
    (&["convert", "-f", "raw", "-O", "qcow2", "a.raw", "new.qcow2"], "Would copy 1048576 bytes"),
    (&["convert", "-n", "-f", "raw", "-O", "qcow2", "a.raw", "base.qcow2"], "Would write into"),
    (&["dd", "-f", "raw", "-O", "raw", "bs=1M", "count=2", "if=a.raw", "of=new"], "2097152 bytes"),
    (&["resize", "-f", "qcow2", "base.qcow2", "+1M"], "from 4194304 to 5242880"),
    (&["amend", "-f", "qcow2", "-o", "lazy_refcounts=on", "base.qcow2"], "lazy_refcounts=on"),
    (&["bitmap", "--add", "top.qcow2", "b1"], "Would add bitmap 'b1'"),
    (&["bitmap", "--remove", "top.qcow2", "b0"], "Would remove bitmap 'b0'"),
    (&["commit", "-f", "qcow2", "top.qcow2"], "into 'base.qcow2'"),
    (&["rebase", "-f", "qcow2", "-b", "", "top.qcow2"], "Would copy 1048576 bytes"),
    (&["rebase", "-u", "-f", "qcow2", "-b", "x", "-F", "raw", "top.qcow2"], "'x'"),
    (&["snapshot", "-c", "new", "base.qcow2"], "Would create snapshot 'new'"),
    (&["snapshot", "-d", "kept", "base.qcow2"], "Would delete snapshot 'kept'"),
    (&["snapshot", "-a", "kept", "base.qcow2"], "Would apply snapshot 'kept'"),
    (&["check", "-r", "all", "base.qcow2"], "Would repair 0 leaked"),
    (&["compact", "-f", "raw", "a.raw"], "Would give up"),
];

#[test]
fn rehearsals_change_nothing() {
    let scratch = images();
    let before = state(&scratch);
    for (args, words) in COMMANDS {
        let rehearsed: Vec<&str> = args.iter().copied().chain(["--dry-run"]).collect();
        let told = scratch.ok(&rehearsed);
        assert!(told.contains(words), "{args:?}: {told}");
        assert!(state(&scratch) == before, "{args:?} changed something");
    }
}

#[test]
fn what_is_rehearsed_can_be_done() {
    for (args, _) in COMMANDS {
        let scratch = images();
        scratch.ok(args);
    }
}

#[test]
fn rehearsals_find_the_mistakes() {
    let scratch = images();
    let before = state(&scratch);
    for (args, words) in [
        (&["create", "-f", "qcow2", "-o", "cluster_size=3", "n", "1M"][..], "cluster"),
        (&["create", "-f", "qcow2", "-o", "lazy_refcounts=maybe", "n", "1M"], "maybe"),
        (&["create", "-f", "qcow2", "no/such/dir/n", "1M"], "No such file"),
        (&["convert", "-f", "raw", "-O", "qcow2", "absent.raw", "n"], "absent.raw"),
        (&["convert", "-n", "-f", "qcow2", "-O", "raw", "base.qcow2", "base.qcow2"], "small"),
        (&["resize", "-f", "qcow2", "base.qcow2", "1M"], "--shrink"),
        (&["amend", "-o", "colour=red", "base.qcow2"], "colour"),
        (&["amend", "-o", "refcount_bits=many", "base.qcow2"], "many"),
        (&["bitmap", "--add", "top.qcow2", "b0"], "exists already"),
        (&["bitmap", "--remove", "top.qcow2", "b7"], "b7"),
        (&["commit", "base.qcow2"], "no backing file"),
        (&["rebase", "-b", "absent", "-F", "raw", "top.qcow2"], "absent"),
        (&["snapshot", "-d", "absent", "base.qcow2"], "absent"),
    ] {
        let rehearsed: Vec<&str> = args.iter().copied().chain(["--dry-run"]).collect();
        let line = scratch.fails(1, &rehearsed);
        assert!(line.contains(words), "{args:?}: {line}");
        assert!(state(&scratch) == before, "{args:?} changed something");
    }
}
