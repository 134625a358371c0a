//! Random instructions, made from the pattern files, beside the reference's user-mode tool.
//!
//! A program loads all registers, runs one random instruction, and stores all registers, again and again; both run it,
//! and what they store is compared. `CAIRN_RISCV_CASES` sets the number of instructions, `CAIRN_RISCV_SEED` where they
//! begin. `cargo xtask test` installs the reference.

mod program;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cairn_decodetree::random::{Generator, Insn};
use cairn_decodetree::runtime::Functions;
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen, disassemble, patterns};
use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Event, Jit, LiftOptions, Stop, Vcpu};
use program::{BASE, BLOCK, MEMORY, Program};

/// Instructions in one program.
const CHUNK: usize = 1000;

const REFERENCE: &str = "qemu-riscv64";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

#[test]
fn random_instructions_do_the_same_as_under_the_reference() {
    let cases = usize::try_from(number("CAIRN_RISCV_CASES", 4000)).unwrap();
    let seed = number("CAIRN_RISCV_SEED", 1);
    let mut insns = Vec::new();
    for decoder in ["decode32", "decode16"] {
        let share = if decoder == "decode32" { cases * 4 / 5 } else { cases / 5 };
        let generator = Generator::new(patterns().decoder(decoder).unwrap(), seed)
            .include(|pattern| included(decoder, pattern.name()))
            .constrain(allowed);
        insns.extend(generator.take(share).map(|insn| u32::try_from(insn.bits()).unwrap()));
    }
    for (index, chunk) in insns.chunks(CHUNK).enumerate() {
        let program = Program::new(chunk, seed.wrapping_add(index as u64));
        let theirs = theirs(&program);
        // Code of the host runs what has run before.
        for (jit, runs) in [(Jit::Off, 1), (Jit::After(0), 2), (Jit::Lockstep, 1)] {
            compare(&program, &ours(&program, jit, runs), &theirs);
        }
    }
}

/// Whether instructions of this name are tested: those that go on behind themselves, and exist on RV64.
fn included(decoder: &str, name: &str) -> bool {
    let elsewhere = decoder == "decode16" && matches!(name, "flw" | "fsw");
    // Those that run by the leave of privileged software only.
    let privileged = matches!(name, "cbo_inval" | "cbo_clean" | "cbo_flush");
    !elsewhere
        && !privileged
        && !matches!(
            name,
            "jal"
                | "jalr"
                | "beq"
                | "bne"
                | "blt"
                | "bge"
                | "bltu"
                | "bgeu"
                | "ecall"
                | "ebreak"
                | "illegal"
                | "zext_h_32"
                | "rev8_32"
        )
}

/// The functions that fields of the compressed instructions apply.
struct Fields;

impl Functions for Fields {
    fn call(&self, name: &str, value: Option<i64>) -> Option<i64> {
        let value = value?;
        Some(if name == "compressed" { value + 8 } else { value })
    }
}

/// Keeps the two registers that the program needs, lets memory be reached through two others only, and leaves out what
/// is reserved.
fn allowed(insn: &Insn<'_>) -> bool {
    let unit = patterns();
    let arguments = unit.arguments(insn.pattern, insn.word, &Fields).unwrap();
    let set = unit.args_of(insn.pattern).unwrap().name.as_str();
    let name = insn.pattern.name();
    // The generator does not know of the patterns that were left out, which stand before others.
    let decoder = if insn.word & 3 == 3 { "decode32" } else { "decode16" };
    let first = unit.decoder(decoder).unwrap().decode(insn.word).pattern().unwrap();
    if first.name() != name {
        return false;
    }
    let memory = matches!(set, "s" | "amo" | "cbo")
        || matches!(
            name,
            "lb" | "lh" | "lw" | "ld" | "ld_c" | "lbu" | "lhu" | "lwu" | "flw" | "fld" | "flh"
        );
    arguments.iter().all(|(argument, value)| match *argument {
        "rd" | "rs2" if name == "amocas_q" => *value < 30 && value % 2 == 0,
        "rd" if matches!(name, "addiw_c" | "ld_c") => (1..30).contains(value),
        "rs1" if memory => matches!(value, 2 | 10),
        "rd" | "rs1" | "rs2" | "rs3" => *value < 30,
        "rm" => !matches!(value, 5 | 6),
        "csr" => matches!(value, 1..=3),
        _ => true,
    })
}

/// Number of the system call `write`.
const WRITE: u64 = 64;

/// What the program writes under the translator, the last of several times.
fn ours(program: &Program, jit: Jit, runs: usize) -> Vec<u8> {
    let code = Arc::new(Cache::new());
    let memory = Flat::new(1 << 31, None, code.clone()).unwrap();
    let all = Protection::READ | Protection::WRITE | Protection::EXECUTE;
    let image = &program.image;
    let len = (image.len() as u64).next_multiple_of(4096);
    memory.map(BASE, len, all, Backing::Anonymous { shared: false }).unwrap();
    memory.write(BASE, image).unwrap();
    let cpu = Cpu::new(Xlen::X64, Extensions::all());
    let mut vcpu = Vcpu::<Riscv>::new(cpu.clone(), code, LiftOptions::default());
    vcpu.jit = jit;
    for _ in 0..runs {
        // What loads and stores have changed; the code stays as it is.
        let changed = image.len() - MEMORY;
        memory.write(BASE + changed as u64, &image[changed..]).unwrap();
        vcpu.cpu = cpu.clone();
        vcpu.cpu.set_pc(program.entry);
        let stop = vcpu.run(&memory);
        let at = program.describe(vcpu.pc());
        assert_eq!(stop, Stop::Event(Event::Syscall), "at {at} {}", vcpu.divergence());
    }
    let cpu = &vcpu.cpu;
    assert_eq!(cpu.x(17), WRITE, "at {}", program.describe(vcpu.pc()));
    let mut out = vec![0; usize::try_from(cpu.x(12)).unwrap()];
    memory.read(cpu.x(11), &mut out).unwrap();
    out
}

/// What the program writes under the reference.
fn theirs(program: &Program) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("cairn-riscv-{}", std::process::id()));
    std::fs::write(&path, program.elf()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let child = Command::new(REFERENCE)
        .args(["-cpu", "max"])
        .arg(&path)
        .stdout(Stdio::piped())
        .output()
        .expect("the reference's user-mode tool, which cargo xtask test installs");
    std::fs::remove_file(&path).unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    child.stdout
}

fn compare(program: &Program, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    for (index, insn) in program.insns.iter().enumerate() {
        let words = |bytes: &[u8]| -> Vec<u64> {
            let block = &bytes[index * BLOCK..(index + 1) * BLOCK];
            block.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
        };
        let (ours, theirs) = (words(ours), words(theirs));
        let inputs = program.inputs(index);
        let differences: Vec<_> = (0..BLOCK / 8)
            .filter(|register| ours[*register] != theirs[*register])
            .map(|register| {
                format!("word {register}: {:x}, not {:x}", ours[register], theirs[register])
            })
            .collect();
        assert!(
            differences.is_empty(),
            "{} ({insn:08x}): {differences:?}\nbefore: {inputs:x?}",
            disassemble(*insn, 0, Xlen::X64).0
        );
    }
    let rest = program.insns.len() * BLOCK;
    assert_eq!(ours[rest..], theirs[rest..], "memory");
}
