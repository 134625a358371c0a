//! The command line.

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::{OURS, compile, compile_static, errors, run, text};

#[test]
fn what_cannot_be_run_is_told() {
    let cases = [
        ("/nonexistent/program", "cannot be opened", 1),
        ("/etc/passwd", "is not an ELF file", 255),
        ("/bin/true", "x86-64", 255),
        ("/", "cannot be opened", 1),
    ];
    for (program, message, status) in cases {
        let output = run(OURS, &[], Path::new(program));
        assert!(errors(&output).contains(message), "{}", errors(&output));
        assert_eq!(output.status.code(), Some(status), "{program}");
    }
}

#[test]
fn a_missing_interpreter_is_named() {
    let program = compile("processes", "pie", &["-pie", "-fPIE"]);
    let output = run(OURS, &["-L", "/nonexistent"], &program);
    let message = errors(&output);
    assert!(message.contains("ld-linux-riscv64-lp64d.so.1") && message.contains("-L"), "{message}");
    assert_eq!(output.status.code(), Some(255));
}

#[test]
fn the_name_chooses_the_machine() {
    let program = compile_static("processes");
    let output = Command::new(OURS).arg0("/usr/bin/qemu-riscv32").arg(&program).output().unwrap();
    let message = errors(&output);
    assert!(message.contains("riscv64") && message.contains("riscv32"), "{message}");
    let output = Command::new(OURS).arg0("qemu-riscv64-static").arg(&program).output().unwrap();
    assert_eq!(output.status.code(), Some(42));
}

#[test]
fn the_environment_is_changed_and_passed_on() {
    let mut command = Command::new(OURS);
    command
        .args(["-0", "again", "-E", "A=5,B=6", "-U", "B"])
        .arg(compile_static("exec"))
        .arg("again");
    let output = command.env("B", "7").output().unwrap();
    assert_eq!(text(&output), "again A=5 B=(null)\n");
}

#[test]
fn system_calls_are_traced() {
    let output = run(OURS, &["-strace"], &compile_static("processes"));
    let trace = errors(&output);
    assert!(trace.contains("unknown system call 9999 = -1 errno=38"), "{trace}");
    assert!(trace.contains("openat(AT_FDCWD,\"/proc/self/cmdline\",0,0o0) = 3"), "{trace}");
    assert!(trace.contains("exit_group(42)"), "{trace}");
}

#[test]
fn logs_go_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log-%d");
    let program = compile_static("robust");
    let options = ["-d", "in_asm,cpu,page", "-D", file.to_str().unwrap()];
    let output = run(OURS, &options, &program);
    assert_eq!(errors(&output), "");
    let entry = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    let log = std::fs::read_to_string(entry.path()).unwrap();
    assert!(log.contains("[stack]") && log.contains("ecall") && log.contains("x2/sp"), "{log}");
}

#[test]
fn a_fault_says_where() {
    let program = compile_static("memory");
    // The CPU lacks instructions that the program is made of.
    let output = run(OURS, &["-cpu", "rv64,a=off"], &program);
    let message = errors(&output);
    assert!(message.contains("SIGILL") && message.contains("0x"), "{message}");
    assert!(output.status.code().is_none());
}

#[test]
fn help_lists_the_options() {
    for (option, word) in [("-h", "QEMU_LD_PREFIX"), ("--help", "-strace"), ("-version", "version")]
    {
        let output = Command::new(OURS).arg(option).output().unwrap();
        assert!(text(&output).contains(word));
        assert!(output.status.success());
    }
    let output = Command::new(OURS).args(["-cpu", "help"]).output().unwrap();
    assert!(text(&output).contains("zacas"));
    let output = Command::new(OURS).args(["-d", "help"]).output().unwrap();
    assert!(text(&output).contains("in_asm"));
}
