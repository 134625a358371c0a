//! Long operations that are killed at any moment, as a crash of the machine's owner would.
//!
//! Whatever is left, nothing that was there before is lost: sources are untouched, images check without
//! errors (leaks are allowed) and show the same, no half-written target has the final name, and the same
//! command, run again, comes to the same end.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::compaction::exercise;
use crate::scratch::Scratch;

/// Times that each command is killed.
const KILLS: u32 = 50;
const MIB: u64 = 1 << 20;

/// Runs a command that is killed `kills` times, each a little later in its course, and after each kill
/// once more to its end. `prepare` puts everything back first; `look` is called after the kill, with
/// whether the command had ended by itself, and after the end.
fn killed(scratch: &Scratch, args: &[&str], prepare: impl Fn(), look: impl Fn(bool)) {
    prepare();
    let started = Instant::now();
    scratch.ok(args);
    let course = started.elapsed();
    look(true);
    let mut ended = 0;
    for kill in 0..KILLS {
        prepare();
        let child = scratch.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the tool runs");
        std::thread::sleep(course.mul_f64(f64::from(kill) / f64::from(KILLS)));
        child.kill().expect("it was not waited for");
        let status = child.wait().expect("it ends");
        ended += u32::from(status.success());
        look(status.success());
        scratch.ok(args);
        look(true);
    }
    assert!(ended < KILLS, "no command was killed before its end");
}

/// Puts back the files that [`keep`] kept.
fn restore(scratch: &Scratch, names: &[&str]) {
    for name in names {
        std::fs::copy(scratch.path(&format!("{name}.kept")), scratch.path(name)).expect("a copy");
    }
}

fn keep(scratch: &Scratch, names: &[&str]) {
    for name in names {
        std::fs::copy(scratch.path(name), scratch.path(&format!("{name}.kept"))).expect("a copy");
    }
}

/// The image must check without errors. The system may hold a killed process's locks for a moment.
fn sound(scratch: &Scratch, image: &str) {
    for _ in 0..100 {
        let output = scratch.run(&["check", "-q", "-f", "qcow2", image]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0 | 3) => return,
            Some(1) if errors.contains("lock") => {
                std::thread::sleep(Duration::from_millis(20));
            }
            code => panic!("check of {image}: {code:?}: {errors}"),
        }
    }
    panic!("{image} stays locked");
}

fn shows(scratch: &Scratch, image: &str, raw: &str) {
    scratch.ok(&["compare", "-q", "-f", "qcow2", "-F", "raw", image, raw]);
}

#[test]
fn conversions() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 48 * MIB, &[(0, 20 << 20), (30 * MIB, 10 << 20)]);
    let source = scratch.content("a.raw");
    for (format, options) in
        [("qcow2", &["-o", "cluster_size=4k"][..]), ("qcow2", &["-c"]), ("raw", &[])]
    {
        let args = [&["convert", "-f", "raw", "-O", format][..], options, &["a.raw", "b"]].concat();
        let remove = || {
            let _ = std::fs::remove_file(scratch.path("b"));
        };
        killed(&scratch, &args, remove, |ended| {
            assert!(scratch.content("a.raw") == source, "the source was changed");
            let there = scratch.path("b").exists();
            assert!(there || !ended, "the target is not there");
            if there {
                scratch.ok(&["compare", "-q", "-f", "raw", "-F", format, "a.raw", "b"]);
            }
        });
        remove();
    }
}

/// `top.qcow2` over `base.qcow2`; `want.raw` is what the former shows, `other.raw` another disk.
fn chain() -> Scratch {
    let scratch = Scratch::new();
    scratch.sparse("base.raw", 40 * MIB, &[(0, 20 << 20), (30 * MIB, 3 << 20)]);
    scratch.sparse("other.raw", 36 * MIB, &[(5 * MIB, 20 << 20), (33 * MIB, 1 << 20)]);
    scratch.sparse("want.raw", 44 * MIB, &[(10 * MIB, 12 << 20), (32 * MIB, 4 << 20)]);
    let convert = ["convert", "-O", "qcow2", "-o", "cluster_size=4k"];
    scratch.ok(&[&convert[..], &["base.raw", "base.qcow2"]].concat());
    let over = ["-B", "base.qcow2", "-F", "qcow2", "want.raw", "top.qcow2"];
    scratch.ok(&[&convert[..], &over].concat());
    scratch
}

#[test]
fn commits() {
    let scratch = chain();
    keep(&scratch, &["base.qcow2", "top.qcow2"]);
    for args in [&["commit", "-q", "top.qcow2"][..], &["commit", "-q", "-d", "top.qcow2"]] {
        killed(
            &scratch,
            args,
            || restore(&scratch, &["base.qcow2", "top.qcow2"]),
            |ended| {
                for image in ["base.qcow2", "top.qcow2"] {
                    sound(&scratch, image);
                }
                shows(&scratch, "top.qcow2", "want.raw");
                if ended {
                    shows(&scratch, "base.qcow2", "want.raw");
                }
            },
        );
    }
}

#[test]
fn rebases() {
    let scratch = chain();
    keep(&scratch, &["top.qcow2"]);
    let below = ["base.qcow2", "other.raw"].map(|name| scratch.content(name));
    for args in [
        &["rebase", "-b", "other.raw", "-F", "raw", "top.qcow2"][..],
        &["rebase", "-b", "", "top.qcow2"],
    ] {
        killed(
            &scratch,
            args,
            || restore(&scratch, &["top.qcow2"]),
            |_| {
                sound(&scratch, "top.qcow2");
                shows(&scratch, "top.qcow2", "want.raw");
                let now = ["base.qcow2", "other.raw"].map(|name| scratch.content(name));
                assert!(now == below, "a backing file was changed");
            },
        );
    }
}

#[test]
fn compactions() {
    for options in [&["-o", "cluster_size=4k"][..], &["-c", "-o", "cluster_size=16k"]] {
        let scratch = Scratch::new();
        scratch.sparse("a.raw", 20 * MIB, &[(0, 12 << 20), (15 * MIB, 2 << 20)]);
        let convert =
            [&["convert", "-f", "raw", "-O", "qcow2"][..], options, &["a.raw", "a.qcow2"]];
        scratch.ok(&convert.concat());
        exercise(&scratch, "a.qcow2", &["discard 0 3M", "write -P 0 4M 1M"]);
        scratch.ok(&["snapshot", "-c", "kept", "a.qcow2"]);
        scratch.ok(&["bitmap", "--add", "a.qcow2", "record"]);
        exercise(&scratch, "a.qcow2", &["write -P 5 10M 1536k", "write -P 6 16M 512k"]);
        let take = |name: &str, snapshot: &[&str]| {
            let (head, tail) = (["convert", "-O", "raw"], ["a.qcow2", name]);
            scratch.ok(&[&head[..], snapshot, &tail].concat());
            scratch.content(name)
        };
        take("want.raw", &[]);
        let snapshot = take("kept.raw", &["-l", "kept"]);
        let before = scratch.content("a.qcow2").len();
        keep(&scratch, &["a.qcow2"]);
        killed(
            &scratch,
            &["compact", "-q", "-f", "qcow2", "a.qcow2"],
            || restore(&scratch, &["a.qcow2"]),
            |ended| {
                sound(&scratch, "a.qcow2");
                shows(&scratch, "a.qcow2", "want.raw");
                assert!(take("now.raw", &["-l", "kept"]) == snapshot, "the snapshot was changed");
                assert!(scratch.ok(&["info", "a.qcow2"]).contains("name: record"), "no bitmap");
                let after = scratch.content("a.qcow2").len();
                assert!(!ended || after < before, "{before} bytes became {after}");
            },
        );
    }
}
