//! GDB, talking to a program through the stub.

mod support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use support::{OURS, compile};

/// `cargo xtask test` installs it.
const GDB: &str = "gdb-multiarch";

/// The program, compiled once.
fn program() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| compile("debugged", "debug", &["-g", "-static", "-pthread"]));
    PROGRAM.clone()
}

/// Starts a program that waits for GDB.
fn start(place: &str, program: &Path) -> Child {
    let mut command = Command::new(OURS);
    command.args(["-g", place]).arg(program).stdin(Stdio::null());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until something listens.
fn wait(listens: impl Fn() -> bool) {
    let begin = Instant::now();
    while !listens() {
        assert!(begin.elapsed() < Duration::from_mins(1), "nobody listens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What GDB says to some commands.
fn gdb(program: &Path, place: &str, commands: &[&str]) -> String {
    let mut command = Command::new(GDB);
    command.args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set width 0", "-ex"]);
    command.arg(format!("file {}", program.display()));
    command.arg("-ex").arg(format!("target remote {place}"));
    command.args(["-ex", "handle SIGUSR1 nostop noprint pass"]);
    for line in commands {
        command.args(["-ex", line]);
    }
    let output = command.output().expect(GDB);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program's output and exit status at its end.
fn end(mut child: Child) -> (String, Option<i32>) {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (text, child.wait().unwrap().code())
}

/// A session over a socket: its words, and how the program ended.
fn session(name: &str, commands: &[&str]) -> (String, String, Option<i32>) {
    let program = program();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(name);
    let child = start(socket.to_str().unwrap(), &program);
    wait(|| socket.exists());
    let said = gdb(&program, socket.to_str().unwrap(), commands);
    let (text, status) = end(child);
    (said, text, status)
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => panic!("no '{part}' in order in:\n{text}"),
        }
    }
}

const ENDING: &str = "shared 93\nthen 193\n";

#[test]
fn breakpoints_steps_and_registers() {
    let commands = [
        "break square",
        "continue",
        "bt",
        "info threads",
        "stepi",
        "info registers a0 pc fcsr ft0",
        // Other threads would come to it meanwhile.
        "delete",
        "finish",
        "continue",
    ];
    let (said, text, status) = session("steps", &commands);
    contains(
        &said,
        &[
            "hit Breakpoint 1, square (x=",
            "#0  square (x=",
            "in worker (",
            "debugged.c:",
            "Thread ",
            "pthread_barrier_wait ()",
            "a0 ",
            "<square+",
            "fcsr ",
            "NX:0 FRM:0",
            "double = 0",
            "Value returned is $1 = ",
            "exited with code 03",
        ],
    );
    assert_eq!((text.as_str(), status), (ENDING, Some(3)));
}

#[test]
fn watchpoints_tell_old_and_new_values() {
    let commands = ["watch last", "continue", "continue", "delete", "continue"];
    let (said, text, status) = session("watch", &commands);
    contains(
        &said,
        &[
            "Old value = 0",
            "New value = 5",
            "Old value = 5",
            "New value = 6",
            "exited with code 03",
        ],
    );
    assert_eq!((text.as_str(), status), (ENDING, Some(3)));
}

#[test]
fn memory_registers_and_signals_are_changed() {
    let commands = [
        "break handler",
        "handle SIGUSR1 stop print pass",
        "continue",
        "p $_siginfo.si_signo",
        "continue",
        "p number",
        "p counter",
        "set var shared = 7",
        "set var $fa0 = 2.5",
        "p $fa0",
        "continue",
    ];
    let (said, text, status) = session("change", &commands);
    contains(
        &said,
        &[
            "received signal SIGUSR1",
            "$1 = 10",
            "Breakpoint 1, handler (number=10)",
            "$2 = 10",
            "$3 = 9",
            "double = 2.5",
            "exited with code 03",
        ],
    );
    assert_eq!((text.as_str(), status), ("shared 93\nthen 107\n", Some(3)));
}

#[test]
fn a_detached_program_runs_on() {
    let commands = ["break square", "continue", "info auxv", "detach"];
    let (said, text, status) = session("detach", &commands);
    contains(&said, &["hit Breakpoint 1", "AT_ENTRY", "detached"]);
    assert_eq!((text.as_str(), status), (ENDING, Some(3)));
}

#[test]
fn a_killed_program_is_gone() {
    let (_, text, status) = session("kill", &["break main", "continue", "kill"]);
    assert_eq!((text.as_str(), status), ("", None));
}

#[test]
fn gdb_connects_by_tcp() {
    let program = program();
    // A port that is free now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let child = start(&port.to_string(), &program);
    // A connection would be taken for GDB's: a bound port shows otherwise.
    wait(|| TcpListener::bind(("127.0.0.1", port)).is_err());
    std::thread::sleep(Duration::from_millis(200));
    let said = gdb(&program, &format!("127.0.0.1:{port}"), &["break main", "continue", "continue"]);
    contains(&said, &["Breakpoint 1, main ()", "exited with code 03"]);
    assert_eq!(end(child), (ENDING.to_owned(), Some(3)));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_fault_stops_where_it_is() {
    let program = compile("debugged_fault", "debug", &["-g", "-static"]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("fault");
    let child = start(socket.to_str().unwrap(), &program);
    wait(|| socket.exists());
    let said = gdb(
        &program,
        socket.to_str().unwrap(),
        &["continue", "p $_siginfo._sifields._sigfault.si_addr", "bt", "continue"],
    );
    contains(
        &said,
        &[
            "received signal SIGSEGV",
            "= (void *) 0x18",
            "deepest (",
            "middle (",
            "Program terminated with signal SIGSEGV",
        ],
    );
    let mut child = child;
    assert!(!child.wait().unwrap().success());
}
