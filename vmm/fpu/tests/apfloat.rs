//! All formats against LLVM's arbitrary-precision floats: results, and flags.
#![allow(clippy::many_single_char_names, reason = "operands are called so in the standard")]

mod support;

use cairn_fpu::*;
use rustc_apfloat::{FloatConvert, Round, Status, StatusAnd, ieee};
use support::{Random, cases, specials};

/// Rounding modes that both know.
const ROUNDINGS: [(Rounding, Round); 5] = [
    (Rounding::NearestEven, Round::NearestTiesToEven),
    (Rounding::NearestAway, Round::NearestTiesToAway),
    (Rounding::TowardZero, Round::TowardZero),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Down, Round::TowardNegative),
];

/// Compares but for what the oracle defines differently: the choice of NaNs; underflow where rounding leads to
/// the smallest normal number (it tests the rounded result, as no standard does); and overflow that is
/// rounded to the largest finite number, which it does not report.
fn check<F: Float, O: rustc_apfloat::Float>(
    what: &str,
    result: F,
    env: &mut Env,
    oracle: &StatusAnd<O>,
) {
    let expected = F::from_raw(oracle.value.to_bits());
    assert!(result == expected || result.is_nan() && expected.is_nan(), "{what}: {expected:?}");
    let mut compared = vec![
        (Flags::INVALID, Status::INVALID_OP),
        (Flags::DIVIDE_BY_ZERO, Status::DIV_BY_ZERO),
        (Flags::INEXACT, Status::INEXACT),
    ];
    let smallest: F = support::build(false, 1, 0);
    if result.abs() != smallest {
        compared.push((Flags::UNDERFLOW, Status::UNDERFLOW));
    }
    let format = F::FORMAT;
    let top = 2 * u64::from(format.bias().cast_unsigned());
    let largest: F = support::build(false, top, (1 << format.fraction_bits) - 1);
    if result.abs() != largest {
        compared.push((Flags::OVERFLOW, Status::OVERFLOW));
    }
    let flags = env.take_flags();
    for (ours, theirs) in compared {
        assert_eq!(flags.contains(ours), oracle.status.contains(theirs), "{what}: {flags:?}");
    }
}

fn operations<F: Float, O: rustc_apfloat::Float>(a: F, b: F, c: F) {
    let [x, y, z] = [a, b, c].map(|value| O::from_bits(value.to_raw()));
    for (rounding, round) in ROUNDINGS {
        let env = &mut Env { rounding, ..Env::new(&Rules::RISCV) };
        let what = |op: &str| format!("{op} {a:?} {b:?} {c:?} {rounding:?}");
        let result = add(a, b, env);
        check(&what("add"), result, env, &x.add_r(y, round));
        let result = sub(a, b, env);
        check(&what("sub"), result, env, &x.sub_r(y, round));
        let result = mul(a, b, env);
        check(&what("mul"), result, env, &x.mul_r(y, round));
        let result = div(a, b, env);
        check(&what("div"), result, env, &x.div_r(y, round));
        // The oracle takes ∞ × 0 + NaN for valid.
        let inf_zero = a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite();
        if !(inf_zero && c.is_nan()) {
            let result = fma(a, b, c, env);
            check(&what("fma"), result, env, &x.mul_add_r(y, z, round));
        }
    }
}

fn all<F: Float, O: rustc_apfloat::Float>(seed: u64, count: u32) {
    let specials = specials::<F>();
    for a in &specials {
        for b in &specials {
            let c = specials[usize::from(b.is_sign_negative())];
            operations::<F, O>(*a, *b, c);
        }
    }
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        operations::<F, O>(random.float(), random.float(), random.float());
    }
}

#[test]
fn arithmetic_agrees() {
    all::<F16, ieee::Half>(21, 300);
    all::<Bf16, ieee::BFloat>(22, 300);
    all::<F32, ieee::Single>(23, 300);
    all::<F64, ieee::Double>(24, 300);
    all::<F80, ieee::X87DoubleExtended>(25, 300);
    all::<F128, ieee::Quad>(26, 300);
}

/// Conversions of one value to another format, to integers, and to integral values.
fn conversions<F: Float, O, T: Float, P: rustc_apfloat::Float>(a: F)
where
    O: FloatConvert<P>,
{
    let x = O::from_bits(a.to_raw());
    for (rounding, round) in ROUNDINGS {
        let env = &mut Env { rounding, ..Env::new(&Rules::RISCV) };
        let what = format!("{a:?} {rounding:?}");
        let result: T = convert(a, env);
        let mut oracle = x.convert_r(round, &mut false);
        // The oracle converts signaling NaNs in silence.
        oracle.status.set(Status::INVALID_OP, a.is_signaling_nan(&Rules::RISCV));
        if a.is_nan() {
            oracle.status.remove(Status::INEXACT);
        }
        check(&what, result, env, &oracle);
    }
}

#[test]
fn half_precision_converts_alike() {
    for bits in 0..=u16::MAX {
        conversions::<F16, ieee::Half, F32, ieee::Single>(F16::from_bits(bits));
        conversions::<F16, ieee::Half, Bf16, ieee::BFloat>(F16::from_bits(bits));
    }
}

#[test]
fn wider_formats_convert_alike() {
    let mut random = Random::new(31);
    for _ in 0..cases(400) {
        conversions::<F32, ieee::Single, F16, ieee::Half>(random.float());
        conversions::<F32, ieee::Single, Bf16, ieee::BFloat>(random.float());
        conversions::<F64, ieee::Double, F32, ieee::Single>(random.float());
        conversions::<F64, ieee::Double, F16, ieee::Half>(random.float());
        conversions::<F80, ieee::X87DoubleExtended, F64, ieee::Double>(random.float());
        conversions::<F128, ieee::Quad, F80, ieee::X87DoubleExtended>(random.float());
        conversions::<F128, ieee::Quad, F32, ieee::Single>(random.float());
    }
}
