//! Random instructions, made from the pattern files, beside the reference's user-mode tool.
//!
//! A program loads all registers, runs one random instruction, and stores all registers, again and again; both run it,
//! and what they store is compared. `CAIRN_RISCV_CASES` sets the number of instructions, `CAIRN_RISCV_SEED` where they
//! begin. `cargo xtask test` installs the reference.

#[path = "program/insns.rs"]
mod insns;
mod program;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cairn_decodetree::random::Generator;
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen, disassemble, patterns};
use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Event, Jit, LiftOptions, Stop, Vcpu};
use insns::{allowed, included};
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
