//! State of a CPU.

use bitflags::bitflags;
use cairn_fpu::{Flags, Rules};
use cairn_tcg::{CpuState, Env, Global, RegisterClass, Slot};

bitflags! {
    /// Extensions beyond the base and C, which are always there.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Extensions: u32 {
        /// Multiplication and division.
        const M = 1 << 0;
        /// Atomic instructions.
        const A = 1 << 1;
        /// Single-precision floating point.
        const F = 1 << 2;
        /// Double-precision floating point.
        const D = 1 << 3;
        /// Address generation.
        const ZBA = 1 << 4;
        /// Basic bit manipulation.
        const ZBB = 1 << 5;
        /// Carry-less multiplication.
        const ZBC = 1 << 6;
        /// Single bits.
        const ZBS = 1 << 7;
        /// Conditional zeroing.
        const ZICOND = 1 << 8;
        /// Half-precision floating point.
        const ZFH = 1 << 9;
        /// Compare-and-swap.
        const ZACAS = 1 << 10;
        /// Waiting on a reservation.
        const ZAWRS = 1 << 11;
        /// Management of cache blocks.
        const ZICBOM = 1 << 12;
        /// Zeroing of cache blocks.
        const ZICBOZ = 1 << 13;
    }
}

/// Width of the integer registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Xlen {
    /// RV32. Registers hold their values sign-extended.
    X32,
    /// RV64.
    X64,
}

/// The slot of integer register `n`.
pub const fn x(n: u16) -> Slot {
    Slot::new(n)
}

/// The slot of floating-point register `n`.
pub const fn f(n: u16) -> Slot {
    Slot::new(32 + n)
}

/// The program counter.
pub(crate) const PC: Slot = Slot::new(64);
/// The address that is reserved by LR, or [`NO_RESERVATION`].
pub(crate) const RESERVED: Slot = Slot::new(65);
/// What LR found there.
pub(crate) const RESERVED_VALUE: Slot = Slot::new(66);

/// No aligned address.
pub(crate) const NO_RESERVATION: u64 = u64::MAX;

const NAMES: [&str; 67] = [
    "zero",
    "ra",
    "sp",
    "gp",
    "tp",
    "t0",
    "t1",
    "t2",
    "s0",
    "s1",
    "a0",
    "a1",
    "a2",
    "a3",
    "a4",
    "a5",
    "a6",
    "a7",
    "s2",
    "s3",
    "s4",
    "s5",
    "s6",
    "s7",
    "s8",
    "s9",
    "s10",
    "s11",
    "t3",
    "t4",
    "t5",
    "t6",
    "ft0",
    "ft1",
    "ft2",
    "ft3",
    "ft4",
    "ft5",
    "ft6",
    "ft7",
    "fs0",
    "fs1",
    "fa0",
    "fa1",
    "fa2",
    "fa3",
    "fa4",
    "fa5",
    "fa6",
    "fa7",
    "fs2",
    "fs3",
    "fs4",
    "fs5",
    "fs6",
    "fs7",
    "fs8",
    "fs9",
    "fs10",
    "fs11",
    "ft8",
    "ft9",
    "ft10",
    "ft11",
    "pc",
    "reserved",
    "reserved_value",
];

pub(crate) const GLOBALS: [Global; NAMES.len()] = {
    let none = Global { name: "", slot: Slot::new(0), class: RegisterClass::Hidden };
    let mut globals = [none; NAMES.len()];
    let mut index = 0;
    while index < NAMES.len() {
        let class = match index {
            0..32 => RegisterClass::General,
            32..64 => RegisterClass::Float,
            64 => RegisterClass::ProgramCounter,
            _ => RegisterClass::Hidden,
        };
        // There are fewer than 2^16.
        #[allow(clippy::cast_possible_truncation)]
        let slot = Slot::new(index as u16);
        globals[index] = Global { name: NAMES[index], slot, class };
        index += 1;
    }
    globals
};

/// What the lifter takes for constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) xlen: Xlen,
    pub(crate) extensions: Extensions,
    /// The dynamic rounding mode, as in `frm`.
    pub(crate) frm: u8,
}

impl Mode {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.xlen == Xlen::X32)
            | u64::from(self.frm) << 1
            | u64::from(self.extensions.bits()) << 32
    }

    pub(crate) fn unpack(mode: u64) -> Mode {
        // The bits are where `pack` put them.
        #[allow(clippy::cast_possible_truncation)]
        let (extensions, frm) = ((mode >> 32) as u32, (mode >> 1 & 7) as u8);
        Mode {
            xlen: if mode & 1 == 0 { Xlen::X64 } else { Xlen::X32 },
            extensions: Extensions::from_bits_truncate(extensions),
            frm,
        }
    }
}

/// A CPU.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Cpu {
    env: Env,
    xlen: Xlen,
    extensions: Extensions,
    frm: u8,
}

impl CpuState for Cpu {
    fn env(&self) -> &Env {
        &self.env
    }

    fn env_mut(&mut self) -> &mut Env {
        &mut self.env
    }
}

impl Cpu {
    /// A CPU after reset, with the program counter at 0.
    pub fn new(xlen: Xlen, extensions: Extensions) -> Cpu {
        let mut env = Env::new(&Rules::RISCV);
        env.set_word(RESERVED, NO_RESERVATION);
        Cpu { env, xlen, extensions, frm: 0 }
    }

    /// Width of the integer registers.
    pub fn xlen(&self) -> Xlen {
        self.xlen
    }

    /// Width of the integer registers of a CPU in this mode.
    pub fn xlen_of_mode(mode: u64) -> Xlen {
        Mode::unpack(mode).xlen
    }

    /// The extensions.
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Integer register `n`. RV32 has it sign-extended.
    pub fn x(&self, n: u16) -> u64 {
        self.env.word(x(n))
    }

    /// Changes integer register `n`; register 0 stays 0.
    pub fn set_x(&mut self, n: u16, value: u64) {
        let value = match self.xlen {
            Xlen::X64 => value,
            // The low half is what there is.
            #[allow(clippy::cast_possible_truncation)]
            Xlen::X32 => i64::from((value as u32).cast_signed()).cast_unsigned(),
        };
        if n != 0 {
            self.env.set_word(x(n), value);
        }
    }

    /// Floating-point register `n`.
    pub fn f(&self, n: u16) -> u64 {
        self.env.word(f(n))
    }

    /// Changes floating-point register `n`.
    pub fn set_f(&mut self, n: u16, value: u64) {
        self.env.set_word(f(n), value);
    }

    /// The program counter.
    pub fn pc(&self) -> u64 {
        self.env.word(PC)
    }

    /// Changes the program counter.
    pub fn set_pc(&mut self, pc: u64) {
        self.env.set_word(PC, pc);
    }

    /// Breaks a reservation, as a change of context does.
    pub fn clear_reservation(&mut self) {
        self.env.set_word(RESERVED, NO_RESERVATION);
    }

    /// The control and status register of the floating-point unit: `frm` in bits 7:5, `fflags` in 4:0.
    pub fn fcsr(&self) -> u8 {
        let flags = self.env.float.flags;
        let bits = FLAGS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, bit)| bit);
        self.frm << 5 | bits.sum::<u8>()
    }

    /// Changes the control and status register of the floating-point unit.
    pub fn set_fcsr(&mut self, value: u8) {
        self.frm = value >> 5;
        let set = FLAGS.iter().filter(|(_, bit)| value & bit != 0).map(|(flag, _)| *flag);
        self.env.float.flags = set.collect();
    }

    pub(crate) fn mode(&self) -> u64 {
        Mode { xlen: self.xlen, extensions: self.extensions, frm: self.frm }.pack()
    }
}

/// `fflags` (volume I, "Floating-Point Control and Status Register").
const FLAGS: [(Flags, u8); 5] = [
    (Flags::INEXACT, 1 << 0),
    (Flags::UNDERFLOW, 1 << 1),
    (Flags::OVERFLOW, 1 << 2),
    (Flags::DIVIDE_BY_ZERO, 1 << 3),
    (Flags::INVALID, 1 << 4),
];
