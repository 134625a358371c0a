//! Programs that use what they can of a kernel, beside the reference's user-mode tool.

mod support;

use std::path::Path;

use support::{OURS, compile, compile_static, errors, run, text};

const REFERENCE: &str = "qemu-riscv64";

/// Compares what a program does under both.
fn same(reference: &str, options: &[&str], program: &Path) {
    let (ours, theirs) = (run(OURS, options, program), run(reference, options, program));
    assert_eq!(text(&ours), text(&theirs), "{}", errors(&ours));
    assert_eq!(ours.status, theirs.status);
}

#[test]
fn files() {
    same(REFERENCE, &[], &compile_static("files"));
}

#[test]
fn memory() {
    same(REFERENCE, &[], &compile_static("memory"));
}

#[test]
fn processes() {
    same(REFERENCE, &[], &compile_static("processes"));
}

#[test]
fn signals() {
    same(REFERENCE, &[], &compile_static("signals"));
}

#[test]
fn sockets() {
    same(REFERENCE, &[], &compile_static("sockets"));
}

#[test]
fn threads() {
    same(REFERENCE, &[], &compile_static("threads"));
}

#[test]
fn blocks_of_one_instruction_do_the_same() {
    let program = compile_static("signals");
    let (usual, single) = (run(OURS, &[], &program), run(OURS, &["-singlestep"], &program));
    assert_eq!(text(&single), text(&usual));
}

#[test]
fn code_of_the_host_agrees_with_the_interpreter() {
    for name in ["memory", "processes", "signals", "threads"] {
        let program = compile_static(name);
        let interpreted = run(OURS, &["-accel", "tcg,jit=off"], &program);
        let checked = run(OURS, &["-accel", "tcg,check=lockstep"], &program);
        assert_eq!(text(&checked), text(&interpreted), "{}", errors(&checked));
        assert_eq!(checked.status, interpreted.status);
    }
}

/// The sysroot of Debian's cross libraries.
const CROSS: &str = "/usr/riscv64-linux-gnu";

#[test]
fn dynamic_programs_find_their_libraries_in_the_sysroot() {
    let movable = compile("processes", "pie", &["-pie", "-fPIE"]);
    same(REFERENCE, &["-L", CROSS], &movable);
    let fixed = compile("memory", "fixed", &["-no-pie", "-pthread"]);
    same(REFERENCE, &["-L", CROSS], &fixed);
}

#[test]
fn programs_of_32_bits_run() {
    let flags = [
        "-march=rv32imac",
        "-mabi=ilp32",
        "-nostdlib",
        "-static",
        "-ffreestanding",
        "-fno-builtin",
    ];
    same("qemu-riscv32", &[], &compile("rv32", "static", &flags));
}

/// The reference leaves this to the host's kernel, which knows guest programs only if it was told.
#[test]
fn programs_run_programs() {
    let output = run(OURS, &["-E", "C=3"], &compile_static("exec"));
    let expected = "\
again '' 'two words' A=1 B=x=y
executed: 7
again A=1 B=x=y
by link: 7
again 'spawned' A=1 B=x=y
spawned: 7
again 'a script' 'more' A=1 B=x=y
script: 7
Permission denied
not executable: 99
the host's: 5
";
    assert_eq!(text(&output), expected, "{}", errors(&output));
}

/// The kernel does not see the guest's list of robust mutexes; here it is walked all the same.
#[test]
fn a_robust_mutex_outlives_its_owner() {
    let output = run(OURS, &[], &compile_static("robust"));
    assert_eq!(text(&output), "Owner died\n", "{}", errors(&output));
}
