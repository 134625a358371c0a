//! Two thousand damaged images, each inspected, checked, mapped and converted.

use std::fs;
use std::path::Path;

use cairn_tests::mutate::mutant;
use cairn_tests::pattern;
use cairn_tests::tool::Tool;

use crate::limits::run;

/// Mutants of one template; with twelve templates more than two thousand.
const MUTANTS: u64 = 168;
const COMMANDS: [&[&str]; 4] = [
    &["info", "--output=json", "disk"],
    &["check", "disk"],
    &["map", "--output=json", "disk"],
    &["convert", "-O", "raw", "disk", "output"],
];
/// Failures to describe before giving up on a template.
const ENOUGH: usize = 5;

/// Declares one test a template: the stock commands that make it from the raw file `source`.
macro_rules! templates {
    ($($name:ident: [$($command:literal),+];)+) => {
        $(
            #[test]
            fn $name() {
                mutants_of(stringify!($name), &[$($command),+]);
            }
        )+
    };
}

templates! {
    raw: ["convert -f raw -O raw source disk"];
    version_3: ["convert -f raw -O qcow2 -o cluster_size=4k source disk"];
    version_2: ["convert -f raw -O qcow2 -o compat=0.10,cluster_size=4k source disk"];
    default_clusters: ["convert -f raw -O qcow2 source disk"];
    clusters_of_512: ["convert -f raw -O qcow2 -o cluster_size=512 source disk"];
    extended_l2: ["convert -f raw -O qcow2 -o extended_l2=on,cluster_size=16k source disk"];
    zlib: ["convert -c -f raw -O qcow2 -o cluster_size=4k source disk"];
    zstd: ["convert -c -f raw -O qcow2 -o cluster_size=4k,compression_type=zstd source disk"];
    refcounts_of_1: ["convert -f raw -O qcow2 -o cluster_size=512,refcount_bits=1 source disk"];
    refcounts_of_64: ["convert -f raw -O qcow2 -o cluster_size=4k,refcount_bits=64 source disk"];
    overlay: ["create -q -f qcow2 -o cluster_size=4k -b source -F raw disk"];
    data_file: ["convert -f raw -O qcow2 -o data_file=disk.data,cluster_size=4k source disk"];
    snapshots_and_bitmaps: [
        "convert -f raw -O qcow2 -o cluster_size=4k source disk",
        "snapshot -c first disk",
        "bitmap --add disk backup"
    ];
}

#[track_caller]
fn mutants_of(name: &str, commands: &[&str]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let dir = dir.path();
    pattern::write_mixed(&dir.join("source"), 420 * 1024, 3).expect("a source");
    for command in commands {
        Tool::stock().ok(dir, command);
    }
    let template = fs::read(dir.join("disk")).expect("the template");
    assert!(template.len() <= 1 << 20, "the memory limit is that of images of at most 1 MiB");

    let mut failures = Vec::new();
    for seed in 0..MUTANTS {
        let bytes = mutant(&template, seed);
        fs::write(dir.join("disk"), &bytes).expect("the mutant");
        for command in COMMANDS {
            let (outcome, complaints) = run(dir, command);
            if !complaints.is_empty() {
                let kept = keep(name, seed, &bytes);
                failures.push(format!(
                    "{} on {kept}: {}\n{}",
                    command.join(" "),
                    complaints.join(", "),
                    outcome.excerpt()
                ));
            }
        }
        let _ = fs::remove_file(dir.join("output"));
        if failures.len() >= ENOUGH {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Stores a mutant that broke the rules, for a closer look.
pub(crate) fn keep(name: &str, seed: u64, bytes: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutant-{name}-{seed}"));
    fs::write(&path, bytes).expect("the mutant can be kept");
    path.display().to_string()
}
