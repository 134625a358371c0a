//! Servers of either kind in a directory of their own, and the clients that tests use.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::tool::find_in_path;
use tempfile::TempDir;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// A directory with images, and both servers.
pub(crate) struct Lab {
    dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Our server under the reference's name.
    pub(crate) fn ours_as_stock(&self) -> PathBuf {
        let link = self.path("qemu-nbd");
        if !link.exists() {
            symlink(ours(), &link).expect("a link");
        }
        link
    }

    /// Runs a program of another project in the directory, and returns what it prints.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(&installed(program), args);
        assert!(
            output.status.success(),
            "{program} {args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn output(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).env("LC_ALL", "C");
        command.stdin(Stdio::null()).output().expect("a program that starts")
    }

    /// An overlay with data, zeroes and bitmaps over an image with data: `top.qcow2`.
    pub(crate) fn chain(&self) {
        self.run("qemu-img", &["create", "-q", "-f", "qcow2", "base.qcow2", "16M"]);
        self.run("qemu-io", &["-c", "write -P 1 0 1M", "-c", "write -P 2 4M 256k", "base.qcow2"]);
        let backing = ["-b", "base.qcow2", "-F", "qcow2", "top.qcow2"];
        self.run("qemu-img", &[&["create", "-q", "-f", "qcow2"][..], &backing].concat());
        self.run("qemu-img", &["bitmap", "--add", "top.qcow2", "b0"]);
        self.run("qemu-io", &["-c", "write -P 3 512k 1M", "-c", "write -z 8M 1M", "top.qcow2"]);
        self.run("qemu-img", &["bitmap", "--disable", "top.qcow2", "b0"]);
        self.run("qemu-img", &["bitmap", "--add", "-g", "128k", "top.qcow2", "b1"]);
        self.run("qemu-io", &["-c", "write -P 4 12M 4k", "top.qcow2"]);
    }

    /// Starts a server on a unix socket.
    pub(crate) fn serve(&self, program: &Path, args: &[&str]) -> Server {
        let socket = self.path(&format!("socket-{}", self.sockets()));
        let mut command = Command::new(program);
        command.args(["-k", &socket.to_string_lossy()]).args(args).current_dir(self.dir.path());
        let child = command.stdin(Stdio::null()).spawn().expect("a server that starts");
        let mut server = Server { child, socket };
        let started = Instant::now();
        // A socket has its name before it listens.
        while UnixStream::connect(&server.socket).is_err() {
            assert_eq!(server.child.try_wait().expect("a child"), None, "{args:?}: it has ended");
            assert!(started.elapsed() < PATIENCE, "{args:?}: it does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn sockets(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path()).expect("a directory");
        entries.flatten().count()
    }
}

/// Our server under its own name.
pub(crate) fn ours() -> PathBuf {
    env!("CARGO_BIN_EXE_cairn-nbd").into()
}

/// The reference's server.
pub(crate) fn stock() -> PathBuf {
    installed("qemu-nbd")
}

/// The path of a program of another project.
pub(crate) fn installed(program: &str) -> PathBuf {
    find_in_path(program).unwrap_or_else(|| {
        panic!("{program} is not installed: `cargo xtask test` installs what the tests need")
    })
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Server {
    /// Where clients find the export `name`.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a process");
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.terminate();
        assert_eq!(self.wait().code(), Some(0));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
