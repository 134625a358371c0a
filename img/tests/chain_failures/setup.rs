//! Chains of two images, and the commands that change them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_block::driver::{Driver, Repair, WriteFlags};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Graph, Node, NodeFlags};
use cairn_block::options::{CacheMode, Dict, Value};
use cairn_block::{IoBuf, IoBufMut};
use cairn_img::error::{Error, Result};
use cairn_img::ops::commit::merge;
use cairn_img::ops::create::{CreateRequest, create};
use cairn_img::ops::image::{Access, ImageSpec};
use cairn_img::ops::rebase::{NewBacking, RebaseRequest, rebase};
use cairn_testkit::{Disk, Memory};
use tempfile::TempDir;

const KIB: usize = 1 << 10;

/// What is written to an image: first byte, length, and the value of the bytes; 0 writes zeroes.
type Writes = &'static [(usize, usize, u8)];

/// An image of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) format: &'static str,
    options: &'static str,
    size: usize,
    writes: Writes,
}

/// An overlay and the image below it.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) base: Layer,
    pub(crate) top: Layer,
}

const BASE: Layer = Layer {
    format: "qcow2",
    options: "cluster_size=4k",
    size: 400 * KIB,
    writes: &[(0, 100 * KIB, 1), (150 * KIB, 60 * KIB, 2), (300 * KIB, 50 * KIB, 3)],
};
const TOP: Layer = Layer {
    format: "qcow2",
    options: "cluster_size=4k",
    size: 400 * KIB,
    writes: &[
        (20 * KIB, 30 * KIB, 11),
        (90 * KIB + 512, 70 * KIB, 12),
        (160 * KIB, 20 * KIB, 0),
        (340 * KIB, 30 * KIB, 13),
    ],
};

/// Chains in which committing and rebasing take different ways.
pub(crate) const CHAINS: [Chain; 7] = [
    Chain { name: "v3", base: BASE, top: TOP },
    Chain {
        name: "v2",
        base: Layer { options: "compat=0.10,cluster_size=4k", ..BASE },
        top: Layer { options: "compat=0.10,cluster_size=4k", ..TOP },
    },
    Chain {
        name: "subclusters",
        base: Layer { options: "cluster_size=64k", ..BASE },
        top: Layer { options: "extended_l2=on,cluster_size=16k", ..TOP },
    },
    Chain {
        name: "clusters of 512",
        base: Layer { options: "cluster_size=512,refcount_bits=64", size: 200 * KIB, ..SMALL },
        top: Layer { options: "cluster_size=512", size: 200 * KIB, ..SMALL_TOP },
    },
    Chain { name: "grown", base: Layer { size: 360 * KIB, ..BASE }, top: TOP },
    Chain { name: "shrunk", base: BASE, top: Layer { size: 372 * KIB, ..TOP } },
    Chain { name: "raw", base: Layer { format: "raw", options: "", ..BASE }, top: TOP },
];
const SMALL: Layer = Layer { writes: &[(0, 50 * KIB, 1), (100 * KIB, 30 * KIB, 2)], ..BASE };
const SMALL_TOP: Layer =
    Layer { writes: &[(10 * KIB, 30 * KIB, 11), (45 * KIB, 20 * KIB, 0)], ..TOP };

impl Layer {
    /// Makes the image, over the file `backing` if there is one.
    pub(crate) fn make(&self, backing: Option<&Path>) -> Disk {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("image");
        let name = path.to_str().expect("UTF-8").to_owned();
        let (file, format) = match backing {
            Some(path) => (Some(path.display().to_string()), Some("raw".to_owned())),
            None => (None, None),
        };
        on_io_thread(async {
            let graph = Graph::new();
            let new = CreateRequest {
                filename: name.clone(),
                format: self.format.to_owned(),
                options: self.options.to_owned(),
                size: Some(self.size as u64),
                backing: file,
                backing_format: format,
                ..CreateRequest::default()
            };
            create(&graph, &new, |_| Ok(())).await?;
            let spec = ImageSpec::File { name, format: Some(self.format.to_owned()) };
            let image = spec.open(&graph, &Access { write: true, ..Access::default() }).await?;
            for &(offset, len, byte) in self.writes {
                let offset = offset as u64;
                if byte == 0 {
                    image.write_zeroes(offset, len as u64, WriteFlags::empty()).await?;
                } else {
                    let data = IoBuf::copy_of(&vec![byte; len]);
                    image.write(offset, data, WriteFlags::empty()).await?;
                }
            }
            image.close().await?;
            Ok::<(), Error>(())
        })
        .expect("the image is made");
        Disk::load(&path).expect("the image")
    }

    /// Puts what was written over `below`.
    fn show(&self, mut below: Vec<u8>) -> Vec<u8> {
        below.resize(self.size, 0);
        for &(offset, len, byte) in self.writes {
            below[offset..offset + len].fill(byte);
        }
        below
    }
}

impl Chain {
    /// What the base holds.
    pub(crate) fn below(&self) -> Vec<u8> {
        self.base.show(Vec::new())
    }

    /// What the overlay shows.
    pub(crate) fn want(&self) -> Vec<u8> {
        self.top.show(self.below())
    }

    /// What the base holds after a commit.
    pub(crate) fn merged(&self) -> Vec<u8> {
        let mut bytes = self.below();
        let want = self.want();
        bytes.resize(bytes.len().max(want.len()), 0);
        bytes[..want.len()].copy_from_slice(&want);
        bytes
    }

    /// Commits the image on `top` to that on `base`.
    pub(crate) async fn commit(&self, base: impl Driver, top: impl Driver) -> Result<()> {
        let graph = Graph::new();
        let _nodes = [add(&graph, "top", top), add(&graph, "base", base)];
        let access = Access { write: true, resize: true, exclusive: true, ..Access::default() };
        let mut without_base = Dict::new();
        without_base.insert("backing", Value::Null);
        let top = options("driver=qcow2,file=top");
        let top = top.open_with(&graph, &access, without_base).await?;
        let access = Access { exclusive: false, ..access };
        let base = format!("driver={},file=base", self.base.format);
        let base = options(&base).open(&graph, &access).await?;
        merge(top, base, false, None, &()).await
    }

    /// Everything that the image on `top` shows over that on `base`, after both were checked.
    pub(crate) async fn view(&self, base: &Disk, top: &Disk) -> Result<Vec<u8>, String> {
        check(top, self.top.format).await.map_err(|e| format!("overlay: {e}"))?;
        check(base, self.base.format).await.map_err(|e| format!("base: {e}"))?;
        let graph = Graph::new();
        let base = Memory::new(base.clone());
        let _nodes = [add(&graph, "top", Memory::new(top.clone())), add(&graph, "base", base)];
        let format = self.base.format;
        let chain = format!("driver=qcow2,file=top,backing.driver={format},backing.file=base");
        read(&graph, &chain).await
    }

    /// What the base holds, when it is looked at alone.
    pub(crate) async fn base_view(&self, base: &Disk) -> Result<Vec<u8>, String> {
        let graph = Graph::new();
        let _node = add(&graph, "base", Memory::new(base.clone()));
        read(&graph, &format!("driver={},file=base", self.base.format)).await
    }
}

/// A folder with the raw disks that an overlay is rebased from and to.
pub(crate) struct Disks {
    _dir: TempDir,
    pub(crate) old: PathBuf,
    new: PathBuf,
}

impl Disks {
    /// `chain`'s base as the old disk, and another one.
    pub(crate) fn new(chain: &Chain) -> Disks {
        let dir = tempfile::tempdir().expect("a folder");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let below = chain.below();
        let mut other = below.clone();
        let len = other.len();
        other[len / 5..len / 3].fill(21);
        other.resize(len * 7 / 8 / 512 * 512, 0);
        fs::write(&old, below).expect("a file");
        fs::write(&new, other).expect("a file");
        Disks { _dir: dir, old, new }
    }

    /// Rebases the image on `top` to the new disk, or to none.
    pub(crate) async fn rebase(&self, top: impl Driver, to_none: bool) -> Result<()> {
        let graph = Graph::new();
        let _node = add(&graph, "top", top);
        let file = self.new.display().to_string();
        let request = RebaseRequest {
            image: options("driver=qcow2,file=top"),
            cache: CacheMode::Writeback,
            backing: (!to_none).then(|| NewBacking { file, format: Some("raw".to_owned()) }),
            backing_cache: CacheMode::Writeback,
            force_share: false,
            header_only: false,
            compress: false,
        };
        rebase(&graph, &request, &()).await
    }

    /// Everything that the image on `top` shows over the file that it names, after it was checked.
    pub(crate) async fn view(&self, top: &Disk) -> Result<Vec<u8>, String> {
        check(top, "qcow2").await?;
        let graph = Graph::new();
        let _node = add(&graph, "top", Memory::new(top.clone()));
        read(&graph, "driver=qcow2,file=top").await
    }
}

/// Fails with what a check finds, but for leaks.
async fn check(disk: &Disk, format: &str) -> Result<(), String> {
    if format == "raw" {
        return Ok(());
    }
    let graph = Graph::new();
    let _node = add(&graph, "disk", Memory::new(disk.clone()));
    let access = Access { check: true, no_backing: true, ..Access::default() };
    let image = options(&format!("driver={format},file=disk")).open(&graph, &access).await;
    let image = image.map_err(|e| format!("open: {e}"))?;
    let report = image.node().driver().check(Repair::empty()).await.map_err(|e| e.to_string())?;
    image.close().await.map_err(|e| e.to_string())?;
    if report.corruptions + report.check_errors == 0 {
        return Ok(());
    }
    Err(format!("{} corruptions: {:?}", report.corruptions, report.details))
}

/// All that the image which `list` describes shows.
async fn read(graph: &Arc<Graph>, list: &str) -> Result<Vec<u8>, String> {
    let image = options(list).open(graph, &Access::default()).await.map_err(|e| e.to_string())?;
    let len = usize::try_from(image.size()).expect("small");
    let bytes = image.read(0, IoBufMut::new(len)).await.map_err(|e| e.to_string())?;
    image.close().await.map_err(|e| e.to_string())?;
    Ok(bytes.to_vec())
}

fn options(list: &str) -> ImageSpec {
    ImageSpec::Options(list.to_owned())
}

/// Puts a disk into a graph, where it is as long as the node is held.
fn add(graph: &Arc<Graph>, name: &str, disk: impl Driver) -> Arc<Node> {
    let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
    graph.add_driver(name, flags, Box::new(disk)).expect("a new name")
}

/// Runs a test on an I/O thread.
pub(crate) fn on_io_thread<F: Future>(future: F) -> F::Output {
    block_on(&EngineConfig::default(), future).expect("an I/O thread")
}

/// The first byte in which two contents differ.
pub(crate) fn difference(found: &[u8], expected: &[u8]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} bytes, not {}", found.len(), expected.len()));
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b)?;
    Some(format!("byte {at:#x} is {}, not {}", found[at], expected[at]))
}
