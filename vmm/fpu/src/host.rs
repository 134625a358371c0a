//! Arithmetic of the host's floating-point unit, where it gives the same result and the same flags.
//!
//! The proof, for an operation of IEEE 754 on `f32` or `f64` in Rust, which rounds to nearest even and does not
//! flush (Rust reference, "floating-point types"; both are the state a Rust program may rely on):
//!
//! - *Rounding*: used only if [`Env::rounding`] is to nearest even, so the host rounds as asked.
//! - *NaN and invalid*: operands are zeros or normal numbers, divisors are not zero and radicands not
//!   negative, so no operation is invalid and none divides by zero.
//! - *Denormal operands*: there are none, so nothing is flushed on input and no flag tells of them.
//! - *Underflow and flushing*: a result above the smallest normal number in magnitude is not tiny, before or
//!   after rounding, as only results up to that number can come from tiny ones. Smaller results are
//!   computed again in software, except zeros that are exact: a sum is zero only if it is exact (any sum
//!   of two numbers of a format that is below its normal range is a multiple of the smallest denormal,
//!   hence representable); a product or quotient is an exact zero if an operand of it is zero.
//! - *Overflow*: an infinite result of finite operands is overflow, which also is inexact.
//! - *Inexact*: used only if the flag is already set. Flags are never cleared by operations, so it does not
//!   matter whether this operation would set it again.

use crate::env::{Env, Flags, Rounding};
use crate::format::{Bf16, F16, F32, F64, F80, F128, Float, biased};

/// The host's operations on a format, if it has them.
pub trait Host: Sized {
    /// `a + b`
    fn host_add(_a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// `a − b`
    fn host_sub(_a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// `a × b`, if a zero would be exact.
    fn host_mul(_a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// `a ÷ b`, if `b` is not zero and a zero would be exact.
    fn host_div(_a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// The root of `a`, if it is not negative.
    fn host_sqrt(_a: Self) -> Option<Self> {
        None
    }

    /// `a × b + c`, if a zero would be exact.
    fn host_fma(_a: Self, _b: Self, _c: Self) -> Option<Self> {
        None
    }
}

impl Host for F16 {}
impl Host for Bf16 {}
impl Host for F80 {}
impl Host for F128 {}

macro_rules! host {
    ($name:ident, $float:ty) => {
        impl Host for $name {
            fn host_add(a: Self, b: Self) -> Option<Self> {
                Some((<$float>::from(a) + <$float>::from(b)).into())
            }

            fn host_sub(a: Self, b: Self) -> Option<Self> {
                Some((<$float>::from(a) - <$float>::from(b)).into())
            }

            fn host_mul(a: Self, b: Self) -> Option<Self> {
                let result: Self = (<$float>::from(a) * <$float>::from(b)).into();
                (!result.is_zero() || a.is_zero() || b.is_zero()).then_some(result)
            }

            fn host_div(a: Self, b: Self) -> Option<Self> {
                if b.is_zero() {
                    return None;
                }
                let result: Self = (<$float>::from(a) / <$float>::from(b)).into();
                (!result.is_zero() || a.is_zero()).then_some(result)
            }

            fn host_sqrt(a: Self) -> Option<Self> {
                (!a.is_sign_negative()).then(|| <$float>::from(a).sqrt().into())
            }

            fn host_fma(a: Self, b: Self, c: Self) -> Option<Self> {
                let result: Self = <$float>::from(a).mul_add(b.into(), c.into()).into();
                // A zero may be the rest of a product below the range.
                (!result.is_zero()).then_some(result)
            }
        }
    };
}

host!(F32, f32);
host!(F64, f64);

/// Whether the host computes as `env` asks.
fn applies(env: &Env) -> bool {
    // The x87 unit, which Rust uses on such hosts, rounds to another precision first.
    let extended = cfg!(all(target_arch = "x86", not(target_feature = "sse2")));
    !extended && env.rounding == Rounding::NearestEven && env.flags.contains(Flags::INEXACT)
}

fn is_zero_or_normal<F: Float>(value: F) -> bool {
    let biased = biased(value);
    biased != F::FORMAT.special() && (biased != 0 || value.is_zero())
}

/// Accepts a result whose flags are known.
fn accept<F: Float>(result: F, env: &mut Env) -> Option<F> {
    let smallest_normal = 1 << F::FORMAT.stored();
    if result.is_infinite() {
        env.raise(Flags::OVERFLOW);
    } else if !result.is_zero() && result.abs().to_raw() <= smallest_normal {
        return None;
    }
    Some(result)
}

/// The root of `a` by the host, if that is safe.
#[inline]
pub(crate) fn unary<F: Float>(a: F, env: &mut Env, op: fn(F) -> Option<F>) -> Option<F> {
    if !applies(env) || !is_zero_or_normal(a) {
        return None;
    }
    accept(op(a)?, env)
}

/// An operation by the host, if that is safe.
#[inline]
pub(crate) fn binary<F: Float>(a: F, b: F, env: &mut Env, op: fn(F, F) -> Option<F>) -> Option<F> {
    if !applies(env) || !is_zero_or_normal(a) || !is_zero_or_normal(b) {
        return None;
    }
    accept(op(a, b)?, env)
}

/// A fused multiply-add by the host, if that is safe.
#[inline]
pub(crate) fn ternary<F: Float>(a: F, b: F, c: F, env: &mut Env) -> Option<F> {
    let safe = is_zero_or_normal(a) && is_zero_or_normal(b) && is_zero_or_normal(c);
    if !applies(env) || !safe {
        return None;
    }
    accept(F::host_fma(a, b, c)?, env)
}
