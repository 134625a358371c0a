//! What is measured: command lines, and what each is held against.

use cairn_tests::sample::Disk;

use super::inputs::names;
use super::limits::Limit;

/// A benchmark that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Converting and comparing whole disks.
    Convert,
    /// Creating empty images.
    Create,
    /// Random reads.
    Random,
    /// Time from start to exit of a small command.
    Start,
    /// Checking metadata.
    Check,
    /// Encryption: ciphers alone, and converting to and from LUKS.
    Crypto,
    /// Writing an overlay into its backing file.
    Commit,
    /// Giving an overlay another backing file.
    Rebase,
    /// Copying from a server that answers late.
    Remote,
    /// Peak memory of each of the others.
    Memory,
}

impl Group {
    /// Every group.
    pub(super) const ALL: [Group; 10] = [
        Group::Convert,
        Group::Create,
        Group::Random,
        Group::Start,
        Group::Check,
        Group::Crypto,
        Group::Commit,
        Group::Rebase,
        Group::Remote,
        Group::Memory,
    ];

    /// The name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Group::Convert => "convert",
            Group::Create => "create",
            Group::Random => "random",
            Group::Start => "start",
            Group::Check => "check",
            Group::Crypto => "crypto",
            Group::Commit => "commit",
            Group::Rebase => "rebase",
            Group::Remote => "remote",
            Group::Memory => "memory",
        }
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// What is done, for people.
    pub(super) name: &'static str,
    group: Group,
    /// Arguments, split at blanks; run in the folder of the inputs.
    pub(super) args: String,
    /// The input that the output is a copy of when a run starts; otherwise there is none then.
    pub(super) starts_from: Option<&'static str>,
    /// Arguments of the `nbdkit` that serves on the socket [`names::SOCKET`] meanwhile.
    pub(super) served: Option<&'static str>,
    /// Stock's time divided by ours that is to be reached.
    pub(super) target: Option<f64>,
    /// How often the command runs for one figure; commands of milliseconds run many times.
    pub(super) repeat: u32,
    /// What the machine could do at best.
    pub(super) limits: Vec<Limit>,
    for_memory: bool,
}

impl Case {
    fn new(group: Group, name: &'static str, args: impl Into<String>) -> Self {
        let args = args.into();
        Self {
            name,
            group,
            args,
            starts_from: None,
            served: None,
            target: None,
            repeat: 1,
            limits: Vec::new(),
            for_memory: false,
        }
    }

    fn starts_from(self, input: &'static str) -> Self {
        Self { starts_from: Some(input), ..self }
    }

    fn served(self, by: &'static str) -> Self {
        Self { served: Some(by), ..self }
    }

    fn target(self, ratio: f64) -> Self {
        Self { target: Some(ratio), ..self }
    }

    fn repeat(self, times: u32) -> Self {
        Self { repeat: times, ..self }
    }

    fn limits(self, limits: impl Into<Vec<Limit>>) -> Self {
        Self { limits: limits.into(), ..self }
    }

    /// Whether `bench group` runs it. Every case shows its peak memory.
    pub(super) fn belongs_to(&self, group: Group) -> bool {
        self.group == group || group == Group::Memory
    }

    /// The case as it is run when only memory counts: a few times, without timing the machine's limits.
    pub(super) fn for_memory(mut self, memory_only: bool) -> Self {
        if memory_only {
            self.for_memory = true;
            self.repeat = 1;
            self.limits.clear();
        }
        self
    }

    /// How many pairs to run when `wanted` were asked for.
    pub(super) fn pairs(&self, wanted: usize) -> usize {
        if self.for_memory { wanted.min(2) } else { wanted }
    }
}

/// Every case, for a sample disk of this size.
pub(super) fn all(disk: Disk) -> Vec<Case> {
    use Group::{Check, Convert, Create, Start};
    use names::{
        LUKS, OUTPUT, OVERLAY, QCOW2, RAW, SECRET, SHIFTED, SMALL_CLUSTERS, SOCKET, TOP, ZLIB, ZSTD,
    };
    let convert = |name, options: &str, source: &str| {
        Case::new(Convert, name, format!("convert {options} {source} {OUTPUT}"))
    };
    let size = disk.size;
    vec![
        convert("raw to qcow2", "-f raw -O qcow2", RAW)
            .target(1.5)
            .limits([Limit::SparseCopy, Limit::MemoryCopy(&[RAW])]),
        convert("qcow2 to raw", "-f qcow2 -O raw", QCOW2)
            .target(1.5)
            .limits([Limit::SparseCopy, Limit::MemoryCopy(&[QCOW2])]),
        convert("qcow2 to qcow2", "-f qcow2 -O qcow2", QCOW2)
            .limits([Limit::SparseCopy, Limit::MemoryCopy(&[QCOW2])]),
        Case::new(
            Convert,
            "compare raw with qcow2",
            format!("compare -f raw -F qcow2 {RAW} {QCOW2}"),
        )
        .target(1.5)
        .limits([Limit::MemoryCopy(&[RAW, QCOW2])]),
        convert("raw to zlib", "-c -f raw -O qcow2", RAW)
            .target(5.0)
            .limits([Limit::Codec("deflate")]),
        convert("raw to zstd", "-c -f raw -O qcow2 -o compression_type=zstd", RAW)
            .target(3.0)
            .limits([Limit::Codec("zstd")]),
        convert("zlib to raw", "-f qcow2 -O raw", ZLIB)
            .target(2.5)
            .limits([Limit::Codec("inflate"), Limit::SparseCopy]),
        convert("zstd to raw", "-f qcow2 -O raw", ZSTD)
            .target(3.0)
            .limits([Limit::Codec("unzstd"), Limit::SparseCopy]),
        Case::new(Create, "create qcow2", format!("create -q -f qcow2 {OUTPUT} 64G"))
            .repeat(40)
            .limits([Limit::Process]),
        Case::new(
            Create,
            "create qcow2, metadata",
            format!("create -q -f qcow2 -o preallocation=metadata {OUTPUT} 64G"),
        )
        .repeat(10)
        .limits([Limit::Process]),
        Case::new(
            Create,
            "create raw, falloc",
            format!("create -q -o preallocation=falloc {OUTPUT} 1G"),
        )
        .repeat(20)
        .limits([Limit::Process]),
        random("random 4 KiB, cached", "-t writeback", size).target(1.5),
        random("random 4 KiB, direct", "-t none -i native", size),
        Case::new(Start, "info raw", format!("info --output=json -f raw {RAW}"))
            .target(2.0)
            .repeat(100)
            .limits([Limit::Process]),
        Case::new(Start, "info qcow2", format!("info --output=json {QCOW2}"))
            .target(2.0)
            .repeat(100)
            .limits([Limit::Process]),
        Case::new(Start, "version", "--version").repeat(100).limits([Limit::Process]),
        Case::new(Check, "check", format!("check -q -f qcow2 {QCOW2}"))
            .repeat(20)
            .limits([Limit::Process]),
        Case::new(Check, "check, 4 KiB clusters", format!("check -q -f qcow2 {SMALL_CLUSTERS}"))
            .repeat(4)
            .limits([Limit::Process]),
        Case::new(Check, "check, zlib", format!("check -q -f qcow2 {ZLIB}"))
            .repeat(10)
            .limits([Limit::Process]),
        Case::new(
            Group::Crypto,
            "raw to LUKS",
            format!(
                "convert {SECRET} -f raw -O luks -o key-secret=key,iter-time=10 {RAW} {OUTPUT}"
            ),
        )
        .target(1.5)
        .limits([Limit::MemoryCopy(&[RAW])]),
        Case::new(
            Group::Crypto,
            "LUKS to raw",
            format!(
                "convert {SECRET} --image-opts driver=luks,key-secret=key,file.filename={LUKS} \
                 -O raw {OUTPUT}"
            ),
        )
        .target(1.5)
        .limits([Limit::MemoryCopy(&[LUKS])]),
        // The output is the base of that overlay.
        Case::new(Group::Commit, "commit", format!("commit -q -d -f qcow2 {TOP}"))
            .starts_from(QCOW2)
            .target(1.3)
            .limits([Limit::MemoryCopy(&[TOP])]),
        Case::new(
            Group::Rebase,
            "rebase, other content",
            format!("rebase -f qcow2 -b {SHIFTED} -F qcow2 {OUTPUT}"),
        )
        .starts_from(OVERLAY)
        .target(1.3)
        .limits([Limit::MemoryCopy(&[QCOW2, SHIFTED])]),
        Case::new(
            Group::Rebase,
            "rebase, same content",
            format!("rebase -f qcow2 -b {SMALL_CLUSTERS} -F qcow2 {OUTPUT}"),
        )
        .starts_from(OVERLAY)
        .target(1.3)
        .limits([Limit::MemoryCopy(&[QCOW2, SMALL_CLUSTERS])]),
        Case::new(
            Group::Remote,
            "convert from NBD, 5 ms late",
            format!("convert -f raw -O raw nbd+unix:///?socket={SOCKET} {OUTPUT}"),
        )
        .served("--filter=delay file sample.raw rdelay=5ms")
        .target(4.0),
    ]
}

/// 4 KiB reads at depth 32 that jump by a fixed odd number of blocks, so that they visit the disk evenly
/// and never one block after another.
fn random(name: &'static str, how: &str, size: u64) -> Case {
    const COUNT: u64 = 200_000;
    let step = random_step(size);
    let args =
        format!("bench -q -c {COUNT} -d 32 -s 4096 -S {step} -f qcow2 {how} {}", names::QCOW2);
    Case::new(Group::Random, name, args).limits([Limit::Reads { count: COUNT, step }])
}

/// The part 0.236 of the disk, in an odd number of 4 KiB blocks.
pub(super) fn random_step(size: u64) -> u64 {
    let blocks = size / 4096 * 236 / 1000;
    (blocks | 1) * 4096
}
