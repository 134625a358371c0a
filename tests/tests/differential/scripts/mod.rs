//! Scripts of random operations, which both tools do in turn on the same images.
//!
//! Each configuration has its own test. A script that fails is cut down to the operations that are
//! needed, and shown as commands to run by hand; both images are kept. `CAIRN_SEED=N` makes one other
//! script, N, of each configuration.

mod config;
mod look;
mod model;
mod op;
mod player;

use config::Config;
use op::{Op, script};
use player::{Failure, play};

/// Operations of a script.
const OPERATIONS: usize = 100;
/// Times that a failing script is played again to find a shorter one.
const ATTEMPTS: usize = 60;
const KIB: u64 = 1 << 10;

/// Declares one test a configuration.
macro_rules! scripts {
    ($($name:ident: $config:expr;)+) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name), $config);
            }
        )+
    };
}

// Compressed clusters: with a data file both tools refuse them, with encryption ours does, for they would
// not be encrypted. The tenth script of an overlay ends where stock
// cannot grow a disk of version 2.
scripts! {
    raw: Config::RAW;
    version_2: Config::qcow2("compat=0.10", 64 * KIB);
    version_3: Config::QCOW2;
    clusters_of_512: Config::qcow2("cluster_size=512", 512);
    clusters_of_4k: Config::qcow2("cluster_size=4k", 4 * KIB);
    clusters_of_2m: Config { size: 7000 * KIB, ..Config::qcow2("cluster_size=2M", 2048 * KIB) };
    refcounts_of_64: Config::qcow2("refcount_bits=64,cluster_size=1k", KIB);
    extended_l2: Config::qcow2("extended_l2=on,cluster_size=32k", 32 * KIB);
    lazy_refcounts: Config::qcow2("lazy_refcounts=on,cluster_size=16k", 16 * KIB);
    data_file: Config { data_file: true, compressed: 0, ..Config::qcow2("cluster_size=16k", 16 * KIB) };
    encrypted: Config { encrypted: true, compressed: 0, scripts: 6, ..Config::qcow2("cluster_size=16k", 16 * KIB) };
    overlay: Config { scripts: 9, ..Config::qcow2("cluster_size=16k", 16 * KIB) }.in_chain();
    overlay_version_2: Config::qcow2("compat=0.10,cluster_size=8k", 8 * KIB).in_chain();
    overlay_extended_l2: Config::qcow2("extended_l2=on,cluster_size=16k", 16 * KIB).in_chain();
    zlib: Config { compressed: 50, ..Config::qcow2("cluster_size=16k", 16 * KIB) };
    zstd: Config { compressed: 50, ..Config::qcow2("compression_type=zstd,cluster_size=8k", 8 * KIB) };
}

#[track_caller]
fn run(name: &str, config: Config) {
    let seeds = match std::env::var("CAIRN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..config.scripts,
    };
    for seed in seeds {
        let ops = script(config, seed, OPERATIONS);
        let Err(failure) = play(config, &ops) else { continue };
        let mut failure = shortest(config, ops, *failure);
        failure.room.disable_cleanup(true);
        panic!(
            "script {seed} of {name}: {}\nto see it alone: CAIRN_SEED={seed}; the images are in {}\n{}",
            failure.text,
            failure.room.path().display(),
            failure.commands.join("\n")
        );
    }
}

/// Takes operations away from a script that fails as long as it fails.
fn shortest(config: Config, mut ops: Vec<Op>, mut failure: Failure) -> Failure {
    ops.truncate(failure.begun);
    let mut step = ops.len().div_ceil(2);
    let mut attempts = 0;
    while step > 0 {
        let mut at = 0;
        while at < ops.len() && attempts < ATTEMPTS {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + step).min(ops.len()));
            attempts += 1;
            match play(config, &fewer) {
                Err(shorter) => {
                    fewer.truncate(shorter.begun);
                    (ops, failure) = (fewer, *shorter);
                }
                Ok(()) => at += step,
            }
        }
        step /= 2;
    }
    failure
}
