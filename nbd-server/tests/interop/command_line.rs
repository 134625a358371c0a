//! Options: what is refused, and what depends on the name of the program.

use crate::server::{Lab, ours};

#[track_caller]
fn refused(lab: &Lab, args: &[&str], words: &str) {
    let output = lab.output(&ours(), args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.starts_with("cairn-nbd: ") && said.lines().count() == 1, "{args:?}: {said}");
    assert!(said.contains(words), "{args:?}: {said}");
}

#[test]
fn mistakes_are_named_in_one_line() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "raw", "disk", "1M"]);
    let long = "x".repeat(4097);
    for (args, words) in [
        (&[][..], "no image"),
        (&["disk", "disk"], "more than one"),
        (&["-k", "relative", "disk"], "absolute"),
        (&["-k", "/s", "-p", "1", "disk"], "--port"),
        (&["-p", "0", "disk"], "the port"),
        (&["-p", "65536", "disk"], "the port"),
        (&["-e", "-1", "disk"], "the number of clients"),
        (&["-o", "1k", "disk"], "the offset"),
        (&["--handshake-limit", "x", "disk"], "the handshake limit"),
        (&["-x", &long, "disk"], "4096"),
        (&["-D", &long, "disk"], "4096"),
        (&["--cache", "none", "--cache", "none", "disk"], "once"),
        (&["-n", "--cache", "none", "disk"], "--nocache"),
        (&["--cache", "fast", "disk"], "'fast'"),
        (&["--aio", "fast", "disk"], "'fast'"),
        (&["--discard", "fast", "disk"], "'fast'"),
        (&["--detect-zeroes", "fast", "disk"], "'fast'"),
        (&["--detect-zeroes", "unmap", "disk"], "--discard=unmap"),
        (&["--image-opts", "-f", "raw", "disk"], "--format"),
        (&["--tls-authz", "a", "disk"], "--tls-creds"),
        (&["-L", "disk"], "takes no image"),
        (&["-L", "-x", "a"], "options of images"),
        (&["-L", "--fork"], "--fork"),
        (&["-d"], "the device"),
        (&["-d", "/dev/sda"], "'/dev/sda'"),
        (&["-c", "/dev/nbd0", "--tls-creds", "a", "disk"], "TLS"),
        (&["--selinux-label", "l", "disk"], "--socket"),
        (&["-B", "none", "-f", "raw", "-k", "/tmp/x", "disk"], "bitmap 'none'"),
        (&["-o", "9999999", "-f", "raw", "-k", "/tmp/x", "disk"], "offset 9999999"),
        (&["--frobnicate", "disk"], "'--frobnicate'"),
    ] {
        refused(&lab, args, words);
    }
}

#[test]
fn other_machines_are_let_in_only_if_asked_for() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "raw", "disk", "1M"]);
    refused(&lab, &["-b", "0.0.0.0", "-p", "10999", "-f", "raw", "disk"], "--insecure");
}

#[test]
fn numbers_are_read_as_the_reference_reads_them() {
    let lab = Lab::new();
    lab.run("qemu-img", &["create", "-q", "-f", "raw", "disk", "1M"]);
    // Blanks in front, as virtnbdbackup gives them.
    let server =
        lab.serve(&ours(), &["-t", "-e 2", "--handshake-limit", " 5", "-f", "raw", "disk"]);
    assert!(lab.run("nbdinfo", &[&server.uri("")]).contains("can_multi_conn: true"));
    server.stop();
}

#[test]
fn help_and_version_are_what_programs_look_for() {
    let lab = Lab::new();
    let version = lab.output(&lab.ours_as_stock(), &["--version"]);
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.starts_with("qemu-nbd version 10.0.2 "), "{version}");
    let help = lab.output(&lab.ours_as_stock(), &["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in [
        "--help",
        "--version",
        "--port",
        "--bind",
        "--socket",
        "--shared",
        "--persistent",
        "--verbose",
        "--export-name",
        "--description",
        "--handshake-limit",
        "--offset",
        "--allocation-depth",
        "--bitmap",
        "--list",
        "--object",
        "--tls-creds",
        "--tls-authz",
        "--tls-hostname",
        "--trace",
        "--fork",
        "--pid-file",
        "--selinux-label",
        "--connect",
        "--disconnect",
        "--format",
        "--read-only",
        "--snapshot",
        "--load-snapshot",
        "--nocache",
        "--cache",
        "--aio",
        "--discard",
        "--detect-zeroes",
        "--image-opts",
    ] {
        assert!(help.contains(option), "{option}");
    }
}
