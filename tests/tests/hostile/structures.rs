//! Images whose snapshots, bitmaps, encryption header or header extensions are damaged, and every command
//! that works with those.

use std::fs;
use std::ops::Range;
use std::path::Path;

use cairn_tests::mutate::mutant_within;
use cairn_tests::pattern;
use cairn_tests::process::Limits;
use cairn_tests::qcow2::field;
use cairn_tests::tool::Tool;

use crate::limits::run;
use crate::mutants::keep;

/// Mutants of each kind of structure.
const MUTANTS: u64 = 60;
/// Failures to describe before giving up.
const ENOUGH: usize = 5;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_ENCRYPTION: u32 = 0x0537_be77;

const COMMON: [&str; 6] = [
    "info --output=json disk",
    "check disk",
    "map --output=json disk",
    "check -r all disk",
    "resize -q -f qcow2 disk +1M",
    "amend -f qcow2 -o refcount_bits=64 disk",
];
const SNAPSHOTS: [&str; 7] = [
    "snapshot -l disk",
    "snapshot -c new disk",
    "snapshot -a one disk",
    "snapshot -a 2 disk",
    "snapshot -d one disk",
    "snapshot -d three disk",
    "convert -l two -O raw disk output",
];
const BITMAPS: [&str; 8] = [
    "bitmap --add disk new",
    "bitmap --remove disk one",
    "bitmap --remove-all disk",
    "bitmap --clear disk two",
    "bitmap --disable disk one",
    "bitmap --merge one --merge three disk two",
    "convert -f qcow2 -O qcow2 --bitmaps --skip-broken-bitmaps disk output",
    "measure --output=json -O qcow2 disk",
];
/// How the encrypted image is named. The limit keeps honest work, which is long by design, short.
const ENCRYPTED: &str = "--object secret,id=key,data=letmein --object secret,id=new,data=new --image-opts \
    driver=qcow2,file.filename=disk,encrypt.key-secret=key,encrypt.max-iterations=60000";
const ENCRYPTION: [&str; 8] = [
    "info --output=json disk",
    "check disk",
    "check -r all disk",
    "convert ENCRYPTED -O raw output",
    "map --output=json ENCRYPTED",
    "amend -o encrypt.state=active,encrypt.new-secret=new,encrypt.iter-time=1 ENCRYPTED",
    "amend -o encrypt.state=inactive,encrypt.old-secret=key --force ENCRYPTED",
    "resize ENCRYPTED +1M",
];

/// Runs `commands` on mutants of the image that `recipe`, stock's commands, makes; edits are in the
/// places that `structures` finds.
#[track_caller]
fn damaged(
    name: &str,
    recipe: &[&str],
    structures: fn(&[u8]) -> Vec<Range<usize>>,
    commands: &[&str],
) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let dir = dir.path();
    pattern::write_mixed(&dir.join("source"), 300 * 1024, 5).expect("a source");
    for line in recipe {
        match line.strip_prefix("io ") {
            Some(command) => {
                let args = ["-f", "qcow2", "-c", command, "disk"];
                let done = Tool::stock_io().run_with(dir, args, Limits::default());
                assert_eq!(done.code(), Some(0), "{command}: {}", done.err());
            }
            None => drop(Tool::stock().ok(dir, line)),
        }
    }
    let template = fs::read(dir.join("disk")).expect("the template");
    assert!(template.len() <= 1 << 20, "the memory limit is that of images of at most 1 MiB");
    let places = structures(&template);

    let mut failures = Vec::new();
    for seed in 0..MUTANTS {
        let bytes = mutant_within(&template, &places, seed);
        for command in commands {
            fs::write(dir.join("disk"), &bytes).expect("the mutant");
            let line = command.replace("ENCRYPTED", ENCRYPTED);
            let words: Vec<&str> = line.split_whitespace().collect();
            let (outcome, complaints) = run(dir, &words);
            let _ = fs::remove_file(dir.join("output"));
            if !complaints.is_empty() {
                let kept = keep(name, seed, &bytes);
                let what = complaints.join(", ");
                failures.push(format!("{line} on {kept}: {what}\n{}", outcome.excerpt()));
            }
        }
        if failures.len() >= ENOUGH {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(untouched(dir), fs::read(dir.join("source")).expect("the source"));
}

/// What `source` must still hold: no command may write to anything but the image.
fn untouched(dir: &Path) -> Vec<u8> {
    let again = dir.join("again");
    pattern::write_mixed(&again, 300 * 1024, 5).expect("a source");
    fs::read(again).expect("the source")
}

/// The data of the header extension `kind`, with its type and length.
fn extension(image: &[u8], kind: u32) -> Range<usize> {
    let mut at = field::<u32>(image, 100) as usize;
    while field::<u32>(image, at) != kind {
        assert_ne!(field::<u32>(image, at), 0, "the image has no extension {kind:#x}");
        at += 8 + (field::<u32>(image, at + 4) as usize).next_multiple_of(8);
    }
    at..at + 8 + field::<u32>(image, at + 4) as usize
}

fn offset(image: &[u8], at: usize) -> usize {
    usize::try_from(field::<u64>(image, at) & 0x00ff_ffff_ffff_fe00).expect("a small image")
}

/// The snapshot table, the fields that lead to it, and the first snapshot's L1 table.
fn snapshot_table(image: &[u8]) -> Vec<Range<usize>> {
    let table = offset(image, 64);
    let l1 = offset(image, table);
    vec![60..72, table..table + 200, table..table + 80, l1..l1 + 32]
}

/// The bitmap directory, the extension that leads to it, and the bitmaps' tables.
fn bitmap_directory(image: &[u8]) -> Vec<Range<usize>> {
    let extension = extension(image, EXT_BITMAPS);
    let directory = offset(image, extension.start + 24);
    let len = usize::try_from(field::<u64>(image, extension.start + 16)).expect("a small image");
    let table = offset(image, directory);
    vec![extension, directory..directory + len, table..table + 8]
}

/// The LUKS header, the extension that leads to it, and the field that names the method.
fn encryption_header(image: &[u8]) -> Vec<Range<usize>> {
    let extension = extension(image, EXT_ENCRYPTION);
    let start = offset(image, extension.start + 8);
    vec![extension, start..start + 592, start..start + 260, 32..36]
}

/// All header extensions, and the fields of the header before them.
fn extensions(_: &[u8]) -> Vec<Range<usize>> {
    vec![104..560, 96..112, 72..96]
}

#[test]
fn snapshots() {
    let recipe = [
        "convert -f raw -O qcow2 -o cluster_size=4k source disk",
        "snapshot -c one disk",
        "io write -P 3 20k 90k",
        "snapshot -c two disk",
        "resize -q disk 400k",
        "snapshot -c three disk",
    ];
    let commands = [&COMMON[..], &SNAPSHOTS].concat();
    damaged("snapshots", &recipe, snapshot_table, &commands);
}

#[test]
fn bitmaps() {
    let recipe = [
        "create -q -f qcow2 -o cluster_size=4k -b source -F raw disk",
        "bitmap --add -g 512 disk one",
        "bitmap --add -g 4k disk two",
        "io write -P 3 20k 90k",
        "bitmap --add --disable disk three",
    ];
    let commands = [&COMMON[..], &BITMAPS].concat();
    damaged("bitmaps", &recipe, bitmap_directory, &commands);
}

#[test]
fn encryption() {
    let recipe = ["create -q -f qcow2 --object secret,id=key,data=letmein -o encrypt.format=luks \
         -o encrypt.key-secret=key,encrypt.iter-time=1,encrypt.cipher-alg=aes-128 \
         -o encrypt.cipher-mode=cbc,cluster_size=4k disk 1M"];
    damaged("encryption", &recipe, encryption_header, &ENCRYPTION);
}

#[test]
fn header_extensions() {
    let recipe = [
        "create -q -f qcow2 -o cluster_size=4k,compression_type=zstd -b source -F raw disk",
        "snapshot -c one disk",
        "bitmap --add disk one",
    ];
    let commands = [&COMMON[..], &SNAPSHOTS[..3], &BITMAPS[..4]].concat();
    damaged("extensions", &recipe, extensions, &commands);
}
