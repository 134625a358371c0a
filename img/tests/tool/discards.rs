//! Storage that discards give back, as much as with the reference.

use std::process::{Command, Stdio};

use crate::scratch::Scratch;

/// Bytes by which the storage in use may differ: tables lie elsewhere.
const SLACK: u64 = 512 << 10;

/// Runs `lines` of the shell in a directory of its own, with our tools or the reference's; returns the
/// storage that the image `a` uses afterwards.
fn used(ours: bool, lines: &[String]) -> u64 {
    let scratch = Scratch::new();
    let path = std::env::var("PATH").expect("a search path");
    let path = if ours {
        let bin = scratch.exerciser();
        format!("{}:{path}", bin.parent().expect("a directory").display())
    } else {
        path
    };
    for line in lines {
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).current_dir(scratch.path("")).env("PATH", &path);
        let output = shell.stdin(Stdio::null()).output().expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("failed"), "{line}: {said}{errors}");
    }
    scratch.allocated("a")
}

/// Both tools leave the same in use. Returns how much that is.
fn same(lines: &[&str]) -> u64 {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let (found, expected) = (used(true, &lines), used(false, &lines));
    assert!(found.abs_diff(expected) <= SLACK, "{found} instead of {expected}: {lines:?}");
    found
}

const MIB: u64 = 1 << 20;

#[test]
fn discards_of_requests() {
    for (options, expected) in [
        ("pass-discard-request=on", 4 * MIB),
        ("pass-discard-request=off", 8 * MIB),
        ("discard-no-unref=on", 4 * MIB),
        ("discard-no-unref=on,pass-discard-request=off", 8 * MIB),
        ("pass-discard-snapshot=off,pass-discard-other=on", 4 * MIB),
    ] {
        let io = format!(
            "qemu-io -c 'write -P 1 0 8M' -c 'discard 0 4M' -c 'read -P 0 0 4M' -c 'read -P 1 4M 4M' \
             --image-opts driver=qcow2,{options},file.discard=unmap,file.filename=a"
        );
        let found = same(&["qemu-img create -q -f qcow2 a 16M", &io, "qemu-img check -q a"]);
        assert!(found.abs_diff(expected) <= SLACK, "{options}: {found}");
    }
}

#[test]
fn snapshots_that_are_deleted() {
    for (options, expected) in
        [("pass-discard-snapshot=on", 4 * MIB), ("pass-discard-snapshot=off", 8 * MIB)]
    {
        let delete = format!(
            "qemu-img snapshot --image-opts -d one \
             driver=qcow2,{options},file.discard=unmap,file.filename=a"
        );
        let found = same(&[
            "qemu-img create -q -f qcow2 a 16M",
            "qemu-io -c 'write -P 1 0 4M' a",
            "qemu-img snapshot -c one a",
            "qemu-io -c 'write -P 2 0 4M' a",
            &delete,
            "qemu-img check -q a",
            "qemu-io -c 'read -P 2 0 4M' a",
        ]);
        assert!(found.abs_diff(expected) <= SLACK, "{options}: {found}");
    }
}
