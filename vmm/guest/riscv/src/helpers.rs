//! What micro-operations cannot say: control registers, and the class of a float.

use std::sync::LazyLock;
use std::time::Instant;

use cairn_fpu::{F16, F32, F64, Float, Rules};
use cairn_tcg::{Event, Helper};

use crate::cpu::Cpu;

/// Indices of [`HELPERS`].
pub(crate) const CSR_READ: u16 = 0;
pub(crate) const CSR_WRITE: u16 = 1;
pub(crate) const CLASS_H: u16 = 2;
pub(crate) const CLASS_S: u16 = 3;
pub(crate) const CLASS_D: u16 = 4;

pub(crate) const HELPERS: [Helper<Cpu>; 5] = [
    Helper { name: "csr_read", call: csr_read },
    Helper { name: "csr_write", call: csr_write },
    Helper { name: "class_h", call: |_, a, _| Ok(class(F16::from_raw(a.into()))) },
    Helper { name: "class_s", call: |_, a, _| Ok(class(F32::from_raw(a.into()))) },
    Helper { name: "class_d", call: |_, a, _| Ok(class(F64::from_raw(a.into()))) },
];

/// Numbers of control and status registers.
pub(crate) mod csr {
    pub(crate) const FFLAGS: u64 = 0x001;
    pub(crate) const FRM: u64 = 0x002;
    pub(crate) const FCSR: u64 = 0x003;
    pub(crate) const CYCLE: u64 = 0xc00;
    pub(crate) const TIME: u64 = 0xc01;
    pub(crate) const INSTRET: u64 = 0xc02;
    pub(crate) const CYCLEH: u64 = 0xc80;
    pub(crate) const TIMEH: u64 = 0xc81;
    pub(crate) const INSTRETH: u64 = 0xc82;
}

/// The value of register `number`, which the lifter has found to exist.
fn csr_read(cpu: &mut Cpu, number: u64, _: u64) -> Result<u64, Event> {
    Ok(match number {
        csr::FFLAGS => u64::from(cpu.fcsr() & 0x1f),
        csr::FRM => u64::from(cpu.fcsr() >> 5),
        csr::FCSR => u64::from(cpu.fcsr()),
        csr::CYCLE | csr::TIME | csr::INSTRET => nanoseconds(),
        csr::CYCLEH | csr::TIMEH | csr::INSTRETH => nanoseconds() >> 32,
        _ => return Err(Event::Illegal),
    })
}

fn csr_write(cpu: &mut Cpu, number: u64, value: u64) -> Result<u64, Event> {
    // Higher bits are reserved, and ignored.
    let byte = value.to_le_bytes()[0];
    let old = cpu.fcsr();
    match number {
        csr::FFLAGS => cpu.set_fcsr(old & 0xe0 | byte & 0x1f),
        csr::FRM => cpu.set_fcsr(old & 0x1f | byte << 5),
        csr::FCSR => cpu.set_fcsr(byte),
        _ => return Err(Event::Illegal),
    }
    Ok(0)
}

/// All counters of a user-mode guest count nanoseconds.
fn nanoseconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The result of `fclass` (volume I, "Single-Precision Floating-Point Classify Instruction").
fn class<F: Float>(value: F) -> u64 {
    let negative = value.is_sign_negative();
    if value.is_nan() {
        return if value.is_signaling_nan(&Rules::RISCV) { 1 << 8 } else { 1 << 9 };
    }
    let magnitude = if value.is_infinite() {
        0
    } else if value.is_zero() {
        3
    } else if value.is_denormal() {
        2
    } else {
        1
    };
    1 << if negative { magnitude } else { 7 - magnitude }
}
