//! F, D and Zfh.
//!
//! Narrow values are NaN-boxed in the 64-bit registers (volume I, "NaN Boxing of Narrower Values").

use cairn_fpu::{Negate, Rounding};
use cairn_tcg::ir::{FloatOp, IntKind, Size};
use cairn_tcg::{Op, Slot, Ty};

use crate::helpers::{CLASS_D, CLASS_H, CLASS_S};
use crate::lift::Lifter;
use crate::lift::decode::{ArgsFr, ArgsFr2, ArgsFr4, ArgsI, ArgsR, ArgsR2, ArgsS};
use crate::lift_int::offset;

/// What `fsgnj` and its variants make of the signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// That of the second operand.
    Copy,
    /// The other one.
    CopyNegated,
    /// Both combined.
    Xor,
}

/// For operations that do not round.
const EXACT: FloatOp = FloatOp::new(Rounding::NearestEven);

fn size(ty: Ty) -> Size {
    match ty {
        Ty::F16 => Size::B2,
        Ty::F32 => Size::B4,
        _ => Size::B8,
    }
}

impl Lifter<'_, '_> {
    /// The value of a register as a float of the type.
    fn unbox(&mut self, register: i32, ty: Ty) -> Slot {
        if ty == Ty::F64 {
            return Self::f(register);
        }
        let t = self.cx.temp();
        self.cx.unary(Op::UnboxNan, ty, t, Self::f(register));
        t
    }

    /// Puts a float of the type into a register.
    fn set_f(&mut self, register: i32, ty: Ty, value: Slot) {
        if ty == Ty::F64 {
            self.cx.mov(Self::f(register), value);
        } else {
            self.cx.unary(Op::BoxNan, ty, Self::f(register), value);
        }
    }

    pub(crate) fn float_load(&mut self, args: ArgsI, ty: Ty) -> bool {
        let (base, t) = (self.x(args.rs1), self.cx.temp());
        let op = self.mem(size(ty));
        self.cx.load(t, base, offset(args.imm), op);
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn float_store(&mut self, args: ArgsS, ty: Ty) -> bool {
        let base = self.x(args.rs1);
        let op = self.mem(size(ty));
        self.cx.store(Self::f(args.rs2), base, offset(args.imm), op);
        true
    }

    pub(crate) fn arithmetic(&mut self, args: ArgsFr, op: Op, ty: Ty) -> bool {
        let Some(how) = self.rounding(args.rm) else { return false };
        let operands = [self.unbox(args.rs1, ty), self.unbox(args.rs2, ty)];
        let t = self.cx.temp();
        self.cx.float(op, ty, t, operands, how);
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn fused(&mut self, args: ArgsFr4, negate: Negate, ty: Ty) -> bool {
        let Some(how) = self.rounding(args.rm) else { return false };
        let operands = [args.rs1, args.rs2, args.rs3].map(|register| self.unbox(register, ty));
        let t = self.cx.temp();
        self.cx.fused(ty, t, operands, FloatOp { negate, ..how });
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn square_root(&mut self, args: ArgsFr2, ty: Ty) -> bool {
        let Some(how) = self.rounding(args.rm) else { return false };
        let (a, t) = (self.unbox(args.rs1, ty), self.cx.temp());
        self.cx.float_unary(Op::FSqrt, ty, t, a, how);
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn extremum(&mut self, args: ArgsR, op: Op, ty: Ty) -> bool {
        let operands = [self.unbox(args.rs1, ty), self.unbox(args.rs2, ty)];
        let t = self.cx.temp();
        self.cx.float(op, ty, t, operands, EXACT);
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn compare(&mut self, args: ArgsR, op: Op, ty: Ty) -> bool {
        let operands = [self.unbox(args.rs1, ty), self.unbox(args.rs2, ty)];
        let d = self.dest(args.rd);
        self.cx.float(op, ty, d, operands, EXACT);
        true
    }

    pub(crate) fn sign(&mut self, args: ArgsR, how: Sign, ty: Ty) -> bool {
        let (a, b) = (self.unbox(args.rs1, ty), self.unbox(args.rs2, ty));
        let bit = self.cx.constant(1 << (ty.bits() - 1));
        let (sign, value) = (self.cx.temp(), self.cx.temp());
        self.cx.binary(Op::And, Ty::I64, sign, b, bit);
        if how == Sign::CopyNegated {
            self.cx.binary(Op::Xor, Ty::I64, sign, sign, bit);
        }
        if how == Sign::Xor {
            self.cx.binary(Op::Xor, Ty::I64, value, a, sign);
        } else {
            self.cx.binary(Op::AndNot, Ty::I64, value, a, bit);
            self.cx.binary(Op::Or, Ty::I64, value, value, sign);
        }
        self.set_f(args.rd, ty, value);
        true
    }

    pub(crate) fn classify(&mut self, args: ArgsR2, ty: Ty) -> bool {
        let helper = match ty {
            Ty::F16 => CLASS_H,
            Ty::F32 => CLASS_S,
            _ => CLASS_D,
        };
        let (a, d) = (self.unbox(args.rs1, ty), self.dest(args.rd));
        self.cx.call(helper, d, a, a);
        true
    }

    pub(crate) fn move_to_x(&mut self, args: ArgsR2, ty: Ty) -> bool {
        let d = self.dest(args.rd);
        match ty {
            Ty::F16 => self.cx.unary(Op::Sext, Ty::I16, d, Self::f(args.rs1)),
            Ty::F32 => self.cx.unary(Op::Sext, Ty::I32, d, Self::f(args.rs1)),
            _ if self.is_rv64() => self.cx.mov(d, Self::f(args.rs1)),
            _ => return false,
        }
        true
    }

    pub(crate) fn move_from_x(&mut self, args: ArgsR2, ty: Ty) -> bool {
        if ty == Ty::F64 && !self.is_rv64() {
            return false;
        }
        let a = self.x(args.rs1);
        self.set_f(args.rd, ty, a);
        true
    }

    /// Whether conversions with this integer type exist.
    fn has_int(&self, int: IntKind) -> bool {
        self.is_rv64() || matches!(int, IntKind::I32 | IntKind::U32)
    }

    pub(crate) fn convert_to_integer(&mut self, args: ArgsFr2, int: IntKind, ty: Ty) -> bool {
        let Some(how) = self.rounding(args.rm).filter(|_| self.has_int(int)) else { return false };
        let (a, d) = (self.unbox(args.rs1, ty), self.dest(args.rd));
        self.cx.float_unary(Op::FToInt, ty, d, a, FloatOp { int, ..how });
        if matches!(int, IntKind::I32 | IntKind::U32) {
            self.extend(Ty::I32, d);
        }
        true
    }

    pub(crate) fn convert_from_integer(&mut self, args: ArgsFr2, int: IntKind, ty: Ty) -> bool {
        let Some(how) = self.rounding(args.rm).filter(|_| self.has_int(int)) else { return false };
        let (a, t) = (self.x(args.rs1), self.cx.temp());
        self.cx.float_unary(Op::FFromInt, ty, t, a, FloatOp { int, ..how });
        self.set_f(args.rd, ty, t);
        true
    }

    pub(crate) fn convert(&mut self, args: ArgsFr2, from: Ty, to: Ty) -> bool {
        let Some(how) = self.rounding(args.rm) else { return false };
        let (a, t) = (self.unbox(args.rs1, from), self.cx.temp());
        self.cx.float_unary(Op::FConvert, from, t, a, FloatOp { to, ..how });
        self.set_f(args.rd, to, t);
        true
    }
}
