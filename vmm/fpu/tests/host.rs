//! `f32` and `f64` against the processor's own arithmetic, in software and on the host fast paths.

mod support;

use std::cmp::Ordering;

use cairn_fpu::*;
use support::{Random, cases, specials};

/// One type of the host.
trait Native: Float {
    fn operations(a: Self, b: Self, c: Self) -> [Self; 6];
    fn integers(a: Self) -> (i32, u32, i64, u64);
    fn order(a: Self, b: Self) -> Option<Ordering>;
}

macro_rules! native {
    ($name:ident, $float:ty) => {
        impl Native for $name {
            fn operations(a: Self, b: Self, c: Self) -> [Self; 6] {
                let (a, b, c): ($float, $float, $float) = (a.into(), b.into(), c.into());
                [a + b, a - b, a * b, a / b, a.sqrt(), a.mul_add(b, c)].map(Into::into)
            }

            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn integers(a: Self) -> (i32, u32, i64, u64) {
                let a = <$float>::from(a);
                (a as i32, a as u32, a as i64, a as u64)
            }

            fn order(a: Self, b: Self) -> Option<Ordering> {
                <$float>::from(a).partial_cmp(&b.into())
            }
        }
    };
}

native!(F32, f32);
native!(F64, f64);

fn operations<F: Float>(a: F, b: F, c: F, env: &mut Env) -> [F; 6] {
    [
        add(a, b, env),
        sub(a, b, env),
        mul(a, b, env),
        div(a, b, env),
        sqrt(a, env),
        fma(a, b, c, env),
    ]
}

fn compare_with_host<F: Native>(a: F, b: F, c: F) {
    let expected = F::operations(a, b, c);
    // Without the inexact flag all is computed in software, with it by the host where that is safe.
    let mut software = Env::new(&Rules::ARM);
    let results = operations(a, b, c, &mut software);
    let mut fast = Env { flags: Flags::INEXACT, ..Env::new(&Rules::ARM) };
    let fast_results = operations(a, b, c, &mut fast);
    for ((result, fast), expected) in results.into_iter().zip(fast_results).zip(expected) {
        assert!(result == expected || result.is_nan() && expected.is_nan(), "{a:?} {b:?} {c:?}");
        assert_eq!(fast, result, "{a:?} {b:?} {c:?}");
    }
    assert_eq!(fast.flags, software.flags | Flags::INEXACT, "{a:?} {b:?} {c:?}");

    let relation = F::order(a, b).map_or(Relation::Unordered, Relation::from);
    assert_eq!(compare_quiet(a, b, &mut software), relation, "{a:?} {b:?}");

    // Rust's conversions truncate, saturate and make zero of NaNs, as Arm does.
    let mut env = Env::new(&Rules::ARM);
    let rounding = Rounding::TowardZero;
    let integers = (
        to_int(a, rounding, &mut env),
        to_int(a, rounding, &mut env),
        to_int(a, rounding, &mut env),
        to_int(a, rounding, &mut env),
    );
    assert_eq!(integers, F::integers(a), "{a:?}");
}

fn all<F: Native>(seed: u64, count: u32) {
    let specials = specials::<F>();
    for a in &specials {
        for b in &specials {
            for c in &specials {
                compare_with_host(*a, *b, *c);
            }
        }
    }
    let mut random = Random::new(seed);
    for _ in 0..cases(count) {
        compare_with_host::<F>(random.float(), random.float(), random.float());
    }
}

#[test]
fn single_precision_agrees_with_the_host() {
    all::<F32>(11, 10_000);
}

#[test]
fn double_precision_agrees_with_the_host() {
    all::<F64>(12, 10_000);
}

#[test]
fn the_formats_of_the_host_convert_as_on_the_host() {
    let mut random = Random::new(13);
    for _ in 0..cases(20_000) {
        let mut env = Env::new(&Rules::X86);
        let double: F64 = random.float();
        let single: F32 = convert(double, &mut env);
        #[allow(clippy::cast_possible_truncation)]
        let expected = f64::from(double) as f32;
        assert!(single == F32::from(expected) || expected.is_nan(), "{double:?}");
        let back: F64 = convert(single, &mut env);
        assert!(back == F64::from(f64::from(expected)) || expected.is_nan(), "{single:?}");
    }
}
