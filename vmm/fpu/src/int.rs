//! Conversion to and from integers (IEEE 754-2019, 5.4.1 and 5.8).

use crate::env::{Env, Flags, Rounding};
use crate::format::Float;
use crate::parts::{Class, Parts, consume};
use crate::round::{finish_full, round_at};
use crate::rules::{IntOverflow, NanToInt};

mod sealed {
    pub trait Sealed {}
}

/// An integer type that values can be converted to and from.
pub trait Int: Copy + Eq + std::fmt::Debug + sealed::Sealed {
    /// The largest value.
    const MAX: Self;
    /// The smallest value.
    const MIN: Self;

    /// Whether it is negative, and the magnitude.
    fn sign_magnitude(self) -> (bool, u128);

    /// The value with this sign and magnitude, modulo the size of the type.
    fn wrapping(negative: bool, magnitude: u128) -> Self;
}

macro_rules! int {
    ($($type:ty)*) => {
        $(
            impl sealed::Sealed for $type {}

            impl Int for $type {
                const MAX: Self = <$type>::MAX;
                const MIN: Self = <$type>::MIN;

                // Comparisons and casts that are trivial for some of the types.
                #[allow(unused_comparisons, clippy::cast_sign_loss, clippy::cast_possible_wrap)]
                fn sign_magnitude(self) -> (bool, u128) {
                    let negative = self < 0;
                    let extended = self as i128 as u128;
                    (negative, if negative { extended.wrapping_neg() } else { extended })
                }

                #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
                fn wrapping(negative: bool, magnitude: u128) -> Self {
                    (if negative { magnitude.wrapping_neg() } else { magnitude }) as $type
                }
            }
        )*
    };
}

int!(i8 i16 i32 i64 i128 u8 u16 u32 u64 u128);

/// `a` as an integer; [`Rules::int_overflow`](crate::Rules) says what becomes of other values.
pub fn to_int<F: Float, I: Int>(a: F, rounding: Rounding, env: &mut Env) -> I {
    to_int_scaled(a, 0, rounding, env)
}

/// `a × 2^scale` as an integer, as in conversions to fixed point.
pub fn to_int_scaled<F: Float, I: Int>(a: F, scale: i32, rounding: Rounding, env: &mut Env) -> I {
    let a = Parts::unpack(a, env);
    let overflow = env.rules.int_overflow;
    representable(a, scale, rounding, env).unwrap_or_else(|| unrepresentable(a, overflow))
}

/// `a` as an integer modulo 2^n, where n is the width of `I`; infinities and NaNs give zero.
///
/// A value out of range signals invalid, but not inexact (Arm's FJCVTZS; Alpha's CVTTQ without traps).
pub fn to_int_modular<F: Float, I: Int>(a: F, rounding: Rounding, env: &mut Env) -> I {
    let a = Parts::unpack(a, env);
    let modular = || match a.class {
        // An integer; what is left of it below bit 128 comes from the significand's lowest bits.
        Class::Number if a.exp >= 128 => a.frac.checked_shl(a.exp.abs_diff(127)).unwrap_or(0),
        Class::Number => magnitude(a, 0, rounding).0.unwrap_or(0),
        _ => 0,
    };
    representable(a, 0, rounding, env).unwrap_or_else(|| I::wrapping(a.negative, modular()))
}

/// `a × 2^scale` as an integer; invalid is signalled if there is none.
fn representable<I: Int>(a: Parts, scale: i32, rounding: Rounding, env: &mut Env) -> Option<I> {
    let (magnitude, inexact) = match a.class {
        Class::Zero => (Some(0), false),
        Class::Number => {
            consume([&a], env);
            magnitude(a, scale, rounding)
        }
        _ => (None, false),
    };
    let exact = |magnitude: u128| {
        let value = I::wrapping(a.negative, magnitude);
        let same = value.sign_magnitude() == (a.negative && magnitude != 0, magnitude);
        same.then_some(value)
    };
    let value = magnitude.and_then(exact);
    if value.is_none() {
        env.raise(Flags::INVALID | Flags::INVALID_CONVERSION);
        if a.class == Class::SignalingNan {
            env.raise(Flags::INVALID_SNAN);
        }
    } else if inexact {
        env.raise(Flags::INEXACT);
    }
    value
}

/// The integer `i` in the format `F`.
pub fn from_int<I: Int, F: Float>(i: I, env: &mut Env) -> F {
    from_int_scaled(i, 0, env)
}

/// `i × 2^scale`, as in conversions from fixed point.
pub fn from_int_scaled<I: Int, F: Float>(i: I, scale: i32, env: &mut Env) -> F {
    let (negative, magnitude) = i.sign_magnitude();
    let exp = 127 + scale.clamp(-0x10000, 0x10000);
    finish_full(Parts::number(negative, exp, magnitude), env)
}

/// The rounded magnitude of `number × 2^scale`, if it has at most 128 bits, and whether it is inexact.
fn magnitude(number: Parts, scale: i32, rounding: Rounding) -> (Option<u128>, bool) {
    let exp = number.exp.saturating_add(scale);
    match exp {
        128.. => (None, false),
        -1..=127 => {
            let rounded = round_at(number.frac, 127_i32.abs_diff(exp), number.negative, rounding);
            (Some(rounded.value), rounded.inexact)
        }
        _ => {
            // Less than a half: all such magnitudes round alike.
            let rounded = round_at(1, 128, number.negative, rounding);
            (Some(rounded.value), true)
        }
    }
}

/// What the rules put in place of an integer for `a`.
fn unrepresentable<I: Int>(a: Parts, rule: IntOverflow) -> I {
    let by_sign = if a.negative { I::MIN } else { I::MAX };
    let (_, most_negative) = I::MIN.sign_magnitude();
    match rule {
        IntOverflow::Max => I::MAX,
        IntOverflow::Indefinite if most_negative == 0 => I::MAX,
        IntOverflow::Indefinite => I::MIN,
        IntOverflow::Saturate(nan) if a.is_nan() => match nan {
            NanToInt::Zero => I::wrapping(false, 0),
            NanToInt::Min => I::MIN,
            NanToInt::Max => I::MAX,
            NanToInt::BySign => by_sign,
        },
        IntOverflow::Saturate(_) => by_sign,
    }
}
