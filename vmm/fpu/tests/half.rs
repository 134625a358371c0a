//! Every value of binary16 and bfloat16 in the operations of one operand, against `f64`, which holds all of
//! them and their roots with room to spare.

mod support;

use cairn_fpu::*;
use support::ROUNDINGS;

/// The value, which is finite or infinite, by the layout of the format.
fn value<F: Float>(a: F) -> f64 {
    let format = F::FORMAT;
    let raw = a.abs().to_raw();
    let biased = i32::try_from(raw >> format.fraction_bits).unwrap();
    let fraction = u32::try_from(raw & ((1 << format.fraction_bits) - 1)).unwrap();
    let ulp = f64::from(biased.max(1) - format.bias() - format.fraction_bits.cast_signed()).exp2();
    let integer = if biased == 0 { 0 } else { 1 << format.fraction_bits };
    let magnitude =
        if a.is_infinite() { f64::INFINITY } else { f64::from(integer + fraction) * ulp };
    if a.is_sign_negative() { -magnitude } else { magnitude }
}

fn all<F: Float>() -> impl Iterator<Item = F> {
    (0..1 << 16).map(F::from_raw)
}

fn exhaust<F: Float>() {
    let mut env = Env::new(&Rules::ARM);
    for a in all::<F>() {
        let exact: F64 = convert(a, &mut env);
        if a.is_nan() {
            assert!(exact.is_nan() && sqrt(a, &mut env).is_nan());
            continue;
        }
        let expected = value(a);
        assert_eq!(f64::from(exact).to_bits(), expected.to_bits(), "{a:?}");
        let back: F = convert(exact, &mut env);
        assert_eq!(back, a);

        // A root of 11 bits rounded to 53 and again to 11 is as good as rounded once (2 × 11 + 2 ≤ 53).
        let root = sqrt(a, &mut env);
        let expected_root: F = convert(F64::from(expected.sqrt()), &mut env);
        assert!(root == expected_root || expected < 0.0 && root.is_nan(), "{a:?}");

        for rounding in ROUNDINGS {
            let integral = match rounding {
                Rounding::NearestEven => expected.round_ties_even(),
                Rounding::NearestAway => expected.round(),
                Rounding::TowardZero => expected.trunc(),
                Rounding::Up => expected.ceil(),
                Rounding::Down => expected.floor(),
                Rounding::Odd if expected.is_infinite() || expected % 1.0 == 0.0 => expected,
                Rounding::Odd if expected.trunc() % 2.0 != 0.0 => expected.trunc(),
                Rounding::Odd => expected.trunc() + 1_f64.copysign(expected),
            };
            env.take_flags();
            let result = round_to_int_exact(a, rounding, &mut env);
            #[allow(clippy::float_cmp)] // Both are exact.
            let same = value(result) == integral;
            assert!(
                same && result.is_sign_negative() == a.is_sign_negative(),
                "{a:?} {rounding:?}"
            );
            #[allow(clippy::float_cmp)]
            let inexact = integral != expected;
            assert_eq!(env.take_flags().contains(Flags::INEXACT), inexact, "{a:?} {rounding:?}");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let integers = (integral as i8, integral as u8, integral as i32, integral as u64);
            let results = (
                to_int(a, rounding, &mut env),
                to_int(a, rounding, &mut env),
                to_int(a, rounding, &mut env),
                to_int(a, rounding, &mut env),
            );
            assert_eq!(results, integers, "{a:?} {rounding:?}");
        }
    }
}

#[test]
fn every_binary16_value() {
    exhaust::<F16>();
}

#[test]
fn every_bfloat16_value() {
    exhaust::<Bf16>();
}

#[test]
fn wider_formats_keep_every_value() {
    let mut env = Env::new(&Rules::ARM);
    for a in all::<F16>().step_by(3).filter(|a| !a.is_nan()) {
        let single: F32 = convert(a, &mut env);
        let extended: F80 = convert(single, &mut env);
        let quad: F128 = convert(extended, &mut env);
        let double: F64 = convert(quad, &mut env);
        let back: F16 = convert(double, &mut env);
        assert_eq!((back, f64::from(double).to_bits()), (a, value(a).to_bits()));
    }
    assert_eq!(env.flags - Flags::INPUT_DENORMAL, Flags::empty());
}

#[test]
fn integers_of_16_bits_become_the_nearest_value() {
    let mut env = Env::new(&Rules::ARM);
    for integer in i16::MIN..=i16::MAX {
        let expected: F16 = convert(F64::from(f64::from(integer)), &mut env);
        assert_eq!(from_int::<i16, F16>(integer, &mut env), expected, "{integer}");
    }
}
