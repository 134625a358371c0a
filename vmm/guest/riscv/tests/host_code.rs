//! Loops, which code of the host runs differently from single blocks.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cairn_riscv::{Cpu, Extensions, Riscv, Xlen};
use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::{Backing, Flat, Protection};
use cairn_tcg::{Event, Fault, Jit, LiftOptions, Stop, Vcpu};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x10000;
const PAGES: u64 = 4;

const JITS: [Jit; 3] = [Jit::After(0), Jit::After(3), Jit::Lockstep];

// Registers.
const RA: u32 = 1;
const T0: u32 = 5;
const T1: u32 = 6;
const T2: u32 = 7;
const A0: u32 = 10;
const A1: u32 = 11;

const ECALL: u32 = 0x73;
const FENCE_I: u32 = 0x100f;

fn i(opcode: u32, funct: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    (imm.cast_unsigned() & 0xfff) << 20 | rs1 << 15 | funct << 12 | rd << 7 | opcode
}

fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x13, 0, rd, rs1, imm)
}

fn addiw(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x1b, 0, rd, rs1, imm)
}

fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    i(0x33, 0, rd, rs1, rs2.cast_signed())
}

fn ld(rd: u32, rs1: u32) -> u32 {
    i(0x03, 3, rd, rs1, 0)
}

fn sd(rs2: u32, rs1: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 3 << 12 | 0x23
}

fn sw(rs2: u32, rs1: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 2 << 12 | 0x23
}

fn jalr(rd: u32, rs1: u32) -> u32 {
    i(0x67, 0, rd, rs1, 0)
}

/// `bne rs1, rs2, offset`
fn bne(rs1: u32, rs2: u32, offset: i32) -> u32 {
    let bits = offset.cast_unsigned();
    (bits >> 12 & 1) << 31
        | (bits >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | 1 << 12
        | (bits >> 1 & 0xf) << 8
        | (bits >> 11 & 1) << 7
        | 0x63
}

/// `lui rd, address`, for addresses of whole pages.
fn lui(rd: u32, address: u64) -> u32 {
    u32::try_from(address).unwrap() & !0xfff | rd << 7 | 0x37
}

/// `jal rd, offset`, for small offsets.
fn jal(rd: u32, offset: i32) -> u32 {
    let bits = offset.cast_unsigned();
    (bits >> 20 & 1) << 31
        | (bits >> 1 & 0x3ff) << 21
        | (bits >> 11 & 1) << 20
        | (bits >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}

fn machine(code: &[u32], jit: Jit) -> (Flat, Vcpu<Riscv>) {
    let cache = Arc::new(Cache::new());
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
        for jit in [Jit::Off, Jit::After(0), Jit::Lockstep] {
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
