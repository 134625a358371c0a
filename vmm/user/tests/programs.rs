//! Programs that use what they can of a kernel, beside the reference's user-mode tool.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

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

/// The reference's `vfork` does not wait, and it does not have `clone3`.
#[test]
fn children_are_made_as_the_kernel_does() {
    let output = run(OURS, &["-strace"], &compile_static("children"));
    let expected = "\
vfork waits 1
vforked 4
clone3 1 3
unknown arguments -1 Argument list too long
too few -1 Invalid argument
io_uring -1 Function not implemented
";
    assert_eq!(text(&output), expected, "{}", errors(&output));
    let told = errors(&output);
    assert!(told.contains("io_uring_setup(8,") && told.contains("= -1 errno=38"), "{told}");
}

/// Runs a program in an empty folder with a limit of core files, and returns the names of what it leaves.
fn cores(limit: &str, program: &Path) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -c {limit}; exec {OURS} \"$0\""));
    let output = command.arg(program).current_dir(&folder).output().unwrap();
    assert_eq!(output.status.signal(), Some(11), "{}", errors(&output));
    let files = std::fs::read_dir(&folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    (folder, names)
}

#[test]
fn a_fatal_signal_leaves_a_core_file() {
    let program = compile("debugged_fault", "core", &["-g", "-static"]);
    assert_eq!(cores("0", &program).1, Vec::<String>::new());
    let (folder, names) = cores("unlimited", &program);
    let [name] = &names[..] else { panic!("{names:?}") };
    assert!(name.starts_with("qemu_debugged_fault-core_20"), "{name}");
    assert_eq!(Path::new(name).extension().unwrap(), "core");
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "bt", "-ex", "p/x $a0", "-ex", "p $_siginfo.si_signo"]);
    gdb.args(["-ex", "info auxv"]);
    let said = text(&gdb.arg(&program).arg(folder.path().join(name)).output().unwrap());
    for part in [
        "Program terminated with signal SIGSEGV",
        "deepest (place=",
        "in middle (",
        "in main (",
        "$1 = 0x18",
        "$2 = 11",
        "AT_ENTRY",
    ] {
        assert!(said.contains(part), "no '{part}' in:\n{said}");
    }
}

/// The kernel does not see the guest's list of robust mutexes; here it is walked all the same.
#[test]
fn a_robust_mutex_outlives_its_owner() {
    let output = run(OURS, &[], &compile_static("robust"));
    assert_eq!(text(&output), "Owner died\n", "{}", errors(&output));
}
