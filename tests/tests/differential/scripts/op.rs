//! The operations of a script, and how scripts are made.
//!
//! An operation carries the random numbers of its own choices, which become offsets and names only when
//! it is played: a script from which operations are taken away stays one that can be played.

use cairn_tests::random::Random;

use super::config::{BACKING, Config};

/// Names of snapshots and bitmaps.
pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];
/// Amendments, some of which are refused.
const AMENDMENTS: [&str; 6] = [
    "lazy_refcounts=on",
    "lazy_refcounts=off",
    "refcount_bits=16",
    "refcount_bits=64",
    "compat=1.1",
    "compat=0.10",
];

/// A range of the disk, whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    at: u64,
    len: u64,
    unit: u64,
}

impl Span {
    /// Offset and length on a disk of `size` bytes, which must not be 0.
    pub(crate) fn on(self, size: u64, cluster: u64) -> (u64, u64) {
        let offset = self.at % size / self.unit * self.unit;
        let longest = (3 * cluster).min(1 << 20);
        let len = self.len % longest / self.unit * self.unit;
        (offset, len.max(self.unit).min(size - offset))
    }
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    /// One byte again and again.
    Byte(u8),
    /// The bytes of the file `noise`, which do not compress.
    Noise,
}

/// Changes of a bitmap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BitmapChange {
    Add { granularity: &'static str, disabled: bool },
    Remove,
    Enable,
    Disable,
    Clear,
    Merge(&'static str),
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(Span, Fill),
    /// Writes one compressed cluster.
    Compressed(Span, Fill),
    Zero {
        span: Span,
        unmap: bool,
    },
    Discard(Span),
    /// Reads a run of equal bytes.
    Read(Span),
    CreateSnapshot(&'static str),
    ApplySnapshot(&'static str),
    DeleteSnapshot(&'static str),
    Bitmap(&'static str, BitmapChange),
    /// The new size in bytes.
    Resize {
        size: u64,
        preallocation: Option<&'static str>,
    },
    Amend(&'static str),
    /// Moves everything into the backing file; the overlay is emptied or, with `keep`, left alone.
    Commit {
        keep: bool,
    },
    /// Puts another file below the overlay, or none.
    Rebase(Option<&'static str>),
}

/// `count` operations for images like `config`.
pub(crate) fn script(config: Config, seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    (0..count).map(|_| op(config, &mut random)).collect()
}

fn op(config: Config, random: &mut Random) -> Op {
    if random.chance(78) { request(config, random) } else { command(config, random) }
}

fn request(config: Config, random: &mut Random) -> Op {
    let unit = *random.pick(&[1, 512, 4096.min(config.cluster), config.cluster, config.cluster]);
    let span = Span { at: random.bits() >> 1, len: random.bits() >> 1, unit };
    let fill = if random.chance(15) {
        Fill::Noise
    } else {
        Fill::Byte(u8::try_from(1 + random.below(255)).expect("below 256"))
    };
    if random.chance(config.compressed) {
        return Op::Compressed(Span { unit: config.cluster, ..span }, fill);
    }
    match random.below(100) {
        0..45 => Op::Write(span, fill),
        45..65 => Op::Zero { span, unmap: random.chance(50) },
        65..85 => Op::Discard(span),
        _ => Op::Read(span),
    }
}

fn command(config: Config, random: &mut Random) -> Op {
    let name = *random.pick(&NAMES);
    match random.below(100) {
        0..18 => Op::CreateSnapshot(name),
        18..30 => Op::ApplySnapshot(name),
        30..45 => Op::DeleteSnapshot(name),
        45..70 => Op::Bitmap(name, bitmap_change(random)),
        70..82 => resize(config, random),
        82..88 => Op::Amend(random.pick::<&str>(&AMENDMENTS)),
        88..94 if config.chain => Op::Commit { keep: random.chance(30) },
        _ if config.chain => Op::Rebase(*random.pick(&[None, Some(BACKING[0]), Some(BACKING[1])])),
        _ => resize(config, random),
    }
}

fn bitmap_change(random: &mut Random) -> BitmapChange {
    match random.below(8) {
        0..3 => BitmapChange::Add {
            granularity: random.pick::<&str>(&["512", "4k", "64k"]),
            disabled: random.chance(20),
        },
        3 => BitmapChange::Remove,
        4 => BitmapChange::Enable,
        5 => BitmapChange::Disable,
        6 => BitmapChange::Clear,
        _ => BitmapChange::Merge(random.pick::<&str>(&NAMES)),
    }
}

fn resize(config: Config, random: &mut Random) -> Op {
    let size = config.size / 2 + random.below(config.size);
    let unit = *random.pick(&[512, config.cluster]);
    let preallocation =
        random.chance(25).then(|| *random.pick(&["off", "metadata", "falloc", "full"]));
    Op::Resize { size: size.next_multiple_of(unit), preallocation }
}
