//! Integer operations.

use cairn_tcg::{Op, Slot, Ty, Uop};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

use crate::lower::Lowering;
use crate::words::Form;

/// The type of an operation's operands.
fn width(ty: Ty) -> Type {
    if ty == Ty::I32 { types::I32 } else { types::I64 }
}

/// The comparison that an operation makes.
pub(crate) fn condition(op: Op) -> Option<IntCC> {
    Some(match op {
        Op::SetEq | Op::BrEq => IntCC::Equal,
        Op::SetNe | Op::BrNe => IntCC::NotEqual,
        Op::SetLt | Op::BrLt => IntCC::SignedLessThan,
        Op::SetGe | Op::BrGe => IntCC::SignedGreaterThanOrEqual,
        Op::SetLtU | Op::BrLtU => IntCC::UnsignedLessThan,
        Op::SetGeU | Op::BrGeU => IntCC::UnsignedGreaterThanOrEqual,
        _ => return None,
    })
}

impl Lowering<'_> {
    pub(crate) fn unary(&mut self, uop: &Uop) -> bool {
        match uop.op {
            Op::Mov => self.copy(uop.d, uop.a),
            Op::Sext | Op::Zext => {
                let word = self.int(uop.a);
                let narrow = match uop.ty {
                    Ty::I8 => types::I8,
                    Ty::I16 => types::I16,
                    _ => types::I32,
                };
                let low = self.builder.ins().ireduce(narrow, word);
                let value = if uop.op == Op::Sext {
                    self.builder.ins().sextend(types::I64, low)
                } else {
                    self.builder.ins().uextend(types::I64, low)
                };
                self.set(uop.d, Form::Int, value);
            }
            Op::Not => {
                let word = self.int(uop.a);
                let value = self.builder.ins().bnot(word);
                self.set(uop.d, Form::Int, value);
            }
            Op::Clz | Op::Ctz | Op::Popcnt | Op::Bswap => {
                let narrow = uop.ty == Ty::I32;
                let word = if narrow { self.half(uop.a) } else { self.int(uop.a) };
                let value = match uop.op {
                    Op::Clz => self.builder.ins().clz(word),
                    Op::Ctz => self.builder.ins().ctz(word),
                    Op::Popcnt => self.builder.ins().popcnt(word),
                    _ => self.builder.ins().bswap(word),
                };
                self.set_sized(uop, value);
            }
            Op::BoxNan => {
                let word = self.int(uop.a);
                let ones = self.constant(!uop.ty.mask());
                let value = self.builder.ins().bor(word, ones);
                if uop.ty == Ty::F32 {
                    let single = self.single(uop.a);
                    self.set_boxed(uop.d, single, value);
                } else {
                    self.set(uop.d, Form::Int, value);
                }
            }
            Op::UnboxNan => self.unbox(uop),
            _ => return false,
        }
        true
    }

    fn unbox(&mut self, uop: &Uop) {
        if let Some(single) = self.boxed(uop.a).filter(|_| uop.ty == Ty::F32) {
            self.set(uop.d, Form::Single, single);
            return;
        }
        let (bits, default) = if uop.ty == Ty::F16 { (16, 0x7e00) } else { (32, 0x7fc0_0000) };
        let word = self.int(uop.a);
        let mask = self.constant(uop.ty.mask());
        let low = self.builder.ins().band(word, mask);
        let above = self.builder.ins().sshr_imm_u(word, bits);
        let ones = self.constant(u64::MAX);
        let boxed = self.builder.ins().icmp(IntCC::Equal, above, ones);
        let default = self.constant(default);
        let value = self.builder.ins().select(boxed, low, default);
        self.set(uop.d, Form::Int, value);
    }

    pub(crate) fn binary(&mut self, uop: &Uop) -> bool {
        if let Some(condition) = condition(uop.op) {
            let (a, b) = self.operands(uop);
            let holds = self.builder.ins().icmp(condition, a, b);
            let value = self.builder.ins().uextend(types::I64, holds);
            self.set(uop.d, Form::Int, value);
            return true;
        }
        if matches!(uop.op, Op::ClMul | Op::ClMulHi) {
            return false;
        }
        let (a, b) = self.operands(uop);
        let value = match uop.op {
            Op::Add => self.builder.ins().iadd(a, b),
            Op::Sub => self.builder.ins().isub(a, b),
            Op::Mul => self.builder.ins().imul(a, b),
            Op::MulHiS => self.builder.ins().smulhi(a, b),
            Op::MulHiU => self.builder.ins().umulhi(a, b),
            Op::MulHiSU => self.high_product_mixed(uop.ty, a, b),
            Op::And => self.builder.ins().band(a, b),
            Op::AndNot => self.builder.ins().band_not(a, b),
            Op::Or => self.builder.ins().bor(a, b),
            Op::Xor => self.builder.ins().bxor(a, b),
            Op::Shl => self.builder.ins().ishl(a, b),
            Op::Shr => self.builder.ins().ushr(a, b),
            Op::Sar => self.builder.ins().sshr(a, b),
            Op::Rotl => self.builder.ins().rotl(a, b),
            Op::Rotr => self.builder.ins().rotr(a, b),
            Op::MinS => self.builder.ins().smin(a, b),
            Op::MinU => self.builder.ins().umin(a, b),
            Op::MaxS => self.builder.ins().smax(a, b),
            Op::MaxU => self.builder.ins().umax(a, b),
            _ => return false,
        };
        self.set_sized(uop, value);
        true
    }

    /// The high half of the product of signed `a` and unsigned `b`: that of unsigned ones, less `b` if `a` is negative.
    fn high_product_mixed(&mut self, ty: Ty, a: Value, b: Value) -> Value {
        let high = self.builder.ins().umulhi(a, b);
        let sign = self.builder.ins().sshr_imm_u(a, i64::from(width(ty).bits()) - 1);
        let correction = self.builder.ins().band(sign, b);
        self.builder.ins().isub(high, correction)
    }

    /// Divides, unless the divisor is zero, or -1 for signed numbers, whose quotient may not fit.
    pub(crate) fn division(&mut self, uop: &Uop) -> bool {
        if !matches!(uop.op, Op::DivS | Op::DivU | Op::RemS | Op::RemU) {
            return false;
        }
        let paths = self.paths(uop);
        let (a, b) = self.operands(uop);
        let signed = matches!(uop.op, Op::DivS | Op::RemS);
        // 0 and -1 become 1 and 0.
        let (shifted, limit) =
            if signed { (self.builder.ins().iadd_imm_s(b, 1), 2) } else { (b, 1) };
        let limit = self.builder.ins().iconst(width(uop.ty), limit);
        let special = self.builder.ins().icmp(IntCC::UnsignedLessThan, shifted, limit);
        self.slow_if(&paths, special);
        let value = match uop.op {
            Op::DivS => self.builder.ins().sdiv(a, b),
            Op::DivU => self.builder.ins().udiv(a, b),
            Op::RemS => self.builder.ins().srem(a, b),
            _ => self.builder.ins().urem(a, b),
        };
        let word =
            if uop.ty == Ty::I32 { self.builder.ins().uextend(types::I64, value) } else { value };
        self.fast(&paths, Some(word));
        self.join(paths, Some((uop.d, Form::Int)));
        true
    }

    pub(crate) fn select(&mut self, uop: &Uop) {
        // The third operand is in the low half of the immediate.
        let mut words = Vec::new();
        uop.reads(|slot: Slot| words.push(slot));
        let values: Vec<Value> = words.into_iter().map(|slot| self.int(slot)).collect();
        if let [condition, yes, no] = values[..] {
            let value = self.builder.ins().select(condition, yes, no);
            self.set(uop.d, Form::Int, value);
        }
    }
}
