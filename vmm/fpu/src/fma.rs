//! Fused multiply-add (IEEE 754-2019, 5.4.1).

use bitflags::bitflags;

use crate::arith::{wide_product, wide_sum, zero_sign};
use crate::env::{Env, Flags};
use crate::format::Float;
use crate::host;
use crate::nan::{invalid, propagate3};
use crate::parts::{Class, Parts, consume};
use crate::round::finish;

bitflags! {
    /// Signs changed in a fused operation. NaNs pass unchanged.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Negate: u8 {
        /// `−(a × b) + c`
        const PRODUCT = 1;
        /// `a × b − c`
        const ADDEND = 2;
        /// `−(a × b + c)`, after rounding.
        const RESULT = 4;
    }
}

/// `a × b + c`, rounded once.
pub fn fma<F: Float>(a: F, b: F, c: F, env: &mut Env) -> F {
    fma_with(a, b, c, Negate::empty(), 0, env)
}

/// `(± a × b ± c) × 2^scale` with the signs of `negate`, rounded once.
///
/// Some architectures halve the exact sum in reciprocal steps: `scale` is −1 then, else 0.
pub fn fma_with<F: Float>(a: F, b: F, c: F, negate: Negate, scale: i32, env: &mut Env) -> F {
    if negate.is_empty()
        && scale == 0
        && let Some(result) = host::ternary(a, b, c, env)
    {
        return result;
    }
    let (a, b, c) = (Parts::unpack(a, env), Parts::unpack(b, env), Parts::unpack(c, env));
    let zero_by_infinity = matches!(
        (a.class, b.class),
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity)
    );
    if a.is_nan() || b.is_nan() || c.is_nan() {
        let nan = propagate3(a, b, c, zero_by_infinity, env);
        return finish(nan, env);
    }
    consume([&a, &b, &c], env);
    let a = a.negated_if(negate.contains(Negate::PRODUCT));
    let c = c.negated_if(negate.contains(Negate::ADDEND));
    let sum =
        if zero_by_infinity { invalid(Flags::INVALID_INF_MUL, env) } else { sum(a, b, c, env) };
    if sum.is_nan() {
        return finish(sum, env);
    }
    let scaled = Parts { exp: sum.exp.saturating_add(scale.clamp(-0x10000, 0x10000)), ..sum };
    let result: F = finish(scaled, env);
    if negate.contains(Negate::RESULT) { result.negated() } else { result }
}

fn sum(a: Parts, b: Parts, c: Parts, env: &mut Env) -> Parts {
    let negative = a.negative ^ b.negative;
    let infinite = a.class == Class::Infinity || b.class == Class::Infinity;
    let zero = a.class == Class::Zero || b.class == Class::Zero;
    match c.class {
        Class::Infinity if infinite && c.negative != negative => {
            invalid(Flags::INVALID_INF_SUB, env)
        }
        Class::Infinity => c,
        _ if infinite => Parts::infinity(negative),
        Class::Zero if zero && c.negative != negative => Parts::zero(zero_sign(env)),
        _ if zero => c,
        Class::Zero => {
            let product = wide_product(a, b);
            Parts::number(negative, product.exp, product.frac.high_sticky())
        }
        _ => wide_sum(wide_product(a, b), c.into(), env),
    }
}
