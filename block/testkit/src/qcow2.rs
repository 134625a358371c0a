//! The qcow2 images that the tests work on: one for each part of the format that changes how metadata
//! is written.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use cairn_block::driver::{Driver, Perm};
use cairn_block::formats::qcow2::create::format_node;
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenOptions};
use cairn_block::options::{Dict, Value as OptionValue};
use cairn_block::secret::Secret;
use cairn_block::{Error, Op, Result};

use crate::{Disk, Memory, Model, Profile, Value, stock};

/// What a writer of an image needs.
const WRITER: Perm = Perm::CONSISTENT_READ.union(Perm::WRITE).union(Perm::RESIZE);
/// Content of backing files.
const BACKING: Value = Value::Tag(u32::MAX);
/// The secret of encrypted images, which is called as it is.
const SECRET: &str = "secret";

/// One kind of image.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Name, for messages.
    pub name: &'static str,
    /// Creation options, without the size and the names of other files.
    pub options: &'static [(&'static str, &'static str)],
    /// Size of the virtual disk in bytes.
    pub size: u64,
    /// Cluster size in bytes.
    pub cluster: u64,
    /// Size of the backing file in bytes, if there is one.
    pub backing: Option<u64>,
    /// The guest's data lies in a file of its own.
    pub data_file: bool,
    /// The guest's data is encrypted, with LUKS and a secret of its own.
    pub encrypted: bool,
}

impl Layout {
    /// Name of the image in a directory.
    pub const IMAGE: &str = "file";
    /// A secret that every graph has, beside that of encrypted images.
    pub const OTHER_SECRET: &str = "other";

    /// A disk of `clusters` clusters without other files.
    pub const fn new(
        name: &'static str,
        options: &'static [(&'static str, &'static str)],
        cluster: u64,
        clusters: u64,
    ) -> Layout {
        let size = cluster * clusters;
        Layout { name, options, size, cluster, backing: None, data_file: false, encrypted: false }
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.options.contains(&(name, value))
    }

    /// Whether refcounts may be wrong until the next time the image is opened for writing.
    pub fn is_lazy(&self) -> bool {
        self.has("lazy_refcounts", "on")
    }

    /// Whether discards show the backing file: version 2 has no zero clusters.
    pub fn discard_bares(&self) -> bool {
        self.backing.is_some() && self.has("compat", "0.10")
    }

    /// A workload for this image.
    pub fn profile(&self, ops: usize) -> Profile {
        Profile::new(self.size, self.cluster, ops)
    }

    /// What a new image holds.
    pub fn model(&self) -> Model {
        let mut model = Model::new(self.size);
        if let Some(size) = self.backing {
            model.begin_with(0..size.min(self.size), BACKING);
        }
        model
    }

    fn backing_disk(&self) -> Option<Disk> {
        let mut disk = Disk::new(0);
        disk.write(0, &BACKING.buffer(0, self.backing?));
        Some(disk)
    }

    /// Number of files that the image writes to: its own, and the data file.
    pub fn files(&self) -> usize {
        if self.data_file { 2 } else { 1 }
    }

    /// A graph with `devices` as the nodes `file` and `data`, and the backing file as `base`. The nodes
    /// live as long as somebody holds or uses them.
    fn graph(&self, devices: Vec<Box<dyn Driver>>) -> Result<(Arc<Graph>, Vec<Arc<Node>>)> {
        let graph = Graph::new();
        for id in [SECRET, Layout::OTHER_SECRET] {
            graph.secrets().add(id, Secret::new(id.into()))?;
        }
        let mut nodes = Vec::new();
        let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
        for (name, device) in ["file", "data"].into_iter().zip(devices) {
            nodes.push(graph.add_driver(name, flags, device)?);
        }
        if let Some(disk) = self.backing_disk() {
            let flags = NodeFlags { read_only: true, ..flags };
            nodes.push(graph.add_driver("base", flags, Box::new(Memory::new(disk)))?);
        }
        Ok((graph, nodes))
    }

    /// Makes the image on `devices`, of which there are [`Layout::files`].
    pub async fn create(&self, devices: Vec<Box<dyn Driver>>) -> Result<()> {
        self.create_naming(devices, "data").await
    }

    /// Makes the image, with `data_file` as the stored name of the data file.
    async fn create_naming(&self, devices: Vec<Box<dyn Driver>>, data_file: &str) -> Result<()> {
        let (graph, _nodes) = self.graph(devices)?;
        let mut options = Dict::default();
        for (name, value) in self.options {
            options.insert(*name, *value);
        }
        options.insert("size", self.size.to_string());
        options.insert("cluster_size", self.cluster.to_string());
        if self.backing.is_some() {
            options.insert("backing_file", "base");
            options.insert("backing_fmt", "raw");
        }
        if self.data_file {
            options.insert("data_file", data_file);
        }
        if self.encrypted {
            options.insert("encrypt.format", "luks");
            options.insert("encrypt.key-secret", SECRET);
            // As quick as iterations allow.
            options.insert("encrypt.iter-time", "0");
        }
        let user = |name| {
            let node = graph.node(name);
            node.map(|node| Backend::new(&graph, node, "test", WRITER, Perm::all())).transpose()
        };
        let (file, data_file) = (user("file")?, user("data")?);
        let Some(file) = file else { panic!("an image needs a device") };
        format_node(&graph, &file, data_file.as_ref(), options).await?;
        if let Some(data_file) = data_file {
            data_file.close().await?;
        }
        file.close().await
    }

    /// A new image.
    pub async fn blank(&self) -> Result<Vec<Disk>> {
        let devices = vec![Memory::default(); self.files()];
        self.create(boxed(&devices)).await?;
        Ok(devices.iter().map(Memory::disk).collect())
    }

    /// Opens the image on `devices`.
    pub async fn open(&self, devices: Vec<Box<dyn Driver>>, read_only: bool) -> Result<Backend> {
        let (graph, _nodes) = self.graph(devices)?;
        let mut options = Dict::default();
        options.insert("driver", "qcow2");
        options.insert("file", "file");
        if self.data_file {
            options.insert("data-file", "data");
        }
        if self.encrypted {
            options.insert("encrypt.key-secret", SECRET);
        }
        let base = self.backing.map(|_| OptionValue::from("base"));
        options.insert("backing", base.unwrap_or(OptionValue::Null));
        let flags = NodeFlags { unmap: true, read_only, ..NodeFlags::default() };
        let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
        let used = if read_only { Perm::CONSISTENT_READ } else { WRITER };
        Backend::new(&graph, node, "test", used, Perm::all())
    }

    /// Puts a new image into the directory `dir`, as the file [`Layout::IMAGE`].
    pub async fn create_in(&self, dir: &Path) -> Result<()> {
        let devices = vec![Memory::default(); self.files()];
        // A stored name of a data file is relative to the working directory.
        let data_file = dir.join("data").display().to_string();
        self.create_naming(boxed(&devices), &data_file).await?;
        let disks = devices.iter().map(Memory::disk).chain(self.backing_disk());
        let data = self.data_file.then_some("data");
        let base = self.backing.map(|_| "base");
        for (name, disk) in [Some(Layout::IMAGE), data, base].into_iter().flatten().zip(disks) {
            let stored = disk.store(&dir.join(name));
            stored.map_err(|error| Error::os(Op::Write, name, None, error))?;
        }
        Ok(())
    }

    /// Opens the image in the directory `dir` for writing.
    pub async fn open_in(&self, dir: &Path) -> Result<Backend> {
        let graph = Graph::new();
        let name = dir.join(Layout::IMAGE).display().to_string();
        let flags = NodeFlags { unmap: true, ..NodeFlags::default() };
        let node = graph.open(OpenOptions::file(name, Some("qcow2"), flags)).await?;
        Backend::new(&graph, node, "test", WRITER, Perm::all())
    }

    /// Opens an image with the content of `disks` read-only.
    pub async fn look(&self, disks: &[Disk]) -> Result<Backend> {
        let devices: Vec<_> = disks.iter().cloned().map(Memory::new).collect();
        self.open(boxed(&devices), true).await
    }

    /// Lets the stock tool check an image with the content of `disks`, in the directory `dir`.
    pub fn stock_check(&self, disks: &[Disk], dir: &Path) -> std::io::Result<Output> {
        let mut children = Vec::new();
        for (child, disk) in ["file", "data-file"].into_iter().zip(disks) {
            let path = dir.join(child);
            disk.store(&path)?;
            let path = path.display();
            children.push(format!(r#""{child}": {{"driver": "file", "filename": "{path}"}}"#));
        }
        if self.encrypted {
            let key = format!(r#"{{"format": "luks", "key-secret": "{SECRET}"}}"#);
            children.push(format!(r#""encrypt": {key}"#));
        }
        let options = children.join(", ");
        let image = format!(r#"json:{{"driver": "qcow2", "backing": null, {options}}}"#);
        let secret = format!("secret,id={SECRET},data={SECRET}");
        Ok(stock::qemu_img(["check", "--object", &secret, &image]))
    }
}

/// What [`damage`] spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Five clusters at the end leak.
    Leaks,
    /// Besides, every third data cluster counts one reference too many, and its entry does not say that
    /// it is the only one: so a deleted snapshot leaves clusters when it was interrupted.
    PartialLeaks,
    /// Besides leaks at the end, every third refcount is 0 and every fifth too high.
    Errors,
}

fn word(disk: &Disk, offset: u64) -> u64 {
    let mut word = [0; 8];
    disk.read(offset, &mut word);
    u64::from_be_bytes(word)
}

/// Spoils the refcounts of an image with 16-bit refcounts, one refcount block and entries of 8 bytes.
pub fn damage(disk: &mut Disk, cluster: u64, damage: Damage) {
    const COPIED: u64 = 1 << 63;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    // The header's pointer to the refcount table, whose first entry leads to the block.
    let block = word(disk, word(disk, 48));
    let used = disk.size().div_ceil(cluster);
    for at in used..used + 5 {
        disk.write(block + at * 2, &1u16.to_be_bytes());
    }
    disk.resize((used + 5) * cluster);
    match damage {
        Damage::Leaks => {}
        Damage::PartialLeaks => {
            let (entries, l1) = (word(disk, 32) & u64::from(u32::MAX), word(disk, 40));
            let tables = (0..entries).map(|index| word(disk, l1 + index * 8) & OFFSET);
            let tables: Vec<u64> = tables.filter(|&table| table > 0).collect();
            for place in
                tables.iter().flat_map(|table| (0..cluster / 8).map(move |i| table + i * 8))
            {
                let entry = word(disk, place);
                let at = (entry & OFFSET) / cluster;
                if entry & COPIED != 0 && at.is_multiple_of(3) {
                    disk.write(place, &(entry & !COPIED).to_be_bytes());
                    disk.write(block + at * 2, &2u16.to_be_bytes());
                }
            }
        }
        Damage::Errors => {
            for at in 2..used {
                if at % 3 == 0 {
                    disk.write(block + at * 2, &0u16.to_be_bytes());
                } else if at % 5 == 0 {
                    disk.write(block + at * 2, &3u16.to_be_bytes());
                }
            }
        }
    }
}

/// Drivers for a graph, which share their content with `devices`.
pub fn boxed<D: Driver + Clone>(devices: &[D]) -> Vec<Box<dyn Driver>> {
    devices.iter().cloned().map(|device| Box::new(device) as Box<dyn Driver>).collect()
}
