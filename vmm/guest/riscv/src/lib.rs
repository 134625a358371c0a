//! RV32 and RV64 for the translator.
//!
//! IMAFDC, Zicsr, Zifencei, Zba, Zbb, Zbc, Zbs, Zicond, Zfh, Zacas, Zawrs, Zicbom, Zicbop, Zicboz, Zihintpause and
//! Zihintntl, in user mode (The RISC-V Instruction Set Manual, Volume I, version 20240411). Privileged
//! instructions are undefined.
//!
//! | file | what it holds |
//! |---|---|
//! | `decode/*.decode` | encodings |
//! | `cpu` | state, registers, extensions |
//! | `dispatch` | the table from patterns to the functions that translate them |
//! | `lift`, `lift_*` | the lifter, by groups of instructions |
//! | `helpers` | what micro-operations cannot say |
//! | `disas` | the disassembler |

mod cpu;
mod disas;
mod dispatch;
mod helpers;
mod lift;
mod lift_atomic;
mod lift_bits;
mod lift_float;
mod lift_int;
mod lift_system;

pub use cpu::{Cpu, Extensions, Xlen, f, x};
pub use disas::{disassemble, patterns};

use cairn_tcg::{FetchFault, Flow, Global, Guest, Helper, InsnMark, Lift, Slot};

/// The architecture.
#[derive(Clone, Copy, Debug)]
pub struct Riscv;

impl Guest for Riscv {
    type Cpu = Cpu;

    const GLOBALS: &'static [Global] = &cpu::GLOBALS;
    const PC: Slot = cpu::PC;
    const HELPERS: &'static [Helper<Cpu>] = &helpers::HELPERS;

    const PLAIN_FLOAT: bool = true;

    fn mode(cpu: &Cpu) -> u64 {
        cpu.mode()
    }

    fn lift(cx: &mut Lift<'_>) -> Result<Flow, FetchFault> {
        lift::lift(cx)
    }

    fn restore(_cpu: &mut Cpu, _mark: InsnMark) {
        // Nothing is implicit: registers are up to date at each instruction.
    }
}
