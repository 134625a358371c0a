//! Floating-point operations by the host's unit.
//!
//! They are taken under the conditions of the template emitter (`cairn_tcg::emit`): where result and flags are certain to
//! be those of the interpreter. That a result may be inexact is asked once, where the region is entered: within
//! it, nothing clears the flag.

use cairn_fpu::{Negate, Rounding};
use cairn_tcg::ir::{FloatOp, IntKind};
use cairn_tcg::{Op, Slot, Ty, Uop};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};

use crate::lower::Lowering;
use crate::words::Form;

/// When a zero is a result without flags.
enum Zero {
    Never,
    Exact,
    /// If one of these operands is zero.
    Operand(Vec<Value>),
}

fn form(ty: Ty) -> Form {
    if ty == Ty::F64 { Form::Double } else { Form::Single }
}

impl Lowering<'_> {
    /// Does a floating-point operation, if the host can.
    pub(crate) fn float(&mut self, uop: &Uop) -> bool {
        if !self.region.facts.plain_float || !matches!(uop.ty, Ty::F32 | Ty::F64) {
            return false;
        }
        let how = FloatOp::unpack(uop.imm);
        let nearest = how.rounding == Rounding::NearestEven;
        match uop.op {
            Op::FAdd | Op::FSub | Op::FMul | Op::FDiv if nearest => self.arithmetic(uop),
            Op::FSqrt if nearest => {
                let paths = self.paths(uop);
                let a = self.operand(uop.ty, uop.a);
                let value = self.builder.ins().sqrt(a);
                self.result(uop.d, paths, uop.ty, value, Zero::Operand(vec![a]));
            }
            Op::FFused if nearest => return self.fused(uop, how.negate),
            Op::FSetEq | Op::FSetLt | Op::FSetLe => self.compare(uop),
            Op::FFromInt if nearest => return self.int_to_float(uop, how.int),
            Op::FToInt if how.rounding == Rounding::TowardZero => {
                return self.float_to_int(uop, how.int);
            }
            Op::FConvert if nearest => return self.convert(uop, how.to),
            _ => return false,
        }
        true
    }

    fn operand(&mut self, ty: Ty, slot: Slot) -> Value {
        if ty == Ty::F64 { self.double(slot) } else { self.single(slot) }
    }

    fn is_zero(&mut self, value: Value) -> Value {
        let zero = if self.builder.func.dfg.value_type(value) == types::F64 {
            self.builder.ins().f64const(0.0)
        } else {
            self.builder.ins().f32const(0.0)
        };
        self.builder.ins().fcmp(FloatCC::Equal, value, zero)
    }

    /// Takes a result that is in the normal range and not at its lower end, or zero if that may be; the interpreter makes all
    /// others.
    fn result(&mut self, d: Slot, paths: crate::slow::Paths, ty: Ty, value: Value, zero: Zero) {
        self.needs_inexact = true;
        let (int, sign_and_fraction, special) =
            if ty == Ty::F64 { (types::I64, 53, 0x7ff) } else { (types::I32, 24, 0xff) };
        let bits = self.bits(int, value);
        let magnitude = self.builder.ins().ishl_imm_u(bits, 1);
        let exponent = self.builder.ins().ushr_imm_u(magnitude, sign_and_fraction);
        // Exponents from 2 on.
        let exponent = self.builder.ins().iadd_imm_s(exponent, -2);
        let limit = self.builder.ins().iconst(int, special - 2);
        let special = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, exponent, limit);
        match zero {
            Zero::Never => {
                self.slow_if(&paths, special);
                self.fast(&paths, Some(value));
            }
            Zero::Exact | Zero::Operand(_) => {
                let look = self.cold_block();
                self.divert(special, look);
                self.fast(&paths, Some(value));
                self.builder.seal_block(look);
                self.builder.switch_to_block(look);
                let mut fine = self.is_zero(value);
                if let Zero::Operand(operands) = zero {
                    let zeros: Vec<Value> =
                        operands.into_iter().map(|operand| self.is_zero(operand)).collect();
                    let any = zeros.into_iter().reduce(|a, b| self.builder.ins().bor(a, b));
                    if let Some(any) = any {
                        fine = self.builder.ins().band(fine, any);
                    }
                }
                let taken = self.cold_block();
                self.divert(fine, taken);
                self.slow(&paths);
                self.builder.seal_block(taken);
                self.builder.switch_to_block(taken);
                self.fast(&paths, Some(value));
            }
        }
        self.join(paths, Some((d, form(ty))));
    }

    fn arithmetic(&mut self, uop: &Uop) {
        let paths = self.paths(uop);
        let (a, b) = (self.operand(uop.ty, uop.a), self.operand(uop.ty, uop.b));
        let (value, zero) = match uop.op {
            Op::FAdd => (self.builder.ins().fadd(a, b), Zero::Exact),
            Op::FSub => (self.builder.ins().fsub(a, b), Zero::Exact),
            Op::FMul => (self.builder.ins().fmul(a, b), Zero::Operand(vec![a, b])),
            _ => (self.builder.ins().fdiv(a, b), Zero::Operand(vec![a])),
        };
        self.result(uop.d, paths, uop.ty, value, zero);
    }

    fn fused(&mut self, uop: &Uop, negate: Negate) -> bool {
        let known = Negate::PRODUCT | Negate::ADDEND;
        let mut words = Vec::new();
        uop.reads(|slot: Slot| words.push(slot));
        let [first, second, third] = words[..] else { return false };
        if !self.fma || !known.contains(negate) {
            return false;
        }
        let paths = self.paths(uop);
        let (mut a, b) = (self.operand(uop.ty, first), self.operand(uop.ty, second));
        let mut c = self.operand(uop.ty, third);
        if negate.contains(Negate::PRODUCT) {
            a = self.builder.ins().fneg(a);
        }
        if negate.contains(Negate::ADDEND) {
            c = self.builder.ins().fneg(c);
        }
        let value = self.builder.ins().fma(a, b, c);
        self.result(uop.d, paths, uop.ty, value, Zero::Never);
        true
    }

    fn compare(&mut self, uop: &Uop) {
        let paths = self.paths(uop);
        let (a, b) = (self.operand(uop.ty, uop.a), self.operand(uop.ty, uop.b));
        let unordered = self.builder.ins().fcmp(FloatCC::Unordered, a, b);
        self.slow_if(&paths, unordered);
        let relation = match uop.op {
            Op::FSetEq => FloatCC::Equal,
            Op::FSetLt => FloatCC::LessThan,
            _ => FloatCC::LessThanOrEqual,
        };
        let holds = self.builder.ins().fcmp(relation, a, b);
        let value = self.builder.ins().uextend(types::I64, holds);
        self.fast(&paths, Some(value));
        self.join(paths, Some((uop.d, Form::Int)));
    }

    fn int_to_float(&mut self, uop: &Uop, kind: IntKind) -> bool {
        let from = match kind {
            IntKind::I32 => self.half(uop.a),
            IntKind::U32 => {
                let half = self.half(uop.a);
                self.builder.ins().uextend(types::I64, half)
            }
            IntKind::I64 => self.int(uop.a),
            IntKind::U64 => return false,
        };
        let wide = uop.ty == Ty::F64;
        self.needs_inexact |= !wide || kind == IntKind::I64;
        let form = form(uop.ty);
        let value = self.builder.ins().fcvt_from_sint(form.ty(), from);
        self.set(uop.d, form, value);
        true
    }

    fn float_to_int(&mut self, uop: &Uop, kind: IntKind) -> bool {
        let (int, least, greatest) = match kind {
            IntKind::I32 => (types::I32, i64::from(i32::MIN), i64::from(i32::MAX)),
            IntKind::I64 => (types::I64, i64::MIN, i64::MAX),
            IntKind::U32 | IntKind::U64 => return false,
        };
        self.needs_inexact = true;
        let paths = self.paths(uop);
        let a = self.operand(uop.ty, uop.a);
        // What does not fit becomes the nearest number that does, and what is none becomes zero.
        let unordered = self.builder.ins().fcmp(FloatCC::Unordered, a, a);
        self.slow_if(&paths, unordered);
        let value = self.builder.ins().fcvt_to_sint_sat(int, a);
        for end in [least, greatest] {
            let end = self.builder.ins().iconst(int, end);
            let beyond = self.builder.ins().icmp(IntCC::Equal, value, end);
            self.slow_if(&paths, beyond);
        }
        let word = if kind == IntKind::I32 {
            self.builder.ins().uextend(types::I64, value)
        } else {
            value
        };
        self.fast(&paths, Some(word));
        self.join(paths, Some((uop.d, Form::Int)));
        true
    }

    fn convert(&mut self, uop: &Uop, to: Ty) -> bool {
        if to == uop.ty || !matches!(to, Ty::F32 | Ty::F64) {
            return false;
        }
        let paths = self.paths(uop);
        let a = self.operand(uop.ty, uop.a);
        let value = if to == Ty::F64 {
            self.builder.ins().fpromote(types::F64, a)
        } else {
            self.builder.ins().fdemote(types::F32, a)
        };
        self.result(uop.d, paths, to, value, Zero::Operand(vec![a]));
        true
    }
}
