//! Conversions that were cut off and go on.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;
const JOURNAL: &str = ".b.resume.journal";
const PART: &str = ".b.resume.part";

/// A source with data, a hole and data.
fn source() -> Scratch {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 32 * MIB, &[(0, 16 << 20), (24 << 20, 8 << 20)]);
    scratch
}

/// Converts slowly, until the journal says that some of it is done, and cuts that off.
fn cut_off(scratch: &Scratch, options: &[&str], signal: Signal) {
    let mut args = vec!["convert", "--resume", "-r", "3M", "-f", "raw"];
    args.extend(options);
    args.extend(["a.raw", "b"]);
    let mut child: Child = scratch
        .command(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tool runs");
    let start = Instant::now();
    while done(scratch) == 0 {
        assert!(start.elapsed() < Duration::from_mins(1), "nothing is recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), signal).expect("it runs");
    child.wait().expect("it ends");
}

/// What the journal says is done, in bytes.
fn done(scratch: &Scratch) -> u64 {
    let text = std::fs::read_to_string(scratch.path(JOURNAL)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("\"done\": "));
    line.and_then(|number| number.trim_end_matches(',').parse().ok()).unwrap_or(0)
}

/// Goes on. Returns the bytes that were left to copy, as progress shows them.
fn go_on(scratch: &Scratch, options: &[&str]) -> u64 {
    let mut args = vec!["convert", "--resume", "--progress=json:1", "-f", "raw"];
    args.extend(options);
    args.extend(["a.raw", "b"]);
    // The kernel may let go of a killed program's locks a moment later.
    let start = Instant::now();
    let output = loop {
        let output = scratch.run(&args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            break output;
        }
        let waits = errors.contains("lock") && start.elapsed() < Duration::from_mins(1);
        assert!(waits, "{errors}");
    };
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let last = text.lines().last().expect("progress");
    let total = last.split("\"total\": ").nth(1).expect("a total");
    total.split([',', '}']).next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn a_killed_conversion_goes_on() {
    for options in [&["-O", "raw"][..], &["-O", "qcow2"], &["-c", "-O", "qcow2", "-W"]] {
        let scratch = source();
        cut_off(&scratch, options, Signal::KILL);
        assert_eq!(scratch.names(), [JOURNAL, PART, "a.raw"], "{options:?}");
        let left = go_on(&scratch, options);
        assert!(left < 24 * MIB && left > 0, "{options:?}: {left}");
        assert_eq!(scratch.names(), ["a.raw", "b"]);
        let same = scratch.run(&["compare", "-f", "raw", "a.raw", "b"]);
        assert!(same.status.success(), "{options:?}");
        if options.contains(&"qcow2") {
            assert!(scratch.ok(&["check", "b"]).starts_with("No errors"), "{options:?}");
        }
    }
}

#[test]
fn what_was_not_recorded_counts_for_nothing() {
    let scratch = source();
    cut_off(&scratch, &["-O", "raw"], Signal::INT);
    // As a power cut may leave it: anything behind what is durable.
    let mut part = std::fs::OpenOptions::new().write(true).open(scratch.path(PART)).expect("there");
    for offset in [done(&scratch), 20 * MIB, 30 * MIB] {
        part.seek(SeekFrom::Start(offset)).expect("seekable");
        part.write_all(&[0xee; 5000]).expect("writable");
    }
    drop(part);
    go_on(&scratch, &["-O", "raw"]);
    assert!(scratch.content("a.raw") == scratch.content("b"));
}

#[test]
fn another_conversion_is_refused() {
    let scratch = source();
    cut_off(&scratch, &["-O", "raw"], Signal::TERM);
    let resume = ["convert", "--resume", "-f", "raw", "-O"];
    let args = |format| [&resume[..], &[format, "a.raw", "b"]].concat();
    let error = scratch.fails(1, &args("qcow2"));
    assert!(error.contains("other options") && error.contains(PART), "{error}");
    let mut file =
        std::fs::OpenOptions::new().write(true).open(scratch.path("a.raw")).expect("there");
    file.write_all(b"changed").expect("writable");
    drop(file);
    let error = scratch.fails(1, &args("raw"));
    assert!(error.contains("changed") && error.contains(JOURNAL), "{error}");
    assert_eq!(scratch.names(), [JOURNAL, PART, "a.raw"], "what was done is kept");
    for name in [JOURNAL, PART] {
        std::fs::remove_file(scratch.path(name)).expect("removable");
    }
    scratch.ok(&args("raw"));
    assert!(scratch.content("a.raw") == scratch.content("b"));
}

#[test]
fn a_target_without_its_journal_begins_anew() {
    let scratch = source();
    cut_off(&scratch, &["-O", "qcow2"], Signal::KILL);
    std::fs::remove_file(scratch.path(JOURNAL)).expect("removable");
    // A record that was not finished.
    std::fs::write(scratch.path(&format!("{JOURNAL}.new")), "{").expect("writable");
    assert_eq!(go_on(&scratch, &["-O", "qcow2"]), 24 * MIB);
    assert_eq!(scratch.names(), ["a.raw", "b"]);
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let scratch = source();
    scratch.ok(&["create", "-q", "-f", "raw", "t.raw", "32M"]);
    std::os::unix::fs::symlink("nowhere", scratch.path("dangling")).expect("a link");
    for (args, words) in [
        (&["-n", "a.raw", "t.raw"][..], "--no-create"),
        (&["-t", "unsafe", "a.raw", "b"], "flushes"),
        (&["a.raw", "dangling"], "plain file"),
        (&["json:{\"file\":{\"driver\":\"null-co\",\"size\":65536}}", "b"], "no local file"),
    ] {
        let all: Vec<&str> =
            ["convert", "--resume", "-f", "raw"].iter().chain(args).copied().collect();
        let error = scratch.fails(1, &all);
        assert!(error.contains(words), "{args:?}: {error}");
    }
    assert_eq!(scratch.names(), ["a.raw", "dangling", "t.raw"]);
}
