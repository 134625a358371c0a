//! Long operations: progress, and what is left when they do not come to their end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the child is there");
}

/// Waits until `condition` holds.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A conversion that takes far longer than a test.
fn slow_conversion(scratch: &Scratch, target: &str) -> Child {
    scratch.sparse("a.raw", 16 * MIB, &[(0, 16 << 20)]);
    scratch
        .command(&["convert", "-r", "64k", "-f", "raw", "a.raw", target])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs")
}

#[test]
fn an_interrupted_conversion_leaves_no_file() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let scratch = Scratch::new();
        let mut child = slow_conversion(&scratch, "b.raw");
        wait_for("the conversion", || scratch.names().len() > 1);
        assert!(!scratch.names().contains(&"b.raw".to_owned()));
        send(&child, signal);
        assert_eq!(child.wait().expect("it ends").code(), Some(status));
        assert_eq!(scratch.names(), ["a.raw"], "{signal:?}");
    }
}

#[test]
fn a_killed_conversion_leaves_the_old_target_whole() {
    let scratch = Scratch::new();
    scratch.sparse("b.raw", MIB, &[(0, 4096)]);
    let old = scratch.content("b.raw");
    let mut child = slow_conversion(&scratch, "b.raw");
    wait_for("the conversion", || scratch.names().len() > 2);
    send(&child, Signal::KILL);
    child.wait().expect("it ends");
    assert!(scratch.content("b.raw") == old);
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 3 * MIB, &[(0, 3 << 20)]);
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_cairn-img");
    // A second of work, during which the terminal goes away.
    let script = format!("trap '' HUP; exec {program} convert -r 2M -m 1 -f raw a.raw b.raw");
    let mut child =
        command.args(["-c", &script]).current_dir(scratch.path("")).spawn().expect("sh runs");
    wait_for("the conversion", || scratch.names().len() > 1);
    send(&child, Signal::HUP);
    assert!(child.wait().expect("it ends").success());
    assert!(scratch.content("a.raw") == scratch.content("b.raw"));
}

#[test]
fn a_failed_conversion_leaves_the_old_target_whole() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", MIB, &[(0, 4096)]);
    scratch.sparse("b.raw", MIB, &[(4096, 4096)]);
    let old = scratch.content("b.raw");
    // The source cannot be written by others while it is read: it cannot be its own target either.
    scratch.run(&["convert", "a.raw", "a.raw"]);
    scratch.fails(1, &["convert", "-c", "a.raw", "b.raw"]);
    assert!(scratch.content("b.raw") == old);
    assert_eq!(scratch.names(), ["a.raw", "b.raw"]);
}

#[test]
fn a_signal_asks_for_a_report() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 16 * MIB, &[(0, 16 << 20)]);
    let mut child = scratch
        .command(&["convert", "-r", "8M", "-m", "1", "-f", "raw", "a.raw", "b.raw"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    wait_for("the conversion", || scratch.names().len() > 1);
    send(&child, Signal::USR1);
    let mut line = String::new();
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    errors.read_line(&mut line).expect("a report");
    let number = line.strip_prefix("    (").and_then(|rest| rest.strip_suffix("/100%)\n"));
    let percent: f64 = number.and_then(|text| text.parse().ok()).expect("a percentage");
    assert!((0.0..=100.0).contains(&percent), "{line}");
    send(&child, Signal::TERM);
    child.wait().expect("it ends");
}

#[test]
fn progress_is_a_line_or_json() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 8 * MIB, &[(0, 4 << 20)]);
    let text = scratch.ok(&["convert", "-p", "-f", "raw", "a.raw", "b.raw"]);
    assert!(text.starts_with("    (0.00/100%)\r    ("), "{text:?}");
    assert!(text.ends_with("    (100.00/100%)\r    (100.00/100%)\r\n"), "{text:?}");
    assert_eq!(scratch.ok(&["convert", "-pq", "-f", "raw", "a.raw", "b.raw"]), "");

    let json = scratch.ok(&["convert", "--progress=json:1", "-f", "raw", "a.raw", "b.raw"]);
    let last = json.lines().last().expect("lines");
    assert!(last.contains("\"bytes\": 4194304") && last.contains("\"total\": 4194304"), "{last}");

    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" convert --progress=json:7 -f raw a.raw b.raw 7>&1 >/dev/null"])
        .arg(env!("CARGO_BIN_EXE_cairn-img"))
        .current_dir(scratch.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut json = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut json).expect("UTF-8");
    assert!(child.wait().expect("it ends").success());
    assert!(json.lines().count() >= 2 && json.contains("\"percent\": 100"), "{json}");
}
