//! A micro-operation and its fields.

use cairn_fpu::{Negate, Rounding};

use super::memop::MemOp;
use super::op::{Op, Shape};
use crate::env::WORDS;

/// The type an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Ty {
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Ty {
    /// All types, by their number.
    pub const ALL: [Ty; 7] = [Ty::I8, Ty::I16, Ty::I32, Ty::I64, Ty::F16, Ty::F32, Ty::F64];

    /// Width in bits.
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Ty::I8 => 8,
            Ty::I16 | Ty::F16 => 16,
            Ty::I32 | Ty::F32 => 32,
            Ty::I64 | Ty::F64 => 64,
        }
    }

    /// The bits of a word that hold a value of the type.
    #[inline]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F32 | Ty::F64)
    }
}

/// A word of [`Env`](crate::Env): a global of the guest, or a temporary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// In place of `b`: the operand is the immediate.
    pub const IMM: Slot = Slot(u16::MAX);

    /// The slot with this index.
    pub const fn new(index: u16) -> Slot {
        assert!((index as usize) < WORDS, "no such slot");
        Slot(index)
    }

    /// The index; always below [`WORDS`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize % WORDS
    }

    /// The slot behind this one.
    #[must_use]
    pub const fn next(self) -> Slot {
        Slot(self.0 + 1)
    }

    pub(crate) const fn raw(self) -> u16 {
        self.0
    }

    pub(crate) const fn from_raw(raw: u16) -> Slot {
        Slot(raw)
    }

    pub(crate) const fn is_word(self) -> bool {
        (self.0 as usize) < WORDS
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Slot::IMM { f.write_str("imm") } else { write!(f, "w{}", self.0) }
    }
}

/// An integer type of the guest, for conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum IntKind {
    I32,
    U32,
    I64,
    U64,
}

/// Details of a floating-point operation, packed into the upper half of an immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatOp {
    /// Rounding of the result.
    pub rounding: Rounding,
    /// Signs that a fused operation changes.
    pub negate: Negate,
    /// The integer type of a conversion.
    pub int: IntKind,
    /// The target of a conversion between formats.
    pub to: Ty,
}

const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::NearestAway,
    Rounding::TowardZero,
    Rounding::Up,
    Rounding::Down,
    Rounding::Odd,
];
const INTS: [IntKind; 4] = [IntKind::I32, IntKind::U32, IntKind::I64, IntKind::U64];

impl FloatOp {
    /// With this rounding; the other details do not matter.
    pub const fn new(rounding: Rounding) -> FloatOp {
        FloatOp { rounding, negate: Negate::empty(), int: IntKind::I64, to: Ty::F64 }
    }

    /// Packs the details, and the third operand of a fused operation.
    pub(crate) fn pack(self, third: Slot) -> i32 {
        let rounding = match self.rounding {
            Rounding::NearestEven => 0,
            Rounding::NearestAway => 1,
            Rounding::TowardZero => 2,
            Rounding::Up => 3,
            Rounding::Down => 4,
            Rounding::Odd => 5,
        };
        let bits: u32 = rounding
            | u32::from(self.negate.bits()) << 3
            | (self.int as u32) << 6
            | (self.to as u32) << 8;
        (bits << 16 | u32::from(third.raw())).cast_signed()
    }

    /// The details in the immediate of an operation.
    #[inline]
    pub fn unpack(imm: i32) -> FloatOp {
        let bits = imm.cast_unsigned() >> 16;
        let field = |at: u32, mask: u32| (bits >> at & mask) as usize;
        FloatOp {
            rounding: ROUNDINGS.get(field(0, 7)).copied().unwrap_or_default(),
            negate: Negate::from_bits_truncate((bits >> 3 & 7) as u8),
            int: INTS[field(6, 3)],
            to: Ty::ALL.get(field(8, 7)).copied().unwrap_or(Ty::F64),
        }
    }
}

/// One micro-operation: an operation, a type, a destination, two operands and an immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Uop {
    /// What is done.
    pub op: Op,
    /// The type it is done on.
    pub ty: Ty,
    /// The destination, or where a branch goes.
    pub d: Slot,
    /// First operand.
    pub a: Slot,
    /// Second operand.
    pub b: Slot,
    /// Immediate, by the operation's shape.
    pub imm: i32,
}

impl Uop {
    /// The 64 bits in `a`, `b` and `imm`.
    #[inline]
    pub fn wide(&self) -> u64 {
        u64::from(self.a.raw()) << 48
            | u64::from(self.b.raw()) << 32
            | u64::from(self.imm.cast_unsigned())
    }

    pub(crate) fn with_wide(op: Op, ty: Ty, d: Slot, value: u64) -> Uop {
        let part = |at: u32| Slot::from_raw((value >> at & 0xffff) as u16);
        #[allow(clippy::cast_possible_truncation)]
        let imm = (value as u32).cast_signed();
        Uop { op, ty, d, a: part(48), b: part(32), imm }
    }

    /// The slot in the low half of `imm`, of operations with three operands.
    #[inline]
    pub(crate) fn third(&self) -> Slot {
        Slot::from_raw((self.imm.cast_unsigned() & 0xffff) as u16)
    }

    pub(crate) fn set_third(&mut self, slot: Slot) {
        let kept = self.imm.cast_unsigned() & 0xffff_0000;
        self.imm = (kept | u32::from(slot.raw())).cast_signed();
    }

    /// The access of a memory operation, and the 16 bits beside it.
    #[inline]
    pub fn mem_op(&self) -> (MemOp, u16) {
        MemOp::unpack(self.imm)
    }

    /// The slots that are read; pairs are two of them.
    pub fn reads(&self, mut each: impl FnMut(Slot)) {
        match self.op.shape() {
            Shape::Const | Shape::Fence | Shape::Jump | Shape::Exit | Shape::Raise => {}
            Shape::Unary | Shape::Load | Shape::FloatUnary | Shape::ExitTo => each(self.a),
            Shape::Binary | Shape::Branch => {
                each(self.a);
                if self.b != Slot::IMM {
                    each(self.b);
                }
            }
            Shape::Store | Shape::Rmw | Shape::FloatBinary | Shape::Call => {
                each(self.a);
                each(self.b);
            }
            Shape::Select | Shape::FloatFused => {
                each(self.a);
                each(self.b);
                each(self.third());
            }
            Shape::Cas => {
                each(self.a);
                each(self.b);
                each(Slot::from_raw(self.mem_op().1));
            }
            Shape::CasPair => {
                let new = Slot::from_raw(self.mem_op().1);
                for slot in [self.a, self.b, self.b.next(), new, new.next()] {
                    each(slot);
                }
            }
        }
    }

    /// The slots that are written.
    pub fn writes(&self, mut each: impl FnMut(Slot)) {
        match self.op.shape() {
            Shape::Store
            | Shape::Fence
            | Shape::Branch
            | Shape::Jump
            | Shape::Exit
            | Shape::ExitTo
            | Shape::Raise => {}
            Shape::CasPair => {
                each(self.d);
                each(self.d.next());
            }
            _ => each(self.d),
        }
    }

    /// Where a branch goes.
    pub fn target(&self) -> Option<usize> {
        matches!(self.op.shape(), Shape::Branch | Shape::Jump).then(|| usize::from(self.d.raw()))
    }

    /// Lets a branch go to the operation with this number.
    pub(crate) fn retarget(&mut self, target: u16) {
        self.d = Slot::from_raw(target);
    }
}
