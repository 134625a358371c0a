//! The lifter's frame: from the bytes of an instruction to the method that translates it.

use cairn_fpu::Rounding;
use cairn_tcg::ir::{FloatOp, Size};
use cairn_tcg::{Event, FetchFault, Flow, Lift, MemOp, Op, Slot, Ty};

use crate::cpu::{Extensions, Mode, Xlen, f, x};

#[allow(clippy::unreadable_literal)]
pub(crate) mod decode {
    include!(concat!(env!("OUT_DIR"), "/decode.rs"));
}

/// Translates the instruction at the lifter's place.
pub(crate) fn lift(cx: &mut Lift<'_>) -> Result<Flow, FetchFault> {
    let first = u16::from_le_bytes(cx.fetch::<2>(0)?);
    let mode = Mode::unpack(cx.mode());
    if first & 3 != 3 {
        let mut lifter = Lifter { cx, mode, len: 2, ends: false };
        let known = decode::decode16(&mut lifter, first);
        return Ok(lifter.flow(known));
    }
    let second = u16::from_le_bytes(cx.fetch::<2>(2)?);
    let mut lifter = Lifter { cx, mode, len: 4, ends: false };
    let known = decode::decode32(&mut lifter, u32::from(second) << 16 | u32::from(first));
    Ok(lifter.flow(known))
}

/// One instruction in translation.
pub(crate) struct Lifter<'a, 'b> {
    pub(crate) cx: &'a mut Lift<'b>,
    pub(crate) mode: Mode,
    /// Bytes of the instruction.
    pub(crate) len: u64,
    /// Whether the block ends with it.
    pub(crate) ends: bool,
}

impl Lifter<'_, '_> {
    fn flow(&mut self, known: bool) -> Flow {
        if !known {
            self.event(Event::Illegal);
        }
        if self.ends { Flow::End(self.len) } else { Flow::Next(self.len) }
    }

    /// Raises `event` and ends the block.
    pub(crate) fn event(&mut self, event: Event) -> bool {
        self.cx.raise(event);
        self.ends = true;
        true
    }

    /// Goes on with the next instruction, in a new block.
    pub(crate) fn leave(&mut self) {
        let next = self.next_pc();
        self.cx.exit(0, next);
        self.ends = true;
    }

    pub(crate) fn is_rv64(&self) -> bool {
        self.mode.xlen == Xlen::X64
    }

    pub(crate) fn has(&self, extensions: Extensions) -> bool {
        self.mode.extensions.contains(extensions)
    }

    /// The type of the integer registers.
    pub(crate) fn ty(&self) -> Ty {
        if self.is_rv64() { Ty::I64 } else { Ty::I32 }
    }

    /// A register number as argument sets have it.
    fn number(register: i32) -> u16 {
        // Fields have five bits.
        u16::try_from(register).unwrap_or(0) % 32
    }

    /// The value of an integer register.
    pub(crate) fn x(&mut self, register: i32) -> Slot {
        match Self::number(register) {
            0 => self.cx.constant(0),
            number => x(number),
        }
    }

    /// Where a result for an integer register goes.
    pub(crate) fn dest(&mut self, register: i32) -> Slot {
        match Self::number(register) {
            0 => self.cx.temp(),
            number => x(number),
        }
    }

    /// A floating-point register.
    pub(crate) fn f(register: i32) -> Slot {
        f(Self::number(register))
    }

    /// The address that the registers' width lets `address` be.
    pub(crate) fn wrap(&self, address: u64) -> u64 {
        if self.is_rv64() { address } else { address & 0xffff_ffff }
    }

    pub(crate) fn next_pc(&self) -> u64 {
        self.wrap(self.cx.pc().wrapping_add(self.len))
    }

    /// `address` as an integer register holds it.
    pub(crate) fn register_value(&self, address: u64) -> u64 {
        if self.is_rv64() {
            address
        } else {
            let shift = 32;
            ((address << shift).cast_signed() >> shift).cast_unsigned()
        }
    }

    /// A memory access of this guest.
    pub(crate) fn mem(&self, size: Size) -> MemOp {
        let op = MemOp::new(size);
        if self.is_rv64() { op } else { op.narrow() }
    }

    /// Sign-extends the 32-bit result in `d`, unless the operation was one of 64 bits.
    pub(crate) fn extend(&mut self, ty: Ty, d: Slot) {
        if ty == Ty::I32 {
            self.cx.unary(Op::Sext, Ty::I32, d, d);
        }
    }

    /// The rounding of an instruction with the field `rm`; `None` if it is reserved.
    pub(crate) fn rounding(&self, rm: i32) -> Option<FloatOp> {
        let mode = if rm == 7 { i32::from(self.mode.frm) } else { rm };
        let rounding = match mode {
            0 => Rounding::NearestEven,
            1 => Rounding::TowardZero,
            2 => Rounding::Down,
            3 => Rounding::Up,
            4 => Rounding::NearestAway,
            _ => return None,
        };
        Some(FloatOp::new(rounding))
    }
}
