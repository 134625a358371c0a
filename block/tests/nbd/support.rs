//! What the tests share: an I/O thread, servers as child processes, images to serve.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cairn_block::driver::Perm;
use cairn_block::engine::{EngineConfig, block_on};
use cairn_block::graph::{Backend, Graph, NodeFlags, OpenOptions};
use cairn_block::options::parse_keyval;
use cairn_block::{Error, Result};

/// Runs a test on an I/O thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    block_on(&EngineConfig::default(), future).expect("an I/O thread")
}

/// Opens what `text` describes, for reading and writing.
pub(crate) async fn open(graph: &Arc<Graph>, text: &str) -> Result<Backend> {
    open_as(graph, text, NodeFlags { unmap: true, ..NodeFlags::default() }).await
}

/// Opens what `text` describes.
pub(crate) async fn open_as(graph: &Arc<Graph>, text: &str, flags: NodeFlags) -> Result<Backend> {
    let options = parse_keyval(text, None)?;
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let write = if flags.read_only { Perm::empty() } else { Perm::WRITE };
    Backend::new(graph, node, "test", Perm::CONSISTENT_READ | write, Perm::all())
}

/// Why opening `text` fails.
pub(crate) async fn open_error(graph: &Arc<Graph>, text: &str) -> Error {
    match open(graph, text).await {
        Ok(_) => panic!("{text} must not open"),
        Err(error) => error,
    }
}

/// A server that is killed at the end.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts a server that makes `socket`, and waits until it has.
    pub(crate) fn start(command: &mut Command, socket: &Path) -> Server {
        let _ = std::fs::remove_file(socket);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Server(child.unwrap_or_else(|error| {
            panic!("cannot run {command:?}, which `cargo xtask test` installs: {error}")
        }));
        while !listens(socket) {
            let ended = server.0.try_wait().expect("a child");
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// `qemu-nbd` with `words`, on a socket in `dir`.
    pub(crate) fn stock(dir: &Path, words: &[&str]) -> (Server, PathBuf) {
        let socket = dir.join("stock.sock");
        let mut command = Command::new("qemu-nbd");
        command.args(["-t", "-k"]).arg(&socket).args(words).current_dir(dir);
        (Server::start(&mut command, &socket), socket)
    }

    /// `nbdkit` with `words`, on a socket in `dir`.
    pub(crate) fn nbdkit(dir: &Path, words: &[&str]) -> (Server, PathBuf) {
        let socket = dir.join("nbdkit.sock");
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U"]).arg(&socket).args(words).current_dir(dir);
        (Server::start(&mut command, &socket), socket)
    }
}

/// Whether connections to `socket` are taken. A server makes the file a moment earlier.
fn listens(socket: &Path) -> bool {
    /// `__SO_ACCEPTCON` of linux/net.h, as in /proc/net/unix.
    const LISTENS: &str = " 00010000 ";
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("a list of sockets");
    let path = format!(" {}", socket.display());
    sockets.lines().any(|line| line.ends_with(&path) && line.contains(LISTENS))
}

/// Options of the driver for a Unix socket.
pub(crate) fn at(socket: &Path, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!("driver=nbd,server.type=unix,server.path={}{comma}{more}", socket.display())
}

/// Runs a program in `dir` that must succeed, and returns what it printed.
pub(crate) fn expect(dir: &Path, words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {words:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {text}{errors}");
    text
}

/// A directory with the raw file `disk` of `len` bytes: a pattern in every other 64 KiB, holes between.
pub(crate) fn disk(len: usize) -> tempfile::TempDir {
    use std::os::unix::fs::FileExt;

    let dir = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(dir.path().join("disk")).expect("a file");
    file.set_len(len as u64).expect("a length");
    let content = pattern(len);
    for start in (0..len).step_by(128 << 10) {
        let end = len.min(start + (64 << 10));
        file.write_all_at(&content[start..end], start as u64).expect("written");
    }
    dir
}

/// What [`disk`] holds.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at / 512 + at) % 251).expect("below 251") + 1;
    (0..len).map(|at| if at / (64 << 10) % 2 == 0 { byte(at) } else { 0 }).collect()
}
