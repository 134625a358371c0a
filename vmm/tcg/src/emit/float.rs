//! Floating-point operations by the host's unit.
//!
//! They are used where result and flags are those of the interpreter, for guests whose arithmetic is plain IEEE 754
//! ([`Guest::PLAIN_FLOAT`](crate::Guest::PLAIN_FLOAT)); the host rounds to nearest even and flushes nothing:
//!
//! - a result that may be inexact is taken only if the flag is set already, as flags are only added;
//! - a result in the normal range, not at its lower end, is no NaN, did not overflow, and is not tiny. Then no operand was a
//!   NaN, and none infinite but a divisor, whose quotient is zero;
//! - a zero is taken if it is exact: as a sum, or if an operand that makes it so is zero;
//! - comparisons are taken unless an operand is a NaN, and conversions to integers unless the host says that they do
//!   not fit.
//!
//! Everything else goes to the interpreter.

use cairn_fpu::{Negate, Rounding};

use super::abi;
use super::asm::{Alu, Cond, Label, RAX, RBX, RCX, Reg, Shift, Sse, Width, Xmm};
use super::lower::{Lowering, Slow, Zero};
use crate::ir::{FloatOp, IntKind, Op, Ty, Uop};

const FIRST: Xmm = Xmm(0);
const SECOND: Xmm = Xmm(1);
const THIRD: Xmm = Xmm(2);

/// What becomes of a result in `rax`.
struct Result {
    ty: Ty,
    zero: Zero,
}

impl Lowering<'_> {
    /// Does a floating-point operation, if the host can.
    pub(super) fn float(&mut self, at: usize, uop: &Uop) -> bool {
        if !self.style.plain_float || !matches!(uop.ty, Ty::F32 | Ty::F64) {
            return false;
        }
        let how = FloatOp::unpack(uop.imm);
        let nearest = how.rounding == Rounding::NearestEven;
        match uop.op {
            Op::FAdd | Op::FSub | Op::FMul | Op::FDiv if nearest => self.arithmetic(at, uop),
            Op::FSqrt if nearest => self.root(at, uop),
            Op::FFused if nearest => return self.fused(at, uop, how.negate),
            Op::FSetEq | Op::FSetLt | Op::FSetLe => self.compare(at, uop),
            Op::FFromInt if nearest => return self.int_to_float(at, uop, how.int),
            Op::FToInt if how.rounding == Rounding::TowardZero => {
                return self.float_to_int(at, uop, how.int);
            }
            Op::FConvert if nearest => return self.convert(at, uop, how.to),
            _ => return false,
        }
        true
    }

    /// Goes to `slow` unless a result may be inexact without anybody noticing.
    fn need_inexact(&mut self, slow: Label) {
        let (place, bit) = abi::inexact();
        self.code.test_mem(RBX, place, bit);
        self.code.branch(Cond::Equal, slow);
    }

    /// Puts the result in the first register into the word, if it may be.
    fn result(&mut self, at: usize, uop: &Uop, slow: Label, result: Result) {
        let Result { ty, zero } = result;
        let wide = ty == Ty::F64;
        let width = if wide { Width::W64 } else { Width::W32 };
        let (fraction, special) = if wide { (52, 0x7ff) } else { (23, 0xff) };
        let (check, accept, back) = (self.code.label(), self.code.label(), self.code.label());
        self.code.read_xmm(width, RAX, FIRST);
        self.code.mov(width, RCX, RAX);
        self.code.shift_imm(Shift::Shr, width, RCX, fraction);
        self.code.alu_imm(Alu::And, Width::W32, RCX, special);
        // Exponents from 2 on.
        self.code.alu_imm(Alu::Sub, Width::W32, RCX, 2);
        self.code.alu_imm(Alu::Cmp, Width::W32, RCX, special - 2);
        self.code.branch(Cond::AboveEqual, check);
        self.code.bind(accept);
        let before = self.registers.clone();
        let d = self.registers.write(&mut self.code, uop.d);
        self.code.mov(Width::W64, d, RAX);
        self.code.bind(back);
        self.slow.push(Slow {
            entry: slow,
            back,
            before,
            after: self.registers.clone(),
            at,
            written: Some(uop.d),
            zero: Some((check, accept, width, zero)),
        });
    }

    fn arithmetic(&mut self, at: usize, uop: &Uop) {
        let a = self.registers.read(&mut self.code, uop.a);
        let b = self.registers.read(&mut self.code, uop.b);
        let slow = self.code.label();
        self.need_inexact(slow);
        let wide = uop.ty == Ty::F64;
        self.code.set_xmm(FIRST, a);
        self.code.set_xmm(SECOND, b);
        let (op, zero) = match uop.op {
            Op::FAdd => (Sse::Add, Zero::Exact),
            Op::FSub => (Sse::Sub, Zero::Exact),
            Op::FMul => (Sse::Mul, Zero::Operand([Some(a), Some(b)])),
            _ => (Sse::Div, Zero::Operand([Some(a), None])),
        };
        self.code.sse(op, wide, FIRST, SECOND);
        self.result(at, uop, slow, Result { ty: uop.ty, zero });
    }

    fn root(&mut self, at: usize, uop: &Uop) {
        let a = self.registers.read(&mut self.code, uop.a);
        let slow = self.code.label();
        self.need_inexact(slow);
        self.code.set_xmm(SECOND, a);
        self.code.sse(Sse::Sqrt, uop.ty == Ty::F64, FIRST, SECOND);
        let zero = Zero::Operand([Some(a), None]);
        self.result(at, uop, slow, Result { ty: uop.ty, zero });
    }

    fn fused(&mut self, at: usize, uop: &Uop, negate: Negate) -> bool {
        let known = Negate::PRODUCT | Negate::ADDEND;
        if !self.style.fma || !known.contains(negate) {
            return false;
        }
        let a = self.registers.read(&mut self.code, uop.a);
        let b = self.registers.read(&mut self.code, uop.b);
        let c = self.registers.read(&mut self.code, uop.third());
        let slow = self.code.label();
        self.need_inexact(slow);
        self.code.set_xmm(SECOND, a);
        self.code.set_xmm(THIRD, b);
        self.code.set_xmm(FIRST, c);
        let product = negate.contains(Negate::PRODUCT);
        let addend = negate.contains(Negate::ADDEND);
        self.code.fused(uop.ty == Ty::F64, product, addend);
        self.result(at, uop, slow, Result { ty: uop.ty, zero: Zero::Never });
        true
    }

    fn compare(&mut self, at: usize, uop: &Uop) {
        let a = self.registers.read(&mut self.code, uop.a);
        let b = self.registers.read(&mut self.code, uop.b);
        let slow = self.code.label();
        self.code.set_xmm(FIRST, a);
        self.code.set_xmm(SECOND, b);
        // The second with the first one: above means less.
        self.code.compare(uop.ty == Ty::F64, SECOND, FIRST);
        self.code.branch(Cond::Parity, slow);
        self.code.set_rax(match uop.op {
            Op::FSetEq => Cond::Equal,
            Op::FSetLt => Cond::Above,
            _ => Cond::AboveEqual,
        });
        self.finish(at, uop, slow);
    }

    /// Puts `rax` into the word; `slow` comes back behind that.
    pub(super) fn finish(&mut self, at: usize, uop: &Uop, slow: Label) {
        let back = self.code.label();
        let before = self.registers.clone();
        let d = self.registers.write(&mut self.code, uop.d);
        self.code.mov(Width::W64, d, RAX);
        self.code.bind(back);
        let after = self.registers.clone();
        let written = Some(uop.d);
        self.slow.push(Slow { entry: slow, back, before, after, at, written, zero: None });
    }

    fn int_to_float(&mut self, at: usize, uop: &Uop, kind: IntKind) -> bool {
        let wide = uop.ty == Ty::F64;
        let (width, exact) = match kind {
            IntKind::I32 => (Width::W32, wide),
            IntKind::U32 => (Width::W64, wide),
            IntKind::I64 => (Width::W64, false),
            IntKind::U64 => return false,
        };
        let a = self.registers.read(&mut self.code, uop.a);
        let slow = self.code.label();
        if !exact {
            self.need_inexact(slow);
        }
        let from = if kind == IntKind::U32 {
            self.code.mov(Width::W32, RAX, a);
            RAX
        } else {
            a
        };
        self.code.convert_from_int(wide, width, FIRST, from);
        let width = if wide { Width::W64 } else { Width::W32 };
        self.code.read_xmm(width, RAX, FIRST);
        self.finish(at, uop, slow);
        true
    }

    fn float_to_int(&mut self, at: usize, uop: &Uop, kind: IntKind) -> bool {
        let width = match kind {
            IntKind::I32 => Width::W32,
            IntKind::I64 => Width::W64,
            IntKind::U32 | IntKind::U64 => return false,
        };
        let a = self.registers.read(&mut self.code, uop.a);
        let slow = self.code.label();
        self.need_inexact(slow);
        self.code.set_xmm(FIRST, a);
        self.code.convert_to_int(uop.ty == Ty::F64, width, RAX, FIRST);
        // What does not fit becomes the smallest number, the only one that overflows when 1 is subtracted.
        self.code.alu_imm(Alu::Cmp, width, RAX, 1);
        self.code.branch(Cond::Overflow, slow);
        self.finish(at, uop, slow);
        true
    }

    fn convert(&mut self, at: usize, uop: &Uop, to: Ty) -> bool {
        if to == uop.ty || !matches!(to, Ty::F32 | Ty::F64) {
            return false;
        }
        let a: Reg = self.registers.read(&mut self.code, uop.a);
        let slow = self.code.label();
        if to == Ty::F32 {
            self.need_inexact(slow);
        }
        self.code.set_xmm(SECOND, a);
        self.code.sse(Sse::Convert, uop.ty == Ty::F64, FIRST, SECOND);
        // Words of narrow floats have nothing above them.
        let zero = Zero::Operand([Some(a), None]);
        self.result(at, uop, slow, Result { ty: to, zero });
        true
    }
}
