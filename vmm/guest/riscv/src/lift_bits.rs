//! Zba, Zbb, Zbc, Zbs and Zicond.

use cairn_tcg::{Op, Slot, Ty};

use crate::lift::Lifter;
use crate::lift::decode::{ArgsR, ArgsR2, ArgsSh};
use crate::lift_int::Width;

/// `(rs1 << amount) + rs2`, of the whole register or of its low word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShiftAdd {
    pub(crate) amount: i64,
    pub(crate) word: bool,
}

impl Lifter<'_, '_> {
    pub(crate) fn shift_add(&mut self, args: ArgsR, how: ShiftAdd) -> bool {
        if how.word && !self.is_rv64() {
            return false;
        }
        let (a, b, t) = (self.x(args.rs1), self.x(args.rs2), self.cx.temp());
        let from = if how.word {
            self.cx.unary(Op::Zext, Ty::I32, t, a);
            t
        } else {
            a
        };
        let ty = self.ty();
        self.cx.binary(Op::Shl, ty, t, from, how.amount);
        self.operate(Op::Add, ty, args.rd, t, b);
        true
    }

    pub(crate) fn shift_unsigned_word(&mut self, args: ArgsSh) -> bool {
        if !self.is_rv64() {
            return false;
        }
        let (a, t) = (self.x(args.rs1), self.cx.temp());
        self.cx.unary(Op::Zext, Ty::I32, t, a);
        self.operate(Op::Shl, Ty::I64, args.rd, t, i64::from(args.shamt));
        true
    }

    pub(crate) fn or_not(&mut self, args: ArgsR) -> bool {
        let (a, b, t) = (self.x(args.rs1), self.x(args.rs2), self.cx.temp());
        self.cx.unary(Op::Not, Ty::I64, t, b);
        self.operate(Op::Or, Ty::I64, args.rd, a, t);
        true
    }

    pub(crate) fn xor_not(&mut self, args: ArgsR) -> bool {
        let (a, b, t) = (self.x(args.rs1), self.x(args.rs2), self.cx.temp());
        self.cx.unary(Op::Not, Ty::I64, t, b);
        self.operate(Op::Xor, Ty::I64, args.rd, a, t);
        true
    }

    pub(crate) fn count(&mut self, args: ArgsR2, op: Op, width: Width) -> bool {
        let Some(ty) = self.width(width) else { return false };
        let (a, d) = (self.x(args.rs1), self.dest(args.rd));
        self.cx.unary(op, ty, d, a);
        true
    }

    pub(crate) fn narrow(&mut self, args: ArgsR2, op: Op, ty: Ty) -> bool {
        let (a, d) = (self.x(args.rs1), self.dest(args.rd));
        self.cx.unary(op, ty, d, a);
        true
    }

    /// `zext.h`, whose encoding depends on the width of the registers.
    pub(crate) fn zero_extend_half(&mut self, args: ArgsR2, ty: Ty) -> bool {
        self.ty() == ty && self.narrow(args, Op::Zext, Ty::I16)
    }

    /// `rev8`, whose encoding depends on the width of the registers.
    pub(crate) fn reverse_bytes(&mut self, args: ArgsR2, ty: Ty) -> bool {
        if self.ty() != ty {
            return false;
        }
        let (a, d) = (self.x(args.rs1), self.dest(args.rd));
        self.cx.unary(Op::Bswap, ty, d, a);
        self.extend(ty, d);
        true
    }

    /// Bytes that are not zero become all ones.
    pub(crate) fn or_combine_bytes(&mut self, args: ArgsR2) -> bool {
        const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let (a, t) = (self.x(args.rs1), self.cx.temp());
        let low = self.cx.constant(LOW_BITS);
        // The highest bit of each byte, if any bit of it is set: no byte carries into the next.
        self.cx.binary(Op::And, Ty::I64, t, a, low);
        self.cx.binary(Op::Add, Ty::I64, t, t, low);
        self.cx.binary(Op::Or, Ty::I64, t, t, a);
        self.cx.binary(Op::AndNot, Ty::I64, t, t, low);
        self.cx.binary(Op::Shr, Ty::I64, t, t, 7);
        self.operate(Op::Mul, Ty::I64, args.rd, t, 0xff);
        true
    }

    /// Bits `2 × XLEN − 2` to `XLEN − 1` of the carry-less product.
    pub(crate) fn carryless_reversed(&mut self, args: ArgsR) -> bool {
        let ty = self.ty();
        let (a, b) = (self.x(args.rs1), self.x(args.rs2));
        let (low, high) = (self.cx.temp(), self.cx.temp());
        self.cx.binary(Op::ClMul, ty, low, a, b);
        self.cx.binary(Op::ClMulHi, ty, high, a, b);
        self.cx.binary(Op::Shr, ty, low, low, i64::from(ty.bits()) - 1);
        self.cx.binary(Op::Shl, ty, high, high, 1);
        self.operate(Op::Or, ty, args.rd, low, high);
        true
    }

    /// A temporary with only the bit set whose number is in `number`.
    fn one_bit(&mut self, number: Slot) -> Slot {
        let one = self.cx.constant(1);
        let t = self.cx.temp();
        self.cx.binary(Op::Shl, self.ty(), t, one, number);
        t
    }

    pub(crate) fn bit(&mut self, args: ArgsR, op: Op) -> bool {
        let (a, b) = (self.x(args.rs1), self.x(args.rs2));
        let t = self.one_bit(b);
        self.operate(op, self.ty(), args.rd, a, t);
        true
    }

    pub(crate) fn bit_immediate(&mut self, args: ArgsSh, op: Op) -> bool {
        if args.shamt.cast_unsigned() >= self.ty().bits() {
            return false;
        }
        let a = self.x(args.rs1);
        let number = self.cx.constant(u64::from(args.shamt.cast_unsigned()));
        let t = self.one_bit(number);
        self.operate(op, self.ty(), args.rd, a, t);
        true
    }

    pub(crate) fn extract_bit(&mut self, args: ArgsR) -> bool {
        let (a, b, t) = (self.x(args.rs1), self.x(args.rs2), self.cx.temp());
        self.cx.binary(Op::Shr, self.ty(), t, a, b);
        self.operate(Op::And, Ty::I64, args.rd, t, 1);
        true
    }

    pub(crate) fn extract_bit_immediate(&mut self, args: ArgsSh) -> bool {
        if args.shamt.cast_unsigned() >= self.ty().bits() {
            return false;
        }
        let (a, t) = (self.x(args.rs1), self.cx.temp());
        self.cx.binary(Op::Shr, self.ty(), t, a, i64::from(args.shamt));
        self.operate(Op::And, Ty::I64, args.rd, t, 1);
        true
    }

    /// Zero if `rs2` is zero, or if it is not, else `rs1`.
    pub(crate) fn conditional_zero(&mut self, args: ArgsR, if_zero: bool) -> bool {
        let (a, b) = (self.x(args.rs1), self.x(args.rs2));
        let (zero, d) = (self.cx.constant(0), self.dest(args.rd));
        let (yes, no) = if if_zero { (a, zero) } else { (zero, a) };
        self.cx.select(d, b, yes, no);
        true
    }
}
