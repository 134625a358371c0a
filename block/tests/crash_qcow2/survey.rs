//! Looks at an image in every state in which a power cut can leave it.

use std::path::Path;
use std::time::Duration;

use cairn_block::driver::{Repair, WriteFlags};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::Backend;
use cairn_block::snapshot::SnapshotKey;
use cairn_block::{IoBufMut, Result};
use cairn_testkit::qcow2::{Layout, boxed};
use cairn_testkit::{
    CrashLog, CrashState, Disk, Knowledge, Memory, Model, Plan, Recorder, Reopen, Rng, Value,
    Volatile, Watchdog, stock,
};
use futures_util::future::LocalBoxFuture;

pub(crate) const KIB: u64 = 1 << 10;
/// Longest time that one state may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// One state in so many is written to once more.
const REUSED: usize = 8;
/// States of each workload that the stock tool checks.
const STOCK_CHECKED: usize = 14;

/// An image on disks that lose their caches.
pub(crate) struct Image {
    pub(crate) layout: Layout,
    pub(crate) machine: Recorder,
    pub(crate) disks: Vec<Volatile>,
}

impl Image {
    /// The image on `disks`.
    pub(crate) fn new(layout: Layout, seed: u64, disks: Vec<Disk>) -> Image {
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
pub(crate) enum Demand {
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
pub(crate) struct Survey<'s> {
    pub(crate) name: &'static str,
    pub(crate) layout: Layout,
    pub(crate) log: CrashLog,
    pub(crate) model: &'s Model,
    pub(crate) known: &'s dyn Fn(usize) -> Knowledge,
    pub(crate) demand: &'s dyn Fn(usize) -> Demand,
    /// Internal snapshots that there may be, by name, and what they hold.
    pub(crate) snapshots: &'s [(&'static str, Vec<u8>)],
    /// What the disk held when the bitmap `record` was created.
    pub(crate) recorded: Option<&'s [u8]>,
}

impl Survey<'_> {
    /// Looks at every state of the log, of which there must be `least`; panics with the first few that
    /// are wrong.
    pub(crate) async fn judge(&self, seed: u64, least: usize) {
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
        let all = ["CAIRN_CRASH", "CAIRN_SEED"].iter().all(|v| std::env::var_os(v).is_none());
        assert!(states >= least || !all, "{states} states");
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

/// All that an image shows.
pub(crate) async fn read_all(image: &Backend) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    while (content.len() as u64) < image.size() {
        let len = (image.size() - content.len() as u64).min(1 << 20);
        let buf = IoBufMut::new(usize::try_from(len).unwrap());
        content.extend_from_slice(&image.read(content.len() as u64, buf).await?);
    }
    Ok(content)
}

pub(crate) fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).unwrap()
}
