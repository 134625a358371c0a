//! I/O errors at every request of a conversion.
//!
//! Each test converts again and again, and each time another request to the disks fails: once or from
//! then on. The error must be reported, the source must stay as it was, a target that was there must
//! stay free of corruption, and one that was to be created must not be there.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_block::driver::Repair;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Graph, Node, NodeFlags};
use cairn_block::options::CacheMode;
use cairn_block::{IoBuf, IoBufMut};
use cairn_img::error::Result;
use cairn_img::ops::convert::{Bitmaps, ConvertRequest, Notice, Target, convert};
use cairn_img::ops::create::{CreateRequest, create};
use cairn_img::ops::image::{Access, ImageSpec};
use cairn_testkit::{Disk, Faults, Faulty, IoKinds, Memory, Rule, Watchdog};
use parking_lot::Mutex;

/// Longest time that one run may take.
const PATIENCE: Duration = Duration::from_mins(1);
const MIB: usize = 1 << 20;
/// Size of all disks in bytes: several pieces of the copy, and a piece that is not full.
const SIZE: usize = 4 * MIB + MIB / 2;
const SECTOR: usize = 512;

/// How a request fails: error number, and whether all later ones fail, too.
const FAULTS: [(i32, bool); 4] =
    [(libc::EIO, false), (libc::ENOSPC, false), (libc::EIO, true), (libc::ENOSPC, true)];

/// Images in memory, as protocol nodes in a graph.
struct Devices {
    graph: Arc<Graph>,
    memory: Vec<Memory>,
    /// Keeps the nodes in the graph.
    _nodes: Vec<Arc<Node>>,
}

impl Devices {
    fn new(disks: &[(&str, &Disk)], faults: &Faults) -> Devices {
        let graph = Graph::new();
        let mut memory = Vec::new();
        let mut nodes = Vec::new();
        for &(name, disk) in disks {
            let device = Memory::new(disk.clone());
            let faulty = Box::new(Faulty::new(Box::new(device.clone()), faults.clone()));
            nodes.push(graph.add_driver(name, NodeFlags::default(), faulty).expect("a fresh name"));
            memory.push(device);
        }
        Devices { graph, memory, _nodes: nodes }
    }
}

/// A conversion.
struct Case {
    name: &'static str,
    /// The disks of the source by node name.
    sources: Vec<(&'static str, Disk)>,
    /// Image options of the source.
    source: &'static str,
    /// Format of the target.
    format: &'static str,
    /// An empty image of that format.
    blank: Disk,
    compress: bool,
    /// What the source holds.
    content: Vec<u8>,
}

fn request(source: &str, target: Target) -> ConvertRequest {
    ConvertRequest {
        sources: vec![ImageSpec::Options(source.to_owned())],
        source_cache: CacheMode::Writeback,
        force_share: false,
        snapshot: None,
        bitmaps: Bitmaps::None,
        target,
        target_cache: CacheMode::Writeback,
        compress: false,
        sparse: 4096,
        parallel: Some(4),
        any_order: false,
        copy_range: false,
        rate: None,
        salvage: false,
        verify: false,
        resume: false,
    }
}

fn new_target(path: &Path, format: &str) -> Target {
    Target::New(CreateRequest {
        filename: path.to_str().expect("UTF-8").to_owned(),
        format: format.to_owned(),
        ..CreateRequest::default()
    })
}

/// All bytes of an image on `disk`.
async fn content(disk: &Disk, format: &str) -> Vec<u8> {
    let devices = Devices::new(&[("disk", disk)], &Faults::default());
    let spec = ImageSpec::Options(format!("driver={format},file=disk"));
    let image = spec.open(&devices.graph, &Access::default()).await.expect("opens");
    image.read(0, IoBufMut::new(SIZE)).await.expect("reads").to_vec()
}

impl Case {
    /// Converts into an image in memory that is there, or into a new file in `dir`, with each fault at
    /// each index.
    fn at_every_index(&self, dir: Option<&Path>) {
        let watchdog = Watchdog::start(PATIENCE);
        let mut runs = 0;
        for (errno, sticky) in FAULTS {
            for index in 0.. {
                let run = format!("{}: error {errno} (sticky: {sticky}) at {index}", self.name);
                watchdog.step(&run);
                let rule = Rule { kinds: IoKinds::all(), index, errno, sticky, torn: false };
                let fired = on_io_thread(async {
                    match dir {
                        Some(dir) => self.create_new(rule, dir, &run).await,
                        None => self.over_existing(rule, &run).await,
                    }
                });
                runs += 1;
                if !fired {
                    break;
                }
            }
        }
        println!("{}: {runs} runs", self.name);
        assert!(runs > 4 * FAULTS.len(), "{}: only {runs} runs", self.name);
    }

    fn disks(&self) -> Vec<(&str, &Disk)> {
        self.sources.iter().map(|(name, disk)| (*name, disk)).collect()
    }

    fn request(&self, target: Target) -> ConvertRequest {
        ConvertRequest { compress: self.compress, ..request(self.source, target) }
    }

    /// Runs the conversion. Returns whether the fault was met and whether the conversion succeeded.
    async fn run(
        &self,
        devices: &Devices,
        request: ConvertRequest,
        faults: &Faults,
        run: &str,
    ) -> (bool, bool) {
        let outcome = convert(&devices.graph, request, &()).await;
        faults.disarm();
        let fired = faults.fired_kinds();
        // Discards are advice.
        assert!(
            outcome.is_err() || fired.is_empty() || fired == IoKinds::DISCARD,
            "{run}: {fired:?}"
        );
        if let Err(error) = &outcome {
            assert!(!fired.is_empty(), "{run}: failed without a fault: {error}");
            assert!(error.to_string().contains("faulty disk"), "{run}: {error}");
        }
        for ((name, before), memory) in self.sources.iter().zip(&devices.memory) {
            assert_eq!(before.difference(&memory.disk()), None, "{run}: '{name}' changed");
        }
        (!fired.is_empty(), outcome.is_ok())
    }

    async fn over_existing(&self, rule: Rule, run: &str) -> bool {
        let faults = Faults::default();
        let mut disks = self.disks();
        disks.push(("target", &self.blank));
        let devices = Devices::new(&disks, &faults);
        faults.arm(rule);
        let image = ImageSpec::Options(format!("driver={},file=target", self.format));
        let target = Target::Existing { image, is_zero: false, has_backing: false };
        let (fired, done) = self.run(&devices, self.request(target), &faults, run).await;
        let after = devices.memory.last().expect("the target").disk();
        if self.format == "qcow2" {
            let devices = Devices::new(&[("disk", &after)], &Faults::default());
            let spec = ImageSpec::Options("driver=qcow2,file=disk".to_owned());
            let access = Access { check: true, ..Access::default() };
            let image = spec.open(&devices.graph, &access).await.expect("opens again");
            let report = image.node().driver().check(Repair::empty()).await.expect("is checked");
            assert_eq!((report.corruptions, report.check_errors), (0, 0), "{:?}", report.details);
        }
        if done {
            assert!(content(&after, self.format).await == self.content, "{run}: wrong content");
        }
        fired
    }

    async fn create_new(&self, rule: Rule, dir: &Path, run: &str) -> bool {
        let faults = Faults::default();
        let devices = Devices::new(&self.disks(), &faults);
        faults.arm(rule);
        let path = dir.join("target");
        let request = self.request(new_target(&path, self.format));
        let (fired, done) = self.run(&devices, request, &faults, run).await;
        if done {
            let after = Disk::load(&path).expect("the target");
            assert!(content(&after, self.format).await == self.content, "{run}: wrong content");
            fs::remove_file(&path).expect("the target");
        }
        let left: Vec<_> = fs::read_dir(dir).expect("a folder").collect();
        assert!(left.is_empty(), "{run}: {left:?} is left behind");
        fired
    }
}

fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).expect("an I/O thread")
}

/// Data at both ends and in the middle, else zeroes.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for range in [0..MIB / 4, MIB + 5 * SECTOR..3 * MIB, SIZE - 9 * SECTOR..SIZE] {
        for (at, byte) in bytes.iter_mut().enumerate().take(range.end).skip(range.start) {
            *byte = u8::try_from(at / 1000 % 251).expect("below 251") + 1;
        }
    }
    bytes
}

fn raw(bytes: &[u8]) -> Disk {
    let mut disk = Disk::new(bytes.len() as u64);
    disk.write(0, bytes);
    disk
}

/// A new qcow2 image of [`SIZE`] bytes with `bytes` written at `offset`.
fn qcow2(options: &str, offset: u64, bytes: &[u8], compressed: bool) -> Disk {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let plain = dir.path().join("plain");
    let name = path.to_str().expect("UTF-8").to_owned();
    on_io_thread(async {
        let graph = Graph::new();
        if compressed {
            fs::write(&plain, bytes).expect("writable");
            let source = format!("driver=raw,file.filename={}", plain.display());
            let mut request = request(&source, new_target(&path, "qcow2"));
            request.compress = true;
            return convert(&graph, request, &()).await;
        }
        let new = CreateRequest {
            filename: name.clone(),
            format: "qcow2".to_owned(),
            options: options.to_owned(),
            size: Some(SIZE as u64),
            ..CreateRequest::default()
        };
        create(&graph, &new, |_| Ok(())).await?;
        let spec = ImageSpec::File { name, format: Some("qcow2".to_owned()) };
        let image = spec.open(&graph, &Access { write: true, ..Access::default() }).await?;
        image
            .write(offset, IoBuf::copy_of(bytes), cairn_block::driver::WriteFlags::empty())
            .await?;
        image.close().await?;
        Result::Ok(())
    })
    .expect("an image");
    Disk::load(&path).expect("readable")
}

fn cases() -> [Case; 4] {
    let sample = sample();
    let change = vec![0xc3; MIB];
    let mut changed = sample.clone();
    changed[2 * MIB..3 * MIB].copy_from_slice(&change);
    let blank = |options| qcow2(options, 0, &[], false);
    let small = "cluster_size=4k";
    [
        Case {
            name: "raw to qcow2",
            sources: vec![("source", raw(&sample))],
            source: "driver=raw,file=source",
            format: "qcow2",
            blank: blank(small),
            compress: false,
            content: sample.clone(),
        },
        Case {
            name: "qcow2 to raw",
            sources: vec![("source", qcow2("", 0, &sample, false))],
            source: "driver=qcow2,file=source",
            format: "raw",
            blank: Disk::new(SIZE as u64),
            compress: false,
            content: sample.clone(),
        },
        Case {
            name: "compressed qcow2 to compressed qcow2",
            sources: vec![("source", qcow2("", 0, &sample, true))],
            source: "driver=qcow2,file=source",
            format: "qcow2",
            blank: blank(""),
            compress: true,
            content: sample.clone(),
        },
        Case {
            name: "qcow2 with a backing file to qcow2",
            sources: vec![
                ("source", qcow2(small, 2 * MIB as u64, &change, false)),
                ("base", raw(&sample)),
            ],
            source: "driver=qcow2,file=source,backing.driver=raw,backing.file=base",
            format: "qcow2",
            blank: blank(""),
            compress: false,
            content: changed,
        },
    ]
}

#[test]
fn errors_leave_the_source_alone_and_an_existing_target_sound() {
    for case in cases() {
        case.at_every_index(None);
    }
}

#[test]
fn errors_leave_no_new_target_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    for case in cases() {
        case.at_every_index(Some(dir.path()));
    }
}

/// Keeps what was salvaged.
#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Notice for Messages {
    fn total(&self, _bytes: u64) {}

    fn copied(&self, _bytes: u64) {}

    fn salvaged(&self, message: &str) {
        self.0.lock().push(message.to_owned());
    }
}

#[test]
fn salvaging_loses_no_more_than_the_sectors_that_cannot_be_read() {
    let sample = sample();
    let dir = tempfile::tempdir().expect("a folder");
    for (format, disk) in [("raw", raw(&sample)), ("qcow2", qcow2("", 0, &sample, false))] {
        on_io_thread(async {
            let faults = Faults::default();
            let devices = Devices::new(&[("source", &disk)], &faults);
            // Two sectors in the middle of the data; in the file of the qcow2 image they are elsewhere.
            let bad = 2 * MIB..2 * MIB + 2 * SECTOR;
            faults.unreadable(bad.start as u64..bad.end as u64);
            let path = dir.path().join(format);
            let source = format!("driver={format},file=source");
            let strict = convert(&devices.graph, request(&source, new_target(&path, "raw")), &());
            let error = strict.await.expect_err("two sectors cannot be read");
            assert!(error.to_string().contains("faulty disk") && !path.exists(), "{error}");
            let devices = Devices::new(&[("source", &disk)], &faults);
            let mut request = request(&source, new_target(&path, "raw"));
            request.salvage = true;
            let messages = Messages::default();
            convert(&devices.graph, request, &messages).await.expect("the rest is saved");
            let saved = fs::read(&path).expect("the target");
            assert_eq!(saved.len(), SIZE);
            let sectors = || sample.chunks(SECTOR).zip(saved.chunks(SECTOR));
            let lost: Vec<&[u8]> =
                sectors().filter(|(there, saved)| there != saved).map(|(_, saved)| saved).collect();
            assert_eq!(lost.len(), 2, "{format}");
            assert!(lost.iter().all(|sector| sector.iter().all(|&byte| byte == 0)), "{format}");
            let messages = messages.0.into_inner();
            assert_eq!(messages.len(), 2, "{messages:?}");
            assert!(messages.iter().all(|text| text.contains("error while reading offset")));
            assert_eq!(disk.difference(&devices.memory[0].disk()), None);
        });
    }
}
