//! Images on NBD servers: our tool says and copies what the reference's does.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cairn_tests::tool::Tool;

/// A server that is killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Serves `image` as `export`, on the socket `sock` in `dir`.
    fn start(dir: &Path, words: &str, export: &str, image: &str) -> Server {
        let mut command = Command::new("qemu-nbd");
        command
            .args(["-t", "-e", "16", "-x", export, "-k"])
            .arg(dir.join("sock"))
            .args(words.split_whitespace())
            .arg(image)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let server = Server(command.spawn().expect("qemu-nbd, which `cargo xtask test` installs"));
        while UnixStream::connect(dir.join("sock")).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

/// A folder with a raw and a qcow2 image of 64 MiB with data, zeroes and holes.
fn images() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (stock, io) = (Tool::stock(), Tool::stock_io());
    for format in ["raw", "qcow2"] {
        stock.ok(dir.path(), &format!("create -q -f {format} disk.{format} 64M"));
        for at in [0, 1, 5, 17, 40, 63] {
            let write = format!("write -P {} {at}M 200k", at + 1);
            let words = ["-f", format, "-c", &write, &format!("disk.{format}")];
            let done = io.run_with(dir.path(), words, cairn_tests::process::Limits::default());
            assert_eq!(done.code(), Some(0), "{}", done.err());
        }
        let words = ["-f", format, "-c", "write -z 5M 64k", &format!("disk.{format}")];
        io.run_with(dir.path(), words, cairn_tests::process::Limits::default());
    }
    dir
}

#[test]
fn both_tools_say_the_same() {
    let dir = images();
    let (ours, stock) = (Tool::ours(), Tool::stock());
    for format in ["raw", "qcow2"] {
        let _server =
            Server::start(dir.path(), &format!("-f {format}"), "e", &format!("disk.{format}"));
        let socket = dir.path().join("sock");
        let path = socket.display();
        for name in [
            format!("nbd+unix:///e?socket={path}"),
            format!("nbd:unix:{path}:exportname=e"),
            format!(
                "json:{{\"driver\":\"nbd\",\"server.type\":\"unix\",\"server.path\":\"{path}\",\"export\":\"e\"}}"
            ),
            format!(
                "json:{{\"driver\":\"raw\",\"offset\":65536,\"file\":{{\"driver\":\"nbd\",\"path\":\"{path}\",\"export\":\"e\"}}}}"
            ),
            format!("nbd+unix:///none?socket={path}"),
            format!("nbd+unix:///e?socket={path}&tls-certificates=x"),
        ] {
            for command in
                ["info", "info --output=json", "map", "map --output=json", "measure -O qcow2"]
            {
                let (theirs, own) = (
                    stock.run(dir.path(), &format!("{command} {name}")),
                    ours.run(dir.path(), &format!("{command} {name}")),
                );
                assert_eq!(own.code(), theirs.code(), "{command} {name}: {}", own.err());
                assert_eq!(own.out(), theirs.out(), "{command} {name}");
            }
        }
    }
}

#[test]
fn copies_in_both_directions_are_equal() {
    let dir = images();
    let (ours, stock) = (Tool::ours(), Tool::stock());
    let name = format!("nbd+unix:///e?socket={}", dir.path().join("sock").display());
    let server = Server::start(dir.path(), "-f raw", "e", "disk.raw");
    for format in ["raw", "qcow2"] {
        ours.ok(dir.path(), &format!("convert -f raw -O {format} {name} copy.{format}"));
        stock.ok(dir.path(), &format!("compare -f raw -F {format} disk.raw copy.{format}"));
        ours.ok(dir.path(), &format!("compare -f raw -F {format} {name} copy.{format}"));
    }
    drop(server);
    stock.ok(dir.path(), "create -q -f raw target 64M");
    let server = Server::start(dir.path(), "-f raw --discard=unmap", "e", "target");
    ours.ok(dir.path(), &format!("convert -n -f qcow2 -O raw disk.qcow2 {name}"));
    stock.ok(dir.path(), &format!("compare -f raw -F qcow2 {name} disk.qcow2"));
    ours.ok(dir.path(), &format!("create -q -f qcow2 {name} 32M"));
    stock.ok(dir.path(), &format!("check -f qcow2 {name}"));
    drop(server);
    let (own, theirs) = (ours.run(dir.path(), "info target"), stock.run(dir.path(), "info target"));
    assert_eq!(own.out(), theirs.out());
}
