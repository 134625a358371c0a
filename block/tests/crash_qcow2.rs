//! Power cuts in the middle of qcow2 workloads.
//!
//! Each test runs one workload on disks with a volatile cache and looks at the image in every state in
//! which a power cut can leave it: it must open, check without corruption (leaks are allowed), hold all
//! that was flushed, and take writes again. A failure names the state; to see that state alone, with
//! the log around it, set `CAIRN_CRASH=NAME:STATE`, and to keep its files, `CAIRN_CRASH_DIR`. With
//! `CAIRN_SEED=N` the workloads, interleavings and states are others.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::driver::{Amendment, CompactWatch, Repair, WriteFlags};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_block::options::Dict;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};
use cairn_block::{IoBufMut, Result};
use cairn_testkit::qcow2::{Layout, boxed, damage};
use cairn_testkit::{
    CrashLog, CrashState, Disk, Effect, Knowledge, Memory, Model, Plan, Profile, Recorder, Reopen,
    Rng, Run, Value, Volatile, Watchdog, Workload, run, seeded, stock,
};
use futures_util::future::LocalBoxFuture;

/// Longest time that one state may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// One state in so many is written to once more.
const REUSED: usize = 8;
/// States of each workload that the stock tool checks.
const STOCK_CHECKED: usize = 14;

struct Image {
    layout: Layout,
    machine: Recorder,
    disks: Vec<Volatile>,
}

impl Image {
    fn new(layout: Layout, seed: u64, disks: Vec<Disk>) -> Image {
        let machine = Recorder::new(seed);
        let disks = disks.into_iter().map(|disk| machine.add(disk)).collect();
        Image { layout, machine, disks }
    }
}

impl Reopen for Image {
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>> {
        Box::pin(self.layout.open(boxed(&self.disks), false))
    }

    fn discard_bares(&self) -> bool {
        self.layout.discard_bares()
    }

    fn position(&self) -> usize {
        self.machine.position()
    }
}

/// What an image must be like after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// It opens and has no corruption.
    Clean,
    /// It may be no image yet; if it opens, it has no corruption.
    Unfinished,
    /// Opening it for writing makes it clean.
    Recovered,
    /// A repair makes it clean.
    Repairable,
}

/// A log with what is known of the image at each of its positions.
struct Survey<'s> {
    name: &'static str,
    layout: Layout,
    log: CrashLog,
    model: &'s Model,
    known: &'s dyn Fn(usize) -> Knowledge,
    demand: &'s dyn Fn(usize) -> Demand,
    /// Internal snapshots that there may be, by name, and what they hold.
    snapshots: &'s [(&'static str, Vec<u8>)],
    /// What the disk held when the bitmap `record` was created.
    recorded: Option<&'s [u8]>,
}

impl Survey<'_> {
    /// Looks at every state of the log; panics with the first few that are wrong.
    async fn judge(&self, seed: u64) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let watchdog = Watchdog::start(PATIENCE);
        let only = std::env::var("CAIRN_CRASH").ok();
        let plan = Plan { seed, subsets: 50, torn: 1 };
        let most = self.log.len() * 2 + self.log.flushes() * 50;
        let stock_every = (most / STOCK_CHECKED).max(1);
        let (mut states, mut stock_checked, mut failures) = (0, 0, Vec::new());
        for state in self.log.states(&plan) {
            let id = format!("{}:{}", self.name, state.id);
            if only.as_ref().is_some_and(|only| *only != id) {
                continue;
            }
            if only.is_some() {
                self.show(&state);
            }
            watchdog.step(&id);
            let outcome = self.look(&state, states).await;
            let outcome = match outcome {
                Ok(Some(disks)) if states % stock_every == 0 => {
                    stock_checked += 1;
                    let output = self.layout.stock_check(&disks, dir.path()).unwrap();
                    match output.status.code() {
                        // No finding, or leaks only.
                        Some(0 | 3) => Ok(()),
                        _ => Err(format!("stock check: {}", stock::text(&output))),
                    }
                }
                other => other.map(|_| ()),
            };
            if let Err(problem) = outcome {
                let events = state.events.join("; ");
                failures.push(format!("CAIRN_CRASH={id} (seed {seed:#x}): {problem}\n  {events}"));
            }
            states += 1;
        }
        let (events, flushes) = (self.log.len(), self.log.flushes());
        println!(
            "{}: {states} states of {events} events with {flushes} flushes, {stock_checked} checked \
             by the stock tool, {} wrong",
            self.name,
            failures.len()
        );
        assert!(failures.is_empty(), "{}", failures[..failures.len().min(5)].join("\n"));
        states
    }

    /// Prints the log up to a state, and keeps its files if that is wanted.
    fn show(&self, state: &CrashState) {
        let known = (self.known)(state.position);
        println!("{known:?}; of the events no flush covers: {:#?}", state.events);
        for line in self.log.lines().iter().take(state.position + 5) {
            println!("{line}");
        }
        if let Ok(dir) = std::env::var("CAIRN_CRASH_DIR") {
            for (number, disk) in state.disks.iter().enumerate() {
                disk.store(&Path::new(&dir).join(format!("disk{number}"))).unwrap();
            }
        }
    }

    /// Looks at a state. Returns the disks if they hold an image, repaired where that is due.
    async fn look(&self, state: &CrashState, number: usize) -> Result<Option<Vec<Disk>>, String> {
        let demand = (self.demand)(state.position);
        let repair = match demand {
            Demand::Repairable => Repair::LEAKS | Repair::ERRORS,
            _ => Repair::empty(),
        };
        let must_open = matches!(demand, Demand::Recovered | Demand::Repairable);
        let disks = if self.layout.is_lazy() || must_open {
            self.repaired(&state.disks, repair).await.map_err(|e| format!("repair: {e}"))?
        } else {
            state.disks.clone()
        };
        let image = match self.layout.look(&disks).await {
            Ok(image) => image,
            Err(_) if demand == Demand::Unfinished => return Ok(None),
            Err(error) => return Err(format!("open: {error}")),
        };
        let content = self.examine(image, (self.known)(state.position)).await?;
        self.examine_snapshots(&disks).await?;
        self.examine_bitmap(&disks, &content).await?;
        if number.is_multiple_of(REUSED) {
            self.reuse(&disks, content, number).await.map_err(|e| format!("written again: {e}"))?;
        }
        Ok(Some(disks))
    }

    /// The disks after an opening for writing, which repairs an image with lazy refcounts, and after
    /// the repair that was asked for.
    async fn repaired(&self, disks: &[Disk], repair: Repair) -> Result<Vec<Disk>> {
        let devices: Vec<_> = disks.iter().cloned().map(Memory::new).collect();
        let image = self.layout.open(boxed(&devices), false).await?;
        if !repair.is_empty() {
            image.node().driver().check(repair).await?;
        }
        image.close().await?;
        Ok(devices.iter().map(Memory::disk).collect())
    }

    /// Checks metadata and content of an image; returns the content.
    async fn examine(&self, image: Backend, known: Knowledge) -> Result<Vec<u8>, String> {
        let report = image.node().driver().check(Repair::empty()).await;
        let report = report.map_err(|e| format!("check: {e}"))?;
        if report.corruptions != 0 || report.check_errors != 0 {
            return Err(format!("{} corruptions: {:?}", report.corruptions, report.details));
        }
        let sizes = self.model.sizes(known);
        if !sizes.contains(&image.size()) {
            return Err(format!("size {}, not one of {sizes:?}", image.size()));
        }
        let content = read_all(&image).await.map_err(|e| format!("read: {e}"))?;
        image.close().await.map_err(|e| format!("close: {e}"))?;
        match self.model.compare(0, &content, known).first() {
            Some(mismatch) => Err(format!("{known:?}: {mismatch}")),
            None => Ok(content),
        }
    }

    /// Compares what the snapshots hold with what they should.
    async fn examine_snapshots(&self, disks: &[Disk]) -> Result<(), String> {
        for (name, expected) in self.snapshots {
            let image = self.layout.look(disks).await.map_err(|e| e.to_string())?;
            let key = SnapshotKey::IdOrName((*name).to_owned());
            if image.graph().show_snapshot(&image.node(), key).await.is_err() {
                continue;
            }
            let content = read_all(&image).await.map_err(|e| format!("snapshot {name}: {e}"))?;
            if content != *expected {
                return Err(format!("snapshot {name} holds other data"));
            }
        }
        Ok(())
    }

    /// A bitmap that calls itself consistent must cover all that changed since it was created.
    async fn examine_bitmap(&self, disks: &[Disk], content: &[u8]) -> Result<(), String> {
        let Some(before) = self.recorded else { return Ok(()) };
        let image = self.layout.look(disks).await.map_err(|e| e.to_string())?;
        let (graph, node) = (image.graph(), image.node());
        let bitmaps = graph.bitmaps(&node).await.map_err(|e| format!("bitmaps: {e}"))?;
        if !bitmaps.iter().any(|bitmap| bitmap.name == "record" && !bitmap.inconsistent) {
            return Ok(());
        }
        let bitmap = graph.load_bitmap(&node, "record").await.map_err(|e| e.to_string())?;
        for (at, (old, new)) in before.chunks(512).zip(content.chunks(512)).enumerate() {
            let offset = at as u64 * 512;
            let recorded = || bitmap.next_dirty(offset).is_some_and(|dirty| dirty.start == offset);
            if old != new && !recorded() {
                return Err(format!("the bitmap does not know of a change at {offset:#x}"));
            }
        }
        Ok(())
    }

    /// Writes to the image and looks at it again: all else must stay as it was.
    async fn reuse(
        &self,
        disks: &[Disk],
        mut content: Vec<u8>,
        number: usize,
    ) -> Result<(), String> {
        let devices: Vec<_> = disks.iter().cloned().map(Memory::new).collect();
        let image = self.layout.open(boxed(&devices), false).await.map_err(|e| e.to_string())?;
        let mut rng = Rng::new(number as u64);
        for tag in 1..=4 {
            let value = Value::Tag(0x8000_0000 + tag);
            let offset = rng.below(image.size());
            let len = rng.between(1, self.layout.cluster).min(image.size() - offset);
            let data = value.buffer(offset, len);
            let at = usize::try_from(offset).unwrap();
            content[at..at + data.len()].copy_from_slice(&data);
            image.write(offset, data, WriteFlags::empty()).await.map_err(|e| e.to_string())?;
        }
        image.close().await.map_err(|e| e.to_string())?;
        let disks: Vec<_> = devices.iter().map(Memory::disk).collect();
        let image = self.layout.look(&disks).await.map_err(|e| e.to_string())?;
        let report = image.node().driver().check(Repair::empty()).await;
        let report = report.map_err(|e| e.to_string())?;
        if report.corruptions != 0 {
            return Err(format!("{} corruptions: {:?}", report.corruptions, report.details));
        }
        let now = read_all(&image).await.map_err(|e| e.to_string())?;
        match now.iter().zip(&content).position(|(a, b)| a != b) {
            Some(offset) => Err(format!("other data at {offset:#x}")),
            None => Ok(()),
        }
    }
}

async fn read_all(image: &Backend) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    while (content.len() as u64) < image.size() {
        let len = (image.size() - content.len() as u64).min(1 << 20);
        let buf = IoBufMut::new(usize::try_from(len).unwrap());
        content.extend_from_slice(&image.read(content.len() as u64, buf).await?);
    }
    Ok(content)
}

fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).unwrap()
}

/// Runs a workload on an image and looks at all states; at least `least` of them.
fn survey(layout: Layout, profile: &Profile, seed: u64, least: usize) {
    let seed = seeded(seed);
    on_io_thread(async {
        let disks = layout.blank().await.unwrap();
        let image = Image::new(layout, seed, disks);
        let workload = Workload::generate(seed, profile);
        let run = match run(&image, &workload, layout.model()).await {
            Ok(run) => run,
            Err(failure) => panic!("{} (seed {seed:#x}): {failure}", layout.name),
        };
        let survey = Survey {
            name: layout.name,
            layout,
            log: image.machine.log(),
            model: &run.model,
            known: &|position| run.known(position),
            demand: &|_| Demand::Clean,
            snapshots: &[],
            recorded: None,
        };
        let states = survey.judge(seed).await;
        let all = ["CAIRN_CRASH", "CAIRN_SEED"].iter().all(|v| std::env::var_os(v).is_none());
        assert!(states >= least || !all, "{states} states");
    });
}

const KIB: u64 = 1 << 10;

#[test]
fn version_3() {
    let layout = Layout::new("v3", &[], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x31, 1000);
}

#[test]
fn version_2() {
    let layout = Layout::new("v2", &[("compat", "0.10")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x21, 1000);
}

#[test]
fn lazy_refcounts() {
    let layout = Layout::new("lazy", &[("lazy_refcounts", "on")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x1a, 500);
}

#[test]
fn extended_l2() {
    let layout = Layout::new("ext_l2", &[("extended_l2", "on")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0xe2, 1000);
}

#[test]
fn compressed_zstd() {
    let layout = Layout::new("zstd", &[("compression_type", "zstd")], 64 * KIB, 64);
    survey(layout, &Profile { compressed: 40, ..layout.profile(60) }, 0x25, 1000);
}

#[test]
fn compressed_zlib_in_small_clusters() {
    let layout = Layout::new("zlib", &[], 4 * KIB, 256);
    survey(layout, &Profile { compressed: 40, ..layout.profile(120) }, 0x2b, 1000);
}

#[test]
fn refcounts_of_1_bit() {
    let layout = Layout::new("refcount1", &[("refcount_bits", "1")], 64 * KIB, 24);
    survey(layout, &layout.profile(60), 0x11, 1000);
}

#[test]
fn refcounts_of_64_bits() {
    // 512 refcounts a block: some blocks are allocated on the way.
    let layout = Layout::new("refcount64", &[("refcount_bits", "64")], 4 * KIB, 700);
    survey(layout, &Profile { max_clusters: 60, ..layout.profile(60) }, 0x64, 1000);
}

#[test]
fn data_file() {
    let layout = Layout { data_file: true, ..Layout::new("data_file", &[], 64 * KIB, 24) };
    survey(layout, &layout.profile(60), 0xdf, 1000);
}

#[test]
fn clusters_of_512_bytes() {
    // Each L2 table and refcount block covers little: both are allocated all the time.
    let layout = Layout::new("cluster512", &[], 512, 1024);
    survey(layout, &Profile { max_clusters: 100, ..layout.profile(60) }, 0x51, 1000);
}

#[test]
fn overlay() {
    let layout = Layout { backing: Some(1_200_000), ..Layout::new("overlay", &[], 64 * KIB, 24) };
    survey(layout, &Profile { align: 1, ..layout.profile(60) }, 0x0e, 1000);
}

#[test]
fn resize() {
    let layout = Layout::new("resize", &[], 4 * KIB, 200);
    let profile = Profile { resizes: 20, max_clusters: 20, ..layout.profile(60) };
    survey(layout, &profile, 0x4e, 1000);
}

#[test]
fn resize_of_an_overlay() {
    let layout = Layout { backing: Some(150_000), ..Layout::new("resize_overlay", &[], 512, 200) };
    let profile = Profile { resizes: 20, max_clusters: 20, ..layout.profile(60) };
    survey(layout, &profile, 0x4f, 1000);
}

#[test]
fn create() {
    let layouts = [
        Layout::new("create", &[], 64 * KIB, 24),
        Layout::new("create_metadata", &[("preallocation", "metadata")], 4 * KIB, 1024),
        Layout { data_file: true, ..Layout::new("create_data_file", &[], 64 * KIB, 24) },
    ];
    for layout in layouts {
        on_io_thread(async {
            let image = Image::new(layout, 0xc4, vec![Disk::new(0); layout.files()]);
            layout.create(boxed(&image.disks)).await.unwrap();
            let done = image.position();
            let model = layout.model();
            let demand = |at| if at < done { Demand::Unfinished } else { Demand::Clean };
            let survey = Survey {
                name: layout.name,
                layout,
                log: image.machine.log(),
                model: &model,
                known: &|_| model.all_done(),
                demand: &demand,
                snapshots: &[],
                recorded: None,
            };
            survey.judge(0xc4).await;
        });
    }
}

/// A used image whose refcounts were then spoilt.
async fn damaged(layout: Layout, errors: bool) -> (Vec<Disk>, Run) {
    let image = Image::new(layout, 1, layout.blank().await.unwrap());
    let workload = Workload::generate(0xda, &layout.profile(40));
    let run = run(&image, &workload, layout.model()).await.unwrap();
    let mut disks = image.machine.disks();
    damage(&mut disks[0], layout.cluster, errors);
    (disks, run)
}

#[test]
fn repair() {
    let layout = Layout::new("repair", &[], 4 * KIB, 200);
    for (name, errors, repair) in [
        ("repair_leaks", false, Repair::LEAKS),
        ("repair_errors", true, Repair::LEAKS | Repair::ERRORS),
    ] {
        on_io_thread(async {
            let (disks, run) = damaged(layout, errors).await;
            let image = Image::new(layout, 0x9e, disks);
            let open = image.open().await.unwrap();
            let report = open.node().driver().check(repair).await.unwrap();
            assert!(report.leaks_fixed > 0 && (report.corruptions_fixed > 0) == errors);
            open.close().await.unwrap();
            let done = image.position();
            let demand = |at| if errors && at < done { Demand::Repairable } else { Demand::Clean };
            let survey = Survey {
                name,
                layout,
                log: image.machine.log(),
                model: &run.model,
                known: &|_| run.model.all_done(),
                demand: &demand,
                snapshots: &[],
                recorded: None,
            };
            survey.judge(0x9e).await;
        });
    }
}

/// An image while snapshots come and go, and what is known of it at each position of the log.
struct Session<'i> {
    image: &'i Image,
    open: Backend,
    model: Model,
    /// Positions at which steps had begun, and at which they were durable: (position, steps).
    begun: Vec<(usize, usize)>,
    durable: Vec<(usize, usize)>,
}

impl Session<'_> {
    /// Writes `tag` to a range and flushes.
    async fn write(&mut self, offset: u64, len: u64, tag: u32) {
        self.model.step(&[(offset..offset + len, Effect::set(Value::Tag(tag)))]);
        self.begun.push((self.image.position(), self.model.steps()));
        let data = Value::Tag(tag).buffer(offset, len);
        self.open.write(offset, data, WriteFlags::empty()).await.unwrap();
        self.open.flush().await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    async fn create(&self, name: &str) {
        let new = NewSnapshot { name: name.to_owned(), ..NewSnapshot::default() };
        self.open.graph().create_snapshot(&self.open.node(), new).await.unwrap();
    }

    /// Goes back to a snapshot, which undoes `ranges`.
    async fn apply(&mut self, name: &str, ranges: &[(u64, u64, Value)]) {
        let effects: Vec<_> = ranges
            .iter()
            .map(|&(offset, len, value)| (offset..offset + len, Effect::set(value)))
            .collect();
        self.model.step(&effects);
        self.begun.push((self.image.position(), self.model.steps()));
        let key = SnapshotKey::IdOrName(name.to_owned());
        self.open.graph().apply_snapshot(&self.open.node(), key).await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    async fn bitmap(&self, name: &str, change: BitmapChange) {
        self.open.graph().change_bitmap(&self.open.node(), name, change).await.unwrap();
    }

    /// Zeroes a range, gives its storage up, and flushes.
    async fn drop_data(&mut self, offset: u64, len: u64) {
        self.model.step(&[(offset..offset + len, Effect::set(Value::Zero))]);
        self.begun.push((self.image.position(), self.model.steps()));
        self.open.write_zeroes(offset, len, WriteFlags::MAY_UNMAP).await.unwrap();
        self.open.flush().await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    /// Compacts the image, up to `most` bytes. Returns the bytes moved.
    async fn compact(&self, most: u64) -> u64 {
        let watch = MoveUpTo { most, moved: Cell::new(0) };
        self.open.graph().compact(&self.open.node(), &watch).await.unwrap().moved
    }

    async fn amend(&self, options: &[(&'static str, &str)]) {
        let mut dict = Dict::new();
        for (name, value) in options {
            dict.insert(*name, *value);
        }
        self.open.node().driver().amend(self.open.graph(), Amendment::new(dict)).await.unwrap();
    }

    async fn reopen(self) -> Self {
        let Session { image, open, model, begun, durable } = self;
        open.close().await.unwrap();
        let open = image.open().await.unwrap();
        Session { image, open, model, begun, durable }
    }

    /// Closes the image and looks at all states.
    async fn judge(self, demand: Demand, recorded: Option<&[u8]>, seed: u64) {
        let Session { image, open, model, begun, durable } = self;
        open.close().await.unwrap();
        let last = |marks: &[(usize, usize)], position: usize, inclusive: bool| {
            let reached = |at: usize| if inclusive { at <= position } else { at < position };
            marks.iter().filter(|(at, _)| reached(*at)).map(|(_, steps)| *steps).max()
        };
        let known = |position| Knowledge {
            durable: last(&durable, position, true).unwrap_or(0),
            begun: last(&begun, position, false).unwrap_or(0),
        };
        let survey = Survey {
            name: image.layout.name,
            layout: image.layout,
            log: image.machine.log(),
            model: &model,
            known: &known,
            demand: &|_| demand,
            snapshots: &[],
            recorded,
        };
        survey.judge(seed).await;
    }

    async fn delete(&self, name: &str) {
        let key = SnapshotKey::IdOrName(name.to_owned());
        self.open.graph().delete_snapshot(&self.open.node(), key).await.unwrap();
    }
}

#[test]
fn snapshots() {
    let layouts = [
        Layout::new("snapshots", &[], 4 * KIB, 200),
        Layout::new("snapshots_v2", &[("compat", "0.10")], 4 * KIB, 200),
        Layout::new("snapshots_ext_l2", &[("extended_l2", "on")], 16 * KIB, 60),
        Layout::new("snapshots_lazy", &[("lazy_refcounts", "on")], 64 * KIB, 24),
        Layout::new("snapshots_512", &[("refcount_bits", "64")], 512, 400),
    ];
    for layout in layouts {
        on_io_thread(async {
            let image = Image::new(layout, 0x5a, layout.blank().await.unwrap());
            let open = image.open().await.unwrap();
            let (begun, durable) = (Vec::new(), Vec::new());
            let model = layout.model();
            let mut session = Session { image: &image, open, model, begun, durable };
            let part = layout.size / 8 / 512 * 512;
            session.write(0, 3 * part, 1).await;
            let one = read_all(&session.open).await.unwrap();
            session.create("one").await;
            session.write(part, part, 2).await;
            session.write(5 * part, part, 3).await;
            let two = read_all(&session.open).await.unwrap();
            session.create("two").await;
            session.write(0, part, 4).await;
            let back = [(0, 2 * part, Value::Tag(1)), (5 * part, part, Value::Zero)];
            session.apply("one", &back).await;
            session.write(2 * part, part, 5).await;
            session.delete("one").await;
            session.write(4 * part, part, 6).await;
            session.delete("two").await;
            let Session { open, model, begun, durable, .. } = session;
            open.close().await.unwrap();
            let last = |marks: &[(usize, usize)], position: usize, inclusive: bool| {
                let reached = |at: usize| if inclusive { at <= position } else { at < position };
                marks.iter().filter(|(at, _)| reached(*at)).map(|(_, steps)| *steps).max()
            };
            let known = |position| Knowledge {
                durable: last(&durable, position, true).unwrap_or(0),
                begun: last(&begun, position, false).unwrap_or(0),
            };
            let has_dirty_bit = !layout.options.contains(&("compat", "0.10"));
            let demand = if has_dirty_bit { Demand::Recovered } else { Demand::Repairable };
            let survey = Survey {
                name: layout.name,
                layout,
                log: image.machine.log(),
                model: &model,
                known: &known,
                demand: &|_| demand,
                snapshots: &[("one", one), ("two", two)],
                recorded: None,
            };
            survey.judge(0x5a).await;
        });
    }
}

/// Ends a compaction when it has moved so many bytes.
struct MoveUpTo {
    most: u64,
    moved: Cell<u64>,
}

impl CompactWatch for MoveUpTo {
    fn total(&self, _bytes: u64) {}

    fn moved(&self, bytes: u64) {
        self.moved.set(self.moved.get() + bytes);
    }

    fn should_stop(&self) -> bool {
        self.moved.get() >= self.most
    }
}

#[test]
fn compaction() {
    let layouts = [
        Layout::new("compact", &[], 4 * KIB, 200),
        Layout::new("compact_v2", &[("compat", "0.10")], 4 * KIB, 200),
        Layout::new("compact_ext_l2", &[("extended_l2", "on")], 16 * KIB, 60),
        Layout::new("compact_lazy", &[("lazy_refcounts", "on")], 4 * KIB, 200),
        Layout::new("compact_512", &[("refcount_bits", "64")], 512, 400),
    ];
    for layout in layouts {
        for most in [u64::MAX, 3 * layout.cluster] {
            on_io_thread(async {
                let image = Image::new(layout, 0xc0, layout.blank().await.unwrap());
                let mut session = begin(&image).await;
                let is_v2 = layout.options.contains(&("compat", "0.10"));
                let part = layout.size / 8 / layout.cluster * layout.cluster;
                session.write(0, 3 * part, 1).await;
                session.create("one").await;
                session.write(part, part, 2).await;
                session.create("two").await;
                let two = read_all(&session.open).await.unwrap();
                session.write(5 * part, part, 3).await;
                if !is_v2 {
                    let add = BitmapChange::Add { granularity_bits: Some(9), enabled: true };
                    session.bitmap("record", add).await;
                }
                let recorded = read_all(&session.open).await.unwrap();
                session.delete("one").await;
                session.drop_data(0, part / 2 / layout.cluster * layout.cluster).await;
                session.write(6 * part, part / 2, 4).await;
                let start = image.position();
                assert!(session.compact(most).await > 0, "{}", layout.name);
                let end = image.position();
                session.write(2 * part, part, 5).await;
                let Session { open, model, begun, durable, .. } = session;
                open.close().await.unwrap();
                let last = |marks: &[(usize, usize)], position: usize, inclusive: bool| {
                    let reached =
                        |at: usize| if inclusive { at <= position } else { at < position };
                    marks.iter().filter(|(at, _)| reached(*at)).map(|(_, steps)| *steps).max()
                };
                let known = |position| Knowledge {
                    durable: last(&durable, position, true).unwrap_or(0),
                    begun: last(&begun, position, false).unwrap_or(0),
                };
                let before = if is_v2 { Demand::Repairable } else { Demand::Recovered };
                let demand = |position| match position {
                    _ if layout.is_lazy() => before,
                    position if (start..=end).contains(&position) => Demand::Clean,
                    _ => before,
                };
                let survey = Survey {
                    name: layout.name,
                    layout,
                    log: image.machine.log(),
                    model: &model,
                    known: &known,
                    demand: &demand,
                    snapshots: &[("two", two)],
                    recorded: (!is_v2).then_some(&recorded),
                };
                survey.judge(0xc0).await;
            });
        }
    }
}

async fn begin(image: &Image) -> Session<'_> {
    let open = image.open().await.unwrap();
    let (begun, durable) = (Vec::new(), Vec::new());
    Session { image, open, model: image.layout.model(), begun, durable }
}

#[test]
fn bitmaps() {
    for layout in [
        Layout::new("bitmaps", &[], 4 * KIB, 200),
        Layout::new("bitmaps_512", &[("refcount_bits", "64")], 512, 400),
        Layout { data_file: true, ..Layout::new("bitmaps_data_file", &[], 64 * KIB, 24) },
    ] {
        on_io_thread(async {
            let image = Image::new(layout, 0xb1, layout.blank().await.unwrap());
            let mut session = begin(&image).await;
            let part = layout.size / 8 / 512 * 512;
            let add = || BitmapChange::Add { granularity_bits: Some(9), enabled: true };
            session.write(0, 3 * part, 1).await;
            let recorded = read_all(&session.open).await.unwrap();
            session.bitmap("record", add()).await;
            session.write(part, part / 2, 2).await;
            session = session.reopen().await;
            session.write(5 * part, 700, 3).await;
            session.bitmap("other", add()).await;
            let other = session.open.graph().load_bitmap(&session.open.node(), "record").await;
            session.bitmap("other", BitmapChange::Merge(Arc::new(other.unwrap()))).await;
            session.write(7 * part, 512, 4).await;
            session.bitmap("other", BitmapChange::Remove).await;
            session = session.reopen().await;
            session.write(6 * part, part, 5).await;
            session.judge(Demand::Clean, Some(&recorded), 0xb1).await;
        });
    }
}

#[test]
fn amendments() {
    let layout = Layout::new("amend", &[("compat", "0.10")], 4 * KIB, 200);
    on_io_thread(async {
        let image = Image::new(layout, 0xa3, layout.blank().await.unwrap());
        let mut session = begin(&image).await;
        session.write(0, 100 * KIB, 1).await;
        session.amend(&[("compat", "1.1"), ("refcount_bits", "64")]).await;
        session = session.reopen().await;
        session.write(50 * KIB, 100 * KIB, 2).await;
        session.amend(&[("refcount_bits", "1"), ("lazy_refcounts", "on")]).await;
        session = session.reopen().await;
        session.write(300 * KIB, 100 * KIB, 3).await;
        session
            .amend(&[("compat", "0.10"), ("refcount_bits", "16"), ("lazy_refcounts", "off")])
            .await;
        session = session.reopen().await;
        session.write(20 * KIB, 100 * KIB, 4).await;
        session.judge(Demand::Recovered, None, 0xa3).await;
    });
}
