//! All operations of all formats against exact arithmetic, in every rounding mode and with both kinds of
//! tininess.
#![allow(clippy::many_single_char_names, reason = "operands are called so in the standard")]

mod support;

use cairn_fpu::*;
use support::big::Big;
use support::exact::Exact;
use support::{IEEE, Random, cases, env};

/// Compares a result and its flags; zeros that are sums have a sign of their own.
fn check<F: Float>(what: &str, exact: &Exact, env: &Env, result: F) {
    let (expected, flags) = exact.round::<F>(env);
    let zero_sum = exact.magnitude.is_zero();
    assert!(
        result == expected || zero_sum && result.is_zero(),
        "{what} {:?}: {result:?} instead of {expected:?}",
        env.rounding
    );
    assert_eq!(env.flags & IEEE, flags, "{what} {:?} {:?}", env.rounding, env.rules.tininess);
}

fn arithmetic<F: Float>(seed: u64, count: u32) {
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let (a, b, c): (F, F, F) = (random.finite(), random.finite(), random.finite());
        let new = env(random.rounding(), random.tininess());
        let (x, y, z) = (Exact::new(a), Exact::new(b), Exact::new(c));
        let run = |what: &str, exact: &Exact, op: &dyn Fn(&mut Env) -> F| {
            let mut env = new;
            let result = op(&mut env);
            check(&format!("{what} {a:?} {b:?} {c:?}"), exact, &env, result);
        };
        run("add", &x.add(&y), &|env| add(a, b, env));
        run("sub", &x.add(&y.clone().negated()), &|env| sub(a, b, env));
        run("mul", &x.mul(&y), &|env| mul(a, b, env));
        run("div", &x.div(&y), &|env| div(a, b, env));
        let sum = x.mul(&y).add(&z);
        run("fma", &sum, &|env| fma(a, b, c, env));
        let negate = Negate::PRODUCT | Negate::ADDEND;
        run("nfma", &sum.negated(), &|env| fma_with(a, b, c, negate, 0, env));
        let half = Exact { exp: x.exp + y.exp - 1, ..x.mul(&y) };
        let zero = F::zero(half.negative);
        run("half", &half, &|env| fma_with(a, b, zero, Negate::empty(), -1, env));
        // A sum that nearly cancels.
        let product = mul(a, b, &mut env(Rounding::NearestEven, Tininess::AfterRounding));
        if !product.is_infinite() {
            let rest = x.mul(&y).add(&Exact::new(product).negated());
            run("rest", &rest, &|env| fma(a, b, product.negated(), env));
        }
        let n = i32::try_from(random.below(300)).unwrap() - 150;
        let scaled = Exact { exp: x.exp + i64::from(n), ..x.clone() };
        run("scalbn", &scaled, &|env| scalbn(a, n, env));
    }
}

fn roots<F: Float>(seed: u64, count: u32) {
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let a = random.finite::<F>().abs();
        let mut env = env(random.rounding(), random.tininess());
        let root = sqrt(a, &mut env);
        check(&format!("sqrt {a:?}"), &Exact::new(a).sqrt(), &env, root);
        // Squares have exact roots.
        let mut quiet = support::env(Rounding::TowardZero, Tininess::AfterRounding);
        let short = F::from_raw(
            a.to_raw() >> (F::FORMAT.precision() / 2 + 1) << (F::FORMAT.precision() / 2 + 1),
        );
        let square = mul(short, short, &mut quiet);
        if (quiet.flags & IEEE).is_empty() && !square.is_zero() {
            let root = sqrt(square, &mut quiet);
            assert_eq!((root, quiet.flags & IEEE), (short, Flags::empty()));
        }
    }
}

fn remainders<F: Float>(seed: u64, count: u32) {
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let (mut a, b): (F, F) = (random.finite(), random.finite());
        let (mut x, y) = (Exact::new(a), Exact::new(b));
        if (x.exp - y.exp).abs() > 600 {
            a = random.finite::<F>().copysign(a);
            x = Exact::new(a);
        }
        if (x.exp - y.exp).abs() > 600 {
            continue;
        }
        let unit = x.exp.min(y.exp);
        let (divisor, dividend) = (y.in_units(unit), x.in_units(unit));
        let (quotient, rest) = dividend.div(&divisor);
        for rounding in [Quotient::Truncated, Quotient::Nearest] {
            let mut env = env(Rounding::Up, Tininess::BeforeRounding);
            let (result, low) = remainder(a, b, rounding, &mut env);
            let twice = rest.shl(1).compare(&divisor);
            let odd = quotient.shr(1).1;
            let up = rounding == Quotient::Nearest && (twice.is_gt() || twice.is_eq() && odd);
            let magnitude = if up { divisor.sub(&rest) } else { rest.clone() };
            let quotient = if up { quotient.add(&Big::new(1)) } else { quotient.clone() };
            let negative = a.is_sign_negative() ^ (up && !magnitude.is_zero());
            let (expected, _) = Exact { negative, magnitude, exp: unit }.round::<F>(&env);
            assert_eq!(result, expected, "{a:?} rem {b:?} {rounding:?}");
            let (_, lowest) = (quotient.shr(64), quotient.sub(&quotient.shr(64).0.shl(64)));
            assert_eq!(u128::from(low), lowest.to_u128(), "{a:?} rem {b:?} {rounding:?}");
            assert_eq!(env.flags & IEEE, Flags::empty());
        }
    }
}

fn conversions<A: Float, B: Float>(seed: u64, count: u32) {
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let a: A = random.finite();
        let mut env = env(random.rounding(), random.tininess());
        let b: B = convert(a, &mut env);
        check(&format!("convert {a:?}"), &Exact::new(a), &env, b);
    }
}

fn from_integers<F: Float>(seed: u64, count: u32) {
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let magnitude = random.significand(127) >> random.below(127);
        let negative = random.below(2) == 1;
        let value = magnitude.cast_signed() * if negative { -1 } else { 1 };
        let scale = i32::try_from(random.below(64)).unwrap() - 32;
        let mut env = env(random.rounding(), random.tininess());
        let result: F = from_int_scaled(value, scale, &mut env);
        let exact =
            Exact { negative: value < 0, magnitude: Big::new(magnitude), exp: scale.into() };
        check(&format!("from {value} {scale}"), &exact, &env, result);
    }
}

fn to_integers<F: Float>(seed: u64, count: u32) {
    fn one<F: Float, I: Int>(a: F, rounding: Rounding, scale: i32) {
        let exact = Exact::new(a);
        let exact = Exact { exp: exact.exp + i64::from(scale), ..exact };
        let mut env = env(rounding, Tininess::BeforeRounding);
        let result: I = to_int_scaled(a, scale, rounding, &mut env);
        let (value, inexact) = exact.integer(0, rounding);
        let (limit, saturated) = if exact.negative { (I::MIN, I::MIN) } else { (I::MAX, I::MAX) };
        let (_, limit) = limit.sign_magnitude();
        let (expected, flags) = if value.compare(&Big::new(limit)).is_gt() {
            (saturated, Flags::INVALID)
        } else {
            let inexact = if inexact { Flags::INEXACT } else { Flags::empty() };
            (I::wrapping(exact.negative, value.to_u128()), inexact)
        };
        assert_eq!((result, env.flags & IEEE), (expected, flags), "{a:?} {rounding:?} {scale}");
        if scale == 0 {
            let modular: I = to_int_modular(a, rounding, &mut env);
            let low = value.sub(&value.shr(128).0.shl(128)).to_u128();
            assert_eq!(modular, I::wrapping(exact.negative, low), "{a:?} {rounding:?}");
        }
    }
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        let a: F = random.finite();
        let rounding = random.rounding();
        // Bring most values into the range of integers.
        let n = i32::try_from(random.below(140)).unwrap();
        let b = scalbn(a, n, &mut env(Rounding::TowardZero, Tininess::AfterRounding));
        let scale = if random.below(2) == 0 { 0 } else { n / 4 };
        for value in [a, b] {
            one::<F, i8>(value, rounding, scale);
            one::<F, u16>(value, rounding, scale);
            one::<F, i32>(value, rounding, scale);
            one::<F, u32>(value, rounding, scale);
            one::<F, i64>(value, rounding, scale);
            one::<F, u64>(value, rounding, scale);
            one::<F, i128>(value, rounding, scale);
            one::<F, u128>(value, rounding, scale);
            // And the integral value as a float.
            let mut env = env(Rounding::Odd, Tininess::AfterRounding);
            let integral = round_to_int_exact(value, rounding, &mut env);
            let exact = Exact::new(value);
            let (magnitude, inexact) = exact.integer(0, rounding);
            let expected = Exact { negative: exact.negative, magnitude, exp: 0 };
            assert_eq!(integral, expected.round(&env).0, "{value:?} {rounding:?}");
            assert_eq!(env.take_flags().contains(Flags::INEXACT), inexact);
            assert_eq!(round_to_int(value, rounding, &mut env), integral);
            assert_eq!(env.flags & IEEE, Flags::empty());
        }
    }
}

macro_rules! each_format {
    ($($name:ident: $function:ident, $base:literal, $quad:literal;)*) => {
        $(
            #[test]
            fn $name() {
                $function::<F16>(1, $base);
                $function::<Bf16>(2, $base);
                $function::<F32>(3, $base);
                $function::<F64>(4, $base);
                $function::<F80>(5, $quad);
                $function::<F128>(6, $quad);
            }
        )*
    };
}

each_format! {
    arithmetic_is_exact_before_rounding: arithmetic, 700, 40;
    roots_are_rounded_correctly: roots, 100, 100;
    remainders_are_exact: remainders, 200, 200;
    integers_become_the_nearest_floats: from_integers, 600, 600;
    floats_become_the_nearest_integers: to_integers, 150, 40;
}

#[test]
fn formats_convert_to_each_other() {
    macro_rules! convert_to {
        ($from:ty) => {
            conversions::<$from, F16>(1, 500);
            conversions::<$from, Bf16>(2, 500);
            conversions::<$from, F32>(3, 500);
            conversions::<$from, F64>(4, 500);
            conversions::<$from, F80>(5, 300);
            conversions::<$from, F128>(6, 300);
        };
    }
    convert_to!(F16);
    convert_to!(Bf16);
    convert_to!(F32);
    convert_to!(F64);
    convert_to!(F80);
    convert_to!(F128);
}
