//! Image locks between nodes, and between this library and the reference's programs.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cairn_block::driver::{Perm, find};
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::Dict;
use cairn_block::{Error, Result};

fn run<T>(future: impl Future<Output = T>) -> T {
    block_on(&EngineConfig::default(), future).unwrap()
}

async fn open(path: &Path, locking: &str, used: Perm, shared: Perm) -> Result<Backend> {
    let graph = Graph::new();
    let mut options = Dict::default();
    options.insert("driver", "file");
    options.insert("filename", path.to_str().unwrap());
    options.insert("locking", locking);
    let flags = NodeFlags { auto_read_only: true, ..NodeFlags::default() };
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    Backend::new(&graph, node, "test", used, shared)
}

fn image() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::write(&path, [0; 1000]).unwrap();
    (dir, path)
}

fn message(result: Result<Backend>) -> String {
    match result {
        Err(error @ Error::Locked { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the lock was granted"),
    }
}

#[test]
fn users_that_exclude_each_other_are_told_so() {
    let (_dir, path) = image();
    let rest = Perm::all() - Perm::WRITE;
    run(async {
        let writer = open(&path, "on", Perm::WRITE, rest).await.unwrap();
        let text = message(open(&path, "auto", Perm::WRITE, Perm::all()).await);
        assert!(text.starts_with("Failed to get \"write\" lock\n"), "{text}");
        assert!(text.contains("this process"), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        let text = message(open(&path, "auto", Perm::CONSISTENT_READ, rest).await);
        assert!(text.starts_with("Failed to get shared \"write\" lock\n"), "{text}");
        // Reading, and not minding the writer, is fine; so is not asking.
        let reader = open(&path, "on", Perm::CONSISTENT_READ, Perm::all()).await.unwrap();
        let careless = open(&path, "off", Perm::WRITE, rest).await.unwrap();
        careless.close().await.unwrap();
        // A refused change leaves the permissions as they were.
        assert!(reader.set_permissions(Perm::WRITE, Perm::all()).is_err());
        writer.set_permissions(Perm::CONSISTENT_READ, Perm::all()).unwrap();
        reader.set_permissions(Perm::WRITE, rest).unwrap();
        assert!(writer.set_permissions(Perm::WRITE, Perm::all()).is_err());
        reader.close().await.unwrap();
        writer.set_permissions(Perm::WRITE, rest).unwrap();
        writer.close().await.unwrap();
        open(&path, "on", Perm::WRITE, rest).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn an_image_in_use_is_not_overwritten_by_creating_it_anew() {
    let (_dir, path) = image();
    run(async {
        let user = open(&path, "on", Perm::CONSISTENT_READ, Perm::CONSISTENT_READ).await.unwrap();
        let create = find("file").unwrap().create.unwrap();
        let created = create(&Graph::new(), path.to_str().unwrap(), Dict::default()).await;
        assert!(matches!(created, Err(Error::Locked { .. })));
        assert_eq!(fs::metadata(&path).unwrap().len(), 1000);
        user.close().await.unwrap();
        create(&Graph::new(), path.to_str().unwrap(), Dict::default()).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

fn installed(program: &str) {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok(), "{program} is needed for this test: install qemu-utils");
}

/// A stock `qemu-io` that has an image open.
struct QemuIo(Child);

impl QemuIo {
    fn start(path: &Path) -> QemuIo {
        installed("qemu-io");
        // Through a pipe it would keep its answers to itself, if it were not for `stdbuf`.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "qemu-io", "-f", "qcow2", "-c", "length", "-c", "sleep 600000"])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first answer says that it has opened the image.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "1 MiB");
        QemuIo(child)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qcow2_image() -> (tempfile::TempDir, PathBuf) {
    installed("qemu-img");
    let (dir, path) = image();
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&path)
        .arg("1M")
        .status()
        .unwrap();
    assert!(status.success());
    (dir, path)
}

#[test]
fn locks_of_stock_programs_are_respected_and_their_holder_named() {
    let (_dir, path) = qcow2_image();
    let holder = QemuIo::start(&path);
    run(async {
        let text = message(open(&path, "auto", Perm::WRITE, Perm::all()).await);
        assert!(text.starts_with("Failed to get \"write\" lock\n"), "{text}");
        assert!(text.contains(&format!("process {} (qemu-io)", holder.0.id())), "{text}");
        let no_writers = Perm::all() - Perm::WRITE;
        let text = message(open(&path, "auto", Perm::CONSISTENT_READ, no_writers).await);
        assert!(text.starts_with("Failed to get shared \"write\" lock\n"), "{text}");
        let forced = open(&path, "auto", Perm::CONSISTENT_READ, Perm::all()).await.unwrap();
        forced.close().await.unwrap();
        drop(holder);
        open(&path, "auto", Perm::WRITE, no_writers).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn stock_programs_respect_these_locks() {
    let (_dir, path) = qcow2_image();
    let info = |arguments: &[&str]| {
        let mut child = Command::new("qemu-img")
            .arg("info")
            .args(arguments)
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (child.wait().unwrap().success(), text)
    };
    run(async {
        let no_writers = Perm::all() - Perm::WRITE;
        let writer = open(&path, "on", Perm::WRITE, no_writers).await.unwrap();
        let (success, text) = info(&[]);
        assert!(!success && text.contains("Failed to get shared \"write\" lock"), "{text}");
        assert!(info(&["-U"]).0);
        // Readers do not exclude each other.
        writer.set_permissions(Perm::CONSISTENT_READ, no_writers).unwrap();
        assert!(info(&[]).0);
        writer.close().await.unwrap();
    });
}
