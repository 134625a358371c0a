//! Images under test: made by the reference, held in memory, opened through the graph.

use std::path::Path;

use cairn_block::Result;
use cairn_block::driver::{Driver, Perm};
use cairn_block::graph::{Backend, Graph, Node, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_testkit::{Disk, stock};
use std::sync::Arc;

/// A kind of image.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// Creation options for `qemu-img`.
    pub(crate) options: &'static str,
    /// Cluster size in bytes.
    pub(crate) cluster: u64,
    /// Percentage of compressed writes.
    pub(crate) compressed: u64,
    /// Options for opening.
    pub(crate) runtime: &'static [(&'static str, &'static str)],
}

const fn kind(options: &'static str, cluster: u64, compressed: u64) -> Kind {
    Kind { options, cluster, compressed, runtime: &[] }
}

/// All kinds that differ in how they work.
pub(crate) const KINDS: &[Kind] = &[
    kind("cluster_size=65536", 65536, 10),
    kind("cluster_size=4096", 4096, 10),
    Kind {
        runtime: &[("l2-cache-size", "1024"), ("l2-cache-entry-size", "512")],
        ..kind("cluster_size=512", 512, 10)
    },
    kind("compat=0.10", 65536, 10),
    kind("cluster_size=16384,extended_l2=on", 16384, 5),
    kind("cluster_size=4096,refcount_bits=1", 4096, 10),
    kind("cluster_size=512,refcount_bits=64", 512, 10),
    kind("compression_type=zstd", 65536, 20),
    kind("preallocation=metadata", 65536, 0),
    kind("preallocation=falloc,cluster_size=4096", 4096, 0),
    Kind { runtime: &[("discard-no-unref", "on")], ..kind("cluster_size=4096", 4096, 10) },
];

/// The device nodes below an image, by the option that names them.
pub(crate) type Below = Vec<(&'static str, Box<dyn Driver>)>;

/// Flags with which the nodes are opened.
pub(crate) fn flags() -> NodeFlags {
    NodeFlags { unmap: true, ..NodeFlags::default() }
}

/// Opens the qcow2 image on the nodes `below`.
pub(crate) async fn open_on(
    below: Below,
    runtime: &[(&'static str, &str)],
    read_only: bool,
) -> Result<Backend> {
    let graph = Graph::new();
    let flags = NodeFlags { read_only, ..flags() };
    let mut options = Dict::new();
    options.insert("driver", "qcow2");
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for (key, driver) in below {
        nodes.push(graph.add_driver(key, flags, driver)?);
        options.insert(key, key);
    }
    for (name, value) in runtime {
        options.insert(*name, *value);
    }
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let write = if read_only { Perm::empty() } else { Perm::WRITE };
    Backend::new(&graph, node, "test", Perm::CONSISTENT_READ | write, Perm::all())
}

/// Opens the qcow2 image in `disk`.
pub(crate) async fn open(
    disk: impl Driver,
    runtime: &[(&'static str, &str)],
    read_only: bool,
) -> Result<Backend> {
    open_on(vec![("file", Box::new(disk))], runtime, read_only).await
}

/// Runs `qemu-img`, which must succeed.
pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    let output = stock::qemu_img(arguments);
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", stock::text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A new image as the reference creates it; `more` are arguments in front of its name.
pub(crate) fn create(dir: &Path, options: &str, more: &[&str], size: u64) -> Disk {
    let path = dir.join("new.qcow2");
    let size = size.to_string();
    let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", options];
    arguments.extend(more);
    arguments.extend([path.to_str().unwrap(), &size]);
    qemu_img(&arguments);
    Disk::load(&path).unwrap()
}

/// Asserts that the reference finds nothing wrong with `disk`, but leaks if those are allowed.
pub(crate) fn stock_check(dir: &Path, disk: &Disk, leaks: bool, what: &str) {
    let path = dir.join("check.qcow2");
    disk.store(&path).unwrap();
    // Whatever backing file the image names is not there.
    let path = path.display();
    let name = format!(r#"json:{{"driver":"qcow2","backing":null,"file.filename":"{path}"}}"#);
    let output = stock::qemu_img(["check", &name]);
    let code = output.status.code();
    let fine = code == Some(0) || (leaks && code == Some(3));
    assert!(fine, "{what}: {}", stock::text(&output));
}
