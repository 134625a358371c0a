//! Floating-point operations, by `cairn-fpu`.

// A float's bits, or an integer's, are the low bits of a word.
#![allow(clippy::cast_possible_truncation, clippy::many_single_char_names)]

use cairn_fpu::{
    Env, Extremum, F16, F32, F64, Float, MinMaxRule, Relation, compare, compare_quiet, convert,
    from_int, min_max, to_int,
};

use crate::ir::{FloatOp, IntKind, Op, Ty};

/// What `op` makes of the words `a`, `b` and `c`. The flags it signals are added to `env`.
pub(super) fn eval(op: Op, ty: Ty, [a, b, c]: [u64; 3], how: FloatOp, env: &mut Env) -> u64 {
    env.rounding = how.rounding;
    match ty {
        Ty::F16 => eval_in::<F16>(op, [a, b, c], how, env),
        Ty::F32 => eval_in::<F32>(op, [a, b, c], how, env),
        _ => eval_in::<F64>(op, [a, b, c], how, env),
    }
}

fn float<F: Float>(word: u64) -> F {
    F::from_raw(u128::from(word))
}

fn word<F: Float>(value: F) -> u64 {
    value.to_raw() as u64
}

fn eval_in<F: Float>(op: Op, [a, b, c]: [u64; 3], how: FloatOp, env: &mut Env) -> u64 {
    let (x, y): (F, F) = (float(a), float(b));
    match op {
        Op::FSqrt => word(cairn_fpu::sqrt(x, env)),
        Op::FToInt => integer(x, how, env),
        Op::FFromInt => match how.int {
            IntKind::I32 => word(from_int::<i32, F>((a as u32).cast_signed(), env)),
            IntKind::U32 => word(from_int::<u32, F>(a as u32, env)),
            IntKind::I64 => word(from_int::<i64, F>(a.cast_signed(), env)),
            IntKind::U64 => word(from_int::<u64, F>(a, env)),
        },
        Op::FConvert => match how.to {
            Ty::F16 => word(convert::<F, F16>(x, env)),
            Ty::F32 => word(convert::<F, F32>(x, env)),
            _ => word(convert::<F, F64>(x, env)),
        },
        Op::FAdd => word(cairn_fpu::add(x, y, env)),
        Op::FSub => word(cairn_fpu::sub(x, y, env)),
        Op::FMul => word(cairn_fpu::mul(x, y, env)),
        Op::FDiv => word(cairn_fpu::div(x, y, env)),
        Op::FMin => word(min_max(x, y, Extremum::Min, MinMaxRule::Number2019, env)),
        Op::FMax => word(min_max(x, y, Extremum::Max, MinMaxRule::Number2019, env)),
        Op::FSetEq => (compare_quiet(x, y, env) == Relation::Equal).into(),
        Op::FSetLt => (compare(x, y, env) == Relation::Less).into(),
        Op::FSetLe => matches!(compare(x, y, env), Relation::Less | Relation::Equal).into(),
        _ => word(cairn_fpu::fma_with(x, y, float(c), how.negate, 0, env)),
    }
}

/// Integers narrower than a word are zero-extended.
fn integer<F: Float>(value: F, how: FloatOp, env: &mut Env) -> u64 {
    match how.int {
        IntKind::I32 => u64::from(to_int::<F, i32>(value, how.rounding, env).cast_unsigned()),
        IntKind::U32 => u64::from(to_int::<F, u32>(value, how.rounding, env)),
        IntKind::I64 => to_int::<F, i64>(value, how.rounding, env).cast_unsigned(),
        IntKind::U64 => to_int::<F, u64>(value, how.rounding, env),
    }
}
