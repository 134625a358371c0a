//! `cairn-io` as scripts see it: the same lines and the same exit status as the reference's tool.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::scratch::Scratch;

/// One run of both tools, each in a directory of its own that was prepared alike.
struct Case {
    prepare: &'static [&'static str],
    args: Vec<String>,
    input: &'static str,
}

const QCOW2: &str = "qemu-img create -q -f qcow2 a.qcow2 4M";
const RAW: &str = "qemu-img create -q -f raw a.raw 1M";

/// The arguments for `commands`, then `rest` split at blanks.
fn arguments(commands: &[&str], rest: &str) -> Vec<String> {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    commands.chain(rest.split_whitespace()).map(str::to_owned).collect()
}

impl Case {
    fn new(prepare: &'static [&'static str], commands: &[&str], rest: &str) -> Case {
        Case { prepare, args: arguments(commands, rest), input: "" }
    }

    fn run(&self, program: &Path, scratch: &Scratch) -> Output {
        for step in self.prepare {
            let mut shell = Command::new("bash");
            let done = shell.args(["-c", step]).current_dir(scratch.path("")).status();
            assert!(done.expect("bash runs").success(), "{step}");
        }
        let mut tool = Command::new(program);
        tool.args(&self.args).current_dir(scratch.path(""));
        let mut child = tool
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool, which `cargo xtask test` installs where it is the reference's");
        let mut stdin = child.stdin.take().expect("piped");
        // A tool that needs no input may be gone already.
        let _ = std::io::Write::write_all(&mut stdin, self.input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the tool ends")
    }

    /// Both tools print the same on standard output, but for times, and end alike.
    #[track_caller]
    fn same(&self) -> String {
        let (ours, stock) = (Scratch::new(), Scratch::new());
        let found = self.run(&ours.exerciser(), &ours);
        let expected = self.run(Path::new("qemu-io"), &stock);
        let out = without_times(&String::from_utf8_lossy(&found.stdout));
        assert_eq!(
            out,
            without_times(&String::from_utf8_lossy(&expected.stdout)),
            "{:?}\n{}",
            self.args,
            String::from_utf8_lossy(&found.stderr)
        );
        assert_eq!(found.status, expected.status, "{:?}", self.args);
        out
    }
}

/// What is left of a report without the figures that no two runs share.
fn without_times(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" ops; ") {
        Some((count, _)) => format!("{count} ops"),
        None => match line.split(',').collect::<Vec<_>>()[..] {
            [bytes, operations, time, _, _] if time.contains(':') => {
                format!("{bytes},{operations}")
            }
            _ => line.to_owned(),
        },
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn same(prepare: &'static [&'static str], commands: &[&str], rest: &str) -> String {
    Case::new(prepare, commands, rest).same()
}

#[test]
fn reads_and_writes() {
    same(
        &[QCOW2],
        &[
            "write 64k 64k",
            "read 64k 64k",
            "read -C 0 512",
            "read -P 1 0 4k",
            "read -P 0xcd -s 512 -l 512 64k 2k",
            "read -v 65535 33",
            "read -vq 0 16",
            "writev -P 7 0 512 1k",
            "readv -P 7 0 1k 512",
            "write -z -u 64k 64k",
            "write -q -P 9 1M 1000",
            "read -P 9 1M 1000",
            "write -c 2M 64k",
            "write -f 0 512",
            "map",
            "alloc 0 4M",
            "length",
        ],
        "a.qcow2",
    );
}

#[test]
fn mistakes_have_the_words_that_scripts_look_for() {
    same(
        &[RAW],
        &[
            "foo",
            "read",
            "read 0",
            "read x 1",
            "read 0 x",
            "read 0 3G",
            "write 0 3G",
            "read 0 9223372036854775808",
            "read 4M 512",
            "read -P x 0 1",
            "read -P 300 0 1",
            "read -P 1 -s 5 -l 20 0 10",
            "write -z -P 1 0 1",
            "write -u 0 512",
            "write -n 0 512",
            "write -b -z 0 512",
            "write -f -c 0 512",
            "write -c 100 100",
            "write -c 0 512",
            "write -b 0 512",
            "read -b 0 100",
            "readv 0 3G",
            "readv 0 2G 2G",
            "aio_write -z 0 512 512",
            "alloc -1",
            "discard 8M 1",
            "sleep x",
            "zone_report 0 1",
            "break write_aio A",
            "resume A",
            "remove_break A",
            "help foo",
        ],
        "-f raw a.raw",
    );
}

#[test]
fn requests_in_the_background_report_when_they_end() {
    same(
        &[QCOW2],
        &[
            "aio_write -P 5 0 64k",
            "aio_flush",
            "aio_read -P 5 0 64k",
            "aio_flush",
            "aio_read -P 6 0 512",
            "aio_flush",
            "aio_read 8M 512",
            "aio_flush",
            "aio_write 8M 512",
            "aio_flush",
            "aio_read -i 0 512",
            "aio_write -i 0 512",
        ],
        "a.qcow2",
    );
}

#[test]
fn images_are_opened_described_and_resized() {
    same(
        &[QCOW2, RAW],
        &[
            "length",
            "open -r a.qcow2",
            "info",
            "write 0 512",
            "reopen -w",
            "write 0 512",
            "reopen -r",
            "write 0 512",
            "open a.raw",
            "close",
            "open -o driver=raw,file.filename=a.raw",
            "info",
            "truncate 512",
            "map",
            "truncate 600",
            "length",
            "alloc 600",
            "close",
            "open -s -o driver=raw a.raw",
            "write -P 3 0 512",
            "info",
        ],
        "",
    );
    same(&[RAW], &["info", "map"], "-f file a.raw");
}

#[test]
fn scripts_on_standard_input_see_a_prompt() {
    let input = "read 0 512\n\n  \nfoo\nread x 0\n read   0 512\nlength\nquit\nlength\n";
    let out = Case { prepare: &[QCOW2], args: arguments(&[], "a.qcow2"), input }.same();
    assert!(out.starts_with("qemu-io> read 512/512 bytes at offset 0\n"), "{out}");
    Case { prepare: &[], args: Vec::new(), input: "length" }.same();
}

#[test]
fn signals_and_crashes_end_the_program_as_they_do() {
    same(&[RAW], &["write 0 512", "sigraise 9"], "-f raw a.raw");
    same(&[RAW], &["write 0 512", "abort"], "-f raw a.raw");
    same(&[RAW], &["quit", "sigraise 9"], "-f raw a.raw");
}

#[test]
fn blkdebug_fails_what_its_rules_say() {
    let config = &["write 0 64k", "write 0 64k", "read 0 64k"];
    same(
        &[QCOW2, "printf '[inject-error]\nevent = \"write_aio\"\nonce = \"on\"\n' > c"],
        config,
        "-f qcow2 blkdebug:c:a.qcow2",
    );
    same(&[QCOW2], config, "-f qcow2 blkdebug::a.qcow2");
    let states = "driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,\
        file.inject-error.0.event=write_aio,file.inject-error.0.state=3,\
        file.set-state.0.event=write_aio,file.set-state.0.state=1,file.set-state.0.new_state=2,\
        file.set-state.1.event=write_aio,file.set-state.1.state=2,file.set-state.1.new_state=3";
    let open = format!("open -o {states}");
    same(&[QCOW2], &[&open, "write 0 64k", "write 0 64k", "write 0 64k", "write 0 64k"], "");
    let sector = "open -o driver=raw,file.driver=blkdebug,file.image.filename=a.raw,\
        file.inject-error.0.event=none,file.inject-error.0.sector=4";
    same(&[RAW], &[sector, "read 0 2k", "read 2k 512", "write 0 4k", "read 4k 4k"], "");
    let kind = "open -o driver=raw,file.driver=blkdebug,file.image.filename=a.raw,\
        file.inject-error.0.event=none,file.inject-error.0.iotype=write";
    same(&[RAW], &[kind, "read 0 2k", "write 0 2k", "discard 0 64k", "write -z 0 64k"], "");
    let limits = "open -o driver=raw,file.driver=blkdebug,file.image.filename=a.raw,\
        file.align=4k,file.opt-write-zero=64k,file.max-write-zero=128k,file.max-transfer=16k";
    same(
        &[RAW],
        &[limits, "write 1 1", "write -z 0 1M", "write -P 3 100 100k", "read -P 3 100 100k"],
        "",
    );
    let below = "open -o driver=blkdebug,image.driver=qcow2,align=512 blkdebug::a.qcow2";
    same(&[QCOW2], &[below, "write -P 4 100 1000", "read -P 4 100 1000", "map"], "");
    let odd = "open -o driver=raw,file.driver=blkdebug,file.image.filename=a.raw,\
        file.align=512,file.opt-write-zero=3k,file.max-write-zero=6k,file.opt-discard=5k";
    same(
        &[RAW],
        &[odd, "write -P 4 0 1M", "write -z 700 100k", "discard 1 200k", "read -P 4 300k 4k"],
        "",
    );
}

#[test]
fn breakpoints_stop_requests_until_they_are_resumed() {
    let open = "open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2";
    let out = same(
        &[QCOW2],
        &[
            open,
            "break write_aio A",
            "aio_write -P 1 0 64k",
            "wait_break A",
            "read 1M 512",
            "resume A",
            "aio_flush",
            "read -P 1 0 64k",
            "resume B",
            "break foo A",
            "remove_break A",
        ],
        "",
    );
    assert!(out.starts_with("blkdebug: Suspended request 'A'\nread 512/512"), "{out}");
}

/// Three copies, of which the second has other bytes at its start.
const COPIES: &[&str] = &[
    RAW,
    "cp a.raw c.raw",
    "cp a.raw b.raw; printf x >> b.raw",
    "(printf wrong; tail -c +6 a.raw) > b.raw",
];
const QUORUM: &str = "driver=quorum,children.0.driver=raw,children.0.file.filename=a.raw,\
    children.1.driver=raw,children.1.file.filename=b.raw,\
    children.2.driver=raw,children.2.file.filename=c.raw";

#[test]
fn a_quorum_votes_and_mends() {
    same(COPIES, &["read -P 0 0 64k"], &format!("--image-opts {QUORUM},vote-threshold=2"));
    same(COPIES, &["read -P 0 0 64k"], &format!("--image-opts {QUORUM},vote-threshold=3"));
    let mending = format!("--image-opts {QUORUM},vote-threshold=2,rewrite-corrupted=on");
    same(COPIES, &["read -P 0 0 64k", "write -P 4 64k 64k"], &mending);

    let scratch = Scratch::new();
    let case = Case::new(COPIES, &["read -P 0 0 64k"], &mending);
    assert!(case.run(&scratch.exerciser(), &scratch).status.success());
    assert_eq!(scratch.content("b.raw"), scratch.content("a.raw"));
    let plain =
        Case::new(COPIES, &["read -P 0 0 64k"], &format!("--image-opts {QUORUM},vote-threshold=2"));
    assert!(plain.run(&scratch.exerciser(), &scratch).status.success());
    assert!(scratch.content("b.raw").starts_with(b"wrong"));
}

#[test]
fn other_filters_pass_data_through_in_their_way() {
    const OVERLAY: &[&str] = &[
        RAW,
        "qemu-io -f raw -c 'write -P 7 0 1M' a.raw > /dev/null",
        "qemu-img create -q -f qcow2 -b a.raw -F raw o.qcow2",
    ];
    let steps = ["read -P 7 64k 1k", "map", "read -P 7 100k 200k", "map", "info"];
    same(OVERLAY, &steps, "-C -f qcow2 o.qcow2");
    same(
        OVERLAY,
        &steps,
        "--image-opts driver=copy-on-read,file.driver=qcow2,file.file.filename=o.qcow2",
    );
    same(
        &[QCOW2],
        &["write -P 7 0 64k", "read -P 7 0 64k", "map"],
        "--image-opts driver=compress,file.driver=qcow2,file.file.filename=a.qcow2",
    );
    same(
        &[QCOW2],
        &["write -P 7 0 64k", "length"],
        "--image-opts driver=qcow2,file.driver=preallocate,file.file.filename=a.qcow2",
    );
    same(
        &[RAW, QCOW2, "truncate -s 4M a.raw"],
        &["write -P 3 0 64k", "read -P 3 0 64k"],
        "--image-opts driver=blkverify,raw.filename=a.raw,test.driver=qcow2,\
         test.file.filename=a.qcow2",
    );
    same(
        &[RAW],
        &["write -P 7 0 64k", "read -P 7 0 64k"],
        "--object throttle-group,id=g,x-iops-total=1000 \
         --image-opts driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=a.raw",
    );
}

#[test]
fn a_difference_between_the_images_of_blkverify_fails_the_read() {
    let scratch = Scratch::new();
    let case = Case::new(
        &[RAW, "(printf x; tail -c +2 a.raw) > b.raw"],
        &["read 4k 4k", "read 0 4k"],
        "--image-opts driver=blkverify,raw.filename=a.raw,test.filename=b.raw",
    );
    let output = case.run(&scratch.exerciser(), &scratch);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("read 4096/4096") && out.ends_with("read failed: Input/output error\n"));
}

#[test]
fn preallocated_space_is_cut_off_at_the_end() {
    let scratch = Scratch::new();
    let case = Case::new(
        &["truncate -s 0 a"],
        &["truncate 0", "write -z 0 0", "truncate 64k", "write 0 64k", "length"],
        "--image-opts driver=preallocate,file.filename=a,prealloc-size=1M",
    );
    let output = case.run(&scratch.exerciser(), &scratch);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(scratch.content("a").len(), 64 << 10);
}

/// The little-endian number at `at`.
fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[test]
fn the_log_of_writes_is_the_reference_s() {
    const STEPS: &[&str] = &["write -P 1 0 4k", "flush", "write -P 2 -f 4k 1k", "discard 0 64k"];
    const FILTER: &str = "--image-opts driver=blklogwrites,file.driver=raw,\
        file.file.filename=a.raw,log.filename=log";
    same(&[RAW, "truncate -s 1M log"], STEPS, FILTER);
    let scratch = Scratch::new();
    let case = Case::new(&[RAW, "truncate -s 1M log"], STEPS, FILTER);
    assert!(case.run(&scratch.exerciser(), &scratch).status.success());
    let log = scratch.content("log");
    assert_eq!(&log[..8], b"rhswfsj\0");
    assert_eq!((number(&log, 8), number(&log, 24)), (1, 512));
    assert!(number(&log, 16) >= 4);
    // The first entry: 8 sectors at 0, then the data.
    let first: Vec<u64> = (0..4).map(|field| number(&log, 512 + 8 * field)).collect();
    assert_eq!((first[0], first[1], first[3]), (0, 8, 4096));
    assert!(log[1024..1024 + 4096].iter().all(|byte| *byte == 1));

    // Appended to, the log goes on behind its last entry.
    let entries = number(&log, 16);
    let append = Case::new(&[], &["write -P 3 0 512"], &format!("{FILTER},log-append=on"));
    assert!(append.run(&scratch.exerciser(), &scratch).status.success());
    let longer = scratch.content("log");
    assert!(number(&longer, 16) > entries);
    assert_eq!(longer[512..5632], log[512..5632]);
}

#[test]
fn options_change_while_an_image_is_open() {
    same(
        &[QCOW2],
        &[
            "reopen -o lazy-refcounts=on,pass-discard-request=on",
            "reopen -o lazy-refcounts=off,pass-discard-snapshot=off,pass-discard-other=on",
            "reopen -o overlap-check=all",
            "reopen -o overlap-check.template=constant",
            "reopen -o overlap-check.inactive-l2=on",
            "reopen -o cache-size=1M",
            "reopen -o l2-cache-size=512k",
            "reopen -o l2-cache-entry-size=512",
            "reopen -o refcount-cache-size=256k",
            "reopen -o cache-clean-interval=5",
            "write -P 55 0 3M",
            "read -P 55 0 3M",
            "discard 0 3M",
            "read -P 0 0 3M",
            "reopen -c none",
            "write -P 3 1000 3000",
            "reopen -o cache.direct=off",
            "read -P 3 1000 3000",
            "reopen -o l2-cache-entry-size=33k",
            "reopen -o overlap-check=blubb",
        ],
        "a.qcow2",
    );
    for words in [
        "node-name=foo a.qcow2|node-name=foo",
        "file.node-name=foo a.qcow2|file.node-name=foo",
        "file.node-name=foo a.qcow2|file.node-name=bar",
        "driver=qcow2 a.qcow2|driver=qcow2,file.driver=file",
        "driver=qcow2 a.qcow2|file.driver=raw",
        "node-name=foo a.qcow2|",
    ] {
        let (open, reopen) = words.split_once('|').expect("two parts");
        let reopen =
            if reopen.is_empty() { "reopen".to_owned() } else { format!("reopen -o {reopen}") };
        same(&[QCOW2], &[&format!("open -o {open}"), &reopen, "write 0 64k"], "");
    }
}

#[test]
fn errors_injected_on_the_way_fail_the_request() {
    const IMAGE: &str = "qemu-img create -q -f qcow2 -o cluster_size=1k a.qcow2 1G";
    for event in [
        "l1_update",
        "l2_update",
        "l2_alloc_write",
        "write_aio",
        "refblock_load",
        "refblock_update_part",
        "refblock_alloc",
        "cluster_alloc",
    ] {
        for machine_state in ["", "-b "] {
            let rule = format!(
                "printf '[inject-error]\\nevent = \"{event}\"\\nerrno = \"28\"\\nonce = \"on\"\\n' \
                 > rules"
            );
            // So that an entry changes in a table that is there.
            let before = format!("qemu-io -c 'write {machine_state}0 512' a.qcow2 > /dev/null");
            let before = if event == "l2_update" { before } else { "true".to_owned() };
            let steps = [IMAGE, before.leak() as &'static str, rule.leak()];
            let prepare: &'static [&'static str] = Box::leak(Box::new(steps));
            let write = format!("write {machine_state}0 128k");
            let out = same(prepare, &[&write], "blkdebug:rules:a.qcow2");
            assert_eq!(out, "write failed: No space left on device", "{event}");
        }
    }
}

#[test]
fn errors_beside_the_data_of_new_clusters_fail_the_write() {
    let rules: &'static [&'static str] = &[
        QCOW2,
        "printf '[inject-error]\nevent = \"cluster_alloc_space\"\nerrno = \"28\"\nonce = \"on\"\n' \
         > rules",
    ];
    for write in ["write 0 512", "write 1000 100k", "write 64k 100k"] {
        let out = same(rules, &[write], "blkdebug:rules:a.qcow2");
        assert_eq!(out, "write failed: No space left on device", "{write}");
    }
    let out = same(rules, &["write 64k 64k"], "blkdebug:rules:a.qcow2");
    assert!(out.starts_with("wrote"), "there is nothing beside the data: {out}");
}
