//! `compact`: less storage, the same content.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// Runs commands of the exerciser on a qcow2 image.
pub(crate) fn exercise(scratch: &Scratch, image: &str, commands: &[&str]) {
    let program = scratch.exerciser();
    let mut command = Command::new(program);
    command.current_dir(scratch.path("")).stdout(Stdio::null());
    for text in commands {
        command.args(["-c", text]);
    }
    assert!(command.args(["-f", "qcow2", image]).status().expect("it runs").success());
}

fn length(scratch: &Scratch, name: &str) -> u64 {
    std::fs::metadata(scratch.path(name)).expect("there").len()
}

fn digest(scratch: &Scratch, name: &str) -> String {
    scratch.ok(&["checksum", "-f", "qcow2", name])
}

/// An image with holes in its file, zeroes in its data, and little at its end.
fn worn(scratch: &Scratch, name: &str, options: &str) {
    let mut options = options.to_owned();
    if !options.contains("cluster_size") {
        options.push_str(",cluster_size=64k");
    }
    scratch.ok(&["create", "-q", "-f", "qcow2", "-o", &options, name, "64M"]);
    exercise(
        scratch,
        name,
        &[
            "write -P 1 0 16M",
            "write -P 0 16M 8M",
            "write -P 2 24M 8M",
            "discard 2M 12M",
            "write -P 3 40M 1M",
        ],
    );
}

#[test]
fn files_become_as_short_as_their_content_needs() {
    for options in [
        "compat=1.1",
        "compat=0.10",
        "lazy_refcounts=on",
        "extended_l2=on",
        "refcount_bits=1",
        "refcount_bits=64",
    ] {
        let scratch = Scratch::new();
        worn(&scratch, "a.qcow2", options);
        let (before, content) = (length(&scratch, "a.qcow2"), digest(&scratch, "a.qcow2"));
        let told = scratch.ok(&["compact", "-f", "qcow2", "a.qcow2"]);
        assert!(told.contains("8 MiB of zeroes given up"), "{options}: {told}");
        let after = length(&scratch, "a.qcow2");
        // 13 MiB of data and a few tables.
        assert!(after < 14 * MIB && after < before, "{options}: {before} to {after}");
        assert_eq!(digest(&scratch, "a.qcow2"), content, "{options}");
        scratch.same(&["check", "a.qcow2"]);
        assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"), "{options}");
        // Once is enough.
        scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
        assert_eq!(length(&scratch, "a.qcow2"), after, "{options}");
        exercise(&scratch, "a.qcow2", &["write -P 9 0 64M", "read -P 9 0 64M"]);
        assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"), "{options}");
    }
}

#[test]
fn snapshots_and_bitmaps_move_with_the_data() {
    let scratch = Scratch::new();
    worn(&scratch, "a.qcow2", "compat=1.1");
    scratch.ok(&["bitmap", "--add", "-g", "512", "a.qcow2", "early"]);
    scratch.ok(&["snapshot", "-c", "one", "a.qcow2"]);
    exercise(&scratch, "a.qcow2", &["write -P 5 24M 4M", "write -P 6 50M 2M"]);
    scratch.ok(&["snapshot", "-c", "two", "a.qcow2"]);
    exercise(&scratch, "a.qcow2", &["write -P 7 50M 1M", "discard 0 2M"]);
    scratch.ok(&["bitmap", "--add", "-g", "64k", "a.qcow2", "late"]);
    let take = |name: &str, snapshot: &str| {
        scratch.ok(&["convert", "-l", snapshot, "-f", "qcow2", "-O", "raw", "a.qcow2", name]);
        scratch.content(name)
    };
    let (one, two) = (take("one.raw", "one"), take("two.raw", "two"));
    let content = digest(&scratch, "a.qcow2");
    let before = length(&scratch, "a.qcow2");
    let bitmaps = |json: &str| json.matches("\"granularity\"").count();
    scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
    assert!(length(&scratch, "a.qcow2") < before);
    assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"));
    scratch.same(&["check", "a.qcow2"]);
    assert_eq!(digest(&scratch, "a.qcow2"), content);
    assert!(take("one.raw", "one") == one && take("two.raw", "two") == two);
    let info = scratch.ok(&["info", "--output=json", "a.qcow2"]);
    assert_eq!(bitmaps(&info), 2, "{info}");
    assert!(!info.contains("in-use"), "{info}");
    for name in ["one", "two"] {
        scratch.ok(&["snapshot", "-a", name, "a.qcow2"]);
        scratch.ok(&["snapshot", "-d", name, "a.qcow2"]);
        assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"));
    }
}

#[test]
fn compressed_data_moves_too() {
    let scratch = Scratch::new();
    scratch.sparse("a.raw", 16 * MIB, &[(0, 16 << 20)]);
    scratch.ok(&["convert", "-c", "-f", "raw", "-O", "qcow2", "a.raw", "a.qcow2"]);
    scratch.ok(&["snapshot", "-c", "s", "a.qcow2"]);
    exercise(&scratch, "a.qcow2", &["write -P 1 0 4M"]);
    scratch.ok(&["snapshot", "-d", "s", "a.qcow2"]);
    exercise(&scratch, "a.qcow2", &["discard 0 4M"]);
    scratch.ok(&["snapshot", "-c", "t", "a.qcow2"]);
    let content = digest(&scratch, "a.qcow2");
    let before = length(&scratch, "a.qcow2");
    scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
    assert!(length(&scratch, "a.qcow2") <= before);
    assert_eq!(digest(&scratch, "a.qcow2"), content);
    assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"));
    scratch.same(&["check", "a.qcow2"]);
}

#[test]
fn zeroes_in_raw_images_become_holes() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("a.raw"), vec![0u8; 8 << 20]).expect("written");
    scratch.ok(&["compact", "-q", "-f", "raw", "a.raw"]);
    assert_eq!(length(&scratch, "a.raw"), 8 * MIB);
    assert!(scratch.allocated("a.raw") < MIB, "{}", scratch.allocated("a.raw"));
}

#[test]
fn overlays_keep_hiding_their_backing_file() {
    let scratch = Scratch::new();
    scratch.sparse("base.raw", 8 * MIB, &[(0, 8 << 20)]);
    scratch.ok(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"]);
    exercise(&scratch, "top.qcow2", &["write -P 0 0 4M", "write -P 3 4M 1M"]);
    let content = digest(&scratch, "top.qcow2");
    let before = length(&scratch, "top.qcow2");
    scratch.ok(&["compact", "-q", "-f", "qcow2", "top.qcow2"]);
    assert!(length(&scratch, "top.qcow2") < before - 3 * MIB);
    assert_eq!(digest(&scratch, "top.qcow2"), content);
}

#[test]
fn a_signal_leaves_a_valid_image() {
    for signal in [Signal::INT, Signal::KILL] {
        let scratch = Scratch::new();
        worn(&scratch, "a.qcow2", "cluster_size=4k");
        scratch.ok(&["snapshot", "-c", "s", "a.qcow2"]);
        let content = digest(&scratch, "a.qcow2");
        let mut child = scratch
            .command(&["compact", "-q", "-f", "qcow2", "a.qcow2"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool runs");
        std::thread::sleep(Duration::from_millis(60));
        // It may be over already.
        let _ = kill_process(Pid::from_child(&child), signal);
        child.wait().expect("it ends");
        // The kernel may let go of a killed program's locks a moment later.
        let start = Instant::now();
        let status = loop {
            let status = scratch.run(&["check", "a.qcow2"]).status.code();
            if status != Some(1) || start.elapsed() > Duration::from_mins(1) {
                break status;
            }
        };
        assert!(matches!(status, Some(0 | 3)), "{signal:?}: {status:?}");
        assert_eq!(digest(&scratch, "a.qcow2"), content, "{signal:?}");
        scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
        assert_eq!(digest(&scratch, "a.qcow2"), content, "{signal:?}");
    }
}

#[test]
fn encrypted_data_moves_with_its_key() {
    for format in ["luks", "aes"] {
        let scratch = Scratch::new();
        let secret = "secret,id=s,data=hush";
        let options = if format == "luks" {
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
        } else {
            "encrypt.format=aes,encrypt.key-secret=s"
        };
        let create = ["create", "-q", "-f", "qcow2", "--object", secret, "-o", options];
        scratch.ok(&create.iter().chain(&["e.qcow2", "64M"]).copied().collect::<Vec<_>>());
        let image = format!(
            "driver=qcow2,encrypt.format={format},encrypt.key-secret=s,file.filename=e.qcow2"
        );
        let mut command = Command::new(scratch.exerciser());
        command.current_dir(scratch.path("")).stdout(Stdio::null());
        command.args(["--object", secret, "--image-opts"]);
        for text in ["write -P 1 0 12M", "write -P 2 20M 6M", "discard 1M 9M"] {
            command.args(["-c", text]);
        }
        assert!(command.arg(&image).status().expect("it runs").success());
        let digest = || scratch.ok(&["checksum", "--object", secret, "--image-opts", &image]);
        let (content, before) = (digest(), length(&scratch, "e.qcow2"));
        scratch.ok(&["compact", "-q", "--object", secret, "--image-opts", &image]);
        assert!(length(&scratch, "e.qcow2") < before - 8 * MIB, "{format}");
        assert_eq!(digest(), content, "{format}");
        assert!(scratch.ok(&["check", "e.qcow2"]).starts_with("No errors"), "{format}");
    }
}

#[test]
fn metadata_moves_where_data_has_a_file_of_its_own() {
    let scratch = Scratch::new();
    let options = "data_file=d.raw,cluster_size=4k";
    scratch.ok(&["create", "-q", "-f", "qcow2", "-o", options, "m.qcow2", "64M"]);
    exercise(&scratch, "m.qcow2", &["write -P 1 0 40M", "discard 0 20M"]);
    let content = digest(&scratch, "m.qcow2");
    scratch.ok(&["compact", "-q", "-f", "qcow2", "m.qcow2"]);
    assert_eq!(digest(&scratch, "m.qcow2"), content);
    assert!(scratch.ok(&["check", "m.qcow2"]).starts_with("No errors"));
}

/// Place of the only refcount block of an image with little in it.
fn refcount_block(image: &[u8]) -> usize {
    let word = |at: usize| {
        let bytes = image[at..at + 8].try_into().expect("8 bytes");
        usize::try_from(u64::from_be_bytes(bytes)).expect("small")
    };
    word(word(48))
}

#[test]
fn a_damaged_image_is_left_alone() {
    let scratch = Scratch::new();
    worn(&scratch, "a.qcow2", "cluster_size=64k");
    let mut image = scratch.content("a.qcow2");
    // The last cluster counts as free, and would be cut off.
    let (block, clusters) = (refcount_block(&image), image.len() / (64 << 10));
    let last = (0..clusters).rev().find(|at| image[block + at * 2 + 1] != 0).expect("in use");
    image[block + last * 2 + 1] = 0;
    std::fs::write(scratch.path("a.qcow2"), &image).expect("writable");
    let content = digest(&scratch, "a.qcow2");
    let error = scratch.fails(1, &["compact", "-f", "qcow2", "a.qcow2"]);
    assert!(error.contains("repair"), "{error}");
    assert_eq!(digest(&scratch, "a.qcow2"), content);
    assert!(scratch.run(&["check", "-q", "-r", "all", "a.qcow2"]).status.success());
    scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
    assert_eq!(digest(&scratch, "a.qcow2"), content);
}

#[test]
fn leaks_are_given_up() {
    let scratch = Scratch::new();
    worn(&scratch, "a.qcow2", "cluster_size=64k,refcount_bits=64");
    let mut image = scratch.content("a.qcow2");
    let block = refcount_block(&image);
    let clusters = image.len() / (64 << 10);
    let free = (0..clusters).find(|at| image[block + at * 8 + 7] == 0).expect("free");
    // More references than could ever be counted off.
    image[block + free * 8..][..8].copy_from_slice(&(u64::MAX >> 1).to_be_bytes());
    std::fs::write(scratch.path("a.qcow2"), &image).expect("writable");
    let content = digest(&scratch, "a.qcow2");
    scratch.ok(&["compact", "-q", "-f", "qcow2", "a.qcow2"]);
    assert!(length(&scratch, "a.qcow2") < 14 * MIB);
    assert_eq!(digest(&scratch, "a.qcow2"), content);
    assert!(scratch.ok(&["check", "a.qcow2"]).starts_with("No errors"));
}

#[test]
fn what_cannot_be_compacted_is_refused() {
    let scratch = Scratch::new();
    let secret = "secret,id=s,data=hush";
    let luks = ["create", "-q", "-f", "luks", "--object", secret];
    let rest = ["-o", "key-secret=s,iter-time=10", "l.luks", "1M"];
    scratch.ok(&luks.iter().chain(&rest).copied().collect::<Vec<_>>());
    let opened = "driver=luks,key-secret=s,file.filename=l.luks";
    let error = scratch.fails(1, &["compact", "--object", secret, "--image-opts", opened]);
    assert!(error.contains("compacted"), "{error}");
}
