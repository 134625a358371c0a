//! Loops, which code of the host runs differently from single blocks.

#[path = "program/asm.rs"]
mod asm;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use asm::*;
use cairn_jit::Cranelift;
use cairn_riscv::{Cpu, Extensions, Riscv, Xlen};
use cairn_tcg::code::Cache;
use cairn_tcg::region::RegionChoices;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Event, Fault, Jit, LiftOptions, Stop, Vcpu};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x10000;
const PAGES: u64 = 4;

const JITS: [Jit; 4] = [Jit::After(0), Jit::After(3), Jit::Regions(0), Jit::Lockstep];
/// Regions are made soon, and at once.
const CHOICES: RegionChoices = RegionChoices { heat: 6, background: false };

fn machine(code: &[u32], jit: Jit) -> (Flat, Vcpu<Riscv>) {
    let cache = Arc::new(Cache::new());
    cache.set_compiler(Arc::new(Cranelift::new().unwrap()), CHOICES);
    let memory = Flat::new(1 << 20, None, cache.clone()).unwrap();
    let all = Protection::READ | Protection::WRITE | Protection::EXECUTE;
    let backing = Backing::Anonymous { shared: false };
    memory.map(CODE, 4096, all, backing).unwrap();
    memory.map(DATA, PAGES * 4096, Protection::READ | Protection::WRITE, backing).unwrap();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(CODE, &bytes).unwrap();
    let cpu = Cpu::new(Xlen::X64, Extensions::all());
    let mut vcpu = Vcpu::<Riscv>::new(cpu, cache, LiftOptions::default());
    vcpu.jit = jit;
    vcpu.cpu.set_pc(CODE);
    (memory, vcpu)
}

/// Why a program stopped, its registers and its data then.
fn end(code: &[u32], jit: Jit) -> (Stop, u64, Vec<u64>, Vec<u8>) {
    let (memory, mut vcpu) = machine(code, jit);
    let stop = vcpu.run(&memory);
    assert_ne!(stop, Stop::Diverged, "{}", vcpu.divergence());
    let registers = (0..32).map(|register| vcpu.cpu.x(register)).collect();
    let mut data = vec![0; usize::try_from(PAGES * 4096).unwrap()];
    memory.read(DATA, &mut data).unwrap();
    (stop, vcpu.pc(), registers, data)
}

#[track_caller]
fn same(code: &[u32]) -> Stop {
    let expected = end(code, Jit::Off);
    for jit in JITS {
        assert_eq!(end(code, jit), expected, "{jit:?}");
    }
    expected.0
}

#[test]
fn a_loop_of_one_block() {
    let stop = same(&[
        lui(T0, DATA),
        addi(T1, 0, 500),
        // Sums, shifted and narrow, go to memory one after the other.
        add(A0, A0, T1),
        addiw(A1, A0, -7),
        sd(A1, T0),
        addi(T0, T0, 8),
        addi(T1, T1, -1),
        bne(T1, 0, -20),
        ECALL,
    ]);
    assert_eq!(stop, Stop::Event(Event::Syscall));
}

#[test]
fn a_loop_with_calls() {
    let stop = same(&[
        addi(T1, 0, 300),
        jal(RA, 20),
        add(A1, A1, A0),
        addi(T1, T1, -1),
        bne(T1, 0, -12),
        ECALL,
        // The function.
        add(A0, T1, T1),
        addi(A0, A0, 3),
        jalr(0, RA),
    ]);
    assert_eq!(stop, Stop::Event(Event::Syscall));
}

/// The fault comes in a loop that has been going for long, with words in registers.
#[test]
fn a_fault_in_a_loop_is_precise() {
    let stop = same(&[
        lui(T0, DATA),
        ld(A0, T0),
        addi(T0, T0, 24),
        add(A1, A1, T0),
        sd(A1, T0),
        jal(0, -16),
    ]);
    assert!(
        matches!(stop, Stop::Fault(Fault { address, .. }) if address >= DATA + PAGES * 4096 - 8)
    );
}

#[test]
fn a_kick_ends_a_loop() {
    let loops: [&[u32]; 3] = [
        &[jal(0, 0)],
        &[addi(A0, A0, 1), jal(0, 8), ECALL, addi(A1, A1, 1), jal(0, -16)],
        &[lui(T0, CODE), addi(T0, T0, 4), jalr(0, T0)],
    ];
    for code in loops {
        for jit in [Jit::Off, Jit::After(0), Jit::Regions(0), Jit::Lockstep] {
            let (memory, mut vcpu) = machine(code, jit);
            let kick = vcpu.kick();
            thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    kick.kick();
                });
                assert_eq!(vcpu.run(&memory), Stop::Kicked);
            });
        }
    }
}

/// A loop that changes the number that it adds.
#[test]
fn a_loop_that_changes_itself() {
    let stop = same(&[
        addi(T1, 0, 200),
        lui(T0, CODE),
        addi(T0, T0, 20),
        lui(T2, 0x0010_0000),
        jal(0, 4),
        // Becomes `addi a0, a0, N` for larger and larger N.
        addi(A0, A0, 0),
        i(0x03, 2, A1, T0, 0),
        add(A1, A1, T2),
        sw(A1, T0),
        FENCE_I,
        addi(T1, T1, -1),
        bne(T1, 0, -24),
        ECALL,
    ]);
    assert_eq!(stop, Stop::Event(Event::Syscall));
}
