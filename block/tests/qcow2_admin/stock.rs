//! The reference tools, to compare with.

use std::path::Path;
use std::process::{Command, Output};

use cairn_block::driver::{DriverInfo, Perm, find};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::json;
use cairn_block::options::{Dict, Value};

/// Runs a test on an I/O thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    block_on(&EngineConfig::default(), future).expect("an I/O thread")
}

/// Runs a reference tool in `dir`.
pub(crate) fn tool(dir: &Path, words: &[&str]) -> Output {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(dir).output();
    output.unwrap_or_else(|error| panic!("cannot run {words:?}: {error}"))
}

/// Runs a reference tool that must succeed, and returns what it prints.
pub(crate) fn expect(dir: &Path, words: &[&str]) -> String {
    let output = tool(dir, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The JSON that a reference tool prints, whatever its exit code.
pub(crate) fn json(dir: &Path, words: &[&str]) -> Value {
    let output = tool(dir, words);
    let text = String::from_utf8_lossy(&output.stdout);
    json::parse(&text).unwrap_or_else(|error| {
        panic!("{words:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Options from pairs.
pub(crate) fn dict(pairs: &[(&'static str, &str)]) -> Dict {
    let mut dict = Dict::default();
    for (key, value) in pairs {
        dict.insert(*key, *value);
    }
    dict
}

/// Options from comma list without escapes.
pub(crate) fn options(list: &str) -> Dict {
    let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The driver under test.
pub(crate) fn qcow2() -> &'static DriverInfo {
    find("qcow2").expect("registered")
}

/// Opens an image for everything.
pub(crate) async fn open(path: &Path, flags: NodeFlags) -> cairn_block::Result<Backend> {
    let graph = Graph::new();
    let name = path.to_str().expect("plain path");
    let node = graph.open(OpenOptions::file(name, Some("qcow2"), flags)).await?;
    let used = if flags.read_only {
        Perm::CONSISTENT_READ
    } else {
        Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE
    };
    Backend::new(&graph, node, "test", used, Perm::all())
}

/// Flags to write with.
pub(crate) fn writable() -> NodeFlags {
    NodeFlags { unmap: true, ..NodeFlags::default() }
}

/// Flags to read with.
pub(crate) fn read_only() -> NodeFlags {
    NodeFlags { read_only: true, ..NodeFlags::default() }
}
