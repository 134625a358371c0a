//! Addition, subtraction, multiplication, division and square root (IEEE 754-2019, 5.4.1).

use std::cmp::Ordering;

use crate::env::{Env, Flags, Rounding};
use crate::format::Float;
use crate::host;
use crate::nan::{invalid, propagate, propagate2};
use crate::parts::{Class, Parts, consume};
use crate::round::finish;
use crate::wide::{self, U256};

/// `a + b`
pub fn add<F: Float>(a: F, b: F, env: &mut Env) -> F {
    if let Some(result) = host::binary(a, b, env, F::host_add) {
        return result;
    }
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    let sum = sum(a, b, env);
    finish(sum, env)
}

/// `a − b`
pub fn sub<F: Float>(a: F, b: F, env: &mut Env) -> F {
    if let Some(result) = host::binary(a, b, env, F::host_sub) {
        return result;
    }
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    let difference = if b.is_nan() { sum(a, b, env) } else { sum(a, b.negated_if(true), env) };
    finish(difference, env)
}

/// `a × b`
pub fn mul<F: Float>(a: F, b: F, env: &mut Env) -> F {
    if let Some(result) = host::binary(a, b, env, F::host_mul) {
        return result;
    }
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    let product = product(a, b, env);
    finish(product, env)
}

/// `a ÷ b`
pub fn div<F: Float>(a: F, b: F, env: &mut Env) -> F {
    if let Some(result) = host::binary(a, b, env, F::host_div) {
        return result;
    }
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    let quotient = quotient(a, b, env);
    finish(quotient, env)
}

/// The square root of `a`
pub fn sqrt<F: Float>(a: F, env: &mut Env) -> F {
    if let Some(result) = host::unary(a, env, F::host_sqrt) {
        return result;
    }
    let a = Parts::unpack(a, env);
    let root = root(a, env);
    finish(root, env)
}

/// A number with a significand of 256 bits: `frac / 2^255 × 2^exp`.
#[derive(Clone, Copy)]
pub(crate) struct Wide {
    pub(crate) negative: bool,
    pub(crate) exp: i32,
    pub(crate) frac: U256,
}

impl From<Parts> for Wide {
    fn from(parts: Parts) -> Wide {
        let frac = U256 { hi: parts.frac, lo: 0 };
        Wide { negative: parts.negative, exp: parts.exp, frac }
    }
}

/// The exact product of two numbers.
pub(crate) fn wide_product(a: Parts, b: Parts) -> Wide {
    // The product of two significands in [1, 2) lies in [1, 4).
    let negative = a.negative ^ b.negative;
    let exp = a.exp + b.exp + 1;
    let frac = wide::mul(a.frac, b.frac);
    match frac.normalize() {
        Some((frac, shift)) => Wide { negative, exp: exp - shift.cast_signed(), frac },
        None => Wide { negative, exp, frac },
    }
}

/// The sum of two numbers, exact but for a sticky lowest bit.
///
/// The lowest bit stands for what leaves on the right. If the exponents differ by at most 1, nothing
/// leaves; else cancellation loses at most one bit on the left, and the sticky bit stays far below the
/// precision of any format.
pub(crate) fn wide_sum(a: Wide, b: Wide, env: &Env) -> Parts {
    let (large, small) = match (a.exp, a.frac).cmp(&(b.exp, b.frac)) {
        Ordering::Less => (b, a),
        _ => (a, b),
    };
    let negative = large.negative;
    let shifted = small.frac.shr_sticky(large.exp.abs_diff(small.exp));
    if large.negative == small.negative {
        let (frac, carry) = large.frac.add(shifted);
        if !carry {
            return Parts::number(negative, large.exp, frac.high_sticky());
        }
        let mut frac = frac.shr_sticky(1);
        frac.hi |= 1 << 127;
        return Parts::number(negative, large.exp + 1, frac.high_sticky());
    }
    match large.frac.sub(shifted).normalize() {
        Some((frac, shift)) => {
            Parts::number(negative, large.exp - shift.cast_signed(), frac.high_sticky())
        }
        None => Parts::zero(zero_sign(env)),
    }
}

/// Sign of an exact zero sum of operands with different signs (IEEE 754-2019, 6.3).
pub(crate) fn zero_sign(env: &Env) -> bool {
    env.rounding == Rounding::Down
}

fn sum(a: Parts, b: Parts, env: &mut Env) -> Parts {
    if a.is_nan() || b.is_nan() {
        return propagate2(a, b, env);
    }
    consume([&a, &b], env);
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if a.negative != b.negative => {
            invalid(Flags::INVALID_INF_SUB, env)
        }
        (Class::Zero, Class::Zero) if a.negative != b.negative => Parts::zero(zero_sign(env)),
        (Class::Infinity, _) | (_, Class::Zero) => a,
        (_, Class::Infinity) | (Class::Zero, _) => b,
        _ => wide_sum(a.into(), b.into(), env),
    }
}

fn product(a: Parts, b: Parts, env: &mut Env) -> Parts {
    if a.is_nan() || b.is_nan() {
        return propagate2(a, b, env);
    }
    consume([&a, &b], env);
    let negative = a.negative ^ b.negative;
    match (a.class, b.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => {
            invalid(Flags::INVALID_INF_MUL, env)
        }
        (Class::Infinity, _) | (_, Class::Infinity) => Parts::infinity(negative),
        (Class::Zero, _) | (_, Class::Zero) => Parts::zero(negative),
        _ => {
            let Wide { exp, frac, .. } = wide_product(a, b);
            Parts::number(negative, exp, frac.high_sticky())
        }
    }
}

fn quotient(a: Parts, b: Parts, env: &mut Env) -> Parts {
    if a.is_nan() || b.is_nan() {
        return propagate2(a, b, env);
    }
    consume([&a, &b], env);
    let negative = a.negative ^ b.negative;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) => invalid(Flags::INVALID_INF_DIV, env),
        (Class::Zero, Class::Zero) => invalid(Flags::INVALID_ZERO_DIV, env),
        (Class::Infinity, _) => Parts::infinity(negative),
        (Class::Zero, _) | (_, Class::Infinity) => Parts::zero(negative),
        (_, Class::Zero) => {
            env.raise(Flags::DIVIDE_BY_ZERO);
            Parts::infinity(negative)
        }
        _ => {
            let exp = a.exp - b.exp;
            // The quotient is normalised, at least 1/2. Operands have no bit to lose on the right.
            let (exp, dividend) =
                if a.frac < b.frac { (exp - 1, a.frac) } else { (exp, a.frac >> 1) };
            Parts::number(negative, exp, wide::div(dividend, b.frac))
        }
    }
}

fn root(a: Parts, env: &mut Env) -> Parts {
    match a.class {
        _ if a.is_nan() => propagate(a, env),
        Class::Zero => a,
        _ if a.negative => invalid(Flags::INVALID_SQRT, env),
        Class::Infinity => a,
        _ => {
            consume([&a], env);
            // frac/2^127 × 2^exp, with exp made even, is n/2^126 × 4^h with n = frac/2 or frac: its root
            // is sqrt(n × 2^128)/2^127 × 2^h. Operands have no bit to lose on the right.
            let radicand = if a.exp & 1 == 0 { a.frac >> 1 } else { a.frac };
            Parts::number(false, a.exp >> 1, wide::sqrt(radicand))
        }
    }
}
