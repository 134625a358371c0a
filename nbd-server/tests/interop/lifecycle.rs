//! How the server starts, whom it lets in, and how it ends.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::server::{Lab, installed, ours};

fn disk(lab: &Lab) {
    lab.run("qemu-img", &["create", "-q", "-f", "raw", "disk", "1M"]);
}

/// Whether the server greets on this connection within a short time.
fn greets(stream: &UnixStream) -> bool {
    let mut stream = stream;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).is_ok() && greeting.starts_with(b"NBDMAGIC")
}

#[test]
fn it_ends_when_the_last_client_has_left() {
    let lab = Lab::new();
    disk(&lab);
    let mut server = lab.serve(&ours(), &["-f", "raw", "disk"]);
    // Those who only ask are no clients.
    let socket = server.socket.to_string_lossy().into_owned();
    let listed = lab.output(&ours(), &["-L", "-k", &socket]);
    assert!(listed.status.success() && server.is_running());
    lab.run("qemu-io", &["-f", "raw", "-c", "read 0 4k", &server.uri("")]);
    let path = server.socket.clone();
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists(), "the socket is left behind");
}

#[test]
fn it_goes_on_if_it_is_persistent_and_ends_on_a_signal() {
    let lab = Lab::new();
    disk(&lab);
    let mut server = lab.serve(&ours(), &["-t", "-f", "raw", "disk"]);
    for _ in 0..3 {
        lab.run("qemu-io", &["-f", "raw", "-c", "write 0 4k", &server.uri("")]);
    }
    assert!(server.is_running());
    let idle = UnixStream::connect(&server.socket).expect("connected");
    assert!(greets(&idle));
    let path = server.socket.clone();
    server.stop();
    assert!(!path.exists(), "the socket is left behind");
}

/// CVE-2024-7409: clients that connect and say nothing keep nobody out.
#[test]
fn silent_clients_keep_nobody_out() {
    let lab = Lab::new();
    disk(&lab);
    let server = lab.serve(&ours(), &["-t", "-e", "1", "-f", "raw", "disk"]);
    let silent: Vec<UnixStream> =
        (0..20).map(|_| UnixStream::connect(&server.socket).expect("connected")).collect();
    assert!(silent.iter().all(greets));
    let size = lab.run("nbdinfo", &["--size", &server.uri("")]);
    assert_eq!(size.trim(), "1048576");
    lab.run("qemu-io", &["-f", "raw", "-c", "read 0 4k", &server.uri("")]);
    server.stop();
}

#[test]
fn one_client_at_a_time_is_served_by_default() {
    let lab = Lab::new();
    disk(&lab);
    let server = lab.serve(&ours(), &["-t", "-f", "raw", "disk"]);
    let uri = server.uri("");
    let mut first = Command::new(installed("qemu-io"))
        .args(["-f", "raw", &uri])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a client");
    let mut prompt = [0; 8];
    first.stdout.as_mut().expect("a pipe").read_exact(&mut prompt).expect("a prompt");
    let mut second = Command::new(installed("qemu-io"))
        .args(["-f", "raw", "-c", "read 0 4k", &uri])
        .stdout(Stdio::null())
        .spawn()
        .expect("a client");
    // It waits, however long that is.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(second.try_wait().expect("a child"), None);
    drop(first.stdin.take());
    assert!(first.wait().expect("a child").success());
    assert!(second.wait().expect("a child").success());
    server.stop();
}

#[test]
fn in_the_background_it_is_ready_when_the_first_process_ends() {
    let lab = Lab::new();
    disk(&lab);
    let socket = lab.path("socket").to_string_lossy().into_owned();
    let args = ["--fork", "--pid-file", "pid", "-t", "-k", &socket, "-f", "raw", "disk"];
    let started = lab.output(&ours(), &args);
    assert!(started.status.success() && started.stderr.is_empty());
    let pid = fs::read_to_string(lab.path("pid")).expect("a PID file");
    let pid = Pid::from_raw(pid.strip_suffix('\n').expect("a line").parse().expect("a number"));
    let pid = pid.expect("a PID");
    let uri = format!("nbd+unix:///?socket={socket}");
    lab.run("qemu-io", &["-f", "raw", "-c", "write -P 1 0 4k", &uri]);
    kill_process(pid, Signal::TERM).expect("a process");
    while test_kill_process(pid).is_ok() && !is_dead(pid) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!lab.path("socket").exists() && !lab.path("pid").exists());
}

/// Whether a process has ended, though nobody has waited for it.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_failure_in_the_background_reaches_the_first_process() {
    let lab = Lab::new();
    let socket = lab.path("socket").to_string_lossy().into_owned();
    let args = ["--fork", "--pid-file", "pid", "-k", &socket, "-f", "raw", "missing"];
    let started = lab.output(&ours(), &args);
    assert_eq!(started.status.code(), Some(1));
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("'missing'") && said.lines().count() == 1, "{said}");
    assert!(!lab.path("socket").exists() && !lab.path("pid").exists());
}

#[test]
fn a_service_manager_can_pass_the_socket() {
    let lab = Lab::new();
    disk(&lab);
    let path = lab.path("passed");
    let listener = OwnedFd::from(UnixListener::bind(&path).expect("a socket"));
    // The shell moves the socket from its standard input to where service managers put it.
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut start = Command::new("/bin/sh");
    start.args(["-c", script]).arg(ours()).args(["-f", "raw", "disk"]);
    start.current_dir(lab.path("")).stdin(listener);
    let mut server = start.spawn().expect("a server");
    drop(start);
    lab.run(
        "qemu-io",
        &["-f", "raw", "-c", "read 0 4k", &format!("nbd+unix:///?socket={}", path.display())],
    );
    assert!(server.wait().expect("a child").success());
}
